//! Network namespaces: what their kernel counts, and how they are set.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
    thread,
};

use nix::sched::{CloneFlags, setns};

use super::owners::Holder;
use crate::duplicate::duplicate;

/// `SIOCGSKNS`, include/uapi/linux/sockios.h: a descriptor of a socket's network namespace (since 4.10).
const SIOCGSKNS: libc::Ioctl = 0x894C;

/// Where a thread sees the counters of the namespace that it is in.
const OWN_NETSTAT: &str = "/proc/thread-self/net/netstat";

/// A network namespace that this process may look into. While it is open, the namespace lives.
#[derive(Debug)]
pub(super) struct Netns(OwnedFd);

/// What the kernel counts for TCP listeners, in one network namespace and since it exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that met a full accept queue (ListenOverflows).
    pub overflows: u64,
    /// Packets of handshakes that listeners dropped, for that and other reasons (ListenDrops).
    pub drops: u64,
    /// SYNs dropped because the SYN queue was full and cookies are off (TCPReqQFullDrop).
    pub syn_queue_drops: u64,
    /// SYNs answered by a cookie because the SYN queue was full (TCPReqQFullDoCookies).
    pub cookies: u64,
}

impl Netns {
    /// The namespace of a listening socket.
    pub fn of_socket(holder: &Holder) -> Option<Self> {
        let socket = duplicate(holder.process.pid.cast_signed(), holder.fd)?;
        // SAFETY: takes no further argument; the result is checked below.
        let fd = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
        // SAFETY: the kernel made this descriptor just now, for us alone.
        (fd >= 0).then(|| Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Runs `work` in a thread inside the namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Option<T> {
        let inside = || {
            setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).ok()?;
            Some(work())
        };
        thread::scope(|scope| scope.spawn(inside).join()).ok().flatten()
    }

    /// Reads a file as a thread inside the namespace sees it.
    fn read(&self, path: &Path) -> Option<String> {
        self.inside(|| fs::read_to_string(path).ok()).flatten()
    }

    /// A sysctl that is a number: `net.core.somaxconn`.
    pub fn setting(&self, name: &str) -> Option<u32> {
        self.read(&Path::new("/proc/sys").join(name.replace('.', "/")))?.trim().parse().ok()
    }

    /// What its kernel counts.
    pub fn counters(&self) -> Option<Counters> {
        parse(&self.read(Path::new(OWN_NETSTAT))?)
    }
}

/// What the calling thread's namespace counts.
pub(super) fn here() -> Option<Counters> {
    parse(&fs::read_to_string(OWN_NETSTAT).ok()?)
}

/// The counters in /proc/net/netstat: a line of names, then one of figures.
fn parse(netstat: &str) -> Option<Counters> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, figures) = (lines.next()?, lines.next()?);
    let figure = |wanted: &str| {
        let mut pairs = names.split_whitespace().zip(figures.split_whitespace());
        pairs.find(|(name, _)| *name == wanted)?.1.parse::<u64>().ok()
    };
    Some(Counters {
        overflows: figure("ListenOverflows")?,
        drops: figure("ListenDrops")?,
        syn_queue_drops: figure("TCPReqQFullDrop").unwrap_or(0),
        cookies: figure("TCPReqQFullDoCookies").unwrap_or(0),
    })
}

impl Counters {
    /// What has been added since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let Self { overflows, drops, syn_queue_drops, cookies } = before;
        Self {
            overflows: self.overflows.saturating_sub(*overflows),
            drops: self.drops.saturating_sub(*drops),
            syn_queue_drops: self.syn_queue_drops.saturating_sub(*syn_queue_drops),
            cookies: self.cookies.saturating_sub(*cookies),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_under_their_names() {
        let text = "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPReqQFullDrop\nTcpExt: 1 22 33 4\nIpExt: A\nIpExt: 9\n";
        let counters = parse(text).unwrap();
        assert_eq!(counters, Counters { overflows: 22, drops: 33, syn_queue_drops: 4, cookies: 0 });
        assert_eq!(parse("TcpExt: A\nTcpExt: 1\n"), None);
    }

    #[test]
    fn this_thread_has_a_namespace_with_counters() {
        let here = Netns(fs::File::open("/proc/thread-self/ns/net").unwrap().into());
        assert!(here.counters().is_some() && here.setting("net.core.somaxconn").is_some());
        assert!(super::here().is_some());
    }
}
