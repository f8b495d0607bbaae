//! What the kernel's addresses, the users' addresses and their paths are called in evidence.

use std::{
    borrow::Cow,
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hash},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Rounds of the permutation of IPv4 addresses: NIST's FF1 takes ten for domains as small as this.
const ROUNDS: u32 = 10;

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

    /// An address as it may be written: two are never called the same if they are IPv4's, and with a chance of 2^-96 if they are IPv6's.
    /// Loopback and unspecified addresses say nothing of anybody and are kept, as ports are, and no other is called so.
    pub(super) fn ip(&self, ip: IpAddr) -> IpAddr {
        let Some(secret) = &self.anonymous else { return ip };
        let known = ip.to_canonical();
        if known.is_loopback() || known.is_unspecified() {
            return ip;
        }
        match ip {
            IpAddr::V4(v4) => IpAddr::V4(other(v4, secret)),
            IpAddr::V6(v6) => IpAddr::V6(match v6.to_ipv4_mapped() {
                Some(v4) => other(v4, secret).to_ipv6_mapped(),
                // 2001:db8::/32 is for documentation.
                None => Ipv6Addr::from_bits(0x2001_0db8 << 96 | wide(secret, v6)),
            }),
        }
    }

    /// The same with its port.
    pub(super) fn address(&self, address: SocketAddr) -> SocketAddr {
        SocketAddr::new(self.ip(address.ip()), address.port())
    }

    /// An address and port, a port alone (`:9000`), or a unix socket's path or abstract name, as it may be written.
    pub(super) fn named(&self, upstream: &str) -> String {
        let is_port = |port: &str| port.parse::<u16>().is_ok();
        match upstream.parse() {
            Ok(address) => self.address(address).to_string(),
            Err(_) if upstream.strip_prefix(':').is_some_and(is_port) => upstream.to_owned(),
            Err(_) => self.path(upstream).into_owned(),
        }
    }

    /// The name of a group of upstreams as it may be written, in the same way as a path.
    pub(super) fn group<'a>(&self, name: &'a str) -> Cow<'a, str> {
        self.called("group-", name)
    }

    /// The name of a unit, a container or a pod as it may be written, in the same way; `kind` is what it then begins with.
    pub(super) fn called<'a>(&self, kind: &str, name: &'a str) -> Cow<'a, str> {
        match &self.anonymous {
            Some(secret) => Cow::Owned(format!("{kind}{:024x}", wide(secret, name))),
            None => Cow::Borrowed(name),
        }
    }

    /// A path as it may be written: two are called the same with a chance of 2^-96.
    pub(super) fn path<'a>(&self, path: &'a str) -> Cow<'a, str> {
        match &self.anonymous {
            Some(secret) if !path.is_empty() => Cow::Owned(format!("/path-{:024x}", wide(secret, path))),
            _ => Cow::Borrowed(path),
        }
    }
}

/// 96 bits that follow from a value and the secret.
fn wide(secret: &RandomState, value: impl Hash) -> u128 {
    let [high, low] = [0_u8, 1].map(|half| u128::from(secret.hash_one((half, &value))));
    (high << 64 | low) >> 32
}

/// Another address for one that is neither loopback's nor the unspecified one. Where the permutation leads to one of those, it is
/// taken on from there: it comes back to the others, each of which is then led to from one only ("cycle walking").
fn other(address: Ipv4Addr, secret: &RandomState) -> Ipv4Addr {
    let mut bits = address.to_bits();
    loop {
        bits = permuted(bits, secret);
        let other = Ipv4Addr::from_bits(bits);
        if !other.is_loopback() && !other.is_unspecified() {
            return other;
        }
    }
}

/// A permutation of all addresses: a Feistel network, in which each round can be undone whatever its function is. That is SipHash, with
/// a secret key.
fn permuted(bits: u32, secret: &RandomState) -> u32 {
    let (mut left, mut right) = ((bits >> 16) as u16, bits as u16);
    for round in 0..ROUNDS {
        (left, right) = (right, left ^ secret.hash_one((round, right)) as u16);
    }
    u32::from(left) << 16 | u32::from(right)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_ipv4_addresses_are_called_the_same() {
        let names = Names::new(true);
        let mut seen = vec![0_u64; 1 << 26];
        // A whole /12, and what lies around the ends of 127/8.
        let parts = [0x0a10_0000..0x0a20_0000, 0x7eff_f000..0x7f00_0000, 0x8000_0000..0x8000_1000, 1..0x1000];
        for bits in parts.into_iter().flatten() {
            let IpAddr::V4(other) = names.ip(Ipv4Addr::from_bits(bits).into()) else { panic!("no IPv4") };
            assert!(!other.is_loopback() && !other.is_unspecified());
            let (word, bit) = (other.to_bits() as usize / 64, 1 << (other.to_bits() % 64));
            assert_eq!(seen[word] & bit, 0, "{other} twice");
            seen[word] |= bit;
        }
    }

    #[test]
    fn many_paths_and_ipv6_addresses_are_told_apart_and_loopback_stays() {
        let names = Names::new(true);
        let paths: HashSet<_> =
            (0..50_000).map(|number| names.named(&format!("/run/{number}.sock"))).collect();
        let others: HashSet<_> =
            (0..50_000).map(|bits| names.ip(Ipv6Addr::from_bits(0xfe80 << 112 | bits).into())).collect();
        assert_eq!((paths.len(), others.len()), (50_000, 50_000));
        for kept in ["127.8.9.1:80", "0.0.0.0:80", "[::1]:80", "[::]:80", "[::ffff:127.0.0.1]:80", ":9000"] {
            assert_eq!(names.named(kept), kept);
        }
        for secret in ["@bus", "/run/a.sock", "10.0.0.5:80", "[fe80::1]:80", "run/b.sock", ":run"] {
            assert_ne!(names.named(secret), secret);
        }
        assert!(names.named("/run/a.sock").len() < wire::PATH_LEN);
    }

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
