//! Connections that were open before the tracing began: when an exchange on one of them fails, there is no verdict.

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::SocketAddr,
};

use wire::{FAMILY_INET, FAMILY_INET6, FAMILY_UNIX, HeldSocket, tcp_state};

use super::{pair::Logged, workers::Workers};
use crate::{
    load::held_sockets,
    model::{from_wire::address, upstream::Upstream},
};

const SECOND: i64 = 1_000_000_000;

/// How often it is looked which of them are left.
const PERIOD: i64 = 10 * SECOND;

/// How long one that has gone may still be what a line is about; longer than a line waits for its verdict.
const REMEMBERED: i64 = 60 * SECOND;

/// How many are kept in sight.
const MOST: usize = 10_000;

/// The connections that have not been accounted for.
#[derive(Debug, Default)]
pub struct Early {
    open: Vec<Connection>,
    gone: Vec<Gone>,
    looked: i64,
}

/// A connection of an nginx worker.
#[derive(Clone, Copy, Debug)]
struct Connection {
    /// The worker, by the pid it has here and by the one it writes.
    pid: u32,
    written: u32,
    descriptor: i32,
    inode: u64,
    peer: Peer,
}

#[derive(Clone, Copy, Debug)]
enum Peer {
    Inet(SocketAddr),
    /// Some unix socket: which, the kernel does not say here.
    Unix,
}

/// A connection that has ended between two looks (ns since 1970).
#[derive(Clone, Copy, Debug)]
struct Gone {
    connection: Connection,
    after: i64,
    before: i64,
}

impl Early {
    /// Takes stock of what the traced processes have open, to upstreams or, which cannot be told apart, to anyone they have
    /// connected to.
    pub fn take_stock(workers: &Workers, now: i64) -> Self {
        let written: HashMap<u32, u32> = workers.running().collect();
        let held = held_sockets(written.keys().copied()).unwrap_or_else(|error| {
            crate::notice!("connections that are older than why502 are not known ({error}): their failures count as not explained"
            );
            Vec::new()
        });
        let listening: HashSet<(u32, u16)> = held
            .iter()
            .filter(|socket| socket.state == tcp_state::LISTEN)
            .map(|socket| (socket.netns, socket.local.port))
            .collect();
        let connections = held.iter().filter_map(|socket| {
            Some(Connection {
                pid: socket.tgid,
                written: *written.get(&socket.tgid)?,
                descriptor: socket.fd.cast_signed(),
                inode: socket.inode,
                peer: peer(socket, &listening)?,
            })
        });
        Self { open: connections.take(MOST).collect(), gone: Vec::new(), looked: now }
    }

    /// Whether the line is about one of them. Each is good for one line, for a failure ends it.
    pub fn accounts_for(&mut self, logged: &Logged, now: i64) -> bool {
        if self.open.is_empty() && self.gone.is_empty() {
            return false;
        }
        self.look(now);
        let place = self.gone.iter().position(|gone| {
            // The line gives its second, and nginx's clock may stand still for a moment.
            let ended_near = logged.at > gone.after - 3 * SECOND && logged.at < gone.before + SECOND;
            ended_near && gone.connection.may_be(logged)
        });
        place.map(|place| self.gone.swap_remove(place)).is_some()
    }

    /// Looks now and then which of them are left, so that it is known when the others ended.
    pub fn look_now_and_then(&mut self, now: i64) {
        if !self.open.is_empty() && now - self.looked > PERIOD {
            self.look(now);
        }
        self.gone.retain(|gone| now - gone.before < REMEMBERED);
    }

    fn look(&mut self, now: i64) {
        let (open, ended): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.open).into_iter().partition(Connection::is_open);
        self.open = open;
        let gone = |connection| Gone { connection, after: self.looked, before: now };
        self.gone.extend(ended.into_iter().map(gone));
        self.looked = now;
    }
}

impl Connection {
    fn is_open(&self) -> bool {
        let path = format!("/proc/{}/fd/{}", self.pid, self.descriptor);
        let target = format!("socket:[{}]", self.inode);
        fs::read_link(path).is_ok_and(|link| link.as_os_str() == target.as_str())
    }

