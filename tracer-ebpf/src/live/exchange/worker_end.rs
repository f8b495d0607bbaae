//! The worker's end of an exchange.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use wire::{Header, Kind, WorkerEnd, WorkerGone};

use crate::{
    kernel::{
        memory,
        ports::{port_is_watched, watch_port},
        put::put,
        read::{layout, read},
        sock::{self, Common},
        task,
    },
    live::{
        entry::{handshake, joined},
        exchange::served,
        explain::{deaths, listener, workers},
        maps::{EXCHANGES, OpenExchange, RING, WORKERS, count, place_of_reader},
        transport::unix,
    },
};

/// A listener's new socket is ready to be accepted: joins it to nginx's end by the handshake's sequence numbers.
#[inline(always)]
pub fn established(sk: u64) {
    let nginx_isn: u32 = read(sk, layout!(rcv_nxt));
    let worker_isn: u32 = read(sk, layout!(snd_nxt));
    let handshake = u64::from(nginx_isn) << 32 | u64::from(worker_isn);
    if !sock::is_here(sk) {
        return;
    }
    let Some(nginx_sock) = handshake::take(handshake) else {
        served::begins(sk, handshake);
        return;
    };
    let Some(exchange) = EXCHANGES.get_ptr_mut(nginx_sock) else { return };
    // SAFETY: preallocated map memory; that it is of this handshake is checked before anything is written.
    let exchange = unsafe { &mut *exchange };
    if exchange.nginx.handshake != handshake {
        return;
    }
    is_unread(sk);
    let common = Common::of(sk);
    if !joined::joins(sk, common.remote_port(), exchange) {
        // So that it is not missed again in the end.
        handshake::awaits(handshake, nginx_sock);
        return;
    }
    // SAFETY: the helper takes nothing.
    begins(exchange, unsafe { bpf_ktime_get_ns() });
    let OpenExchange { nginx, worker, .. } = exchange;
    worker.local = common.local();
    watch_port(worker.local.port);
    listener::learn(nginx.net, &nginx.upstream, common.net(), &worker.local);
}

/// The exchange's worker's end came about at this moment, which [`NginxEnd::worker_sock`] names.
#[inline(always)]
pub fn begins(exchange: &mut OpenExchange, created_ns: u64) {
    let OpenExchange { nginx, worker, .. } = exchange;
    worker.sock = nginx.worker_sock;
    worker.nginx_sock = nginx.sock;
    worker.connect_ns = nginx.connect_ns;
    worker.created_ns = created_ns;
}

/// The worker's end that `sk` is: in its exchange, or one that stands for itself, because nginx is on another host or has given it up.
#[inline(always)]
fn find<'a>(sk: u64, peer_port: u16) -> Option<&'a mut WorkerEnd> {
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

/// A process accepted the connection that `sk` is an end of. Whether it reads the request, too, or hands the connection to another one, shows
/// when it is read from.
#[inline(always)]
pub fn accepted(sk: u64) {
    if sk == 0 {
        return;
    }
    let (peer_port, local_port) = sock::ports(sk);
    if port_is_watched(local_port) {
        is_taken(sk, peer_port, local_port);
    }
}

/// The running process has the connection that `sk` is an end of. Returns whether it is one of ours that goes on.
#[inline(always)]
fn is_taken(sk: u64, peer_port: u16, local_port: u16) -> bool {
    let Some(worker) = find(sk, peer_port) else {
        if local_port == 0 {
            unix::abandoned_read_from(sk);
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
    if is_taken(sk, peer_port, local_port) {
        // SAFETY: the same.
        unsafe { read.write_volatile(sk) };
    }
}

/// Whether `sk` is an end of ours from which a process is known to have read.
#[inline(always)]
pub fn is_read_from(sk: u64) -> bool {
    // SAFETY: map memory; an entry is a word.
    place_of_reader(sk).is_some_and(|read| unsafe { read.read_volatile() } == sk)
}

/// A new end, of either side, has the address `sk`, from which nobody has read yet.
#[inline(always)]
pub fn is_unread(sk: u64) {
    if let Some(read) = place_of_reader(sk) {
        // SAFETY: map memory; an entry is a word.
        unsafe { read.write_volatile(0) };
    }
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

/// nginx's end is told and goes. A worker's end that is open stands for itself from now on: how it ends is told later.
#[inline(always)]
pub fn outlives(worker: &WorkerEnd) {
    if is_open(worker) && put!(WORKERS, worker.sock, worker, workers_untracked) && !is_open(worker) {
        // It ended in this moment, where it was.
        let _gone = WORKERS.remove(worker.sock);
    }
}

/// This end ended. Returns whether it was a worker's end of ours.
#[inline(always)]
pub fn ended(sk: u64, peer_port: u16, old_state: u8, new_state: u8) -> bool {
    if let Some(OpenExchange { worker, .. }) = joined::exchange_of(sk, peer_port) {
        ends(worker, sk, old_state, new_state);
        // Given up in this moment: the copy does not end any more.
        if worker.abandoned_ns != 0 && WORKERS.remove(sk).is_ok() {
            tell(worker);
        }
        return true;
    }
    let Some(worker) = alone(sk) else { return false };
    ends(worker, sk, old_state, new_state);
    if worker.nginx_sock == 0 {
        served::ends(worker);
    } else {
        tell(worker);
    }
    let _gone = WORKERS.remove(sk);
    true
}

/// Writes down how this end ends.
#[inline(always)]
fn ends(worker: &mut WorkerEnd, sk: u64, old_state: u8, new_state: u8) {
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

/// Sends the whole end up: nginx's end was told before.
#[inline(always)]
pub fn tell(worker: &WorkerEnd) {
    let Some(mut entry) = RING.reserve::<WorkerGone>(0) else {
        count!(lost, 1);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is exactly one record; every byte of it is written here.
    unsafe {
        (*record).header = Header { kind: Kind::WorkerGone as u32, len: size_of::<WorkerGone>() as u32 };
        memory::fill(&raw mut (*record).worker, worker);
    }
    entry.submit(0);
}
