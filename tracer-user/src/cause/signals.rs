//! Signals, deaths, and who is who in them.

use nix::sys::signal::Signal;
use tracer_ebpf::WorkerEnd;

use crate::{
    ledger::{Joined, comm, process},
    verdict::Process,
};

/// `si_code` of a signal that a process sent: zero (`SI_USER`) or negative (`SI_TKILL`, `SI_QUEUE`).
const LAST_FROM_PROCESS: i32 = 0;

/// The signal that ended this worker while it had the exchange: `task_struct.exit_code`'s low seven bits.
pub(super) fn died_of(worker: &WorkerEnd) -> Option<u32> {
    let signal = worker.exit_code & 0x7f;
    (worker.exiting != 0 && signal != 0).then_some(signal)
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

/// Whether the kernel itself sent the signal that ended this worker.
pub(super) fn is_from_kernel(worker: &WorkerEnd) -> bool {
    worker.signal.ns != 0 && worker.signal.code > LAST_FROM_PROCESS
}

/// Whether it did so because memory ran out. It kills for other reasons, too: a container ends with its first process
/// (`zap_pid_ns_processes`).
pub(super) fn is_out_of_memory(worker: &WorkerEnd) -> bool {
    is_from_kernel(worker) && worker.signal.out_of_memory != 0
}

/// The process that sent the signal that ended this worker.
pub(super) fn killer(worker: &WorkerEnd) -> Option<Process> {
    died_of(worker)?;
    (worker.signal.ns != 0 && worker.signal.code <= LAST_FROM_PROCESS).then(|| process(&worker.signal.sender))
}

/// The killer with its role, as in `php-fpm master 24938`.
pub(super) fn killer_in_words(worker: &WorkerEnd) -> Option<String> {
    let Process { pid, comm } = killer(worker)?;
    let own = worker.signal.sender.tgid == worker.closer.tgid;
    Some(match (worker.signal.from_parent != 0, comm.starts_with("php-fpm")) {
        _ if own => "the worker itself".to_owned(),
        (true, true) => format!("php-fpm's master process {pid}"),
        (true, false) => format!("its parent process {comm} {pid}"),
        (false, _) => format!("process {comm} {pid}"),
    })
}

/// Who had the exchange: the first who read from it, or who died holding it.
pub(super) fn worker(exchange: &Joined) -> Option<Process> {
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
    format!("{} worker {}", comm(task), task.tgid)
}
