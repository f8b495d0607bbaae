//! After how long an upstream closed idle connections on which nginx had just sent a request: a timer of the upstream's shows in that.

use std::collections::VecDeque;

use lru::LruCache;

use super::Exchange;
use crate::model::{budget, upstream::Upstream, verdict::Alike};

/// Idle times that differ by no more than this part of them have the same cause.
const ALIKE_PART: u64 = 10;

/// As little as this differs anything that waits for a turn of an event loop (ns).
const ALIKE_NS: u64 = 100_000_000;

/// Closes that all happen within this time may have one cause of their own, whatever the idle times (ns).
const AT_ONCE_NS: u64 = 1_000_000_000;

/// The last such closes of each upstream. Bounded: the one that closed none for the longest time is forgotten.
#[derive(Debug)]
pub(super) struct IdleCloses(LruCache<Upstream, VecDeque<Close>>);

impl Default for IdleCloses {
    fn default() -> Self {
        Self(LruCache::new(budget::IDLE_CLOSERS))
    }
}

#[derive(Clone, Copy, Debug)]
struct Close {
    at_ns: u64,
    idle_ns: u64,
}

impl Close {
    /// Of what closed by itself: a process that exits closes all that it has.
    fn of(exchange: &Exchange) -> Option<Self> {
        let is_exit = exchange.worker.is_some_and(|worker| worker.exiting != 0);
        let idle_ns = exchange.idle_at_close_ns().filter(|_| !is_exit)?;
        Some(Self { at_ns: exchange.nginx.idle_since_ns.saturating_add(idle_ns), idle_ns })
    }

    fn is_like(self, other: Self) -> bool {
        self.idle_ns.abs_diff(other.idle_ns) <= (self.idle_ns / ALIKE_PART).max(ALIKE_NS)
    }
}

impl IdleCloses {
    /// Remembers how the upstream closed the connection of this exchange, which was stale.
    pub(super) fn put(&mut self, exchange: &Exchange) {
        let Some(close) = Close::of(exchange) else { return };
        let closes = self.0.get_or_insert_mut(exchange.upstream(), VecDeque::new);
        if closes.len() == budget::IDLE_CLOSES {
            closes.pop_front();
        }
        closes.push_back(close);
    }

    /// How many of the closes before and this one came after about the same idle time. None of a connection's first exchange.
    pub(super) fn alike(&self, exchange: &Exchange) -> Option<Alike> {
        let this = Close::of(exchange)?;
        let before = self.0.peek(&exchange.upstream());
        let mut alike = vec![this];
        if let Some(before) = before {
            alike.extend(before.iter().filter(|close| this.is_like(**close)));
        }
        let moments = || alike.iter().map(|close| close.at_ns);
        let spread_ns = moments().max().unwrap_or(0).saturating_sub(moments().min().unwrap_or(0));
        Some(Alike {
            closes: count(before.map_or(0, VecDeque::len) + 1),
            alike: count(alike.len()),
            are_spread: spread_ns > AT_ONCE_NS,
        })
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::samples::{at, given_up};

    fn closed(since_ms: u64, after_ms: u64) -> Exchange {
        let mut record = given_up(0);
        record.nginx.idle_since_ns = at(since_ms);
        record.nginx.first_sent_ns = at(since_ms + after_ms);
        record.worker.ended_ns = at(since_ms + after_ms);
        Exchange::new(&record)
    }

    fn alike(closes: &IdleCloses, exchange: &Exchange) -> (u32, u32, bool) {
        let Alike { closes, alike, are_spread } = closes.alike(exchange).unwrap();
        (closes, alike, are_spread)
    }

    #[test]
    fn closes_after_the_same_idle_time_are_counted() {
        let mut closes = IdleCloses::default();
        for since in [0, 7_000, 20_000] {
            closes.put(&closed(since, 5_000));
        }
        assert_eq!(alike(&closes, &closed(30_000, 5_030)), (4, 4, true));
        assert_eq!(alike(&closes, &closed(30_000, 2_000)), (4, 1, false));
    }

    #[test]
    fn closes_at_one_moment_are_not_spread() {
        let mut closes = IdleCloses::default();
        closes.put(&closed(0, 5_000));
        closes.put(&closed(10, 4_990));
        assert_eq!(alike(&closes, &closed(20, 4_980)), (3, 3, false));
    }

    #[test]
    fn an_exit_shows_no_timer_and_no_more_is_kept_than_there_is_room_for() {
        let mut closes = IdleCloses::default();
        let mut exit = closed(0, 5_000);
        exit.worker.as_mut().unwrap().exiting = 1;
        closes.put(&exit);
        assert!(closes.0.is_empty() && closes.alike(&exit).is_none());
        for port in 0..u16::try_from(budget::IDLE_CLOSERS.get()).unwrap() + 9 {
            let mut close = closed(0, 5_000);
            close.nginx.upstream.port = port + 1;
            for _ in 0..3 {
                closes.put(&close);
            }
        }
        assert_eq!(closes.0.len(), budget::IDLE_CLOSERS.get());
    }
}
