//! Why a connect of another process may have failed with EACCES: whether the kernel's ordinary rules forbid it, asked of the kernel in that
//! process's place, and what else confines the process.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::{
        fd::{AsFd as _, AsRawFd},
        unix::fs::{MetadataExt as _, fchown},
    },
    path::Path,
};

use caps::Capability;
use nix::{
    errno::Errno,
    fcntl::openat2,
    sched::{CloneFlags, setns},
    unistd::{Gid, Uid, geteuid, setfsgid, setfsuid},
};
use procfs::process::{Process, Status};

use super::place;
use crate::{
    confine,
    model::{
        inquiry::{Denial, Ordinary},
        upstream::Upstream,
    },
};

/// `SECCOMP_MODE_FILTER` (include/uapi/linux/seccomp.h).
const SECCOMP_FILTER: u32 = 2;

/// Letters of a label that are kept: more than any policy's are long.
const LABEL: usize = 256;

/// What stood between this process and an upstream at a moment (ns since 1970) that has just been: where owner or mode were changed since, what they
/// were then is not known.
pub(crate) fn denial(pid: u32, upstream: &Upstream, failed_ns: i64) -> Denial {
    let status = Process::new(pid.cast_signed()).and_then(|process| process.status());
    let ordinary = status.as_ref().ok().and_then(|status| {
        let allows = match upstream {
            Upstream::Unix(path) => {
                let allows = mode_allows(pid, status, path)?;
                if place::is_changed_since(pid, path, failed_ns) {
                    return None;
                }
                allows
            }
            Upstream::Inet(address) => route_allows(pid, status, *address)?,
            Upstream::Named(_) => return None,
        };
        Some(if allows { Ordinary::Allow } else { Ordinary::Forbid })
    });
    let is_enforcing = fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|text| text.trim() == "1");
    Denial {
        ordinary: ordinary.unwrap_or(Ordinary::Unknown),
        selinux: is_enforcing,
        label: label(pid),
        seccomp: status.is_ok_and(|status| status.seccomp == Some(SECCOMP_FILTER)),
    }
}

/// The process's label, unless it has none or it says that nothing confines it.
fn label(pid: u32) -> Option<String> {
    // Without a module that labels processes there is no such file, or it refuses to be read.
    let text = fs::read(format!("/proc/{pid}/attr/current")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let text = text.trim_end_matches(['\0', '\n']);
    (!text.is_empty() && text != "unconfined").then(|| text.chars().take(LABEL).collect())
}

/// Runs `work` in a thread of its own, whose identity and namespaces nobody else has.
pub(super) fn apart<T: Send>(work: impl FnOnce() -> Option<T> + Send) -> Option<T> {
    // A panic of it was reported where it happened.
    confine::apart(work).ok().flatten()
}

/// Whether owner, group, mode and access lists let the process write to this socket and search the folders above it; none where that cannot
/// be said. The kernel is asked with the process's own identity, and nothing is opened.
fn mode_allows(pid: u32, status: &Status, path: &Path) -> Option<bool> {
    let is_here = fs::metadata(format!("/proc/{pid}/ns/user")).ok()?.ino()
        == fs::metadata("/proc/self/ns/user").ok()?.ino();
    let [all, to_read] =
        [Capability::CAP_DAC_OVERRIDE, Capability::CAP_DAC_READ_SEARCH].map(|one| one.bitmask());
    let overrides = status.capeff & (all | to_read);
    if overrides != 0 {
        // In a user namespace of its own these reach only so far.
        return (is_here && overrides & all != 0).then_some(true);
    }
    // Only by turning from root into another user one loses what root may.
    if !geteuid().is_root() || status.fuid == 0 {
        return None;
    }
    let root = place::root_of(pid).ok()?;
    apart(|| {
        let groups: Vec<libc::gid_t> = status.groups.clone();
        // SAFETY: the kernel reads as many groups as there are. The library's own call would change all threads.
        let is_set = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) } == 0;
        if !is_set {
            return None;
        }
        // Each returns what it was before, whether it could be changed or not.
        setfsgid(Gid::from_raw(status.fgid));
        setfsuid(Uid::from_raw(status.fuid));
        if setfsuid(Uid::from_raw(status.fuid)).as_raw() != status.fuid {
            return None;
        }
        match openat2(&root, path, place::below_root()) {
            Ok(socket) => may_write(&socket),
            Err(Errno::EACCES) => Some(false),
            Err(_gone_or_unreachable) => None,
        }
    })
}

