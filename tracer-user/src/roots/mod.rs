//! What lies behind many failures at once.

use std::collections::BTreeMap;

use crate::model::{cause::Cause, upstream::Upstream, words::count};

mod kinds;

pub use kinds::{Kind, Kinds, MOST_KINDS, MOST_TEXT};

/// One cause of many failures, in a sentence or two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// How many failures it is behind.
    pub failures: u64,
    /// What it is.
    pub sentence: String,
}

/// The roots, that of the most failures first. A single failure needs none.
pub fn of(kinds: &Kinds) -> Vec<Root> {
    let mut by_upstream = BTreeMap::<&Upstream, Vec<(Cause, &Kind)>>::new();
    for ((cause, upstream), kind) in kinds.iter() {
        by_upstream.entry(upstream).or_default().push((*cause, kind));
    }
    let mut roots: Vec<_> = by_upstream
        .iter()
        .flat_map(|(upstream, kinds)| {
            [busy(upstream, kinds), killed(upstream, kinds), nobody(upstream, kinds)]
        })
        .flatten()
        .filter(|root| root.failures > 1)
        .collect();
    roots.sort_by_key(|root| std::cmp::Reverse(root.failures));
    roots
}

fn sum(kinds: &[(Cause, &Kind)], of: impl Fn(Cause) -> bool) -> u64 {
    kinds.iter().filter(|(cause, _)| of(*cause)).map(|(_, kind)| kind.count).sum()
}

/// One pool of workers, all of them busy, is behind whatever waits for them.
fn busy(upstream: &Upstream, kinds: &[(Cause, &Kind)]) -> Option<Root> {
    let slow = sum(kinds, |cause| cause == Cause::TimeoutSlowWorker);
    let queued = sum(kinds, |cause| cause == Cause::TimeoutNeverAccepted);
    let kept_out = sum(kinds, |cause| cause.cause() == "accept_queue_overflow");
    if queued + kept_out == 0 {
        return None;
    }
    let waiting = |number: u64, what: &str| match number {
        0 => None,
        1 => Some(format!("one {what}")),
        number => Some(format!("{number} {what}")),
    };
    let parts: Vec<_> = [
        waiting(queued, "waited in its accept queue until nginx gave up"),
        waiting(kept_out, "found that queue full"),
        waiting(slow, "had a worker that was too slow"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let slow_kind = kinds.iter().find(|(cause, _)| *cause == Cause::TimeoutSlowWorker).map(|(_, kind)| *kind);
    let on = slow_kind.and_then(|kind| kind.waits.iter().max_by_key(|(_, times)| **times));
    let on = on.map_or_else(String::new, |(on, _)| format!(" What its slow workers waited for most: {on}."));
    Some(Root {
        failures: slow + queued + kept_out,
        sentence: format!(
            "The worker pool on {upstream}, which could not keep up: of {}, {}.{on}",
            count(slow + queued + kept_out, "failure"),
            parts.join(", ")
        ),
    })
}

/// One process that kills workers.
fn killed(upstream: &Upstream, kinds: &[(Cause, &Kind)]) -> Option<Root> {
    let mut killers = BTreeMap::<&str, u64>::new();
    let mut victims = 0;
    for (_, kind) in kinds {
        for (killer, times) in &kind.killers {
            *killers.entry(killer).or_default() += times;
        }
        victims += if kind.killers.is_empty() { 0 } else { kind.workers.len() };
    }
    let (killer, failures) = killers.into_iter().max_by_key(|(_, times)| *times)?;
    Some(Root {
        failures,
        sentence: format!(
            "{killer} sent the signals that ended {} of {upstream} in the middle of {}.",
            count(victims as u64, "worker"),
            count(failures, "exchange")
        ),
    })
}

/// Nobody there.
fn nobody(upstream: &Upstream, kinds: &[(Cause, &Kind)]) -> Option<Root> {
    let failures = sum(kinds, |cause| cause.cause() == "refused");
    (failures > 0).then(|| Root {
        failures,
        sentence: format!(
            "Nobody answered at {upstream}: {} refused.",
            match failures {
                1 => "one connection was".to_owned(),
                many => format!("{many} connections were"),
            }
        ),
    })
}
