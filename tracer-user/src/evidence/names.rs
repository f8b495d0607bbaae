//! What the kernel's addresses, the users' addresses and their paths are called in evidence.

use std::{
    borrow::Cow,
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Identities are this wide, so that every reader of JSON takes them for what they are: a double holds 53 bits.
const ID_BITS: u32 = 52;

/// Calls things by names of one recording.
#[derive(Clone, Debug)]
pub struct Names {
    /// With the recording's secret the kernel's addresses become names that lead nobody back. None where they are such names
    /// already.
    secret: Option<RandomState>,
    /// With this one, users' addresses and paths do.
    anonymous: Option<RandomState>,
}

impl Names {
    /// Those of a new recording.
    pub fn new(is_anonymous: bool) -> Self {
        Self { secret: Some(RandomState::new()), anonymous: is_anonymous.then(RandomState::new) }
    }

    /// Those that what was read from evidence has already, which may be made anonymous yet.
    pub fn kept(is_anonymous: bool) -> Self {
        Self { secret: None, anonymous: is_anonymous.then(RandomState::new) }
    }

    /// Whether addresses and paths are replaced.
    pub fn is_anonymous(&self) -> bool {
        self.anonymous.is_some()
    }

    /// The name of a kernel's object: never zero.
    pub(super) fn id(&self, address: u64) -> u64 {
        match &self.secret {
            Some(secret) => (secret.hash_one(address) >> (u64::BITS - ID_BITS)).max(1),
            None => address,
        }
    }

    /// An address as it may be told. Loopback and unspecified addresses say nothing of anybody; ports are kept.
    pub(super) fn ip(&self, ip: IpAddr) -> IpAddr {
        let Some(secret) = &self.anonymous else { return ip };
        if ip.is_loopback() || ip.is_unspecified() {
            return ip;
        }
        let hash = secret.hash_one(ip.to_canonical());
        let [.., a, b, c] = hash.to_be_bytes();
        let v4 = Ipv4Addr::new(10, a, b, c);
        match ip {
            IpAddr::V4(_) => IpAddr::V4(v4),
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => IpAddr::V6(v4.to_ipv6_mapped()),
            // 2001:db8::/32 is for documentation.
            IpAddr::V6(_) => {
                let word = |shift: u32| (hash >> shift) as u16;
                IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, word(0), word(16), word(32), word(48)))
            }
        }
    }

    /// The same with its port.
    pub(super) fn address(&self, address: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.ip(address.ip()), address.port())
    }

    /// An address and port, or a path, as it may be told.
    pub(super) fn named(&self, upstream: &str) -> String {
        match upstream.parse() {
            Ok(address) => self.address(address).to_string(),
            Err(_) if upstream.starts_with('/') => self.path(upstream).into_owned(),
            Err(_) => upstream.to_owned(),
        }
    }

    /// A path as it may be told.
    pub(super) fn path<'a>(&self, path: &'a str) -> Cow<'a, str> {
        match &self.anonymous {
            Some(secret) if !path.is_empty() => {
                Cow::Owned(format!("/path-{:012x}", secret.hash_one(path) >> 16))
            }
            _ => Cow::Borrowed(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stable_and_lead_nobody_back() {
        let (names, others) = (Names::new(false), Names::new(false));
        let address = 0xffff_8880_0000_1000;
        assert_eq!(names.id(address), names.id(address));
        assert_ne!(names.id(address), address);
        assert_ne!(names.id(address), others.id(address));
        assert!(names.id(address) < 1 << 53);
        assert_eq!(Names::kept(false).id(7), 7);
    }

    #[test]
    fn anonymous_addresses_are_consistent_and_of_the_same_kind() {
        let names = Names::new(true);
        let v4: IpAddr = "192.0.2.7".parse().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
        assert!(names.ip(v4).is_ipv4() && names.ip(v4) != v4 && names.ip(v4) == names.ip(v4));
        assert_eq!(names.ip(mapped).to_canonical(), names.ip(v4));
        let v6: IpAddr = "2001:db8::7".parse().unwrap();
        assert!(names.ip(v6).is_ipv6() && names.ip(v6) != v6);
        let here: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!(names.ip(here), here);
        assert_eq!(names.path("/run/a.sock"), names.path("/run/a.sock"));
        assert_ne!(names.path("/run/a.sock"), names.path("/run/b.sock"));
        assert!(!names.path("/run/a.sock").contains("run"));
    }
}
