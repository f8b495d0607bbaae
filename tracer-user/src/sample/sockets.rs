//! Whom a socket of another process talks to.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    os::fd::AsRawFd as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use nix::sys::socket::{UnixAddr, getpeername};
use procfs::{
    net::{TcpNetEntry, TcpState, UnixNetEntry, UnixState},
    process::Process,
};

use super::Peer;
use crate::duplicate::duplicate;

/// A socket, as far as /proc shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Socket {
    /// A TCP connection, or one that is coming about.
    Tcp { local: SocketAddr, remote: SocketAddr, connecting: bool },
    /// UDP with a fixed peer.
    Udp { remote: SocketAddr },
    /// A unix socket that connected to this path.
    UnixClient(PathBuf),
    /// A unix socket that came out of accept: it has its listener's path.
    UnixAccepted,
    /// A unix socket whose other end has no name: one of a socketpair.
    UnixPair,
    /// A listening socket.
    Listener,
    /// Anything else.
    Other,
}

impl Socket {
    /// Its other end, for a socket that the process itself connected.
    pub(super) fn peer(&self) -> Option<Peer> {
        match self {
            Self::Tcp { remote, .. } => Some(Peer::Tcp(*remote)),
            Self::Udp { remote } => Some(Peer::Udp(*remote)),
            Self::UnixClient(path) => Some(Peer::Unix(path.clone())),
            Self::UnixAccepted | Self::UnixPair | Self::Listener | Self::Other => None,
        }
    }
}

/// The sockets of every process that is looked at, by inode number: those are unique over all network namespaces.
///
/// The kernel writes its tables out whole, several microseconds for each socket of the namespace, and those in TIME_WAIT
/// are many. So they are read only when a socket is met that was not known, once in a round at most, and not at all for
/// a while after a long reading; what is found is kept.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    known: HashMap<u64, Known>,
    /// This round's tables, by network namespace.
    tables: HashMap<PathBuf, HashMap<u64, Socket>>,
    /// How long the tables took in the last round that read them.
    took: Duration,
    /// From when on they may be read again.
    due: Option<Instant>,
    may_read: bool,
    round: u64,
}

/// How much of the time may go into reading tables: one part in so many.
const SHARE: u32 = 20;

#[derive(Debug)]
struct Known {
    socket: Socket,
    /// The last round that asked for it.
    round: u64,
}

impl Sockets {
    /// Forgets what the last round did not ask for, and every table.
    pub(super) fn begin_round(&mut self) {
        let now = Instant::now();
        if !self.tables.is_empty() {
            self.due = Some(now + self.took * SHARE);
        }
        self.may_read = self.due.is_none_or(|due| due <= now);
        self.took = Duration::ZERO;
        let last = self.round;
        self.known.retain(|_, known| known.round == last);
        self.tables.clear();
        self.round += 1;
    }

    /// The socket with this inode number, which is descriptor `fd` of the process. None if that would cost too much now.
    pub(super) fn find(&mut self, process: &Process, fd: i32, inode: u64) -> Option<Socket> {
        let round = self.round;
        if let Some(known) = self.known.get_mut(&inode) {
            known.round = round;
            return Some(known.socket.clone());
        }
        if !self.may_read {
            return None;
        }
        let socket = self.look_up(process, inode).unwrap_or(Socket::Other);
        // A connecting unix socket has no name of its own, and its table does not tell the other end's.
        let socket = match socket {
            Socket::UnixClient(_) => unix_client(process.pid, fd).unwrap_or(Socket::Other),
            socket => socket,
        };
        if !matches!(socket, Socket::Tcp { connecting: true, .. }) {
            self.known.insert(inode, Known { socket: socket.clone(), round });
        }
        Some(socket)
    }

    fn look_up(&mut self, process: &Process, inode: u64) -> Option<Socket> {
        let namespace = fs::read_link(format!("/proc/{}/ns/net", process.pid)).ok()?;
        let took = &mut self.took;
        let table = self.tables.entry(namespace).or_insert_with(|| {
            let started = Instant::now();
            let table = table(process);
            *took += started.elapsed();
            table
        });
        table.get(&inode).cloned()
    }
}

/// Every socket of the process's network namespace.
fn table(process: &Process) -> HashMap<u64, Socket> {
    let tcp = [process.tcp(), process.tcp6()].into_iter().flatten().flatten();
    let udp = [process.udp(), process.udp6()].into_iter().flatten().flatten();
    let unix = process.unix().unwrap_or_default();
    tcp.map(|entry| (entry.inode, tcp_socket(&entry)))
        .chain(udp.map(|entry| (entry.inode, udp_socket(entry.remote_address))))
        .chain(unix.into_iter().map(|entry| (entry.inode, unix_socket(&entry))))
        // What no process holds any more has no inode.
        .filter(|(inode, _)| *inode != 0)
        .collect()
}

fn tcp_socket(entry: &TcpNetEntry) -> Socket {
    match entry.state {
        TcpState::Listen => Socket::Listener,
        ref state => Socket::Tcp {
            local: canonical(entry.local_address),
            remote: canonical(entry.remote_address),
            connecting: *state == TcpState::SynSent,
        },
    }
}

fn udp_socket(remote: SocketAddr) -> Socket {
    if remote.port() == 0 { Socket::Other } else { Socket::Udp { remote: canonical(remote) } }
}

/// With an empty path where the peer has yet to be asked for.
fn unix_socket(entry: &UnixNetEntry) -> Socket {
    let is_connected = matches!(entry.state, UnixState::CONNECTED | UnixState::CONNECTING);
    match entry.path {
        None => Socket::UnixClient(PathBuf::new()),
        Some(_) if is_connected => Socket::UnixAccepted,
        Some(_) if i32::from(entry.socket_type) == libc::SOCK_STREAM => Socket::Listener,
        Some(_) => Socket::Other,
    }
}

/// IPv4 as IPv4, also on a socket that was made for IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whom the unix socket that is descriptor `fd` of a process is connected to, by asking a duplicate of it.
fn unix_client(pid: i32, fd: i32) -> Option<Socket> {
    let socket = duplicate(pid, fd)?;
    let peer: UnixAddr = getpeername(socket.as_raw_fd()).ok()?;
    Some(match (peer.path(), peer.as_abstract()) {
        (Some(path), _) => Socket::UnixClient(path.to_owned()),
        (None, Some(name)) => Socket::UnixClient(format!("@{}", String::from_utf8_lossy(name)).into()),
        (None, None) => Socket::UnixPair,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_readings_are_made_up_for_by_longer_pauses() {
        let mut sockets = Sockets::default();
        sockets.begin_round();
        assert!(sockets.may_read);
        sockets.tables.insert("net:[1]".into(), HashMap::new());
        sockets.took = Duration::from_secs(10);
        sockets.begin_round();
        assert!(!sockets.may_read);
        sockets.begin_round();
        assert!(!sockets.may_read);
        sockets.due = Some(Instant::now());
        sockets.begin_round();
        assert!(sockets.may_read);
    }
}
