//! Until when exchanges had a connection to their upstream over TCP, as far as records show: of those that failed or were late.

use std::net::SocketAddr;

use lru::LruCache;
use wire::NginxEnd;

use super::Exchange;
use crate::model::{budget, upstream::Upstream};

/// By the network namespace of nginx's and the address (ns, monotonic). Bounded: the one that was reached longest ago is forgotten.
#[derive(Debug)]
pub(super) struct Reached(LruCache<(u32, SocketAddr), u64>);

impl Default for Reached {
    fn default() -> Self {
        Self(LruCache::new(budget::REACHED))
    }
}

impl Reached {
    /// Until when others had a connection to the upstream of this one, where it has none; remembers it if it has.
    pub(super) fn take(&mut self, joined: &Exchange) -> Option<u64> {
        let Upstream::Inet(upstream) = joined.upstream() else { return None };
        let NginxEnd { netns, established_ns, last_received_ns, .. } = joined.nginx;
        if established_ns == 0 {
            return self.0.peek(&(netns, upstream)).copied();
        }
        let ns = established_ns.max(last_received_ns);
        let before = self.0.peek(&(netns, upstream)).copied().unwrap_or(0);
        self.0.put((netns, upstream), ns.max(before));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::samples::{at, connecting};

    fn exchange(port: u16, established_ms: u64) -> Exchange {
        let mut record = connecting(5_000, 0);
        record.nginx.upstream.port = port;
        record.nginx.established_ns = if established_ms == 0 { 0 } else { at(established_ms) };
        Exchange::new(&record)
    }

    #[test]
    fn the_latest_is_given_to_those_without_a_connection() {
        let mut reached = Reached::default();
        assert_eq!(reached.take(&exchange(80, 0)), None);
        for ms in [10, 30, 20] {
            assert_eq!(reached.take(&exchange(80, ms)), None);
        }
        assert_eq!(reached.take(&exchange(80, 0)), Some(at(30)));
        assert_eq!(reached.take(&exchange(81, 0)), None);
    }

    #[test]
    fn the_one_reached_longest_ago_is_forgotten() {
        let mut reached = Reached::default();
        let most = u16::try_from(budget::REACHED.get()).unwrap();
        for port in 1..most + 2 {
            reached.take(&exchange(port, port.into()));
        }
        assert_eq!(reached.0.len(), budget::REACHED.get());
        assert_eq!(reached.take(&exchange(1, 0)), None);
        assert!(reached.take(&exchange(2, 0)).is_some());
    }
}
