//! Which listeners are told.

use std::collections::HashSet;

use procfs::process::Process;
use tracer_ebpf::{FAMILY_INET, FAMILY_INET6, tcp_state};

use super::queue::Queue;
use crate::{
    args::{Backlog, UpstreamFilter},
    ledger::address,
    load::held_sockets,
    processes, trust,
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
