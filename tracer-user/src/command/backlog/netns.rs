//! Network namespaces: what their kernel counts, and how they are set.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::{
        socket::{getsockopt, sockopt},
        statfs::{NSFS_MAGIC, fstatfs},
    },
};

use crate::{
    confine, file,
    model::{verdict::Process, words::count},
    procfs::processes,
    queues::Holder,
};

/// `SIOCGSKNS`, include/uapi/linux/sockios.h: a descriptor of a socket's network namespace (since 4.10).
const SIOCGSKNS: libc::Ioctl = 0x894C;

/// Where a thread sees the counters of the namespace that it is in.
const OWN_NETSTAT: &str = "/proc/thread-self/net/netstat";

/// A network namespace, by its number and a way to it. It is opened when it is needed: held open, it would live for as long as this process,
/// and anyone may make some.
#[derive(Clone, Debug)]
pub(super) struct Netns {
    number: u32,
    way: Way,
}

/// A way to a network namespace. Each may lead elsewhere by the time it is taken, which is looked at then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// A process that lives in it.
    Member(u32),
    /// A listener of it, whose holder lives elsewhere: this descriptor of that process, with this inode.
    Listener { pid: u32, fd: u32, inode: u64 },
    /// A file that stands for it: a mount such as `ip netns` makes, or a descriptor that some process has of it.
    File(PathBuf),
}

impl Way {
    fn open(&self) -> io::Result<File> {
        match self {
            Self::Member(pid) => File::open(format!("/proc/{pid}/ns/net")),
            Self::Listener { pid, fd, inode } => of_listener(*pid, *fd, *inode),
            Self::File(path) => {
                // Whatever it is by now, only a file of the kernel's namespaces is opened.
                let found = file::named(path)?;
                if fstatfs(&found).map_err(io::Error::from)?.filesystem_type() != NSFS_MAGIC {
                    return Err(io::Error::other("this is no namespace any more"));
                }
                File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
            }
        }
    }
}

/// The namespace of a listener of another process. Nothing else shows it where neither the holder nor any other process lives there. Its
/// descriptor is duplicated for that moment, asked, and closed, and it is a listener's or it is not asked.
fn of_listener(pid: u32, fd: u32, inode: u64) -> io::Result<File> {
    // SAFETY: takes two integers; the result is checked by `descriptor`.
    let process = descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: takes three integers; the same.
    let socket = descriptor(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) })?;
    let is_it = socket.metadata()?.ino() == inode;
    if !is_it || !getsockopt(&socket, sockopt::AcceptConn).map_err(io::Error::from)? {
        return Err(io::Error::other("the descriptor is no more that listener's"));
    }
    // SAFETY: takes no further argument; the same.
    descriptor(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) }.into())
}

fn descriptor(result: libc::c_long) -> io::Result<File> {
    match i32::try_from(result) {
        // SAFETY: the kernel made this descriptor just now, for us alone.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into()),
        _ => Err(io::Error::last_os_error()),
    }
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
    /// The namespace of this number, to which this way leads.
    ///
    /// # Errors
    /// If it does not, or cannot be taken.
    pub fn by(number: u32, way: Way) -> io::Result<Self> {
        let netns = Self { number, way };
        netns.open()?;
        Ok(netns)
    }

    /// The namespace of this number, in which somebody holds this listener.
    ///
    /// # Errors
    /// Why its listener leads there no more, where its holder does not live there either.
    pub fn of(number: u32, holder: &Holder, inode: u64) -> io::Result<Self> {
        let Holder { process: Process { pid, .. }, cgroup: _, fd } = *holder;
        Self::by(number, Way::Member(pid))
            .or_else(|_elsewhere| Self::by(number, Way::Listener { pid, fd, inode }))
    }

    /// The namespace, if the way still leads there.
    fn open(&self) -> io::Result<File> {
        let file = self.way.open()?;
        if file.metadata()?.ino() == u64::from(self.number) {
            Ok(file)
        } else {
            Err(io::Error::other("this is another network namespace"))
        }
    }

    /// Runs `work` in a thread inside the namespace.
    ///
    /// # Errors
    /// If it cannot be entered; those of `work`.
    fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let namespace = self.open()?;
        let inside = || {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
            work()
        };
        let done = confine::apart(inside);
        done.unwrap_or_else(|_panic| Err(io::Error::other("the thread inside of it panicked")))
    }

    /// Reads a file as a thread inside the namespace sees it.
    fn read(&self, path: &Path) -> io::Result<String> {
        self.inside(|| fs::read_to_string(path))
    }

    /// A sysctl that is a number: `net.core.somaxconn`.
    ///
    /// # Errors
    /// If it cannot be read there, or is no number.
    pub fn setting(&self, name: &str) -> io::Result<u32> {
        let text = self.read(&Path::new("/proc/sys").join(name.replace('.', "/")))?;
        text.trim().parse().map_err(io::Error::other)
    }

    /// What its kernel counts.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn counters(&self) -> io::Result<Counters> {
        let Way::Member(pid) = self.way else { return counted(&self.read(Path::new(OWN_NETSTAT))?) };
        // It need not be entered.
        let counters = counted(&fs::read_to_string(format!("/proc/{pid}/net/netstat"))?)?;
        // It was that process's namespace before as well: a process leaves one for good.
        self.open()?;
        Ok(counters)
    }
}

