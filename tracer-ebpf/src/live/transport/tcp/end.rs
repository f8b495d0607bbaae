//! How the ends of an exchange over TCP end.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use wire::{nginx_flag, tcp_state};

use crate::{
    kernel::{
        read::{layout, read},
        sock, task,
    },
    live::{
        emit::{self, tell},
        entry::{self, handshake, joined},
        exchange::{ending, served, worker_end},
        explain::word,
        fallback,
        maps::{AWAITED, BROKEN, ConnectionId, EXCHANGES, LESS, OpenExchange, WORKERS, change},
        transport::tcp::account,
    },
};

/// This end of a TCP exchange ended. Returns whether it was an end of ours.
///
/// What the network ends after the handshake is over for nginx only when it meets the error: until then it may still
/// read all of a response that came before a reset. So that is told when nginx closes the socket.
#[inline(always)]
pub fn ended(sk: u64, remote_port: u16, old_state: u8, new_state: u8) -> bool {
    let Some(exchange) = entry::find(sk, remote_port) else { return false };
    let nginx = &mut exchange.nginx;
    nginx.old_state = old_state;
    nginx.new_state = new_state;
    // Set before the state changes by tcp_reset and the timers, not by a closing process.
    nginx.error = read(sk, layout!(sk_err));
    // Taken by whoever asked for it, and nginx gives up then.
    if nginx.error == 0
        && old_state == tcp_state::SYN_SENT
        && nginx.icmp.errno != 0
        && read::<u32>(sk, layout!(sk_err_soft)) == 0
    {
        nginx.error = nginx.icmp.errno;
    }
    if nginx.error != 0 && old_state != tcp_state::SYN_SENT {
        // SAFETY: the helper takes nothing.
        nginx.ended_ns = unsafe { bpf_ktime_get_ns() };
        let id = ConnectionId { sock: sk, connect_ns: nginx.connect_ns };
        account::take_account(sk);
        fallback::await_close(id);
        return true;
    }
    let well = ending::ends(exchange).0;
    if well && exchange.nginx.syn_retransmits == 0 {
        forget(exchange, sk);
        return true;
    }
    account::take_account(sk);
    if let Some(exchange) = entry::of(sk) {
        worker_end::outlives(&exchange.worker);
    }
    tell(sk, well);
    if let Some(exchange) = entry::of(sk) {
        forget(exchange, sk);
    }
    true
}

/// nginx closes a socket that the network had ended. An error that nobody has taken (`sock_error` clears it) has harmed
/// nobody.
#[inline(always)]
pub fn closes_broken(id: ConnectionId) {
    let Some(exchange) = EXCHANGES.get_ptr_mut(id.sock) else { return };
    // SAFETY: preallocated map memory; the connection's name is checked at once.
    let exchange = unsafe { &mut *exchange };
    if exchange.nginx.connect_ns != id.connect_ns {
        return;
    }
    let (error, ended_ns) = (exchange.nginx.error, exchange.nginx.ended_ns);
    let met = exchange.nginx.errno != 0 || read::<u32>(id.sock, layout!(sk_err)) == 0;
    exchange.nginx.unread = sock::unread(id.sock);
    // So that the exit of the closer is looked at in any case.
    exchange.nginx.error = 0;
    let (mut well, _) = ending::ends(exchange);
    let nginx = &mut exchange.nginx;
    if met {
        nginx.error = error;
        nginx.ended_ns = ended_ns;
        well = nginx.flags & nginx_flag::PEEKED != 0 && nginx.word_ns == 0;
    } else if nginx.flags & nginx_flag::READ_LAST != 0 && nginx.unread == 0 {
        well = nginx.word_ns == 0;
    }
    if !well {
        worker_end::outlives(&exchange.worker);
        tell(id.sock, false);
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

/// This end ended. Returns whether it was a worker's end of ours.
#[inline(always)]
pub fn worker_ended(sk: u64, peer_port: u16, old_state: u8, new_state: u8) -> bool {
    if let Some(OpenExchange { worker, .. }) = joined::exchange_of(sk, peer_port) {
        worker_end::ends(worker, sk, old_state, new_state);
        // Given up in this moment: the copy does not end any more.
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
    let was_over = fallback::was_over(sk);
    if !sock::is_owned(sk) {
        return;
    }
    // SAFETY: copied out at once.
    if let Some(connect_ns) = unsafe { BROKEN.get(sk) }.copied() {
        if BROKEN.remove(sk).is_ok() {
            let id = ConnectionId { sock: sk, connect_ns };
            if entry::is_open(id) {
                closes_broken(id);
            } else if task::current_exit().is_none() {
                // Its record is told already: what is lost here shows as no act at all.
                let _counted = fallback::await_next(id, word::of_close(id.connect_ns, false), 0, 0);
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
