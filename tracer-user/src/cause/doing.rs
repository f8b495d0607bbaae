//! What the worker was found doing, as verdicts say it.

use super::signals;
use crate::{ledger::Exchange, model::verdict::Doing};

/// A sentence to be appended to one on the worker; empty for an exchange that was not looked at.
pub(super) fn it(exchange: &Exchange) -> String {
    sentence(exchange, "it")
}

/// A sentence to be appended to one on something else.
pub(super) fn the_worker(exchange: &Exchange) -> String {
    let worker = exchange.worker.as_ref().map(signals::worker_in_words);
    sentence(exchange, &format!("the {}", worker.as_deref().unwrap_or("worker")))
}

fn sentence(exchange: &Exchange, who: &str) -> String {
    exchange.activity.as_ref().map_or_else(String::new, |activity| format!(" {}", activity.sentence(who)))
}

/// What to look at, if it mostly did one thing.
pub(super) fn advice(exchange: &Exchange) -> Option<String> {
    exchange.activity.as_ref()?.advice()
}

/// The figures.
pub(super) fn found(exchange: &Exchange) -> Option<Doing> {
    let activity = exchange.activity.as_ref()?;
    let waits = activity.waits().into_iter().map(|(target, samples)| (target.to_string(), samples));
    Some(Doing { samples: activity.samples(), waits: waits.collect(), running: activity.running() })
}
