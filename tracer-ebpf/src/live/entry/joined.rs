//! Which exchange a worker's end is part of.
//!
//! As long as nginx's end is open, the worker's end of its connection is kept in the same entry, and found through nginx's socket: a unix
//! socket names its peer itself; a TCP socket's place is that of its peer's port as this end sees it, whatever address translation lies
//! between. A second connection from the same port (to another address, or in another network namespace) finds the place taken, and
//! stands in a map. Looking up a place costs next to nothing; an entry for each worker's end would have to be made, found and removed.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap},
};
use wire::{FAMILY_UNIX, PORTS_LEN};

use crate::{
    kernel::{
        memory,
        put::put,
        read::{layout, read},
    },
    live::maps::{ALIASED, EXCHANGES, LESS, OpenExchange, change, is_any},
};

/// nginx's sockets, each in the place of its port.
#[map]
static BY_PORT: Array<u64> = Array::with_max_entries(PORTS_LEN as u32, 0);

/// nginx's sockets whose place was taken, by the worker's socket. Userspace sets the size before loading.
#[map]
static ALIASES: HashMap<u64, u64> = HashMap::with_max_entries(16_384, 0);

/// The place of a port, which is in host order.
#[inline(always)]
fn place(port: u16) -> Option<*mut u64> {
    BY_PORT.get_ptr_mut(memory::bounded::<{ PORTS_LEN as u64 - 1 }>(port.into()) as u32)
}

/// nginx's end of this socket, if `sk` is the worker's end of it.
#[inline(always)]
fn whose_worker_is<'a>(nginx_sock: u64, sk: u64) -> Option<&'a mut OpenExchange> {
    // SAFETY: preallocated map memory.
    EXCHANGES.get_ptr_mut(nginx_sock).map(|it| unsafe { &mut *it }).filter(|it| it.nginx.worker_sock == sk)
}

/// `sk`, whose peer's port is this one, is the worker's end of a TCP exchange from now on. Returns whether there was room to note that.
#[inline(always)]
pub fn joins(sk: u64, peer_port: u16, exchange: &mut OpenExchange) -> bool {
    let Some(place) = place(peer_port) else { return false };
    // SAFETY: map memory; an entry is a word.
    let before = unsafe { place.read_volatile() };
    if before != 0 && before != exchange.nginx.sock && is_in_use(before) {
        if !put!(ALIASES, sk, exchange.nginx.sock, workers_untracked) {
            return false;
        }
        change(&ALIASED, 1);
        exchange.peer_port = 0;
    } else {
        // SAFETY: the same.
        unsafe { place.write_volatile(exchange.nginx.sock) };
        exchange.peer_port = peer_port.into();
    }
    exchange.nginx.worker_sock = sk;
    true
}

/// Whether a place is still asked for by a worker's end.
#[inline(always)]
fn is_in_use(nginx_sock: u64) -> bool {
    EXCHANGES.get_ptr(nginx_sock).is_some_and(|exchange| {
        // SAFETY: preallocated map memory.
        let worker = unsafe { &(*exchange).worker };
        worker.sock != 0 && worker.ended_ns == 0
    })
}

/// The open exchange that `sk`, whose peer's port is this one, is the worker's end of.
#[inline(always)]
pub fn exchange_of<'a>(sk: u64, peer_port: u16) -> Option<&'a mut OpenExchange> {
    if peer_port == 0 {
        let peer =
            if read::<u16>(sk, layout!(family)) == FAMILY_UNIX { read(sk, layout!(unix_peer)) } else { 0 };
        return whose_worker_is(peer, sk);
    }
    // SAFETY: map memory; an entry is a word.
    let nginx_sock = unsafe { place(peer_port)?.read_volatile() };
    if nginx_sock != 0
        && let Some(exchange) = whose_worker_is(nginx_sock, sk)
    {
        return Some(exchange);
    }
    if !is_any(&ALIASED) {
        return None;
    }
    // SAFETY: copied out at once.
    let nginx_sock = unsafe { ALIASES.get(sk) }.copied()?;
    whose_worker_is(nginx_sock, sk)
}

/// nginx's end of a TCP exchange goes, and with it what is noted here.
#[inline(always)]
pub fn forget(exchange: &OpenExchange) {
    if exchange.peer_port != 0 {
        if let Some(place) = place(exchange.peer_port as u16) {
            // SAFETY: map memory; an entry is a word.
            unsafe {
                if place.read_volatile() == exchange.nginx.sock {
                    place.write_volatile(0);
                }
            }
        }
    } else if exchange.worker.sock != 0 && ALIASES.remove(exchange.nginx.worker_sock).is_ok() {
        change(&ALIASED, LESS);
    }
}