    fn may_be(&self, logged: &Logged) -> bool {
        let named = &logged.failure.upstream;
        self.written == logged.failure.pid
            && match self.peer {
                Peer::Inet(address) => named.may_be(&Upstream::Inet(address)),
                Peer::Unix => named.may_be_unix(),
            }
    }
}

/// Whom a process has connected to, if it was the one that connected: what it accepted has a port that it listens on.
fn peer(socket: &HeldSocket, listening: &HashSet<(u32, u16)>) -> Option<Peer> {
    let is_stream = i32::from(socket.kind) == libc::SOCK_STREAM;
    match socket.local.family {
        FAMILY_INET | FAMILY_INET6 => {
            let was_accepted = listening.contains(&(socket.netns, socket.local.port));
            (is_stream && !was_accepted && socket.remote.port != 0)
                .then(|| Peer::Inet(address(&socket.remote)))
        }
        // What was accepted has the name of its listener; and one of a pair has a peer without a name.
        FAMILY_UNIX => (is_stream && socket.is_bound == 0 && socket.name().is_some()).then_some(Peer::Unix),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::unix::net::{UnixListener, UnixStream},
        process::id,
    };

    use clap::Parser as _;
    use tempfile::TempDir;

    use super::*;
    use crate::{
        args::{Args, Command},
        audit::line::Line,
    };

    /// 2026-11-20T11:39:26 UTC.
    const NOW: i64 = 1_795_174_766 * SECOND;

    fn stock() -> Early {
        let words = ["why502", "live", "--all", "-p", &id().to_string()];
        let Args { command: Command::Live(live), .. } = Args::parse_from(words) else { panic!("not live") };
        Early::take_stock(&Workers::new(&live.trace), NOW)
    }

    fn logged(upstream: &str, at: i64) -> Logged {
        let line = format!(
            "2026/11/20 11:39:26 [error] {}#7: *1 upstream prematurely closed connection while reading upstream, \
             client: 127.0.0.1, server: , upstream: \"http://{upstream}/\"",
            id()
        );
        let failure = Line::parse(&line).unwrap().failure.unwrap();
        Logged { at, since: at, failure, line, counts: true }
    }

    #[test]
    fn an_early_connection_accounts_for_one_line_once_it_has_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        let accepted = listener.accept().unwrap();
        let mut early = stock();
        let line = logged(&address.to_string(), NOW + 5 * SECOND);
        assert!(!early.accounts_for(&line, NOW + SECOND), "it is open still");
        drop((stream, accepted));
        assert!(!early.accounts_for(&logged("127.0.0.1:1", NOW + 5 * SECOND), NOW + 15 * SECOND));
        assert!(early.accounts_for(&line, NOW + 15 * SECOND));
        assert!(!early.accounts_for(&line, NOW + 15 * SECOND), "it had ended once");
    }

    #[test]
    fn a_connection_that_ended_at_another_time_does_not() {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).unwrap();
        let mut early = stock();
        // The other tests of this process come and go with sockets of their own.
        early.open.retain(|connection| matches!(connection.peer, Peer::Inet(peer) if peer == address));
        drop(stream);
        early.look_now_and_then(NOW + 11 * SECOND);
        let line = logged(&address.to_string(), NOW + 30 * SECOND);
        assert!(!early.accounts_for(&line, NOW + 40 * SECOND));
        let line = logged(&address.to_string(), NOW + 10 * SECOND);
        assert!(early.accounts_for(&line, NOW + 40 * SECOND));
        early.look_now_and_then(NOW + 200 * SECOND);
        assert!(early.gone.is_empty());
    }

    #[test]
    fn unix_sockets_are_known_by_their_worker_alone() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("x.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let stream = UnixStream::connect(&path).unwrap();
        let accepted = listener.accept().unwrap();
        let mut early = stock();
        drop((stream, accepted));
        assert!(!early.accounts_for(&logged("127.0.0.1:1", NOW), NOW));
        assert!(early.accounts_for(&logged("unix:/run/x.sock:", NOW), NOW));
    }
}
