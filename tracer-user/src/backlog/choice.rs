//! Which listeners are told.

use std::collections::HashSet;

use procfs::{
    net::TcpState,
    process::{FDTarget, all_processes},
};

use super::queue::Queue;
use crate::{
    args::{Backlog, UpstreamFilter},
    trust,
    verdict::Upstream,
};

/// Which listeners are told.
#[derive(Debug)]
pub(super) enum Choice {
    /// All of them.
    All,
    /// Those that were asked for.
    These(Vec<UpstreamFilter>),
    /// Those that nginx connects to, or was connected to at the start.
    Nginx(HashSet<(u32, Upstream)>),
}

impl Choice {
    /// What the command line asks for.
    pub fn new(args: &Backlog) -> Self {
        match (args.all, &args.listeners[..]) {
            (true, _) => Self::All,
            (false, []) => Self::Nginx(connected(args)),
            (false, filters) => Self::These(filters.to_vec()),
        }
    }

    /// Whether a listener is told.
    pub fn has(&self, queue: &Queue) -> bool {
        match self {
            Self::All => true,
            Self::These(filters) => filters.iter().any(|filter| takes(filter, &queue.addr)),
            Self::Nginx(connected) => {
                queue.by_nginx
                    || connected
                        .iter()
                        .any(|(netns, peer)| *netns == queue.netns && answers(&queue.addr, peer))
            }
        }
    }
}

/// Whether a listener answers for what was asked for: one on all addresses answers for each.
fn takes(filter: &UpstreamFilter, listener: &Upstream) -> bool {
    match filter {
        UpstreamFilter::Address(wanted) => answers(listener, &Upstream::Inet(*wanted)),
        UpstreamFilter::Port(_) | UpstreamFilter::Unix(_) => filter.matches(listener),
    }
}

fn answers(listener: &Upstream, peer: &Upstream) -> bool {
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
    let mut peers = HashSet::new();
    for process in all_processes().into_iter().flatten().flatten() {
        if !process.stat().is_ok_and(|stat| stat.comm == args.comm())
            || args.comm.is_none() && !trust::is_believed(&process, args.comm())
        {
            continue;
        }
        let netns = process
            .namespaces()
            .ok()
            .and_then(|all| Some(all.0.get(std::ffi::OsStr::new("net"))?.identifier));
        let Some(netns) = netns.and_then(|netns| u32::try_from(netns).ok()) else { continue };
        let inodes: HashSet<u64> = process
            .fd()
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|descriptor| match descriptor.target {
                FDTarget::Socket(inode) => Some(inode),
                _ => None,
            })
            .collect();
        let entries = process.tcp().unwrap_or_default().into_iter().chain(process.tcp6().unwrap_or_default());
        let peers_of_it = entries
            .filter(|entry| entry.state != TcpState::Listen && inodes.contains(&entry.inode))
            .map(|entry| (netns, Upstream::Inet(entry.remote_address)));
        peers.extend(peers_of_it);
    }
    peers
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
