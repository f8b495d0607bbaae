//! Which listeners are emitted.

use std::{
    collections::{BTreeSet, HashSet},
    time::Instant,
};

use procfs::process::Process;
use wire::{FAMILY_INET, FAMILY_INET6, tcp_state};

use super::{masters, queue::Queue};
use crate::{
    args::Backlog,
    load::held_sockets,
    model::{
        from_wire::address,
        upstream::{Upstream, UpstreamFilter},
    },
    procfs::{host::nginx::passes, processes, trust},
};

/// After configurations were read, so many times as long passes before others are.
const SHARE: u32 = 20;

/// More places than any nginx passes requests on to.
const MOST_PEERS: usize = 4_096;

/// Which listeners are emitted.
#[derive(Debug)]
pub(super) enum Choice {
    /// All of them.
    All,
    /// Those that were asked for.
    These(Vec<UpstreamFilter>),
    /// Those that nginx connects to, or was connected to at the start, and those that running masters are configured with.
    Nginx(Reached),
}

/// What is reached through nginx, each with its network namespace.
#[derive(Debug)]
pub(super) struct Reached {
    peers: HashSet<(u32, Upstream)>,
    /// The masters whose configurations are in it.
    asked: BTreeSet<u32>,
    /// When others may be asked.
    next: Instant,
    is_reported: bool,
}

impl Choice {
    /// What the command line asks for.
    pub fn new(args: &Backlog) -> Self {
        match (args.all, &args.listeners[..]) {
            (true, _) => Self::All,
            (false, []) => Self::Nginx(Reached::now(connected(args))),
            (false, filters) => Self::These(filters.to_vec()),
        }
    }

    /// Takes in what masters that are not known yet are configured with: where nginx passes requests on to, and php-fpm's pools.
    pub fn learn(&mut self, queues: &[Queue], comm: &str) {
        if let Self::Nginx(reached) = self {
            reached.learn(queues, comm);
        }
    }

    /// Whether a listener is emitted.
    pub fn has(&self, queue: &Queue) -> bool {
        match self {
            Self::All => true,
            Self::These(filters) => filters.iter().any(|filter| takes(filter, &queue.addr)),
            Self::Nginx(reached) => {
                queue.by_nginx
                    || reached
                        .peers
                        .iter()
                        .any(|(netns, peer)| *netns == queue.netns && answers(&queue.addr, peer))
            }
        }
    }
}

impl Reached {
    fn now(peers: HashSet<(u32, Upstream)>) -> Self {
        Self { peers, asked: BTreeSet::new(), next: Instant::now(), is_reported: false }
    }

    /// Reads files, so not at every look.
    fn learn(&mut self, queues: &[Queue], comm: &str) {
        let began = Instant::now();
        let masters = masters::pids(queues, comm);
        if began < self.next || masters.is_subset(&self.asked) {
            return;
        }
        self.asked = masters;
        for nginx in masters::nginx(queues, comm) {
            // Why one is not believed is said by --verify.
            let Ok(configuration) = &nginx.said else { continue };
            let Some(netns) = netns_of(nginx.pid, queues) else { continue };
            let passes = passes(configuration);
            if let Some(name) = passes.iter().find_map(|pass| pass.unresolved.as_deref())
                && !std::mem::replace(&mut self.is_reported, true)
            {
                crate::notice!(
                    "{comm} {} passes requests on to names that only it resolves (to {name}, for one): what listens there is told once it \
                     connects",
                    nginx.pid
                );
            }
            let room = MOST_PEERS.saturating_sub(self.peers.len());
            let places = passes.into_iter().flat_map(|pass| pass.places);
            self.peers.extend(places.take(room).map(|place| (netns, place)));
        }
        for fpm in masters::php_fpm(queues) {
            let Ok(pools) = &fpm.said else { continue };
            let own = queues.iter().filter(|queue| is_of(fpm.pid, queue));
            let of_pools =
                own.filter(|queue| pools.pools.iter().any(|pool| is_same(&pool.listen, &queue.addr)));
            let room = MOST_PEERS.saturating_sub(self.peers.len());
            self.peers.extend(of_pools.take(room).map(|queue| (queue.netns, queue.addr.clone())));
        }
        self.next = Instant::now() + began.elapsed() * SHARE;
    }
}

