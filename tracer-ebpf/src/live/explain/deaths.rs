//! Of which signal a worker died, and who had told it or its parent to stop.

use wire::{Origin, Signal, Stops, WorkerEnd};

use crate::{
    kernel::{memory, recent::Found},
    live::{
        explain::{
            process::{self, Process},
            signals::{self, SIGNALS},
        },
        maps::count,
    },
};

/// Those by which programs are told to stop, and that many handle: HUP INT QUIT ABRT USR1 USR2 TERM.
const STOPS: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << SIGUSR1 | 1 << 12 | 1 << 15;
const SIGUSR1: u32 = 10;

/// Writes down the signal that process `tgid`, which began then and exits with `exit_code`, dies of, if it was seen.
#[inline(always)]
pub fn of_death(tgid: u32, began_ns: u64, exit_code: u32, signal: &mut Signal) {
    let number = exit_code & 0x7f;
    if number == 0 {
        return;
    }
    let now = signals::now();
    let lost_ns = match process::of(tgid, began_ns) {
        Some(process) => {
            // SAFETY: the entry is copied out at once, over a value of the type.
            unsafe {
                if let Some(seen) = SIGNALS.get(signals::key(tgid, number))
                    && seen.ns >= began_ns
                {
                    memory::fill(signal, seen);
                }
            }
            process.lost_ns
        }
        None => match signals::before(tgid, began_ns, now) {
            Found::It(before) => {
                if before.signal.number == number {
                    *signal = before.signal;
                }
                before.lost_ns
            }
            Found::MaybePushedOut => now,
            Found::Nothing => 0,
        },
    };
    if signal.ns == 0 && signals::is_lately(lost_ns, now) {
        signal.number = number;
        signals::lose(signal);
    }
    if signal.origin == Origin::Lost as u16 {
        count!(signals_unkept, 1);
    }
}

/// Writes down who had told the process that closed this end, and its parent, to stop; into all zeroes.
#[inline(always)]
pub fn stops(worker: &WorkerEnd, to: *mut Stops) {
    if worker.accepted_ns != 0 && worker.closer.tgid != worker.worker.tgid && outlived(worker, to) {
        return;
    }
    if worker.ended_ns == 0 || worker.closer.tgid == 0 {
        return;
    }
    let Some(process) = process::find(worker.closer.tgid) else { return };
    let began_ns = process.began_ns;
    if began_ns > worker.ended_ns {
        // Another one has that pid by now.
        return;
    }
    let mut until_ns = worker.ended_ns;
    if worker.exiting != 0 && worker.exit_code & 0x7f != 0 {
        if worker.signal.ns != 0 {
            until_ns = worker.signal.ns;
        }
    } else {
        // SAFETY: the caller's record, which is a value of the type.
        let ns = unsafe { last_stop(worker.closer.tgid, process, began_ns, until_ns, &raw mut (*to).worker) };
        if ns != 0 {
            until_ns = ns;
        }
    }
    parent_stops(process, until_ns, to);
}

/// Writes down the end of the process that had read the request, if it ended before this end did. Returns whether it has ended.
#[inline(always)]
fn outlived(worker: &WorkerEnd, to: *mut Stops) -> bool {
    let tgid = worker.worker.tgid;
    let Some(process) = process::find(tgid) else { return false };
    // Another one may have that pid by now.
    if process.ended_ns < worker.accepted_ns || process.began_ns > worker.accepted_ns {
        return false;
    }
    let mut until_ns = process.ended_ns;
    // SAFETY: the caller's record, which is a value of the type.
    unsafe {
        (*to).gone.ns = process.ended_ns;
        (*to).gone.exit_code = process.exit_code;
        of_death(tgid, process.began_ns, process.exit_code, &mut (*to).gone.signal);
        if (*to).gone.signal.ns != 0 {
            until_ns = (*to).gone.signal.ns;
        }
    }
    parent_stops(process, until_ns, to);
    true
}

/// Writes down who had told a worker's parent to stop before this moment.
#[inline(always)]
fn parent_stops(process: &Process, until_ns: u64, to: *mut Stops) {
    let tgid = process.parent;
    if tgid == 0 {
        return;
    }
    let Some(parent) = process::find(tgid) else { return };
    let began_ns = process.began_ns;
    if parent.began_ns > began_ns {
        return;
    }
    // SAFETY: the caller's record, which is a value of the type.
    unsafe {
        (*to).parent_task.tgid = tgid;
        (*to).parent_task.tid = tgid;
        memory::fill(&raw mut (*to).parent_task.comm, &raw const parent.comm);
        last_stop(tgid, parent, began_ns, until_ns, &raw mut (*to).parent);
    }
}

/// Writes down the last signal between two moments that told a kept process to stop; where one may have been lost, that. Returns when it
/// was sent.
///
/// # Safety
/// `to` is a value of the type.
#[inline(always)]
unsafe fn last_stop(tgid: u32, process: &Process, since_ns: u64, until_ns: u64, to: *mut Signal) -> u64 {
    let signals = process.signals & STOPS;
    let (mut last, mut last_ns) = (0, 0);
    for number in 1..16 {
        if signals & 1 << number == 0 || number == SIGUSR1 && last != 0 {
            continue;
        }
        // SAFETY: only looked at.
        let Some(ns) = (unsafe { SIGNALS.get(signals::key(tgid, number)) }).map(|signal| signal.ns) else {
            continue;
        };
        if ns >= since_ns && ns <= until_ns && (ns > last_ns || last == SIGUSR1) {
            (last, last_ns) = (number, ns);
        }
    }
    // SAFETY: the caller answers for where it is written; the entry is copied out at once.
    unsafe {
        match SIGNALS.get(signals::key(tgid, last)) {
            Some(signal) if last != 0 => memory::fill(to, signal),
            _ if signals::is_lately(process.lost_ns, until_ns) => (*to).origin = Origin::Lost as u16,
            _ => {}
        }
    }
    last_ns
}
