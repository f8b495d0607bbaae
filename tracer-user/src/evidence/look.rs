//! Looks at slow workers, as evidence has them.

use std::{borrow::Cow, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    codec::{Bad, Base, Codec, Context, Id, Moment, bad},
    texts::{self, text},
};
use crate::model::doing;

/// One exchange that a thread served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Served {
    /// nginx's socket; with `connect_ns` it names the connection.
    pub sock: Option<u64>,
    /// connect was called.
    pub connect_ns: Option<i64>,
    /// Which exchange on this connection it is.
    pub exchange: u32,
}

/// One look at a thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Look {
    /// When.
    pub ns: Option<i64>,
    /// The process.
    pub pid: i32,
    /// The thread.
    pub tid: i32,
    /// What it did.
    pub doing: Doing,
    /// To what, or on what, where that has a name.
    pub target: Option<String>,
    /// Whether the thread is not all of its process.
    pub has_other_threads: bool,
    /// The exchanges that it served.
    pub exchanges: Vec<Served>,
}

/// What a thread was found doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// It ran.
    Running,
    /// It waited on a TCP peer.
    Tcp,
    /// It waited on a UDP peer.
    Udp,
    /// It waited on a unix socket.
    Unix,
    /// It connected to a TCP peer.
    ConnectingTcp,
    /// It connected to a UDP peer.
    ConnectingUdp,
    /// It connected to a unix socket.
    ConnectingUnix,
    /// It waited for the rest of the request.
    Request,
    /// It waited for nginx to take the response.
    ResponseTaken,
    /// It waited for a new connection.
    Connection,
    /// It waited on a socket whose other end is not known.
    Socket,
    /// It waited on a file.
    File,
    /// It waited for a lock on a file.
    FileLock,
    /// It waited for a lock in memory.
    Lock,
    /// It waited on a pipe, of a child process if that is named.
    Pipe,
    /// It waited for a child process.
    Child,
    /// It let time pass, in this system call.
    Sleep,
    /// It waited for a signal.
    Signal,
    /// It waited for any of several descriptors, in this system call.
    Events,
    /// It waited for a disk, most likely, in this function of the kernel's.
    Disk,
    /// It waited for a CPU.
    Cpu,
    /// It was stopped.
    Stopped,
    /// It was frozen, with its cgroup.
    Frozen,
    /// It waited in this system call or function of the kernel's.
    Kernel,
}

fn peer(peer: &doing::Peer, kinds: [Doing; 3], context: Context<'_>) -> (Doing, Option<String>) {
    let [tcp, udp, unix] = kinds;
    match peer {
        doing::Peer::Tcp(address) => (tcp, Some(context.names.address(*address).to_string())),
        doing::Peer::Udp(address) => (udp, Some(context.names.address(*address).to_string())),
        doing::Peer::Unix(path) => (unix, Some(of_path(path, context))),
    }
}

fn of_path(path: &std::path::Path, context: Context<'_>) -> String {
    context.names.path(&text(path.as_os_str().as_encoded_bytes())).into_owned()
}

pub(super) fn encode(doing: &doing::Doing, context: Context<'_>) -> (Doing, Option<String>) {
    use doing::Target;
    let target = match doing {
        doing::Doing::Running => return (Doing::Running, None),
        doing::Doing::Waiting(target) => target,
    };
    match target {
        Target::Peer(of) => peer(of, [Doing::Tcp, Doing::Udp, Doing::Unix], context),
        Target::Connecting(of) => {
            peer(of, [Doing::ConnectingTcp, Doing::ConnectingUdp, Doing::ConnectingUnix], context)
        }
        Target::Request => (Doing::Request, None),
        Target::ResponseTaken => (Doing::ResponseTaken, None),
        Target::Connection => (Doing::Connection, None),
        Target::Socket => (Doing::Socket, None),
        Target::File(path) => (Doing::File, Some(of_path(path, context))),
        Target::FileLock(path) => (Doing::FileLock, Some(of_path(path, context))),
        Target::Lock => (Doing::Lock, None),
        Target::Pipe(child) => (Doing::Pipe, child.clone()),
        Target::Child(child) => (Doing::Child, child.clone()),
        Target::Sleep(call) => (Doing::Sleep, Some(call.to_string())),
        Target::Signal => (Doing::Signal, None),
        Target::Events(call) => (Doing::Events, Some(call.to_string())),
        Target::Disk(function) => (Doing::Disk, Some(function.clone())),
        Target::Cpu => (Doing::Cpu, None),
        Target::Stopped => (Doing::Stopped, None),
        Target::Thaw => (Doing::Frozen, None),
        Target::Kernel(function) => (Doing::Kernel, Some(function.clone())),
    }
}

