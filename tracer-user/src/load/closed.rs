//! Listeners that were closed lately, as the kernel side remembers them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::ffi::OsStrExt as _,
};

use aya::{
    Ebpf, Pod,
    maps::{HashMap, MapData},
};
use wire::{ClosedListener, ListenPlace, PATH_LEN};

use super::maps::take;
use crate::model::{failure::Failure, upstream::Upstream};

/// Both kinds.
pub(super) struct ClosedListeners {
    inet: HashMap<MapData, ListenPlace, ClosedListener>,
    unix: HashMap<MapData, [u8; PATH_LEN], ClosedListener>,
}

impl ClosedListeners {
    pub(super) fn new(object: &mut Ebpf) -> Result<Self, Failure> {
        Ok(Self {
            inet: HashMap::try_from(take(object, "CLOSED")?).map_err(anyhow::Error::from)?,
            unix: HashMap::try_from(take(object, "UNIX_CLOSED")?).map_err(anyhow::Error::from)?,
        })
    }

    /// The last one at that place, seen from that network namespace.
    pub(super) fn at(&self, upstream: &Upstream, netns: u32) -> Option<ClosedListener> {
        match upstream {
            Upstream::Inet(asked) => {
                let any4 = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                let any6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
                [asked.ip(), any4, any6]
                    .into_iter()
                    .filter(|ip| !(ip.is_ipv4() && asked.is_ipv6()))
                    .filter_map(|ip| get(&self.inet, &place(netns, ip, asked.port())))
                    .max_by_key(|closed| closed.ns)
            }
            Upstream::Unix(path) => get(&self.unix, &key(path.as_os_str().as_bytes())?),
            Upstream::Named(_) => None,
        }
    }
}

/// Nothing where it is not remembered, whatever the kernel says.
fn get<K: Pod>(map: &HashMap<MapData, K, ClosedListener>, key: &K) -> Option<ClosedListener> {
    map.get(key, 0).ok()
}

/// As the kernel side writes it, IPv4 mapped.
fn place(netns: u32, ip: IpAddr, port: u16) -> ListenPlace {
    let octets = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mut addr = [0; 4];
    for (word, bytes) in addr.iter_mut().zip(octets.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    ListenPlace { netns, port: u32::from(port), addr }
}

/// A path with its closing zeroes; none if it is longer than any is.
fn key(path: &[u8]) -> Option<[u8; PATH_LEN]> {
    let mut key = [0; PATH_LEN];
    key.get_mut(..path.len())?.copy_from_slice(path);
    Some(key)
}
