//! How full the accept queues of the upstreams are, once a second, by sock_diag(7): incidents show in them before they fail.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use netlink_packet_core::{NLM_F_DUMP, NetlinkPayload};
use netlink_packet_sock_diag::{
    AF_INET, AF_INET6, IPPROTO_TCP, SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use nix::{
    sched::{CloneFlags, setns},
    sys::socket::SockProtocol,
};

use crate::{
    confine,
    model::{
        budget,
        clock::monotonic_ns,
        stream::Depth,
        upstream::{Upstream, leads_to},
    },
    procfs::{netlink, processes},
};

/// The time between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// The time between two looks for network namespaces: there is one in each container.
const NAMESPACES: Duration = Duration::from_secs(10);

/// Looks at the listeners at the upstreams' addresses, in a thread apart. It ends some time after this is dropped.
#[derive(Debug)]
pub struct Depths {
    watched: Arc<Mutex<HashSet<SocketAddr>>>,
    /// Those that are looked at all the time.
    always: HashSet<SocketAddr>,
    found: Receiver<Depth>,
}

impl Depths {
    /// Begins to look, at these listeners to begin with. Over a unix socket nobody says so.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start<'a>(listeners: impl Iterator<Item = &'a Upstream>) -> io::Result<Self> {
        let always: HashSet<_> = listeners.filter_map(address).collect();
        let watched = Arc::new(Mutex::new(always.clone()));
        let (send, found) = sync_channel(4 * budget::DEPTHS);
        let theirs = Arc::clone(&watched);
        confine::spawn("depths", move || look(theirs, send))?;
        Ok(Self { watched, always, found })
    }

    /// Looks at the listeners of these upstreams from now on, and no more at those before.
    pub fn watch<'a>(&self, upstreams: impl Iterator<Item = &'a Upstream>) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        *watched = self.always.iter().copied().chain(upstreams.filter_map(address)).collect();
    }

    /// What was found since.
    pub fn found(&self) -> impl Iterator<Item = Depth> {
        self.found.try_iter()
    }
}

