//! `worker_stopped`: a signal told the worker to stop, which handled it, or told its parent so; and who had told a parent that kills its
//! workers.

use nix::sys::signal::Signal::{SIGABRT, SIGINT, SIGQUIT, SIGTERM, SIGUSR2};
use wire::{Origin, Signal as Sent, WorkerEnd};

use super::{Cause, Finding, signals};
use crate::{
    ledger::Exchange,
    model::{
        from_wire::{comm, process},
        verdict::{Confidence, Process},
        words::{sentence, span},
    },
};

pub(super) const ADVICE_OF_CRASH: &str =
    "the core dump and the upstream's log for this request; with php-fpm, extensions first.";
pub(super) const ADVICE_OF_OOM: &str =
    "memory limits of the upstream's cgroup, memory_limit and pm.max_children: `dmesg` names the victim.";

/// An exit or a close so soon after it was asked for is what was asked for (ns).
const AT_ONCE_NS: u64 = 1_000_000_000;

/// A worker that was asked to stop may let its requests go on for as long (ns).
const GRACE_NS: u64 = 60_000_000_000;

/// A worker was told to stop, and did.
pub(super) struct Stop<'a> {
    exchange: &'a Exchange,
    worker: &'a WorkerEnd,
    /// To the worker, or where that was sent none, to its parent.
    signal: &'a Sent,
    is_to_parent: bool,
    confidence: Confidence,
}

/// Whether a signal has no other meaning than to stop. At SIGHUP, SIGUSR1 and SIGUSR2 many programs only open their logs anew.
fn is_to_stop(number: u32) -> bool {
    [SIGABRT, SIGINT, SIGQUIT, SIGTERM].map(|signal| signal as u32).contains(&number)
}

/// Whether this is somebody's order: no event, no timer, and nothing that a process sent to itself.
fn is_order(signal: &Sent, to: u32) -> bool {
    signal.ns != 0
        && match signals::origin_of(signal) {
            Some(Origin::Process) => signal.sender.tgid != to,
            Some(Origin::Kernel | Origin::ParentDeath) => true,
            _ => false,
        }
}

/// Who told this worker to stop, if that is why its end ended: it must have ended soon after, and for a signal with other meanings by an
/// exit, or by order of its own parent. A worker that lives and closes is seen to do so, not why.
pub(super) fn of<'a>(exchange: &'a Exchange, worker: &'a WorkerEnd) -> Option<Stop<'a>> {
    let stops = &exchange.stops;
    if signals::died_of(worker).is_some()
        || worker.ended_ns == 0
        || worker.error != 0
        || worker.has_socket == 0
    {
        return None;
    }
    let exits = worker.exiting != 0;
    if is_order(&stops.worker, worker.closer.tgid) {
        let after_ns = worker.ended_ns.saturating_sub(stops.worker.ns);
        let is_sure = is_to_stop(stops.worker.number) || stops.worker.from_parent != 0;
        let confidence = match (exits, is_sure) {
            (true, true) if after_ns <= AT_ONCE_NS => Confidence::Proven,
            (true, true) if after_ns <= GRACE_NS => Confidence::Inferred,
            (true, false) | (false, true) if after_ns <= AT_ONCE_NS => Confidence::Inferred,
            _ => return None,
        };
        return Some(Stop { exchange, worker, signal: &stops.worker, is_to_parent: false, confidence });
    }
    // The first process of all has signals of its own for other things.
    let is_master = stops.parent_task.tgid > 1 && is_order(&stops.parent, stops.parent_task.tgid);
    let after_ns = worker.ended_ns.saturating_sub(stops.parent.ns);
    (exits && is_master && is_to_stop(stops.parent.number) && after_ns <= AT_ONCE_NS).then_some(Stop {
        exchange,
        worker,
        signal: &stops.parent,
        is_to_parent: true,
        confidence: Confidence::Inferred,
    })
}

