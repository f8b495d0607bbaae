//! The readings of late, and what came between two of them.

use std::collections::VecDeque;

use super::{Group, GroupPressure, Pressure, Quota, Reading, Stall, Stalls};

/// Readings that are kept: of an hour in which nginx waits for somebody all the time.
const MOST: usize = 4_096;

/// Bytes of them: control groups are many on few hosts.
const MOST_BYTES: usize = 4 << 20;

/// How long after an exchange's end a reading may be, in ns: the record of it has to come first.
const LATE_NS: u64 = 100_000_000;

/// Keeps readings. Pure: it holds what the stream said.
#[derive(Debug, Default)]
pub struct Readings {
    kept: VecDeque<Reading>,
    bytes: usize,
}

impl Readings {
    /// Takes in a reading.
    pub fn add(&mut self, reading: Reading) {
        // Replayed ones are anybody's.
        if self.kept.back().is_some_and(|last| last.ns > reading.ns) {
            return;
        }
        self.bytes += bytes(&reading);
        self.kept.push_back(reading);
        while self.kept.len() > MOST || self.bytes > MOST_BYTES {
            let Some(oldest) = self.kept.pop_front() else { break };
            self.bytes -= bytes(&oldest);
        }
    }

    /// What came between the first and the last reading within this time (ns, monotonic), if they cover half of it. `pid` is the worker.
    pub fn between(&self, begin_ns: u64, end_ns: u64, pid: Option<u32>) -> Option<Pressure> {
        let within = || {
            let until_ns = end_ns.saturating_add(LATE_NS);
            self.kept.iter().filter(move |reading| reading.ns >= begin_ns && reading.ns <= until_ns)
        };
        let half_ns = end_ns.saturating_sub(begin_ns) / 2;
        let covers = |first: u64, last: u64| last > first && last - first >= half_ns;
        let (first, last) = (within().next()?, within().next_back()?);
        if !covers(first.ns, last.ns) {
            return None;
        }
        let of = |reading: &'_ Reading| -> Option<(u64, Group)> {
            let group =
                reading.groups.iter().find(|group| pid.is_some_and(|pid| group.pids.contains(&pid)))?;
            Some((reading.ns, group.clone()))
        };
        let group = within().find_map(of).zip(within().rev().find_map(of));
        let group = group.filter(|((first_ns, first), (last_ns, last))| {
            covers(*first_ns, *last_ns) && first.path == last.path
        });
        Some(Pressure {
            us: (last.ns - first.ns) / 1_000,
            host: stalls(&first.host, &last.host),
            running: within().filter_map(|reading| reading.running).max(),
            cpus: last.cpus,
            group: group.map(|((first_ns, first), (last_ns, last))| GroupPressure {
                us: (last_ns - first_ns) / 1_000,
                stalls: stalls(&first.stalls, &last.stalls),
                quota: quota(&first.quotas, &last.quotas),
                path: last.path,
            }),
        })
    }
}

fn bytes(reading: &Reading) -> usize {
    let of = |group: &Group| {
        let quotas = group.quotas.iter().map(|quota| size_of::<Quota>() + quota.path.len());
        size_of::<Group>() + group.path.len() + 4 * group.pids.len() + quotas.sum::<usize>()
    };
    size_of::<Reading>() + reading.groups.iter().map(of).sum::<usize>()
}

fn stalls(first: &Stalls, last: &Stalls) -> Stalls {
    let figure = |first: Option<u64>, last: Option<u64>| Some(last?.saturating_sub(first?));
    let stall = |first: Stall, last: Stall| Stall {
        some: figure(first.some, last.some),
        full: figure(first.full, last.full),
    };
    Stalls {
        cpu: stall(first.cpu, last.cpu),
        io: stall(first.io, last.io),
        memory: stall(first.memory, last.memory),
    }
}

/// What held the group back for longest. A quota that showed first in between had held nobody back before.
fn quota(first: &[Quota], last: &[Quota]) -> Option<Quota> {
    let since = |quota: &Quota| {
        let none = Quota::default();
        let before = first.iter().find(|before| before.path == quota.path).unwrap_or(&none);
        Quota {
            path: quota.path.clone(),
            throttled_us: quota.throttled_us.saturating_sub(before.throttled_us),
            throttled: quota.throttled.saturating_sub(before.throttled),
            periods: quota.periods.saturating_sub(before.periods),
        }
    };
    last.iter().map(since).filter(|quota| quota.periods > 0).max_by_key(|quota| quota.throttled_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn reading(at_s: u64, throttled_us: u64, periods: u64) -> Reading {
        let quota = Quota { path: "/a".to_owned(), throttled_us, throttled: periods, periods };
        let group = Group { pids: vec![7], path: "/a".to_owned(), quotas: vec![quota], ..Group::default() };
        let cpu = Stall { some: Some(at_s * 100), full: None };
        Reading {
            ns: at_s * SECOND,
            host: Stalls { cpu, ..Stalls::default() },
            running: Some(3),
            cpus: Some(2),
            groups: vec![group],
        }
    }

    #[test]
    fn the_figures_are_of_the_exchanges_own_time() {
        let mut readings = Readings::default();
        for at_s in 1..=10 {
            readings.add(reading(at_s, at_s * 900_000, at_s * 10));
        }
        let pressure = readings.between(SECOND * 3 + 1, SECOND * 8 - SECOND / 2, Some(7)).unwrap();
        assert_eq!((pressure.us, pressure.host.cpu.some, pressure.running), (3_000_000, Some(300), Some(3)));
        let group = pressure.group.unwrap();
        let quota = group.quota.unwrap();
        assert_eq!(
            (group.us, quota.throttled_us, quota.throttled, quota.periods),
            (3_000_000, 2_700_000, 30, 30)
        );
        assert_eq!(readings.between(SECOND * 3, SECOND * 8, Some(8)).unwrap().group, None);
        assert_eq!(readings.between(SECOND * 3, SECOND * 8, None).unwrap().group, None);
    }

    #[test]
    fn what_does_not_cover_half_of_it_is_no_figure() {
        let mut readings = Readings::default();
        assert_eq!(readings.between(0, SECOND, None), None);
        readings.add(reading(5, 0, 1));
        readings.add(reading(6, 0, 2));
        assert_eq!(readings.between(SECOND, 7 * SECOND, None), None);
        assert!(readings.between(5 * SECOND, 7 * SECOND, None).is_some());
        assert_eq!(readings.between(7 * SECOND, 8 * SECOND, None), None);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut readings = Readings::default();
        for at_s in 0..2 * MOST as u64 {
            readings.add(reading(at_s, 0, 1));
        }
        assert!(readings.kept.len() <= MOST && readings.bytes <= MOST_BYTES);
        let kept: usize = readings.kept.iter().map(bytes).sum();
        assert_eq!(kept, readings.bytes);
        // What would go back in time is no reading.
        readings.add(reading(1, 0, 1));
        assert_eq!(readings.kept.back().unwrap().ns, (2 * MOST as u64 - 1) * SECOND);
    }
}
