//! Connections that were open before the tracing began: when an exchange on one of them fails, there is no verdict.

use std::{
    collections::{HashMap, HashSet},
    fs,
    net::SocketAddr,
};

use procfs::{
    net::{TcpState, UnixState},
    process::{FDTarget, Process},
};

use super::{pairing::Logged, workers::Workers};
use crate::verdict::Upstream;

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
    /// Some unix socket: which, the kernel does not tell here.
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
        let mut namespaces = HashMap::new();
        let mut open = Vec::new();
        for (pid, written) in workers.running() {
            let Ok(process) = Process::new(pid.cast_signed()) else { continue };
            let Ok(namespace) = fs::read_link(format!("/proc/{pid}/ns/net")) else { continue };
            let peers = namespaces.entry(namespace).or_insert_with(|| peers(&process));
            for descriptor in process.fd().into_iter().flatten().flatten() {
                if let FDTarget::Socket(inode) = descriptor.target
                    && let Some(&peer) = peers.get(&inode)
                    && open.len() < MOST
                {
                    open.push(Connection { pid, written, descriptor: descriptor.fd, inode, peer });
                }
            }
        }
        Self { open, gone: Vec::new(), looked: now }
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

/// The sockets of a network namespace that someone has connected from, by inode.
fn peers(process: &Process) -> HashMap<u64, Peer> {
    let tcp: Vec<_> =
        [process.tcp(), process.tcp6()].into_iter().flat_map(Result::unwrap_or_default).collect();
    let listening: HashSet<u16> = tcp
        .iter()
        .filter(|entry| entry.state == TcpState::Listen)
        .map(|entry| entry.local_address.port())
        .collect();
    let connected = tcp
        .iter()
        .filter(|entry| entry.inode != 0 && !listening.contains(&entry.local_address.port()))
        .map(|entry| (entry.inode, Peer::Inet(entry.remote_address)));
    // A socket that was accepted has the path of its listener.
    let unix = process.unix().unwrap_or_default().into_iter().filter(|entry| {
        entry.path.is_none()
            && entry.state == UnixState::CONNECTED
            && i32::from(entry.socket_type) == libc::SOCK_STREAM
    });
    connected.chain(unix.map(|entry| (entry.inode, Peer::Unix))).collect()
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
    fn unix_sockets_are_told_by_their_worker_alone() {
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