impl Stop<'_> {
    /// The signal to the worker.
    pub(super) fn signal(&self) -> Option<String> {
        (!self.is_to_parent).then(|| signals::name(self.signal.number))
    }

    /// The process that sent it.
    pub(super) fn sender(&self) -> Option<Process> {
        let is_process = signals::origin_of(self.signal) == Some(Origin::Process);
        (!self.is_to_parent && is_process).then(|| process(&self.signal.sender))
    }

    /// The whole of it. `consequence`: what became of the connection.
    pub(super) fn finding(&self, cause: Cause, consequence: &str) -> Finding {
        let Self { exchange, worker, signal, is_to_parent, confidence } = self;
        let name = signals::worker_in_words(worker);
        let signal_name = signals::name(signal.number);
        let parent = &exchange.stops.parent_task;
        let told = if *is_to_parent {
            format!(
                "{} sent {signal_name} to {} {}, the parent of the {name}",
                first_word(signal),
                comm(parent),
                parent.tgid
            )
        } else if let Some(first) = told_parent(exchange, signal) {
            format!(
                "{} sent {} to {} {}, which sent {signal_name} to the {name}",
                first_word(first),
                signals::name(first.number),
                comm(parent),
                parent.tgid
            )
        } else {
            let sender = signals::sender_of(signal, worker.closer.tgid).unwrap_or_else(|| plainly(signal));
            format!("{} sent {signal_name} to the {name}", sentence(&sender))
        };
        let began_ns = exchange.began_ns();
        let when = if signal.ns >= began_ns {
            format!("{} into the request", span(signal.ns - began_ns))
        } else {
            format!("{} before this request", span(began_ns - signal.ns))
        };
        let after = span(worker.ended_ns.saturating_sub(signal.ns));
        let did = match (*is_to_parent, worker.exiting != 0) {
            (true, _) => format!("The worker exited{} {after} later", with_code(worker)),
            (false, true) => format!("It handled that and exited{} {after} later", with_code(worker)),
            (false, false) => format!("It handled that and closed the connection {after} later"),
        };
        Finding {
            confidence: *confidence,
            ..Finding::proven(cause, format!("{told}, {when}. {did}: {consequence}."), self.advice())
        }
    }

    fn advice(&self) -> String {
        let Self { exchange, worker: _, signal, is_to_parent, .. } = self;
        if let Some(first) = told_parent(exchange, signal).filter(|_| !is_to_parent) {
            return advice_of_order(exchange, first);
        }
        if signal.number == SIGABRT as u32 && signal.from_parent != 0 {
            return format!(
                "what this request waited for: {} aborts a worker that has been busy for too long (gunicorn's --timeout).",
                comm(&signal.sender)
            );
        }
        format!(
            "why {} stops it, and how long the upstream lets requests under way go on (its graceful timeout).",
            plainly(signal)
        )
    }
}

/// Who sent a signal, in few words: `systemd 1`.
fn plainly(signal: &Sent) -> String {
    match signals::origin_of(signal) {
        Some(Origin::Process | Origin::Untold) => {
            let Process { pid, comm } = process(&signal.sender);
            format!("{comm} {pid}")
        }
        _ => signals::sender_of(signal, 0)
            .map_or_else(|| "somebody".to_owned(), |sender| sender.trim_end_matches(',').to_owned()),
    }
}

/// The same at the beginning of a sentence; a program's name keeps its letters.
fn first_word(signal: &Sent) -> String {
    match signals::origin_of(signal) {
        Some(Origin::Process | Origin::Untold) => plainly(signal),
        _ => sentence(&plainly(signal)),
    }
}

/// What the worker's parent had been told before it sent this signal, if that has to do with it: a parent that was told to stop since the
/// worker began is about to end it. php-fpm's opens its logs anew at SIGUSR1 (`fpm_got_signal`, sapi/fpm/fpm/fpm_events.c).
fn told_parent<'a>(exchange: &'a Exchange, signal: &Sent) -> Option<&'a Sent> {
    let stops = &exchange.stops;
    let first = &stops.parent;
    let parent = stops.parent_task.tgid;
    if signal.sender.tgid != parent || parent <= 1 || !is_order(first, parent) {
        return None;
    }
    let is_reload_of_fpm = first.number == SIGUSR2 as u32;
    let is_meant = match signals::is_php_fpm(&comm(&stops.parent_task)) {
        true => is_to_stop(first.number) || is_reload_of_fpm,
        false => is_to_stop(first.number) || signal.ns.saturating_sub(first.ns) <= GRACE_NS,
    };
    is_meant.then_some(first)
}

