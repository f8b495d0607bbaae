//! Who takes a connection up: the process that accepts it, or that reads from it.

use aya_ebpf::helpers::bpf_ktime_get_ns;

use crate::{
    kernel::{ports::port_is_watched, sock, task},
    live::{
        entry::reader::place_of_reader,
        exchange::{abandoned, worker_end},
        explain::workers,
    },
};

/// A process accepted the connection that `sk` is an end of. Whether it reads the request, too, or hands the connection to another one, shows
/// when it is read from.
#[inline(always)]
pub fn accepted(sk: u64) {
    if sk == 0 {
        return;
    }
    let (peer_port, local_port) = sock::ports(sk);
    if port_is_watched(local_port) {
        takes(sk, peer_port, local_port);
    }
}

/// The running process has the connection that `sk` is an end of. Returns whether it is one of ours that goes on.
#[inline(always)]
fn takes(sk: u64, peer_port: u16, local_port: u16) -> bool {
    let Some(worker) = worker_end::find(sk, peer_port) else {
        if local_port == 0 {
            abandoned::read_from(sk);
        }
        return false;
    };
    let task = task::current();
    if worker.accepted_ns != 0 && worker.worker.tgid == task.tgid {
        return true;
    }
    // SAFETY: the helper takes nothing.
    worker.accepted_ns = unsafe { bpf_ktime_get_ns() };
    worker.worker = task;
    workers::takes_up(worker.worker.tgid);
    true
}

/// A process called receive on `sk`: it has accepted the connection, or was handed it.
#[inline(always)]
pub fn read_from(sk: u64, peer_port: u16, local_port: u16) {
    if !port_is_watched(local_port) {
        return;
    }
    let Some(read) = place_of_reader(sk) else { return };
    // SAFETY: map memory; an entry is a word.
    if unsafe { read.read_volatile() } == sk {
        return;
    }
    if takes(sk, peer_port, local_port) {
        // SAFETY: the same.
        unsafe { read.write_volatile(sk) };
    }
}
