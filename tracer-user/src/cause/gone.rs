//! A worker that died while another process held its connection on: a child that had inherited the descriptor, mostly. The connection then ends
//! with that process, or nginx stops waiting before.

use wire::WorkerEnd;

use super::{Cause, Finding, signals, stopped};
use crate::{
    ledger::Exchange,
    model::{
        from_wire::comm,
        verdict::Process,
        words::{sentence, span},
    },
};

const INHERITED: &str = "whatever it starts (exec(), proc_open(), a background command) inherits the connection to nginx, which stays \
                         open until the last of them ends: give such a command its descriptors closed (`setsid cmd 0<&- 3>&- ...`, or a \
                         queue in its place).";

/// The worker's end as it would have been, had its connection ended with the worker: it died, of this signal.
pub(super) fn of(exchange: &Exchange) -> Option<WorkerEnd> {
    let worker = exchange.worker.as_ref()?;
    let gone = &exchange.stops.gone;
    // A worker that closed the connection itself did not leave it to others.
    let is_before = gone.ns != 0 && (worker.ended_ns == 0 || worker.closer.tgid != worker.worker.tgid);
    is_before.then_some(WorkerEnd {
        exiting: 1,
        exit_code: gone.exit_code,
        closer: worker.worker,
        signal: gone.signal,
        ..*worker
    })
}

/// The worker's end with who died and of what, wherever the connection went from there.
pub(super) fn or_worker(exchange: &Exchange) -> Option<WorkerEnd> {
    of(exchange).or(exchange.worker)
}

/// nginx stopped waiting for a worker that was no more.
pub(super) fn timeout(exchange: &Exchange, waited: &str) -> Option<Finding> {
    let dead = of(exchange)?;
    let holders = exchange.holders();
    let held = match holders {
        Some([one]) => format!("{} {} holds the connection now", one.comm, one.pid),
        Some([first, others @ ..]) if !others.is_empty() => {
            format!("{} {} and {} more hold the connection now", first.comm, first.pid, others.len())
        }
        _ => "some other process held the connection".to_owned(),
    };
    let ago = span(exchange.nginx.ended_ns.saturating_sub(exchange.stops.gone.ns));
    Some(Finding::proven(
        Cause::TimeoutWorkerGone,
        format!(
            "{}. Its connection stayed open, for {held}: nobody was left to answer, and nginx stopped waiting {ago} after that, {waited} \
             after it had sent the request.",
            died(exchange, &dead)
        ),
        format!("{} And {INHERITED}", advice(exchange, &dead)),
    ))
}

/// The connection ended with the last process that held it, and nginx met that.
pub(super) fn ended(
    exchange: &Exchange,
    worker: &WorkerEnd,
    by: Kinds,
    consequence: &str,
) -> Option<Finding> {
    let dead = of(exchange)?;
    let signal = signals::died_of(&dead);
    let cause = match signal {
        Some(signal) if signals::is_crash(signal) => by.crashed,
        Some(_) if signals::is_out_of_memory(&dead) => by.out_of_memory,
        Some(_) => by.killed,
        None => by.exited,
    };
    let holder = Process { pid: worker.closer.tgid, comm: comm(&worker.closer).into_owned() };
    let late = span(worker.ended_ns.saturating_sub(exchange.stops.gone.ns));
    let let_go = if worker.exiting != 0 { "ended" } else { "closed it" };
    Some(Finding::proven(
        cause,
        format!(
            "{}. Its connection outlived it by {late}, for {} {} had it, too, until that {let_go}: {consequence}.",
            died(exchange, &dead),
            holder.comm,
            holder.pid
        ),
        format!("{} And {INHERITED}", advice(exchange, &dead)),
    ))
}

/// The causes of one kind of end.
pub(super) struct Kinds {
    pub(super) killed: Cause,
    pub(super) crashed: Cause,
    pub(super) out_of_memory: Cause,
    pub(super) exited: Cause,
}

/// Who died, of what, and when, without a full stop.
fn died(exchange: &Exchange, dead: &WorkerEnd) -> String {
    let name = signals::worker_in_words(dead);
    let gone = &exchange.stops.gone;
    let ns = if gone.signal.ns != 0 { gone.signal.ns } else { gone.ns };
    let into = format!("{} into the request", span(ns.saturating_sub(exchange.began_ns())));
    let Some(signal) = signals::died_of(dead) else {
        return format!("The {name} exited{} {into}", stopped::with_code(dead));
    };
    let signal_name = signals::name(signal);
    if signals::is_crash(signal) {
        return format!("The {name} crashed with {signal_name}{}, {into}", signals::by_another(dead));
    }
    if signals::is_out_of_memory(dead) {
        return format!("The kernel killed the {name} with {signal_name} {into}, because memory had run out");
    }
    let killer = signals::sender_in_words(dead).unwrap_or_else(|| "somebody not seen".to_owned());
    format!(
        "{} sent {signal_name} to the {name}, {into}, and it died{}",
        sentence(&killer),
        stopped::who_told_the_killer(exchange, dead).trim_end_matches('.')
    )
}

fn advice(exchange: &Exchange, dead: &WorkerEnd) -> String {
    let advice = match signals::died_of(dead) {
        Some(signal) if signals::is_crash(signal) => stopped::ADVICE_OF_CRASH.to_owned(),
        Some(_) if signals::is_out_of_memory(dead) => stopped::ADVICE_OF_OOM.to_owned(),
        Some(_) => stopped::advice_of_kill(exchange, dead),
        None => stopped::advice_of_exit(dead).to_owned(),
    };
    format!("{}.", advice.trim_end_matches('.'))
}