/// One more sentence about a worker that was killed by its parent: who had told that to stop or to reload.
pub(super) fn who_told_the_killer(exchange: &Exchange, worker: &WorkerEnd) -> String {
    let Some(first) = told_parent(exchange, &worker.signal) else { return String::new() };
    let parent = &exchange.stops.parent_task;
    format!(
        " {} had sent {} to {} {} {} before.",
        first_word(first),
        signals::name(first.number),
        comm(parent),
        parent.tgid,
        span(worker.signal.ns.saturating_sub(first.ns))
    )
}

/// Where to look for why the worker's parent was told to end its workers.
fn advice_of_order(exchange: &Exchange, order: &Sent) -> String {
    format!(
        "why {} told {} to stop or to reload, and how long that lets requests under way go on (its graceful timeout).",
        plainly(order),
        comm(&exchange.stops.parent_task)
    )
}

/// Where to look for who killed a worker.
pub(super) fn advice_of_kill(exchange: &Exchange, worker: &WorkerEnd) -> String {
    let signal = &worker.signal;
    let is_from_parent = signal.from_parent != 0 && signals::killer(worker).is_some();
    let is_fpm = is_from_parent && signals::is_php_fpm(&comm(&signal.sender));
    let first = told_parent(exchange, signal);
    if let Some(first) = first.filter(|_| is_fpm) {
        let what = if first.number == SIGUSR2 as u32 { "reloads" } else { "stops" };
        return format!(
            "who {what} php-fpm ({}), and process_control_timeout: how long it lets requests under way go on.",
            plainly(first)
        );
    }
    if let Some(first) = first {
        return advice_of_order(exchange, first);
    }
    if is_fpm && signal.number == SIGTERM as u32 {
        return advice_of_term(exchange, worker);
    }
    if signals::is_from_kernel(worker) {
        return "what ended the upstream's container, which limit the worker met, or what timers and alarms its code sets."
            .to_owned();
    }
    "who that process is and why it kills workers.".to_owned()
}

/// php-fpm's master ended a worker, and is not known to have been told to stop or to reload: its pool's files and the request's age show
/// whether it was a timeout.
fn advice_of_term(exchange: &Exchange, worker: &WorkerEnd) -> String {
    let age_ns = worker.signal.ns.saturating_sub(worker.accepted_ns.max(exchange.began_ns()));
    let (upstream, age) = (exchange.upstream(), span(age_ns));
    let setting = format!("request_terminate_timeout of the pool on {upstream}");
    let nobody = "nobody had told php-fpm to stop or to reload";
    let is_known = is_parent_known(exchange, worker);
    let says = exchange.terminate_after_s().map(|seconds| match seconds {
        0 => "off".to_owned(),
        _ => format!("{seconds} s"),
    });
    match (says, is_known) {
        (Some(says), known)
            if exchange.terminate_after_s().is_some_and(|limit| is_cut_off_at(limit, age_ns)) =>
        {
            let told = if known { format!("; {nobody}") } else { String::new() };
            format!("{setting}: it is {says}, and this request was cut off after {age}{told}.")
        }
        (Some(says), false) => format!(
            "who stops or reloads php-fpm, and process_control_timeout: how long it lets requests under way go on. It was no timeout: \
             request_terminate_timeout of the pool on {upstream} is {says}, and this request was cut off after {age}."
        ),
        (Some(says), true) => format!(
            "{setting} as php-fpm read it last, though its files say {says} now: this request was cut off after {age}, and {nobody}."
        ),
        (None, true) => format!("{setting} (this request was cut off after {age}): {nobody}."),
        (None, false) => format!(
            "{setting} (this request was cut off after {age}), or a reload or stop of php-fpm at that moment (process_control_timeout)."
        ),
    }
}