/// Whether the calling thread, as it is, may write to what this descriptor stands for.
fn may_write(file: &impl AsRawFd) -> Option<bool> {
    // SAFETY: takes integers and a text that a zero closes.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::W_OK,
            libc::AT_EMPTY_PATH | libc::AT_EACCESS,
        )
    };
    match (answer, Errno::last()) {
        (0, _) => Some(true),
        (_, Errno::EACCES) => Some(false),
        // Before Linux 5.8 there is no such call.
        _ => None,
    }
}

/// Whether a route leads to this address from where the process is, for its user: one of type prohibit makes connect fail with EACCES
/// (`fib_props`, net/ipv4/fib_semantics.c). A datagram socket's connect looks for the route and sends nothing.
fn route_allows(pid: u32, status: &Status, address: SocketAddr) -> Option<bool> {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).ok()?;
    apart(|| {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).ok()?;
        let any = match address {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any).ok()?;
        // Rules may be about users: a socket is its owner's (`sockfs_setattr`, net/socket.c, since 4.10).
        fchown(&socket, Some(status.fuid), Some(status.fgid)).ok()?;
        match socket.connect(address) {
            Ok(()) => Some(true),
            Err(error) if error.raw_os_error() == Some(libc::EACCES) => Some(false),
            Err(_no_way_there) => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::{fs::PermissionsExt as _, net::UnixListener, process::CommandExt as _},
        process::Command,
    };

    use nix::time::ClockId;

    use super::*;
    use crate::model::clock::now;

    #[test]
    fn owner_and_mode_are_asked_in_the_process_place() {
        if !geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        let mut sleeper = Command::new("sleep").arg("1000").uid(65_534).gid(65_534).spawn().unwrap();
        let pid = sleeper.id();
        let ordinary = |mode: u32, folder_mode: u32| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(folder_mode)).unwrap();
            denial(pid, &Upstream::Unix(path.clone()), now(ClockId::CLOCK_REALTIME) + 1_000_000_000).ordinary
        };
        let found =
            [(0o666, 0o755), (0o644, 0o755), (0o666, 0o700)].map(|(mode, above)| ordinary(mode, above));
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert_eq!(found, [Ordinary::Allow, Ordinary::Forbid, Ordinary::Forbid]);
        // It has gone.
        assert_eq!(ordinary(0o666, 0o755), Ordinary::Unknown);
        // Nothing of it sticks to those who ask.
        assert!(fs::metadata(folder.path()).is_ok() && geteuid().is_root());
        // Root's capabilities make up for any mode.
        let own = denial(
            std::process::id(),
            &Upstream::Unix(path.clone()),
            now(ClockId::CLOCK_REALTIME) + 1_000_000_000,
        )
        .ordinary;
        assert_eq!(own, Ordinary::Allow);
        let own = denial(std::process::id(), &Upstream::Inet("127.0.0.1:9".parse().unwrap()), 0).ordinary;
        assert_eq!(own, Ordinary::Allow);
        // Its mode was changed just now: what it was before, nobody can know.
        let before = denial(
            std::process::id(),
            &Upstream::Unix(path.clone()),
            now(ClockId::CLOCK_REALTIME) - 1_000_000_000,
        )
        .ordinary;
        assert_eq!(before, Ordinary::Unknown);
    }
}
