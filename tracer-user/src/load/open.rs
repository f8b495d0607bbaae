//! The exchanges that are open, as the kernel side's maps hold them.

use std::net::SocketAddr;

use aya::maps::{HashMap, MapData};
use tracer_ebpf::{OpenExchange, WorkerEnd, nginx_flag};

use crate::{ledger::address, sample::Served};

/// Looks into the maps of open exchanges; the kernel side goes on writing them meanwhile.
#[derive(Debug)]
pub struct Open {
    pub(super) exchanges: HashMap<MapData, u64, OpenExchange>,
    pub(super) workers: HashMap<MapData, u64, WorkerEnd>,
    /// Entries that fit into each.
    pub(super) max_open: u32,
}

impl Open {
    /// The exchanges that began before a moment (ns, monotonic) and that a worker on this host has taken up.
    ///
    /// What begins or ends while the map is walked may be missed: it is the slow ones that this is for.
    pub fn served_since(&self, moment_ns: u64) -> Vec<Served> {
        // When an entry goes while the walk stands on it, the kernel begins anew: the walk must end nonetheless.
        let most = usize::try_from(self.max_open).unwrap_or(usize::MAX).saturating_mul(2);
        let old = self.exchanges.iter().take(most).flatten().filter_map(|(_, OpenExchange { nginx, .. })| {
            let since_ns = nginx.first_sent_ns.max(nginx.connect_ns);
            (nginx.worker_sock != 0 && since_ns != 0 && since_ns < moment_ns).then_some((nginx, since_ns))
        });
        let mut served: Vec<_> = old
            .filter_map(|(nginx, since_ns)| {
                let worker = self.workers.get(&nginx.worker_sock, 0).ok()?;
                let is_its_worker = worker.nginx_sock == nginx.sock && worker.connect_ns == nginx.connect_ns;
                (is_its_worker && worker.accepted_ns != 0).then_some(Served {
                    name: (nginx.sock, nginx.connect_ns),
                    exchange: nginx.exchange,
                    since_ns,
                    is_answered: nginx.flags & nginx_flag::READ_LAST != 0,
                    pid: i32::try_from(worker.worker.tgid).ok()?,
                    tid: i32::try_from(worker.worker.tid).ok()?,
                    local: (worker.local.port != 0).then(|| canonical(address(&worker.local))),
                })
            })
            .collect();
        served.sort_unstable_by_key(|served| served.name);
        served.dedup_by_key(|served| served.name);
        served
    }
}

/// IPv4 as IPv4, also on a socket that was made for IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
