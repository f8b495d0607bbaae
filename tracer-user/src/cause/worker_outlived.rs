//! What became of a worker after nginx gave its exchange up.

use super::{WallClock, signals};
use crate::{
    ledger,
    model::{
        cgroup::Places,
        verdict::{Process, WorkerOutlived},
        words::span,
    },
};

/// Says how long the worker went on for nobody.
pub fn worker_outlived(end: &ledger::WorkerOutlived, clock: &dyn WallClock) -> WorkerOutlived {
    let worker = &end.worker;
    let went_on_ns = worker.ended_ns.saturating_sub(worker.abandoned_ns);
    let accepted_late = worker.accepted_ns > worker.abandoned_ns;
    let who = if worker.accepted_ns == 0 {
        "nobody".to_owned()
    } else {
        format!("the {}", signals::worker_in_words(worker))
    };
    let explanation = if accepted_late {
        format!(
            "{} after nginx had given up, {who} took the request up all the same and worked on it for {}, for nobody.",
            span(worker.accepted_ns - worker.abandoned_ns),
            span(worker.ended_ns.saturating_sub(worker.accepted_ns)),
        )
    } else if worker.accepted_ns == 0 {
        format!(
            "The connection left the accept queue {} after nginx had given up; nobody took it up.",
            span(went_on_ns)
        )
    } else {
        format!("After nginx had given up, {who} went on for {}, for nobody.", span(went_on_ns))
    };
    WorkerOutlived {
        unix_ns: clock.unix_ns(worker.ended_ns),
        nginx: end.nginx,
        local: end.local,
        upstream: end.upstream.clone(),
        worker: (worker.accepted_ns != 0)
            .then(|| crate::model::from_wire::process(&worker.worker))
            .or_else(|| (worker.error == 0).then(|| crate::model::from_wire::process(&worker.closer)))
            .filter(|Process { pid, .. }| *pid != 0),
        went_on_us: went_on_ns / 1_000,
        accepted_late,
        places: Places::default(),
        explanation,
    }
}
