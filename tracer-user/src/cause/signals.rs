//! Signals, deaths, and who is who in them.

use nix::sys::signal::Signal;
use wire::{Origin, WorkerEnd};

use crate::{
    ledger::Exchange,
    model::{
        from_wire::{comm, process},
        verdict::Process,
    },
};

/// The signal that ended this worker while it had the exchange: `task_struct.exit_code`'s low seven bits.
pub(super) fn died_of(worker: &WorkerEnd) -> Option<u32> {
    if worker.exiting != 0 { of_exit(worker.exit_code) } else { None }
}

/// The signal that an exit code shows.
pub(super) fn of_exit(code: u32) -> Option<u32> {
    let signal = code & 0x7f;
    (signal != 0).then_some(signal)
}

/// A signal's name, as in `SIGTERM`.
pub(super) fn name(signal: u32) -> String {
    i32::try_from(signal)
        .ok()
        .and_then(|signal| Signal::try_from(signal).ok())
        .map_or_else(|| format!("signal {signal}"), |signal| signal.as_str().to_owned())
}

/// Whether a signal is one that a process raises by a mistake of its own.
pub(super) fn is_crash(signal: u32) -> bool {
    use Signal::{SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};
    [SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP].map(|crash| crash as u32).contains(&signal)
}

/// Where the signal came from that ended this worker; none where that was not seen.
fn origin(worker: &WorkerEnd) -> Option<Origin> {
    origin_of(&worker.signal)
}

/// Where a signal came from; none where none was seen. Recordings from before it was recorded have the code alone: zero (`SI_USER`) or
/// negative for what a process sends, but for some (include/uapi/asm-generic/siginfo.h).
pub(super) fn origin_of(signal: &wire::Signal) -> Option<Origin> {
    const SI_TIMER: i32 = -2;
    const EVENTS: std::ops::RangeInclusive<i32> = -5..=-3;
    match Origin::from_u16(signal.origin)? {
        Origin::Lost => Some(Origin::Lost),
        _ if signal.ns == 0 => None,
        Origin::Untold => Some(match signal.code {
            1.. => Origin::Kernel,
            SI_TIMER => Origin::Timer,
            code if EVENTS.contains(&code) => Origin::Event,
            _ => Origin::Process,
        }),
        origin => Some(origin),
    }
}

/// Whether nobody's process sent the signal that ended this worker.
pub(super) fn is_from_kernel(worker: &WorkerEnd) -> bool {
    origin(worker).is_some_and(|origin| !matches!(origin, Origin::Process | Origin::Lost))
}

/// Whether who sent the signal that ended this worker was known, and is not any more.
pub(super) fn is_lost(worker: &WorkerEnd) -> bool {
    died_of(worker).is_some() && origin(worker) == Some(Origin::Lost)
}

/// Whether the kernel sent it because memory ran out. It kills for other reasons, too: a container ends with its first process
/// (`zap_pid_ns_processes`).
pub(super) fn is_out_of_memory(worker: &WorkerEnd) -> bool {
    origin(worker) == Some(Origin::Kernel) && worker.signal.out_of_memory != 0
}

/// The process that sent the signal that ended this worker.
pub(super) fn killer(worker: &WorkerEnd) -> Option<Process> {
    died_of(worker)?;
    (origin(worker) == Some(Origin::Process)).then(|| process(&worker.signal.sender))
}

/// Who or what sent the signal that ended this worker, a process with its role, as in `php-fpm master 24938`; none where nothing was
/// seen.
pub(super) fn sender_in_words(worker: &WorkerEnd) -> Option<String> {
    died_of(worker)?;
    sender_of(&worker.signal, worker.closer.tgid)
}

/// The same of any signal to a worker.
pub(super) fn sender_of(signal: &wire::Signal, worker: u32) -> Option<String> {
    let Process { pid, comm } = process(&signal.sender);
    Some(match origin_of(signal)? {
        Origin::Process | Origin::Untold => match (signal.from_parent != 0, is_php_fpm(&comm)) {
            _ if signal.sender.tgid == worker => "the worker itself".to_owned(),
            (true, true) => format!("php-fpm's master process {pid}"),
            (true, false) => format!("its parent process {comm} {pid}"),
            (false, _) => format!("process {comm} {pid}"),
        },
        Origin::Timer => "a timer of its own".to_owned(),
        Origin::Kernel => of_kernel(signal.number).to_owned(),
        Origin::Fault => "a fault of its own".to_owned(),
        Origin::ParentDeath => {
            format!("the kernel, for its parent process {comm} {pid} (or that thread of it) had ended,")
        }
        Origin::Event => {
            "an event on a file or a message queue, or somebody who made it look like one,".to_owned()
        }
        Origin::Lost => "somebody who is not known any more".to_owned(),
    })
}

/// What the kernel sends a signal for, where its number says so.
fn of_kernel(number: u32) -> &'static str {
    match Signal::try_from(number.cast_signed()) {
        Ok(Signal::SIGALRM) => "an alarm of its own",
        Ok(Signal::SIGHUP) => "its terminal, or the end of its session,",
        Ok(Signal::SIGINT | Signal::SIGQUIT) => "its terminal",
        Ok(Signal::SIGPIPE) => "its own write to a closed pipe or connection",
        Ok(Signal::SIGXCPU) => "its limit of CPU time",
        Ok(Signal::SIGXFSZ) => "its limit of a file's size",
        _ => "the kernel itself",
    }
}

/// Who sent the signal of a crash, if it was no fault of the worker's own.
pub(super) fn by_another(worker: &WorkerEnd) -> String {
    let is_own = killer(worker).is_none_or(|killer| killer.pid == worker.closer.tgid);
    if is_own && !is_lost(worker) {
        return String::new();
    }
    sender_in_words(worker).map_or_else(String::new, |sender| format!(", which {sender} sent"))
}

/// Whether a process of this name is one of php-fpm's.
pub(super) fn is_php_fpm(comm: &str) -> bool {
    comm.starts_with("php-fpm")
}

/// Who had the exchange: the first who read from it, or who died holding it.
pub(super) fn worker(exchange: &Exchange) -> Option<Process> {
    let worker = exchange.worker.as_ref()?;
    if worker.accepted_ns != 0 {
        return Some(process(&worker.worker));
    }
    let is_known = worker.has_socket != 0 && worker.ended_ns != 0 && worker.closer.tgid != 0;
    (is_known && worker.error == 0).then(|| process(&worker.closer))
}

/// The worker in words, as in `php-fpm8.2 worker 24940`.
pub(super) fn worker_in_words(worker: &WorkerEnd) -> String {
    let task = if worker.accepted_ns != 0 { &worker.worker } else { &worker.closer };
    if task.tgid == 0 {
        return "worker (which one is not seen)".to_owned();
    }
    format!("{} worker {}", comm(task), task.tgid)
}
