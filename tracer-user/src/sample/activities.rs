//! What is known of the slow exchanges that have not been told yet.

use std::collections::HashMap;

use tracer_ebpf::NginxEnd;

use super::{Activity, Look, Name};
use crate::budget;

/// How long the looks at an exchange are kept after the last one, in ns. One that is open is looked at about once a second; the
/// ledger waits for less than this, and what is never told ended well.
const KEPT_NS: u64 = 60_000_000_000;

/// Collects looks by exchange. Pure: the looks bear their own time.
#[derive(Debug, Default)]
pub struct Activities {
    kept: HashMap<Name, Kept>,
    /// When those long gone were last forgotten.
    swept_ns: u64,
    left_out: u64,
}

#[derive(Debug)]
struct Kept {
    exchange: u32,
    activity: Activity,
}

impl Activities {
    /// Takes in a look.
    pub fn add(&mut self, look: &Look) {
        let Look { ns, doing, has_other_threads, exchanges, .. } = look;
        if *ns > self.swept_ns.saturating_add(KEPT_NS / 8) {
            self.swept_ns = *ns;
            self.kept.retain(|_, kept| kept.activity.last_ns().saturating_add(KEPT_NS) > *ns);
        }
        for (name, exchange) in exchanges {
            let is_full = self.kept.len() == budget::SLOW_EXCHANGES;
            match self.kept.get_mut(name) {
                Some(kept) if kept.exchange == *exchange => {
                    kept.activity.add(*ns, doing.clone(), *has_other_threads);
                }
                None if is_full => self.left_out += 1,
                _ => {
                    let activity = Activity::new(*ns, doing.clone(), *has_other_threads);
                    self.kept.insert(*name, Kept { exchange: *exchange, activity });
                }
            }
        }
    }

    /// How many looks found no room.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Hands over what was learnt of an exchange that has ended. None if it was not slow.
    pub fn take(&mut self, nginx: &NginxEnd) -> Option<Activity> {
        let kept = self.kept.remove(&(nginx.sock, nginx.connect_ns))?;
        (kept.exchange == nginx.exchange).then_some(kept.activity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Doing, Target};

    fn look(ns: u64, exchanges: &[(Name, u32)]) -> Look {
        let (doing, exchanges) = (Doing::Waiting(Target::Lock), exchanges.to_vec());
        Look { ns, pid: 1, tid: 1, doing, has_other_threads: false, exchanges }
    }

    fn end(sock: u64, exchange: u32) -> NginxEnd {
        NginxEnd { sock, connect_ns: 70, exchange, ..NginxEnd::default() }
    }

    #[test]
    fn looks_are_kept_for_an_exchange_until_it_is_told_or_long_gone() {
        let mut activities = Activities::default();
        for ns in [1, 2] {
            activities.add(&look(ns, &[((7, 70), 1), ((8, 70), 1)]));
        }
        let activity = activities.take(&end(7, 1)).unwrap();
        assert_eq!(activity.samples(), 2);
        assert_eq!(activity.waits(), [(&Target::Lock, 2)]);
        assert_eq!(activities.take(&end(7, 1)), None);
        activities.add(&look(KEPT_NS, &[]));
        assert_eq!(activities.kept.len(), 1);
        activities.add(&look(KEPT_NS * 2, &[]));
        assert_eq!(activities.kept.len(), 0);
    }

    #[test]
    fn the_next_exchange_on_a_connection_begins_anew() {
        let mut activities = Activities::default();
        activities.add(&look(1, &[((7, 70), 1)]));
        assert_eq!(activities.take(&end(7, 2)), None);
        activities.add(&look(2, &[((7, 70), 1)]));
        activities.add(&look(3, &[((7, 70), 2)]));
        assert_eq!(activities.take(&end(7, 2)).unwrap().samples(), 1);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut activities = Activities::default();
        for sock in 0..2 * budget::SLOW_EXCHANGES as u64 {
            activities.add(&look(sock, &[((sock, 70), 1)]));
        }
        assert_eq!(activities.kept.len(), budget::SLOW_EXCHANGES);
    }
}
