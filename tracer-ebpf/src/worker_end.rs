//! The worker's end of an exchange.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_ebpf::{Header, Kind, NginxEnd, WorkerEnd, WorkerGone};

use crate::{
    handshake,
    kernel::{self, Common, layout, read},
    listener,
    maps::{EMPTY_EXCHANGE, EXCHANGES, RING, WORKERS, count, place_of_reader, port_is_watched, watch_port},
    process, served, signal, unix_end,
};

/// A listener's new socket is ready to be accepted: joins it to nginx's end by the handshake's sequence numbers.
#[inline(always)]
pub fn established(sk: u64) {
    let nginx_isn: u32 = read(sk, layout!(rcv_nxt));
    let worker_isn: u32 = read(sk, layout!(snd_nxt));
    let handshake = u64::from(nginx_isn) << 32 | u64::from(worker_isn);
    if !kernel::is_here(sk) {
        return;
    }
    let Some(id) = handshake::take(handshake) else {
        served::begins(sk, handshake);
        return;
    };
    let Some(exchange) = EXCHANGES.get_ptr_mut(id.sock) else { return };
    // SAFETY: preallocated map memory; the connection's name is checked before anything is written.
    let nginx = unsafe { &mut (*exchange).nginx };
    if nginx.connect_ns != id.connect_ns || nginx.handshake != handshake {
        return;
    }
    let Some(empty) = EMPTY_EXCHANGE.get(0) else { return };
    is_unread(sk);
    if WORKERS.insert(sk, &empty.worker, 0).is_err() {
        count!(workers_untracked, 1);
        // So that it is not missed again in the end.
        handshake::awaits(handshake, id);
        return;
    }
    let Some(worker) = WORKERS.get_ptr_mut(sk) else { return };
    // SAFETY: preallocated map memory, made just above.
    let worker = unsafe { &mut *worker };
    worker.sock = sk;
    worker.nginx_sock = id.sock;
    worker.connect_ns = id.connect_ns;
    // SAFETY: the helper takes nothing.
    worker.created_ns = unsafe { bpf_ktime_get_ns() };
    let common = Common::of(sk);
    worker.local = common.local();
    watch_port(worker.local.port);
    nginx.worker_sock = sk;
    listener::learn(nginx.net, &nginx.upstream, common.net(), &worker.local);
}

/// A process accepted the connection that `sk` is an end of.
#[inline(always)]
pub fn accepted(sk: u64) {
    if sk != 0 {
        read_from(sk, kernel::ports(sk).1);
    }
}

/// Copies the whole end.
#[inline(always)]
pub fn copy(to: &mut WorkerEnd, from: &WorkerEnd) {
    // SAFETY: map memory that is already a value of the type.
    unsafe { kernel::fill(to, from) }
}

/// A process called receive on `sk`: it has accepted the connection.
#[inline(always)]
pub fn read_from(sk: u64, local_port: u16) {
    if !port_is_watched(local_port) {
        return;
    }
    let Some(read) = place_of_reader(sk) else { return };
    // SAFETY: map memory; an entry is a word.
    if unsafe { read.read_volatile() } == sk {
        return;
    }
    let Some(worker) = WORKERS.get_ptr_mut(sk) else {
        if local_port == 0 {
            unix_end::abandoned_read_from(sk);
        }
        return;
    };
    // SAFETY: preallocated map memory.
    let worker = unsafe { &mut *worker };
    if worker.accepted_ns == 0 {
        // SAFETY: the helper takes nothing.
        worker.accepted_ns = unsafe { bpf_ktime_get_ns() };
        worker.worker = kernel::current();
        process::takes_up(worker.worker.tgid);
    }
    // SAFETY: the same.
    unsafe { read.write_volatile(sk) };
}

/// A new end has the address `sk`, from which nobody has read yet.
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
    worker.sent = kernel::bytes_sent(sk);
    worker.unread = kernel::unread(sk);
    worker.has_socket = u32::from(kernel::has_socket(sk));
}

/// The worker's end of a TCP exchange as it is while nginx's end ends; from then on its own end is told.
#[inline(always)]
pub fn look<'a>(nginx: &NginxEnd, now: u64) -> Option<&'a WorkerEnd> {
    if nginx.worker_sock == 0 {
        return None;
    }
    // SAFETY: preallocated map memory; the connection's name is checked before anything is written.
    let worker = unsafe { &mut *WORKERS.get_ptr_mut(nginx.worker_sock)? };
    if worker.nginx_sock != nginx.sock || worker.connect_ns != nginx.connect_ns {
        return None;
    }
    take_account(worker, nginx.worker_sock);
    worker.abandoned_ns = now;
    Some(worker)
}

/// This end ended. Returns whether it was a worker's end of ours.
#[inline(always)]
pub fn ended(sk: u64, old_state: u8, new_state: u8) -> bool {
    let Some(worker) = WORKERS.get_ptr_mut(sk) else { return false };
    // SAFETY: preallocated map memory.
    let worker = unsafe { &mut *worker };
    worker.old_state = old_state;
    worker.new_state = new_state;
    take_account(worker, sk);
    // tcp_reset and the retransmission timers set sk_err before they change the state; a closing process does not.
    worker.error = read(sk, layout!(sk_err));
    closes(worker);
    if worker.nginx_sock == 0 {
        served::ends(worker);
    } else if worker.abandoned_ns != 0 {
        tell(worker);
    } else if let Some(exchange) = EXCHANGES.get_ptr_mut(worker.nginx_sock) {
        // SAFETY: preallocated map memory; the connection's name is checked before anything is written.
        let exchange = unsafe { &mut *exchange };
        if exchange.nginx.connect_ns == worker.connect_ns {
            copy(&mut exchange.worker, worker);
        }
    }
    let _gone = WORKERS.remove(sk);
    true
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
    worker.closer = kernel::current();
    if let Some(exit_code) = kernel::current_exit() {
        worker.exiting = 1;
        worker.exit_code = exit_code;
        signal::of_death(
            worker.closer.tgid,
            kernel::began(kernel::current_task()),
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
        kernel::fill(&raw mut (*record).worker, worker);
    }
    entry.submit(0);
}
