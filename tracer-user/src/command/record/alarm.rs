//! What makes the flight recorder write.

use std::{collections::VecDeque, time::Duration};

use crate::{args::Trigger, model::cause::Cause};

/// Watches for what was asked for, and holds it back until the window is full of news again.
#[derive(Debug)]
pub struct Alarm {
    watches: Vec<Watch>,
    hold_ns: u64,
    /// When it may ring again (ns, monotonic).
    free_ns: u64,
    /// It would have rung meanwhile, and why.
    held: Option<String>,
}

#[derive(Debug)]
struct Watch {
    trigger: Trigger,
    /// When the last failures were, at most as many as the trigger counts.
    failures: VecDeque<u64>,
}

impl Alarm {
    /// Rings at most once in `hold`.
    pub fn new(triggers: &[Trigger], hold: Duration) -> Self {
        let watch = |trigger: &Trigger| Watch { trigger: trigger.clone(), failures: VecDeque::new() };
        Self {
            watches: triggers.iter().map(watch).collect(),
            hold_ns: u64::try_from(hold.as_nanos()).unwrap_or(u64::MAX),
            free_ns: 0,
            held: None,
        }
    }

    /// A failure at `ns` (monotonic).
    pub fn failure(&mut self, ns: u64, cause: Cause) {
        for Watch { trigger, failures } in &mut self.watches {
            let rings = match trigger {
                Trigger::Cause(causes) => causes.contains(&cause),
                Trigger::Failures { count, within } => {
                    failures.push_back(ns);
                    let count = usize::try_from(count.get()).unwrap_or(usize::MAX);
                    if failures.len() > count {
                        failures.pop_front();
                    }
                    let since = failures.front().map_or(0, |first| ns.saturating_sub(*first));
                    failures.len() == count && u128::from(since) <= within.as_nanos()
                }
            };
            if rings {
                self.held.get_or_insert_with(|| trigger.to_string());
                failures.clear();
            }
        }
    }

    /// Whether it rings at `now` (ns, monotonic), and why.
    pub fn rings(&mut self, now: u64) -> Option<String> {
        if now < self.free_ns {
            return None;
        }
        let why = self.held.take()?;
        self.free_ns = now.saturating_add(self.hold_ns);
        Some(why)
    }

    /// When it rings next (ns, monotonic), if it is held back.
    pub fn wake_ns(&self) -> Option<u64> {
        self.held.as_ref().map(|_| self.free_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn so_many_failures_within_a_time_ring_once() {
        let mut alarm = Alarm::new(&["failures>=3/2s".parse().unwrap()], Duration::from_secs(60));
        for ns in [0, SECOND, 3 * SECOND, 6 * SECOND] {
            alarm.failure(ns, Cause::RefusedNoListener);
            assert_eq!(alarm.rings(ns), None);
        }
        alarm.failure(7 * SECOND, Cause::RefusedNoListener);
        alarm.failure(8 * SECOND, Cause::RefusedNoListener);
        assert_eq!(alarm.rings(8 * SECOND).as_deref(), Some("3 failures within 2 s"));
        assert_eq!(alarm.rings(8 * SECOND), None);
    }

    #[test]
    fn what_rings_again_is_held_back_and_not_forgotten() {
        let mut alarm = Alarm::new(&["cause=refused".parse().unwrap()], Duration::from_secs(60));
        alarm.failure(1, Cause::ResetWorkerKilled);
        assert_eq!(alarm.rings(1), None);
        alarm.failure(2, Cause::RefusedNoListener);
        assert!(alarm.rings(2).is_some());
        alarm.failure(3, Cause::RefusedNoListener);
        assert_eq!((alarm.rings(3), alarm.wake_ns()), (None, Some(60 * SECOND + 2)));
        assert!(alarm.rings(60 * SECOND + 2).is_some());
    }
}
