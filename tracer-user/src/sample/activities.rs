//! What is known of the slow exchanges that have not been emitted yet.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use wire::NginxEnd;

use super::{Activity, Doing, Found, Look, Target};
use crate::model::{budget, doing::Name};

/// How long the looks at an exchange are kept after the last one, in ns. One that is open is looked at about once a second; the
/// ledger waits for less than this, and what is never emitted ended well.
const KEPT_NS: u64 = 60_000_000_000;

/// Room for what they wait for, in bytes. That every one of them waits for a server of its own takes a tenth.
const MOST_BYTES: usize = 16 << 20;

/// What keeping one target takes on top of it, in bytes.
const OVERHEAD: usize = 64;

/// How many targets that find no room go by before it is looked for again.
const PATIENCE: u32 = 1_024;

/// Collects looks by exchange. Pure: the looks bear their own time.
#[derive(Debug, Default)]
pub struct Activities {
    kept: HashMap<Name, Kept>,
    targets: Targets,
    /// When those long gone were last forgotten.
    swept_ns: u64,
    /// Looks at exchanges that were left out, in whole or in part.
    left_out: u64,
}

#[derive(Debug)]
struct Kept {
    exchange: u32,
    activity: Activity,
}

/// What exchanges wait for, each kept once.
#[derive(Debug, Default)]
struct Targets {
    known: HashSet<Arc<Target>>,
    bytes: usize,
    /// So many more find no room before it is looked for again.
    patience: u32,
}

impl Activities {
    /// Takes in a look.
    pub fn add(&mut self, look: Look) {
        let Look { ns, pid: _, tid: _, doing, has_other_threads, exchanges } = look;
        if ns > self.swept_ns.saturating_add(KEPT_NS / 8) {
            self.swept_ns = ns;
            self.kept.retain(|_, kept| kept.activity.last_ns().saturating_add(KEPT_NS) > ns);
        }
        let found = match doing {
            Doing::Running => Found::Running,
            Doing::Waiting(target) => self.targets.kept(target).map_or(Found::WaitingUnkept, Found::Waiting),
        };
        if matches!(found, Found::WaitingUnkept) {
            self.left_out += exchanges.len() as u64;
        }
        for (name, exchange) in exchanges {
            let is_full = self.kept.len() == budget::SLOW_EXCHANGES;
            match self.kept.get_mut(&name) {
                Some(kept) if kept.exchange == exchange => {
                    kept.activity.add(ns, &found, has_other_threads);
                }
                None if is_full => self.left_out += 1,
                _ => {
                    let activity = Activity::new(ns, &found, has_other_threads);
                    self.kept.insert(name, Kept { exchange, activity });
                }
            }
        }
    }

    /// Hands over what was learnt of an exchange that has ended. None if it was not slow.
    pub fn take(&mut self, nginx: &NginxEnd) -> Option<Activity> {
        let kept = self.kept.remove(&(nginx.sock, nginx.connect_ns))?;
        (kept.exchange == nginx.exchange).then_some(kept.activity)
    }

    /// Looks at exchanges of which not all is kept, for want of room.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

impl Targets {
    /// The one that is kept for this; none if there is no room for it.
    fn kept(&mut self, target: Target) -> Option<Arc<Target>> {
        if let Some(known) = self.known.get(&target) {
            return Some(Arc::clone(known));
        }
        let bytes = target.bytes() + OVERHEAD;
        if self.bytes + bytes > MOST_BYTES {
            if self.patience > 0 {
                self.patience -= 1;
                return None;
            }
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.bytes = self.known.iter().map(|known| known.bytes() + OVERHEAD).sum();
            if self.bytes + bytes > MOST_BYTES {
                self.patience = PATIENCE;
                return None;
            }
        }
        self.bytes += bytes;
        let target = Arc::new(target);
        self.known.insert(Arc::clone(&target));
        Some(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::doing::{Doing, Target};

    fn look(ns: u64, exchanges: &[(Name, u32)]) -> Look {
        let (doing, exchanges) = (Doing::Waiting(Target::Lock), exchanges.to_vec());
        Look { ns, pid: 1, tid: 1, doing, has_other_threads: false, exchanges }
    }

    fn end(sock: u64, exchange: u32) -> NginxEnd {
        NginxEnd { sock, connect_ns: 70, exchange, ..NginxEnd::default() }
    }

    #[test]
    fn looks_are_kept_for_an_exchange_until_it_is_emitted_or_long_gone() {
        let mut activities = Activities::default();
        for ns in [1, 2] {
            activities.add(look(ns, &[((7, 70), 1), ((8, 70), 1)]));
        }
        let activity = activities.take(&end(7, 1)).unwrap();
        assert_eq!(activity.samples(), 2);
        assert_eq!(activity.waits(), [(&Target::Lock, 2)]);
        assert_eq!(activities.take(&end(7, 1)), None);
        activities.add(look(KEPT_NS, &[]));
        assert_eq!(activities.kept.len(), 1);
        activities.add(look(KEPT_NS * 2, &[]));
        assert_eq!(activities.kept.len(), 0);
    }

    #[test]
    fn the_next_exchange_on_a_connection_begins_anew() {
        let mut activities = Activities::default();
        activities.add(look(1, &[((7, 70), 1)]));
        assert_eq!(activities.take(&end(7, 2)), None);
        activities.add(look(2, &[((7, 70), 1)]));
        activities.add(look(3, &[((7, 70), 2)]));
        assert_eq!(activities.take(&end(7, 2)).unwrap().samples(), 1);
    }

    #[test]
    fn what_many_exchanges_wait_for_is_kept_once_and_within_its_room() {
        let mut activities = Activities::default();
        let all: Vec<_> = (0..budget::SLOW_EXCHANGES as u64).map(|sock| ((sock, 70), 1)).collect();
        let on = |number: u64| {
            let path = format!("/{number:04095}");
            Look { doing: Doing::Waiting(Target::File(path.into())), ..look(number, &all) }
        };
        activities.add(on(1));
        activities.add(on(1));
        assert_eq!(activities.targets.known.len(), 1);
        // Let go of what nobody waits for any more.
        for (name, exchange) in &all {
            let NginxEnd { sock, exchange, .. } = end(name.0, *exchange);
            assert!(activities.take(&end(sock, exchange)).is_some());
        }
        let one = all[0];
        for number in 0..2 * MOST_BYTES as u64 / 4_096 {
            activities.add(Look { exchanges: vec![((number, 70), one.1)], ..on(number) });
        }
        assert!(activities.targets.bytes <= MOST_BYTES && activities.left_out() > 0);
        let kept: usize = activities.targets.known.iter().map(|target| target.bytes()).sum();
        assert!(kept <= activities.targets.bytes);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut activities = Activities::default();
        for sock in 0..2 * budget::SLOW_EXCHANGES as u64 {
            activities.add(look(sock, &[((sock, 70), 1)]));
        }
        assert_eq!(
            (activities.kept.len(), activities.left_out()),
            (budget::SLOW_EXCHANGES, budget::SLOW_EXCHANGES as u64)
        );
    }
}