/// The network namespace of a process, by a listener of its own.
pub(super) fn netns_of(pid: u32, queues: &[Queue]) -> Option<u32> {
    let inet = queues.iter().filter(|queue| matches!(queue.addr, Upstream::Inet(_)));
    inet.chain(queues).find(|queue| is_of(pid, queue)).map(|queue| queue.netns)
}

fn is_of(pid: u32, queue: &Queue) -> bool {
    queue.owner.as_ref().is_some_and(|owner| owner.pid == pid)
}

/// Whether a listener answers for what was asked for: one on all addresses answers for each.
fn takes(filter: &UpstreamFilter, listener: &Upstream) -> bool {
    match filter {
        UpstreamFilter::Address(wanted) => answers(listener, &Upstream::Inet(*wanted)),
        UpstreamFilter::Port(_) | UpstreamFilter::Unix(_) => filter.matches(listener),
    }
}

/// Whether a listener answers at an address.
pub(super) fn answers(listener: &Upstream, peer: &Upstream) -> bool {
    match (listener, peer) {
        (Upstream::Inet(listener), Upstream::Inet(peer)) => {
            listener.port() == peer.port()
                && (listener.ip().is_unspecified()
                    || listener.ip().to_canonical() == peer.ip().to_canonical())
        }
        _ => listener == peer,
    }
}

/// The peers that processes of a name are connected to by TCP, with the network namespace.
fn connected(args: &Backlog) -> HashSet<(u32, Upstream)> {
    let comm = args.comm();
    let pids = match processes::pids() {
        Ok(pids) => pids,
        Err(error) => {
            crate::notice!(
                "/proc cannot be read ({error}): a listener counts as {comm}'s once that connects to it"
            );
            return HashSet::new();
        }
    };
    let (mut named, mut unseen) = (Vec::new(), None);
    for pid in pids {
        let look = || {
            let process = Process::new(pid)?;
            let is_named = process.stat()?.comm == comm;
            Ok(is_named && (args.comm.is_some() || trust::is_believed(&process, comm)))
        };
        match processes::still(look()) {
            Ok(Some(true)) => named.push(pid.cast_unsigned()),
            // Who has gone meanwhile is connected to nobody.
            Ok(_) => {}
            Err(error) => unseen = unseen.or(Some((pid, error))),
        }
    }
    if let Some((pid, error)) = unseen {
        crate::notice!(
            "process {pid}, for one, cannot be looked at ({error}): if it is {comm}, a listener counts as its own once it connects"
        );
    }
    let held = held_sockets(named).unwrap_or_else(|error| {
        crate::notice!("{error}: a listener counts as {comm}'s once that connects to it");
        Vec::new()
    });
    held.iter()
        .filter(|socket| matches!(socket.local.family, FAMILY_INET | FAMILY_INET6))
        .filter(|socket| socket.state != tcp_state::LISTEN && i32::from(socket.kind) == libc::SOCK_STREAM)
        .map(|socket| (socket.netns, Upstream::Inet(address(&socket.remote))))
        .collect()
}

/// Whether this is where a listener is; a port alone stands for all addresses.
pub(super) fn is_same(configured: &Upstream, listener: &Upstream) -> bool {
    match (configured, listener) {
        (Upstream::Inet(a), Upstream::Inet(b)) => {
            // Whether a port alone means all IPv4 or all IPv6 addresses is the program's to say.
            a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() && b.ip().is_unspecified())
        }
        _ => configured == listener,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_answers_for_each() {
        let all = Upstream::Inet("0.0.0.0:9000".parse().unwrap());
        let one = Upstream::Inet("127.0.0.1:9000".parse().unwrap());
        assert!(takes(&"127.0.0.1:9000".parse().unwrap(), &all));
        assert!(takes(&":9000".parse().unwrap(), &one));
        assert!(!takes(&"127.0.0.2:9000".parse().unwrap(), &one));
        assert!(!takes(&"/run/a.sock".parse().unwrap(), &one));
    }
}
