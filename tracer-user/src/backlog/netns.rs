//! Network namespaces: what their kernel counts, and how they are set.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::Path,
    thread,
};

use nix::sched::{CloneFlags, setns};

/// Where a thread sees the counters of the namespace that it is in.
const OWN_NETSTAT: &str = "/proc/thread-self/net/netstat";

/// A network namespace, by its number and a process that lives in it. It is opened when it is needed: held open, it would live for as long
/// as this process, and anyone may make some.
#[derive(Clone, Copy, Debug)]
pub(super) struct Netns {
    number: u32,
    pid: u32,
}

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
    /// The namespace of this number, if the process lives in it.
    pub fn of(number: u32, pid: u32) -> Option<Self> {
        let netns = Self { number, pid };
        netns.open().is_ok().then_some(netns)
    }

    /// Whether the process still lives, and in this namespace.
    fn open(&self) -> io::Result<File> {
        let file = File::open(format!("/proc/{}/ns/net", self.pid))?;
        if file.metadata()?.ino() == u64::from(self.number) {
            Ok(file)
        } else {
            Err(io::Error::other("the process lives in another network namespace"))
        }
    }

    /// Runs `work` in a thread inside the namespace.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Option<T> {
        let namespace = self.open().ok()?;
        let inside = || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).ok()?;
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

    /// What its kernel counts. The namespace need not be entered for that.
    pub fn counters(&self) -> Option<Counters> {
        let counters = parse(&fs::read_to_string(format!("/proc/{}/net/netstat", self.pid)).ok()?)?;
        // It was that process's namespace, before as well: a process leaves it for good.
        self.open().is_ok().then_some(counters)
    }
}

/// A process of each network namespace that has any, by the namespace's number.
pub(super) fn members() -> HashMap<u32, u32> {
    let mut members = HashMap::new();
    // Without a list of processes there is none to be named; processes that have gone meanwhile are none either.
    for process in procfs::process::all_processes().into_iter().flatten().flatten() {
        if let Ok(namespace) = fs::metadata(format!("/proc/{}/ns/net", process.pid))
            && let Ok(number) = u32::try_from(namespace.ino())
        {
            members.entry(number).or_insert(process.pid.cast_unsigned());
        }
    }
    members
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
        let number = u32::try_from(fs::metadata("/proc/self/ns/net").unwrap().ino()).unwrap();
        let here = Netns::of(number, std::process::id()).unwrap();
        assert!(here.counters().is_some() && here.setting("net.core.somaxconn").is_some());
        assert!(Netns::of(number + 1, std::process::id()).is_none());
        assert!(members().contains_key(&number));
        assert!(super::here().is_some());
    }
}