/// A way to each network namespace that has a process, a mount or a descriptor, by the namespace's number; and what could
/// not be looked at for that, in words.
pub(super) fn ways() -> (HashMap<u32, Way>, Option<String>) {
    let mut ways = HashMap::new();
    let mut unseen = Unseen::default();
    let pids = unseen.or("/proc", processes::pids()).unwrap_or_else(Vec::new);
    for pid in &pids {
        let path = format!("/proc/{pid}/ns/net");
        if let Some(namespace) = unseen.or(&path, fs::metadata(&path))
            && let Ok(number) = u32::try_from(namespace.ino())
        {
            ways.entry(number).or_insert(Way::Member(pid.cast_unsigned()));
        }
    }
    let mounts = procfs::process::Process::myself().and_then(|own| own.mountinfo()).map_err(io::Error::other);
    for mount in unseen.or("/proc/self/mountinfo", mounts).into_iter().flat_map(|mounts| mounts.0) {
        if let Some(number) = number(mount.root.as_bytes()) {
            ways.entry(number).or_insert(Way::File(mount.mount_point));
        }
    }
    for pid in &pids {
        let folder = format!("/proc/{pid}/fd");
        let Some(entries) = unseen.or(&folder, fs::read_dir(&folder)) else { continue };
        for entry in entries {
            let Some(path) = unseen.or(&folder, entry).map(|entry| entry.path()) else { break };
            if let Some(link) = unseen.or(&folder, fs::read_link(&path))
                && let Some(number) = number(link.as_os_str().as_bytes())
            {
                ways.entry(number).or_insert(Way::File(path));
            }
        }
    }
    (ways, unseen.words())
}

/// What there is and cannot be looked at.
#[derive(Default)]
struct Unseen {
    count: u64,
    first: Option<(String, io::Error)>,
}

impl Unseen {
    /// What was found at a path; none if it has gone, or cannot be looked at, which is counted.
    fn or<T>(&mut self, path: &str, found: io::Result<T>) -> Option<T> {
        let error = match found {
            Ok(found) => return Some(found),
            Err(error) => error,
        };
        if error.kind() != io::ErrorKind::NotFound && error.raw_os_error() != Some(libc::ESRCH) {
            self.count += 1;
            self.first.get_or_insert((path.to_owned(), error));
        }
        None
    }

    /// In words; none if all was seen.
    fn words(&self) -> Option<String> {
        let (path, error) = self.first.as_ref()?;
        Some(format!(
            "network namespaces are looked for, and {} cannot be looked at ({path}: {error}): one that only these lead to is not found",
            count(self.count, "place")
        ))
    }
}

/// The number in the name that the kernel gives a network namespace: `net:[4026531840]`.
fn number(name: &[u8]) -> Option<u32> {
    let number = name.strip_prefix(b"net:[")?.strip_suffix(b"]")?;
    number.iter().all(u8::is_ascii_digit).then(|| String::from_utf8_lossy(number))?.parse().ok()
}

/// What the calling thread's namespace counts.
///
/// # Errors
/// If that cannot be read.
pub(super) fn here() -> io::Result<Counters> {
    counted(&fs::read_to_string(OWN_NETSTAT)?)
}

fn counted(netstat: &str) -> io::Result<Counters> {
    parse(netstat).ok_or_else(|| io::Error::other("the kernel's counters are not what they are known to be"))
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
    fn a_listener_leads_to_its_namespace_and_nothing_else_does() {
        let number = u32::try_from(fs::metadata("/proc/self/ns/net").unwrap().ino()).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let way = |fd: i32, inode| Way::Listener { pid: std::process::id(), fd: fd.cast_unsigned(), inode };
        let inode = |fd: i32| fs::metadata(format!("/proc/self/fd/{fd}")).unwrap().ino();
        let (listening, connected) = (listener.as_raw_fd(), stream.as_raw_fd());
        assert!(Netns::by(number, way(connected, inode(connected))).is_err());
        assert!(Netns::by(number, way(listening, inode(connected))).is_err());
        match way(listening, inode(listening)).open() {
            Ok(namespace) => assert_eq!(namespace.metadata().unwrap().ino(), u64::from(number)),
            // Only root may ask.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
        assert_eq!((super::number(b"net:[7]"), super::number(b"/net:[7]")), (Some(7), None));
    }

    #[test]
    fn this_thread_has_a_namespace_with_counters() {
        let number = u32::try_from(fs::metadata("/proc/self/ns/net").unwrap().ino()).unwrap();
        let here = Netns::by(number, Way::Member(std::process::id())).unwrap();
        assert!(here.counters().is_ok() && here.setting("net.core.somaxconn").is_ok());
        assert!(Netns::by(number + 1, Way::Member(std::process::id())).is_err());
        let (ways, unseen) = ways();
        assert!(ways.contains_key(&number));
        assert!(unseen.is_none_or(|unseen| unseen.contains("cannot be looked at")));
        let held = File::open("/proc/self/ns/net").unwrap();
        let by_file = Way::File(format!("/proc/self/fd/{}", held.as_raw_fd()).into());
        assert!(by_file.open().is_ok() && Way::File("/dev/zero".into()).open().is_err());
        assert!(super::here().is_ok());
    }
}
