//! What a thread was found doing.

use std::{borrow::Cow, fmt, net::SocketAddr, path::PathBuf};

/// What one look at a thread found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It ran on a CPU, or had done so for most of the time since the look before.
    Running,
    /// It waited.
    Waiting(Target),
}

/// The other end of a socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over UDP: name resolution, most often.
    Udp(SocketAddr),
    /// A unix socket's path; one in the abstract namespace begins with an `@`.
    Unix(PathBuf),
}

/// What a thread waited for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// What this peer sends, or that it takes what it is sent.
    Peer(Peer),
    /// That this peer accepts a connection.
    Connecting(Peer),
    /// More from nginx, on the connection of the exchange itself.
    Request,
    /// That nginx takes what the worker has written, on the connection of the exchange itself.
    ResponseTaken,
    /// A new connection: this thread was done, or another serves the exchange.
    Connection,
    /// A socket whose other end is not known.
    Socket,
    /// A file, or what is mounted there.
    File(PathBuf),
    /// A lock on this file, which another process holds.
    FileLock(PathBuf),
    /// A lock in memory, or another thread (`futex`).
    Lock,
    /// A pipe; with the name of the child process that holds its other end, if one does.
    Pipe(Option<String>),
    /// A child process, by name if it is known.
    Child(Option<String>),
    /// Time to pass, in this system call.
    Sleep(Cow<'static, str>),
    /// A signal.
    Signal,
    /// Any one of several descriptors.
    Events(Cow<'static, str>),
    /// What no signal interrupts, a disk most often; by the name of the kernel's function.
    Disk(String),
    /// A CPU: others ran.
    Cpu,
    /// Somebody who lets it go on: it was stopped by a signal or by a debugger.
    Stopped,
    /// Somebody who thaws its cgroup, which was frozen.
    Thaw,
    /// Something else, by the name of the system call or of the kernel's function.
    Kernel(String),
}

impl Target {
    /// How many bytes it takes in memory, about.
    pub fn bytes(&self) -> usize {
        let named = match self {
            Self::Peer(Peer::Unix(path))
            | Self::Connecting(Peer::Unix(path))
            | Self::File(path)
            | Self::FileLock(path) => path.as_os_str().len(),
            Self::Pipe(Some(name)) | Self::Child(Some(name)) | Self::Disk(name) | Self::Kernel(name) => {
                name.len()
            }
            Self::Sleep(call) | Self::Events(call) => call.len(),
            Self::Peer(Peer::Tcp(_) | Peer::Udp(_))
            | Self::Connecting(Peer::Tcp(_) | Peer::Udp(_))
            | Self::Request
            | Self::ResponseTaken
            | Self::Connection
            | Self::Socket
            | Self::Lock
            | Self::Pipe(None)
            | Self::Child(None)
            | Self::Signal
            | Self::Cpu
            | Self::Stopped
            | Self::Thaw => 0,
        };
        size_of::<Self>() + named
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Udp(address) => write!(f, "{address} (UDP)"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl fmt::Display for Target {
    /// What was waited for, as the JSON output names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(peer) => peer.fmt(f),
            Self::Connecting(peer) => write!(f, "a connection to {peer}"),
            Self::Request => f.write_str("nginx to send the rest of the request"),
            Self::ResponseTaken => f.write_str("nginx to take the response"),
            Self::Connection => f.write_str("a new connection"),
            Self::Socket => f.write_str("a socket"),
            Self::File(path) => path.display().fmt(f),
            Self::FileLock(path) => write!(f, "a lock on {}", path.display()),
            Self::Lock => f.write_str("a lock (futex)"),
            Self::Pipe(Some(child)) => write!(f, "the output of its child process {child}"),
            Self::Pipe(None) => f.write_str("a pipe"),
            Self::Child(Some(child)) => write!(f, "its child process {child}"),
            Self::Child(None) => f.write_str("a child process"),
            Self::Sleep(call) => write!(f, "time to pass ({call})"),
            Self::Signal => f.write_str("a signal"),
            Self::Events(call) => write!(f, "any of several descriptors ({call})"),
            Self::Disk(function) => write!(f, "a disk, most likely ({function})"),
            Self::Cpu => f.write_str("a free CPU"),
            Self::Stopped => f.write_str("leave to go on (it was stopped)"),
            Self::Thaw => f.write_str("its cgroup to be thawed"),
            Self::Kernel(function) => write!(f, "the kernel ({function})"),
        }
    }
}

impl Doing {
    /// Whether it stood still: stopped, or frozen with its cgroup.
    pub fn is_standing_still(&self) -> bool {
        matches!(self, Self::Waiting(Target::Stopped | Target::Thaw))
    }

    /// In the past tense, after "it": `waited on 10.0.0.5:3306`, `ran on the CPU`, `slept (nanosleep)`.
    pub fn in_words(&self) -> String {
        let target = match self {
            Self::Running => return "ran on the CPU".to_owned(),
            Self::Waiting(target) => target,
        };
        match target {
            Target::Sleep(call) => format!("slept ({call})"),
            Target::Stopped => "was stopped, by a signal or by a debugger".to_owned(),
            Target::Thaw => "was frozen, with its cgroup".to_owned(),
            Target::Kernel(function) => format!("waited in the kernel ({function})"),
            Target::Peer(_) | Target::Socket | Target::File(_) | Target::Disk(_) => {
                format!("waited on {target}")
            }
            Target::Connecting(_)
            | Target::Request
            | Target::ResponseTaken
            | Target::Connection
            | Target::FileLock(_)
            | Target::Lock
            | Target::Pipe(_)
            | Target::Child(_)
            | Target::Signal
            | Target::Events(_)
            | Target::Cpu => format!("waited for {target}"),
        }
    }
}

/// Names a connection: nginx's socket and when it connected.
pub type Name = (u64, u64);

/// An open exchange that a worker serves on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// nginx's socket, and when it connected (ns, monotonic).
    pub name: (u64, u64),
    /// Which exchange on this connection it is.
    pub exchange: u32,
    /// When it began (ns, monotonic).
    pub since_ns: u64,
    /// Whether nginx has begun to read the response: a kept-alive connection between two exchanges looks so, too.
    pub is_answered: bool,
    /// The process that took it up.
    pub pid: i32,
    /// The thread that did.
    pub tid: i32,
    /// The worker's own address on this connection; none on a unix socket.
    pub local: Option<SocketAddr>,
}

/// What one look at a thread found, for all the exchanges that it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// When it was (ns, monotonic).
    pub ns: u64,
    /// The process.
    pub pid: i32,
    /// The thread.
    pub tid: i32,
    /// What it did.
    pub doing: Doing,
    /// Whether the thread is not all of its process.
    pub has_other_threads: bool,
    /// The exchanges: their connections, and which exchange on it.
    pub exchanges: Vec<(Name, u32)>,
}