/// Whether a request of this age is one that php-fpm ends at a limit of so many seconds: it looks each third of that, or more often
/// (`fpm_conf_process_all_pools`, sapi/fpm/fpm/fpm_conf.c), and may be late itself.
fn is_cut_off_at(limit_s: u64, age_ns: u64) -> bool {
    const LATE_NS: u64 = 2_000_000_000;
    let limit_ns = limit_s.saturating_mul(1_000_000_000);
    let last_ns = limit_ns.saturating_add(limit_ns / 3).saturating_add(LATE_NS);
    limit_s > 0 && (limit_ns..=last_ns).contains(&age_ns)
}

/// Whether all that the worker's parent was sent is known.
fn is_parent_known(exchange: &Exchange, worker: &WorkerEnd) -> bool {
    let stops = &exchange.stops;
    stops.parent_task.tgid == worker.signal.sender.tgid
        && signals::origin_of(&stops.parent) != Some(Origin::Lost)
}

/// With which code it exited, in words.
pub(super) fn with_code(worker: &WorkerEnd) -> String {
    format!(" with code {}", worker.exit_code >> 8 & 0xff)
}

/// A worker exited, and no signal is known that told it to.
pub(super) fn exited(exchange: &Exchange, worker: &WorkerEnd, cause: Cause, explanation: String) -> Finding {
    let finding = Finding::proven(cause, explanation, advice_of_exit(worker));
    if are_signals_kept(exchange, worker) {
        return finding;
    }
    let explanation = format!(
        "{} Whether a signal had told it to is not known: it was not seen to accept or to read anything, and only from then on is \
         kept what a process is sent.",
        finding.explanation
    );
    Finding { explanation, ..finding.at_most_inferred() }
}

/// Whether what was sent to the worker is known: it was seen to take up this exchange, or one before, with which its parent came to be known.
fn are_signals_kept(exchange: &Exchange, worker: &WorkerEnd) -> bool {
    worker.accepted_ns != 0 || exchange.stops.parent_task.tgid != 0
}

/// Where to look for why it exited.
pub(super) fn advice_of_exit(worker: &WorkerEnd) -> &'static str {
    if signals::is_php_fpm(&comm(&worker.closer)) {
        // pm.max_requests ends a worker only after its answer (`fcgi_finish_request`, then the end of its loop in fpm_main.c).
        "php-fpm's log for this worker: something in its code or in an extension ended the whole process."
    } else {
        "the upstream's log: an exit in the code, or a limit that ends workers."
    }
}

/// Whether the worker may have been told to stop, and who told it is not known any more: then such a cause says less than there is.
pub(super) fn may_have_been_told(exchange: &Exchange, cause: Cause) -> bool {
    let is_lost = signals::origin_of(&exchange.stops.worker) == Some(Origin::Lost);
    is_lost
        && matches!(
            cause,
            Cause::ResetWorkerExited
                | Cause::ResetPeerAborted
                | Cause::PrematureWorkerExited
                | Cause::PrematurePeerClosed
                | Cause::ResponseCutShort
        )
}

/// The signals as facts.
pub(super) fn facts<'a>(exchange: &'a Exchange, worker: &'a WorkerEnd) -> Vec<(&'a Sent, String)> {
    let stops = &exchange.stops;
    let parent = stops.parent_task.tgid;
    let fact =
        |signal: &Sent, to: u32| format!("{} sent {} to {to}", plainly(signal), signals::name(signal.number));
    let stop = of(exchange, worker);
    let mut facts = Vec::new();
    let last = match &stop {
        Some(stop) => {
            facts.push((
                stop.signal,
                fact(stop.signal, if stop.is_to_parent { parent } else { worker.closer.tgid }),
            ));
            stop.signal
        }
        None => &worker.signal,
    };
    facts.extend(told_parent(exchange, last).map(|first| (first, fact(first, parent))));
    facts
}
