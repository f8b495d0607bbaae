//! The exchanges that are open, as the kernel side's maps hold them.

use std::net::SocketAddr;

use aya::maps::{HashMap, MapData};
use wire::{OpenExchange, nginx_flag};

use super::shares::{Place, Shares};
use crate::model::{doing::Served, from_wire::address};

/// Looks into the map of open exchanges; the kernel side goes on writing it meanwhile.
pub struct Open {
    pub(super) exchanges: HashMap<MapData, u64, OpenExchange>,
    /// By the worker's socket, those whose place was taken.
    pub(super) aliases: HashMap<MapData, u64, u64>,
    /// Entries that fit into each.
    pub(super) max_open: u32,
    pub(super) shares: Shares,
}

impl Open {
    /// The exchanges that began before a moment (ns, monotonic) and that a worker on this host has taken up; and whether nginx waits for an
    /// answer in any that did, taken up or not.
    ///
    /// What begins or ends while the map is walked may be missed: it is the slow ones that this is for.
    pub fn served_since(&mut self, moment_ns: u64) -> (Vec<Served>, bool) {
        let mut is_any_waiting = false;
        // When an entry goes while the walk stands on it, the kernel begins anew: the walk must end nonetheless.
        let most = usize::try_from(self.max_open).unwrap_or(usize::MAX).saturating_mul(2);
        let mut places = Vec::new();
        let entries = self.exchanges.iter().take(most).flatten();
        let mut served: Vec<_> = entries
            .filter_map(|(_, OpenExchange { nginx, worker, .. })| {
                if nginx.sock != 0 {
                    places.push(Place::from(&nginx));
                }
                let since_ns = nginx.first_sent_ns.max(nginx.connect_ns);
                // In a session of `stream {}` nobody waits for an answer.
                let may_be_slow = since_ns != 0 && nginx.flags & nginx_flag::STREAM == 0;
                let is_old = may_be_slow && since_ns < moment_ns;
                is_any_waiting |= is_old && nginx.flags & nginx_flag::READ_LAST == 0;
                (is_old && worker.accepted_ns != 0 && worker.ended_ns == 0).then_some(Served {
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
        places.sort_unstable_by_key(|place| place.sock);
        places.dedup_by_key(|place| place.sock);
        let mut given_up = 0;
        for Place { sock, worker_sock, .. } in self.shares.look(&places, most / 2) {
            // One that has ended meanwhile was emitted.
            given_up += u64::from(self.exchanges.remove(&sock).is_ok());
            // The kernel side forgets it anyway when it ends.
            let _gone = self.aliases.remove(&worker_sock);
        }
        self.shares.count(given_up);
        served.sort_unstable_by_key(|served| served.name);
        served.dedup_by_key(|served| served.name);
        (served, is_any_waiting)
    }
}

/// IPv4 as IPv4, also on a socket that was made for IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