fn address(upstream: &Upstream) -> Option<SocketAddr> {
    match upstream {
        Upstream::Inet(address) => Some(SocketAddr::new(address.ip().to_canonical(), address.port())),
        Upstream::Unix(_) | Upstream::Named(_) => None,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a thread owns what it works with")]
fn look(watched: Arc<Mutex<HashSet<SocketAddr>>>, found: SyncSender<Depth>) {
    let (mut members, mut known_at) = (HashMap::new(), None::<Instant>);
    // Where there are none at the upstreams, it is looked again when namespaces are, or when upstreams have changed.
    let (mut with_listeners, mut looked_for) = (HashSet::new(), HashSet::new());
    let (mut has_too_many, mut has_failed) = (false, false);
    let home = match File::open("/proc/thread-self/ns/net") {
        Ok(home) => home,
        Err(error) => {
            crate::notice!("how full accept queues are is not recorded: {error}");
            return;
        }
    };
    // Nobody else has it any more once the other side is dropped.
    while Arc::strong_count(&watched) > 1 {
        thread::sleep(PERIOD);
        let upstreams = watched.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if upstreams.is_empty() {
            continue;
        }
        if known_at.is_none_or(|at| at.elapsed() >= NAMESPACES) {
            (members, known_at) = (self::members(&mut has_failed), Some(Instant::now()));
            looked_for.clear();
        }
        let looks_everywhere = looked_for != upstreams;
        if looks_everywhere {
            with_listeners.clear();
            looked_for.clone_from(&upstreams);
        }
        let mut looks = 0;
        for (number, pid) in &members {
            if !looks_everywhere && !with_listeners.contains(number) {
                continue;
            }
            let seen = match namespace(*number, *pid) {
                Ok(Some(namespace)) => listeners(&namespace),
                // Its process has gone: another is found soon.
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            let there = match seen {
                Ok(listeners) => listeners,
                Err(error) => {
                    if !std::mem::replace(&mut has_failed, true) {
                        crate::notice!(
                            "how full accept queues are in network namespace {number}, for one, is not recorded: {error}"
                        );
                    }
                    continue;
                }
            };
            for Listener { address, depth, limit } in there {
                if !upstreams.iter().any(|upstream| leads_to(*upstream, address)) {
                    continue;
                }
                with_listeners.insert(*number);
                looks += 1;
                if looks > budget::DEPTHS {
                    continue;
                }
                let depth = Depth { ns: monotonic_ns(), listener: Upstream::Inet(address), depth, limit };
                if let Err(TrySendError::Disconnected(_)) = found.try_send(depth) {
                    return;
                }
            }
        }
        if looks > budget::DEPTHS && !std::mem::replace(&mut has_too_many, true) {
            crate::notice!(
                "{looks} listeners are at the upstreams' addresses: the accept queues of {} at a time are recorded",
                budget::DEPTHS
            );
        }
        // The last one is not to live for as long as this thread.
        if let Err(error) = setns(&home, CloneFlags::CLONE_NEWNET) {
            crate::notice!("how full accept queues are is not recorded any more: {error}");
            return;
        }
    }
}

/// A process's network namespace; none if the process has gone, or lives elsewhere than in that of this number. It is opened for the
/// moment: held open, it would live on.
fn namespace(number: u64, pid: i32) -> io::Result<Option<File>> {
    match File::open(format!("/proc/{pid}/ns/net")) {
        Ok(namespace) => Ok((namespace.metadata()?.ino() == number).then_some(namespace)),
        Err(error) if has_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn has_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Every network namespace that a process lives in, by its number, with one such process.
fn members(has_failed: &mut bool) -> HashMap<u64, i32> {
    let mut members = HashMap::new();
    let pids = processes::pids().unwrap_or_else(|error| {
        crate::notice!("how full accept queues are is not recorded: /proc cannot be read ({error})");
        Vec::new()
    });
    let mut unseen = None;
    for pid in pids {
        match fs::metadata(format!("/proc/{pid}/ns/net")) {
            Ok(namespace) => {
                members.entry(namespace.ino()).or_insert(pid);
            }
            // Who has gone meanwhile lives in none.
            Err(error) if has_gone(&error) => {}
            Err(error) => unseen = unseen.or(Some((pid, error))),
        }
    }
    if let Some((pid, error)) = unseen.filter(|_| !std::mem::replace(has_failed, true)) {
        crate::notice!(
            "where process {pid}, for one, lives is not seen ({error}): how full accept queues are there may not be recorded"
        );
    }
    members
}

/// What the kernel says of one listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listener {
    address: SocketAddr,
    depth: u32,
    limit: u32,
}

/// The listeners of a network namespace, which this thread enters.
fn listeners(namespace: &File) -> io::Result<Vec<Listener>> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let netlink = netlink::open(SockProtocol::NetlinkSockDiag)?;
    let (mut listeners, mut buffer) = (Vec::new(), vec![0; 32 << 10]);
    for (family, socket_id) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
        let request = InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::LISTEN,
            socket_id,
        };
        netlink::ask(&netlink, NLM_F_DUMP, SockDiagMessage::InetRequest(request))?;
        let mut is_done = false;
        while !is_done {
            for message in netlink::messages(netlink::receive(&netlink, &mut buffer)?) {
                match message? {
                    NetlinkPayload::Done(_) => is_done = true,
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                        listeners.push(Listener::of(&response.header));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(listeners)
}

impl Listener {
    /// For a listener the queues are connections that wait, and the backlog (`tcp_diag_get_info`, net/ipv4/tcp_diag.c).
    fn of(header: &InetResponseHeader) -> Self {
        let SocketId { source_address, source_port, .. } = header.socket_id;
        let address = SocketAddr::new(source_address, source_port);
        Self { address, depth: header.recv_queue, limit: header.send_queue }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::fd::AsRawFd as _,
    };

    use super::*;

    #[test]
    fn a_listeners_queue_is_what_waits_in_it() {
        let both = ["127.0.0.1:0", "[::1]:0"].map(|at| TcpListener::bind(at).unwrap());
        let waiting = both.each_ref().map(|listener| {
            // SAFETY: takes two integers.
            unsafe { libc::listen(listener.as_raw_fd(), 7) };
            let address = listener.local_addr().unwrap();
            (address, [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()])
        });
        let here = File::open("/proc/self/ns/net").unwrap();
        let found = thread::spawn(move || listeners(&here)).join().unwrap();
        match found {
            Ok(found) => {
                for (address, _) in waiting {
                    assert!(found.contains(&Listener { address, depth: 2, limit: 7 }), "{found:?}");
                }
            }
            // Without CAP_SYS_ADMIN no namespace is entered, not even this one.
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
        }
    }
}
