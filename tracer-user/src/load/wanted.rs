//! The upstreams and listeners that were asked for, as the kernel side is told; and the unix sockets that are no upstream's.

use std::path::Path;

use aya::{Ebpf, maps::HashMap};
use wire::{Endpoint, PATH_LEN};

use super::{maps::map, scope::Scope};
use crate::model::{failure::Failure, from_wire::sun_path};

/// Sockets at which the C library itself asks, for users, groups and hosts, and writes to the system's log: nginx does so in each
/// worker's first moments. Each shorter than [`PATH_LEN`].
pub(super) const NO_UPSTREAMS: [&str; 15] = [
    "/dev/log",
    "/run/avahi-daemon/socket",
    "/run/dbus/system_bus_socket",
    "/run/nscd/socket",
    "/run/nslcd/socket",
    "/run/systemd/journal/dev-log",
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/systemd/userdb/io.systemd.DynamicUser",
    "/run/systemd/userdb/io.systemd.Multiplexer",
    "/run/systemd/userdb/io.systemd.NameServiceSwitch",
    "/var/lib/sss/pipes/nss",
    "/var/run/avahi-daemon/socket",
    "/var/run/dbus/system_bus_socket",
    "/var/run/nscd/socket",
    "/var/run/nslcd/socket",
];

/// Whether the name that a unix socket was bound to may be an upstream's: a path, but for those at which the C library itself asks.
pub(super) fn may_be_upstream(name: &[u8]) -> bool {
    let path = name.split(|byte| *byte == 0).next().unwrap_or(name);
    !path.is_empty() && !NO_UPSTREAMS.iter().any(|other| other.as_bytes() == path)
}

pub(super) fn want(object: &mut Ebpf, scope: &Scope) -> Result<(), Failure> {
    let mut wanted: HashMap<_, Endpoint, u32> =
        HashMap::try_from(map(object, "WANTED")?).map_err(anyhow::Error::from)?;
    for upstream in &scope.upstreams {
        wanted.insert(upstream, 1, 0).map_err(anyhow::Error::from)?;
    }
    let mut wanted: HashMap<_, [u8; PATH_LEN], u32> =
        HashMap::try_from(map(object, "NAMED_PATHS")?).map_err(anyhow::Error::from)?;
    for path in &scope.paths {
        wanted.insert(path, 1, 0).map_err(anyhow::Error::from)?;
    }
    if scope.upstreams.is_empty() && scope.paths.is_empty() {
        for path in NO_UPSTREAMS {
            wanted.insert(sun_path(Path::new(path)), 1, 0).map_err(anyhow::Error::from)?;
        }
    }
    let mut served: HashMap<_, Endpoint, u32> =
        HashMap::try_from(map(object, "SERVED")?).map_err(anyhow::Error::from)?;
    for listener in &scope.listeners {
        served.insert(listener, 1, 0).map_err(anyhow::Error::from)?;
    }
    Ok(())
}