/// `PATH_MAX`, and what the kernel appends to the path of a file that is deleted.
const MOST_PATH: usize = 4_096 + " (deleted)".len();

/// `KSYM_NAME_LEN`: names of the kernel's functions are the longest names; those of processes and system calls are shorter.
const MOST_NAME: usize = 512;

/// The exchanges that one thread serves.
const MOST_EXCHANGES: usize = 1 << 16;

pub(super) fn decode(doing: Doing, target: Option<String>) -> Result<doing::Doing, Bad> {
    use doing::{Peer, Target};
    let most = match doing {
        Doing::Unix | Doing::ConnectingUnix | Doing::File | Doing::FileLock => 4 * MOST_PATH,
        _ => MOST_NAME,
    };
    let long = || bad("what a look found is longer than any name or path");
    if target.as_ref().is_some_and(|target| target.len() > most) {
        return Err(long());
    }
    let named = || target.clone().ok_or_else(|| bad("a look does not say at what"));
    let path = || {
        let path = named().and_then(|text| unescaped(&text))?;
        if path.len() > MOST_PATH { Err(long()) } else { Ok(PathBuf::from(path)) }
    };
    let address = || named()?.parse::<SocketAddr>().map_err(|_| bad("an address is none"));
    Ok(doing::Doing::Waiting(match doing {
        Doing::Running => return Ok(doing::Doing::Running),
        Doing::Tcp => Target::Peer(Peer::Tcp(address()?)),
        Doing::Udp => Target::Peer(Peer::Udp(address()?)),
        Doing::Unix => Target::Peer(Peer::Unix(path()?)),
        Doing::ConnectingTcp => Target::Connecting(Peer::Tcp(address()?)),
        Doing::ConnectingUdp => Target::Connecting(Peer::Udp(address()?)),
        Doing::ConnectingUnix => Target::Connecting(Peer::Unix(path()?)),
        Doing::Request => Target::Request,
        Doing::ResponseTaken => Target::ResponseTaken,
        Doing::Connection => Target::Connection,
        Doing::Socket => Target::Socket,
        Doing::File => Target::File(path()?),
        Doing::FileLock => Target::FileLock(path()?),
        Doing::Lock => Target::Lock,
        Doing::Pipe => Target::Pipe(target),
        Doing::Child => Target::Child(target),
        Doing::Sleep => Target::Sleep(Cow::Owned(named()?)),
        Doing::Signal => Target::Signal,
        Doing::Events => Target::Events(Cow::Owned(named()?)),
        Doing::Disk => Target::Disk(named()?),
        Doing::Cpu => Target::Cpu,
        Doing::Stopped => Target::Stopped,
        Doing::Frozen => Target::Thaw,
        Doing::Kernel => Target::Kernel(named()?),
    }))
}

fn unescaped(text: &str) -> Result<std::ffi::OsString, Bad> {
    use std::os::unix::ffi::OsStringExt as _;
    texts::unescaped(text).map(std::ffi::OsString::from_vec)
}

impl Codec<doing::Look> for Look {
    type Json = Self;

    fn encode(look: &doing::Look, context: Context<'_>) -> Self {
        let doing::Look { ns, pid, tid, doing, has_other_threads, exchanges } = look;
        let (doing, target) = encode(doing, context);
        let served = |((sock, connect_ns), exchange): &((u64, u64), u32)| Served {
            sock: Id::encode(sock, context),
            connect_ns: Moment::encode(connect_ns, context),
            exchange: *exchange,
        };
        Self {
            ns: Moment::encode(ns, context),
            pid: *pid,
            tid: *tid,
            doing,
            target,
            has_other_threads: *has_other_threads,
            exchanges: exchanges.iter().map(served).collect(),
        }
    }

    fn decode(json: Self, base: Base) -> Result<doing::Look, Bad> {
        let Self { ns, pid, tid, doing, target, has_other_threads, exchanges } = json;
        if exchanges.len() > MOST_EXCHANGES {
            return Err(bad("a look is at more exchanges than one thread serves"));
        }
        let served = |Served { sock, connect_ns, exchange }| {
            Ok(((Id::decode(sock, base)?, Moment::decode(connect_ns, base)?), exchange))
        };
        Ok(doing::Look {
            ns: Moment::decode(ns, base)?,
            pid,
            tid,
            doing: decode(doing, target)?,
            has_other_threads,
            exchanges: exchanges.into_iter().map(served).collect::<Result<_, Bad>>()?,
        })
    }
}
