//! How the ends of an exchange over TCP end.

use crate::{
    kernel::{sock, task},
    live::{
        emit,
        entry::{self, handshake, joined},
        exchange::{
            ending::{self, Ending},
            served, worker_end,
        },
        explain::word,
        fallback,
        maps::{AWAITED, BROKEN, ConnectionId, EXCHANGES, LESS, OpenExchange, WORKERS, change},
        transport::tcp::account,
    },
};

/// nginx's end of a TCP exchange ended. Returns whether it was an end of ours.
#[inline(always)]
pub fn ended(sk: u64, remote_port: u16, old_state: u8, new_state: u8) -> bool {
    let Some(exchange) = entry::find(sk, remote_port) else { return false };
    match ending::of_tcp(exchange, sk, old_state, new_state) {
        Ending::Well => forget(exchange, sk),
        Ending::Broken => {
            let id = ConnectionId { sock: sk, connect_ns: exchange.nginx.connect_ns };
            account::take_account(sk);
            fallback::await_close(id);
        }
        ending @ (Ending::Late | Ending::Failed) => {
            account::take_account(sk);
            if let Some(exchange) = entry::of(sk) {
                worker_end::outlives(&exchange.worker);
            }
            emit::exchange(sk, ending == Ending::Late);
            if let Some(exchange) = entry::of(sk) {
                forget(exchange, sk);
            }
        }
    }
    true
}

/// nginx closes a socket that the network had ended.
#[inline(always)]
fn broken_closed(id: ConnectionId) {
    let Some(exchange) = entry::of(id.sock) else { return };
    if exchange.nginx.connect_ns != id.connect_ns {
        return;
    }
    if ending::of_broken(exchange, id.sock) != Ending::Well {
        worker_end::outlives(&exchange.worker);
        emit::exchange(id.sock, false);
    }
    if let Some(exchange) = entry::of(id.sock) {
        forget(exchange, id.sock);
    }
}

#[inline(always)]
fn forget(exchange: &OpenExchange, sk: u64) {
    if exchange.nginx.worker_sock == 0 && exchange.nginx.handshake != 0 {
        handshake::forget(exchange.nginx.handshake);
    }
    joined::forget(exchange);
    let _gone = EXCHANGES.remove(sk);
}

/// A worker's end ended. Returns whether it was one of ours.
#[inline(always)]
pub fn worker_ended(sk: u64, peer_port: u16, old_state: u8, new_state: u8) -> bool {
    if let Some(OpenExchange { worker, .. }) = joined::exchange_of(sk, peer_port) {
        worker_end::ends(worker, sk, old_state, new_state);
        // Given up in this moment: the standby instance does not end any more.
        if worker.abandoned_ns != 0 && WORKERS.remove(sk).is_ok() {
            emit::worker_gone(worker);
        }
        return true;
    }
    let Some(worker) = worker_end::alone(sk) else { return false };
    worker_end::ends(worker, sk, old_state, new_state);
    if worker.nginx_sock == 0 {
        served::ends(worker);
    } else {
        emit::worker_gone(worker);
    }
    let _gone = WORKERS.remove(sk);
    true
}

/// A socket is destroyed. One that was reset earlier changes no state any more when its process closes it, so
/// this is where its closing shows. `__tcp_close` keeps the socket locked until that is done; where it is not, the network
/// destroys what some process had closed before, and whoever runs now has no part in it.
#[inline(always)]
pub fn destroyed(sk: u64) {
    let was_over = fallback::take_over(sk);
    if !sock::is_owned(sk) {
        return;
    }
    // SAFETY: copied out at once.
    if let Some(connect_ns) = unsafe { BROKEN.get(sk) }.copied() {
        if BROKEN.remove(sk).is_ok() {
            let id = ConnectionId { sock: sk, connect_ns };
            if entry::is_open(id) {
                broken_closed(id);
            } else if task::current_exit().is_none() {
                // Its record is emitted already: what is lost here shows as no act at all.
                let _counted = fallback::await_next(id, word::of_close(id.connect_ns, 0, false), 0, 0);
            }
            change(&AWAITED, LESS);
        }
        return;
    }
    if was_over {
        return;
    }
    word::forget();
    fallback::closed_over(sk);
}
