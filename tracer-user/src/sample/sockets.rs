//! Whom a socket of another process talks to.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use wire::{FAMILY_INET, FAMILY_INET6, FAMILY_UNIX, HeldSocket, tcp_state};

use super::Peer;
use crate::{
    load::held_sockets,
    model::{
        failure::Failure,
        from_wire::{address, path_of},
    },
};

/// A socket, as far as the kernel shows it without being asked through the socket.
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
/// To find those of some processes, the kernel visits the open files of all. So it is asked only when a socket is met that was not known,
/// once in a round at most, and not at all for a while after a long reading; what is found is kept.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    known: HashMap<u64, Known>,
    /// The processes that are looked at in this round.
    pids: Vec<u32>,
    /// What they hold, once it was asked for.
    held: Option<HashMap<u64, Socket>>,
    /// From when on it may be asked for again.
    due: Option<Instant>,
    /// Whether it was said that it cannot be had.
    is_refused: bool,
    round: u64,
}

/// Processes whose sockets are asked for at once: more than are looked at in one round.
const MOST_PROCESSES: usize = 4 * super::MOST_THREADS;

/// How much of the time may go into asking: one part in so many.
const SHARE: u32 = 20;

#[derive(Debug)]
struct Known {
    socket: Socket,
    /// The last round that asked for it.
    round: u64,
}

impl Sockets {
    /// Forgets what the last round did not ask for. In this one, these processes are looked at.
    pub(super) fn begin_round(&mut self, pids: impl Iterator<Item = i32>) {
        let last = self.round;
        self.known.retain(|_, known| known.round == last);
        self.pids.clear();
        for pid in pids.map(i32::cast_unsigned) {
            if self.pids.len() < MOST_PROCESSES && !self.pids.contains(&pid) {
                self.pids.push(pid);
            }
        }
        self.held = None;
        self.round += 1;
    }

    /// Whether the kernel may be asked now.
    fn may_ask(&self) -> bool {
        self.due.is_none_or(|due| due <= Instant::now())
    }

    /// After an answer that took so long.
    fn pause(&mut self, took: Duration) {
        self.due = Some(Instant::now() + took * SHARE);
    }

    /// The socket with this inode number. None if that would cost too much now, or cannot be had.
    pub(super) fn find(&mut self, inode: u64) -> Option<Socket> {
        let round = self.round;
        if let Some(known) = self.known.get_mut(&inode) {
            known.round = round;
            return Some(known.socket.clone());
        }
        if self.held.is_none() && self.may_ask() {
            self.ask();
        }
        if self.is_refused {
            return Some(Socket::Other);
        }
        // One that came since is asked for in the next round.
        let Some(socket) = self.held.as_ref()?.get(&inode).cloned() else { return Some(Socket::Other) };
        if !matches!(socket, Socket::Tcp { connecting: true, .. }) {
            self.known.insert(inode, Known { socket: socket.clone(), round });
        }
        Some(socket)
    }

    fn ask(&mut self) {
        let started = Instant::now();
        let held = held_sockets(self.pids.iter().copied());
        self.pause(started.elapsed());
        match held {
            Ok(held) => self.held = Some(held.iter().map(|held| (held.inode, socket(held))).collect()),
            Err(error) => self.refuse(&error),
        }
    }

    fn refuse(&mut self, error: &Failure) {
        if !std::mem::replace(&mut self.is_refused, true) {
            crate::notice!(
                "whom slow workers wait for is not known where it is a socket's other end: {error}"
            );
        }
    }
}

fn socket(held: &HeldSocket) -> Socket {
    let is_stream = i32::from(held.kind) == libc::SOCK_STREAM;
    match held.local.family {
        FAMILY_UNIX if held.state == tcp_state::LISTEN => Socket::Listener,
        FAMILY_UNIX if held.has_peer == 0 => Socket::Other,
        FAMILY_UNIX if held.is_bound != 0 => Socket::UnixAccepted,
        FAMILY_UNIX => held.name().map_or(Socket::UnixPair, |name| Socket::UnixClient(path(name))),
        FAMILY_INET | FAMILY_INET6 if held.state == tcp_state::LISTEN => Socket::Listener,
        FAMILY_INET | FAMILY_INET6 if is_stream => Socket::Tcp {
            local: canonical(address(&held.local)),
            remote: canonical(address(&held.remote)),
            connecting: held.state == tcp_state::SYN_SENT,
        },
        FAMILY_INET | FAMILY_INET6 if held.remote.port != 0 => {
            Socket::Udp { remote: canonical(address(&held.remote)) }
        }
        _ => Socket::Other,
    }
}

/// A unix socket's name: one in the abstract namespace begins with a zero, and is shown with an `@`.
fn path(name: &[u8]) -> PathBuf {
    match name {
        [0, hidden @ ..] => format!("@{}", String::from_utf8_lossy(hidden)).into(),
        path => path_of(path),
    }
}

/// IPv4 as IPv4, also on a socket that was made for IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_readings_are_made_up_for_by_longer_pauses() {
        let mut sockets = Sockets::default();
        assert!(sockets.may_ask());
        sockets.pause(Duration::from_secs(10));
        assert!(!sockets.may_ask());
        sockets.begin_round([1].into_iter());
        assert!(!sockets.may_ask() && sockets.find(1).is_none());
        sockets.due = Some(Instant::now());
        assert!(sockets.may_ask());
    }

    #[test]
    fn names_may_be_any_bytes() {
        assert_eq!(path(b"/run/a.sock\0"), PathBuf::from("/run/a.sock"));
        assert_eq!(path(b"\0a\n"), PathBuf::from("@a\n"));
        assert_eq!(path(b"\0\xff"), PathBuf::from("@\u{fffd}"));
    }
}
