//! The worker's end of an exchange: here it is made, found, and how it ends is emitted. It is in its exchange's entry for as long as
//! nginx's end is open; it stands for itself where that went first, and where nginx is on another host.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use wire::WorkerEnd;

use crate::{
    kernel::{
        put::put,
        read::{layout, read},
        sock, task,
    },
    live::{
        entry::{joined, reader},
        explain::deaths,
        maps::{EMPTY_EXCHANGE, OpenExchange, WORKERS},
    },
};

/// The exchange's worker's end came about at this moment, which [`wire::NginxEnd::worker_sock`] names.
#[inline(always)]
pub fn begins(exchange: &mut OpenExchange, created_ns: u64) {
    let OpenExchange { nginx, worker, .. } = exchange;
    comes_about(worker, nginx.worker_sock, created_ns);
    worker.nginx_sock = nginx.sock;
    worker.connect_ns = nginx.connect_ns;
}

/// The same where nginx is on another host: nobody knows what exchange it is of. None where there is no room for it.
#[inline(always)]
pub fn begins_alone<'a>(sk: u64) -> Option<&'a mut WorkerEnd> {
    let empty = EMPTY_EXCHANGE.get(0)?;
    reader::forget(sk);
    if !put!(WORKERS, sk, &empty.worker, workers_untracked) {
        return None;
    }
    let worker = alone(sk)?;
    // SAFETY: the helper takes nothing.
    comes_about(worker, sk, unsafe { bpf_ktime_get_ns() });
    Some(worker)
}

/// Makes a worker's end of all zeroes.
#[inline(always)]
fn comes_about(worker: &mut WorkerEnd, sock: u64, created_ns: u64) {
    worker.sock = sock;
    worker.created_ns = created_ns;
}

/// The worker's end that `sk` is: in its exchange, or one that stands for itself, because nginx is on another host or has given it up.
#[inline(always)]
pub fn find<'a>(sk: u64, peer_port: u16) -> Option<&'a mut WorkerEnd> {
    match joined::exchange_of(sk, peer_port) {
        Some(exchange) => Some(&mut exchange.worker),
        None => alone(sk),
    }
}

/// The worker's end that `sk` is, where it stands for itself.
#[inline(always)]
pub fn alone<'a>(sk: u64) -> Option<&'a mut WorkerEnd> {
    // SAFETY: preallocated map memory.
    WORKERS.get_ptr_mut(sk).map(|worker| unsafe { &mut *worker })
}

/// Reads what the kernel itself keeps of this end.
#[inline(always)]
fn take_account(worker: &mut WorkerEnd, sk: u64) {
    worker.arrived = read(sk, layout!(bytes_received));
    worker.sent = sock::bytes_sent(sk);
    worker.unread = sock::unread(sk);
    worker.has_socket = u32::from(sock::has_socket(sk));
}

/// Whether this end has come about and has not ended.
#[inline(always)]
pub fn is_open(worker: &WorkerEnd) -> bool {
    worker.sock != 0 && worker.ended_ns == 0
}

/// The worker's end of a TCP exchange, which is open, as it is while nginx's end ends.
#[inline(always)]
pub fn look(worker: &mut WorkerEnd, now: u64) {
    take_account(worker, worker.sock);
    worker.abandoned_ns = now;
}

/// nginx's end is emitted and goes. A worker's end that is open stands for itself from now on: how it ends is emitted later.
#[inline(always)]
pub fn outlives(worker: &WorkerEnd) {
    if is_open(worker) && put!(WORKERS, worker.sock, worker, workers_untracked) && !is_open(worker) {
        // It ended in this moment, where it was.
        let _gone = WORKERS.remove(worker.sock);
    }
}

/// Writes down how this end ends.
#[inline(always)]
pub fn ends(worker: &mut WorkerEnd, sk: u64, old_state: u8, new_state: u8) {
    worker.old_state = old_state;
    worker.new_state = new_state;
    take_account(worker, sk);
    // tcp_reset and the retransmission timers set sk_err before they change the state; a closing process does not.
    worker.error = read(sk, layout!(sk_err));
    closes(worker);
}

/// Writes down that this end ends now and, unless the network ended it, who closes it: this is process context then, and the
/// running task is the one.
#[inline(always)]
pub fn closes(worker: &mut WorkerEnd) {
    // SAFETY: the helper takes nothing.
    worker.ended_ns = unsafe { bpf_ktime_get_ns() };
    if worker.error != 0 {
        return;
    }
    worker.closer = task::current();
    if let Some(exit_code) = task::current_exit() {
        worker.exiting = 1;
        worker.exit_code = exit_code;
        deaths::of_death(
            worker.closer.tgid,
            task::began(task::current_task()),
            exit_code,
            &mut worker.signal,
        );
    }
}
