//! What a worker closes while why502 looks at open files, and so holds each for a moment, ends when why502 lets go of it. That is no end by
//! why502: it is the worker's, who had closed it before, or died.

use wire::{Gone, Task, WorkerEnd};

use crate::model::record::Record;

/// Gives the worker's end in a record back to its worker, if this process, `own_pid`, was the last to let go of it.
pub(super) fn give_back(record: &mut Record, own_pid: u32) {
    match record {
        Record::Exchange(exchange) => to_worker(&mut exchange.worker, &mut exchange.stops.gone, own_pid),
        Record::Served(served) => to_worker(&mut served.worker, &mut served.stops.gone, own_pid),
        // How its worker died is not known.
        Record::WorkerGone(gone) => to_worker(&mut gone.worker, &mut Gone::default(), own_pid),
        Record::NextAction(..) | Record::Hop(_) | Record::Word(_) => {}
    }
}

/// Gives an end back to the worker that had read the request, with how it had died, if it had. Who nobody is known to have read from is nobody's.
fn to_worker(worker: &mut WorkerEnd, gone: &mut Gone, own_pid: u32) {
    if worker.closer.tgid != own_pid {
        return;
    }
    if worker.accepted_ns == 0 {
        worker.closer = Task::default();
        return;
    }
    worker.closer = worker.worker;
    let Gone { ns, exit_code, signal, .. } = std::mem::take(gone);
    if ns != 0 {
        (worker.exiting, worker.exit_code, worker.signal) = (1, exit_code, signal);
    }
}

#[cfg(test)]
mod tests {
    use wire::Signal;

    use super::*;

    const OWN: u32 = 700;

    /// Of a worker, 24, that had the exchange, ended by `closer`.
    fn ended_by(closer: u32) -> WorkerEnd {
        let task = |tgid| Task { tgid, tid: tgid, ..Task::default() };
        WorkerEnd {
            accepted_ns: 5,
            ended_ns: 9,
            worker: task(24),
            closer: task(closer),
            ..WorkerEnd::default()
        }
    }

    fn killed() -> Gone {
        Gone {
            ns: 8,
            exit_code: 9,
            signal: Signal { ns: 7, number: 9, ..Signal::default() },
            ..Gone::default()
        }
    }

    #[test]
    fn a_worker_that_was_killed_died_itself() {
        let (mut worker, mut gone) = (ended_by(OWN), killed());
        to_worker(&mut worker, &mut gone, OWN);
        assert_eq!((worker.closer.tgid, worker.exiting, worker.exit_code), (24, 1, 9));
        assert_eq!((worker.signal.ns, worker.signal.number, gone.ns), (7, 9, 0));
    }

    #[test]
    fn a_worker_that_lives_closed_it_itself() {
        let (mut worker, mut gone) = (ended_by(OWN), Gone::default());
        to_worker(&mut worker, &mut gone, OWN);
        assert_eq!((worker.closer.tgid, worker.exiting), (24, 0));
    }

    #[test]
    fn who_else_held_it_stays_named() {
        let (mut worker, mut gone) = (ended_by(25), killed());
        to_worker(&mut worker, &mut gone, OWN);
        assert_eq!((worker.closer.tgid, worker.exiting, gone.ns), (25, 0, 8));
    }

    #[test]
    fn what_nobody_had_read_from_was_closed_by_nobody_known() {
        let mut worker = WorkerEnd { accepted_ns: 0, ..ended_by(OWN) };
        to_worker(&mut worker, &mut Gone::default(), OWN);
        assert_eq!(worker.closer.tgid, 0);
    }
}
