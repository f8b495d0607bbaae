//! Connections that a listener of this host takes up while nginx is on another host.

use wire::{Endpoint, WorkerEnd, tcp_state};

use crate::{
    kernel::{ports::watch_port, put::put, read::filter, sock},
    live::{
        emit,
        exchange::worker_end,
        maps::{SERVED, VISITORS, Visitor},
    },
};

/// Whether the user asked for this listener, by address and port or by port alone.
#[inline(always)]
fn is_wanted(local: &Endpoint) -> bool {
    let mut key = Endpoint { family: 0, ..*local };
    // SAFETY: only tested for presence.
    unsafe {
        if SERVED.get(key).is_some() {
            return true;
        }
        key.addr = [0; 4];
        SERVED.get(key).is_some()
    }
}

/// A listener's new socket is ready to be accepted, and no nginx of this host is at its other end.
#[inline(always)]
pub fn begins(sk: u64, handshake: u64) {
    if filter!(listeners) == 0 {
        return;
    }
    let local = sock::local(sk);
    if !is_wanted(&local) {
        return;
    }
    let Some(worker) = worker_end::begins_alone(sk) else { return };
    worker.local = local;
    watch_port(local.port);
    let visitor = Visitor { handshake, peer: sock::remote(sk), reserved: 0 };
    put!(VISITORS, sk, &visitor, workers_untracked);
}

/// It ended. One that was answered and closed by its worker first, which lives on, succeeded.
#[inline(always)]
pub fn ends(worker: &WorkerEnd) {
    // SAFETY: copied out at once.
    let Some(visitor) = (unsafe { VISITORS.get(worker.sock) }).copied() else { return };
    let _gone = VISITORS.remove(worker.sock);
    let by_living = worker.error == 0 && worker.exit_code & 0x7f == 0;
    let closed_first = worker.old_state == tcp_state::ESTABLISHED && worker.new_state == tcp_state::FIN_WAIT1;
    if by_living && closed_first && worker.accepted_ns != 0 && worker.sent > 0 {
        return;
    }
    emit::served(&visitor, worker);
}
