//! What the kernel side sends and takes, as userspace has it.

use std::{
    borrow::Cow,
    ffi::OsStr,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use wire::{
    COMM_LEN, Endpoint, FAMILY_INET, FAMILY_UNIX, HeldSocket, PATH_LEN, Task, accept_queue::Listener,
};

use super::{upstream::Upstream, verdict::Process};

/// A path that a zero closes.
pub(crate) fn path_of(path: &[u8]) -> PathBuf {
    let end = path.iter().position(|&byte| byte == 0).unwrap_or(path.len());
    PathBuf::from(OsStr::from_bytes(&path[..end]))
}

/// A socket address as userspace writes it; IPv4 is unmapped.
pub(crate) fn address(endpoint: &Endpoint) -> SocketAddr {
    let mut octets = [0_u8; 16];
    for (bytes, word) in octets.chunks_exact_mut(4).zip(endpoint.addr) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    let v6 = Ipv6Addr::from(octets);
    let ip = match v6.to_ipv4_mapped() {
        Some(v4) if endpoint.family == FAMILY_INET => IpAddr::V4(v4),
        _ => IpAddr::V6(v6),
    };
    SocketAddr::new(ip, endpoint.port)
}

/// Where a listener listens; a unix socket without a path has an empty one.
pub(crate) fn listens_at(listener: &Listener) -> Upstream {
    if listener.local.family == FAMILY_UNIX {
        Upstream::Unix(path_of(&listener.path))
    } else {
        Upstream::Inet(address(&listener.local))
    }
}

/// A thread's process, with its name.
pub(crate) fn process(task: &Task) -> Process {
    Process { pid: task.tgid, comm: comm(task).into_owned() }
}

/// A thread's name.
pub(crate) fn comm(task: &Task) -> Cow<'_, str> {
    comm_of(&task.comm)
}

/// A name as the kernel has it; of at most 15 bytes.
pub(crate) fn comm_bytes(name: &str) -> [u8; COMM_LEN] {
    let mut comm = [0; COMM_LEN];
    comm[..name.len()].copy_from_slice(name.as_bytes());
    comm
}

/// A task's name, which a zero closes.
fn comm_of(comm: &[u8]) -> Cow<'_, str> {
    let end = comm.iter().position(|&byte| byte == 0).unwrap_or(comm.len());
    String::from_utf8_lossy(&comm[..end])
}

/// The process that has this socket open.
pub(crate) fn holder_of(held: &HeldSocket) -> Process {
    process_named(held.tgid, &held.comm)
}

/// A process with its name, which a zero closes.
pub(crate) fn process_named(pid: u32, comm: &[u8]) -> Process {
    Process { pid, comm: comm_of(comm).into_owned() }
}

/// A path as `struct sockaddr_un` has it. The command line has checked its length.
pub(crate) fn sun_path(path: &Path) -> [u8; PATH_LEN] {
    let mut sun_path = [0; PATH_LEN];
    for (byte, from) in sun_path.iter_mut().zip(path.as_os_str().as_bytes()) {
        *byte = *from;
    }
    sun_path
}
