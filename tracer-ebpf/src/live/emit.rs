//! What userspace is sent when an exchange, or a worker's end that stands for itself, has ended.

use wire::{
    ExchangeRecord, FAMILY_UNIX, Header, Kind, NginxEnd, NginxOnly, Served, WorkerEnd, WorkerGone,
    nginx_flag, tcp_state,
};

use crate::{
    kernel::{memory, task, verified_once::verified_once},
    live::{
        entry::{self, unix_path},
        explain::{deaths, doing, hop, last_read, word},
        fallback,
        maps::{ConnectionId, OpenExchange, RING, Visitor, count},
    },
};

/// Sends the record of the exchange whose end of nginx's `sk` is up, and sees to it that what nginx does next follows.
#[inline(always)]
pub fn exchange(sk: u64, well: bool) {
    look_around(sk, well);
    emit_all(sk, well);
    emit_hop(sk);
}

verified_once! {
    /// Writes down what is known only as the exchange ends.
    fn look_around(sk: u64, well: bool) = looks_around(sk, well);
    fn emit_all(sk: u64, well: bool) = emits_all(sk, well);
    fn emit_hop(sk: u64) = emits_hop(sk);
}

/// The same of a connect that failed at once: there is no worker, and where it is emitted from there is no room on the stack to ask for one.
#[inline(always)]
pub fn unconnected(exchange: &mut OpenExchange) {
    emit(exchange, false, false);
}

#[inline(always)]
fn emits_all(sk: u64, well: bool) {
    if let Some(exchange) = entry::of(sk) {
        emit(exchange, well, true);
    }
}

#[inline(always)]
fn looks_around(sk: u64, well: bool) {
    let Some(OpenExchange { nginx, connection, .. }) = entry::of(sk) else { return };
    if well {
        nginx.flags |= nginx_flag::ENDED_WELL;
    }
    last_read::ask_nginx(nginx, *connection);
    last_read::look_at_client(nginx);
    let is_asked = nginx.word_ns == 0 && nginx.flags & nginx_flag::CLOSED_LATE == 0;
    if nginx.error == 0 && is_asked && word::is_shutting_down() {
        nginx.flags |= nginx_flag::SHUTTING_DOWN;
    }
    if nginx.client.sock != 0 && nginx.nginx.tid == task::thread() {
        nginx.flags |= doing::client_end(*connection);
        last_read::slept_meanwhile(nginx);
    }
    if nginx.flags & nginx_flag::CLIENT_READ != 0
        && nginx.received == 0
        && nginx.nginx.tid == task::thread()
        && doing::reads_request(*connection)
    {
        nginx.flags |= nginx_flag::REQUEST_UNDER_WAY;
    }
}

#[inline(always)]
fn emits_hop(sk: u64) {
    let Some(OpenExchange { nginx, .. }) = entry::of(sk) else { return };
    if nginx.client.sock != 0 && nginx.flags & nginx_flag::NEXT_ACTION_FOLLOWS != 0 {
        hop::emit(ConnectionId { sock: nginx.sock, connect_ns: nginx.connect_ns }, nginx.client.sock);
    }
}

#[inline(always)]
fn emit(exchange: &mut OpenExchange, well: bool, may_have_worker: bool) {
    let nginx = &mut exchange.nginx;
    let id = ConnectionId { sock: nginx.sock, connect_ns: nginx.connect_ns };
    // A TCP socket that the network ended stays with its process until that closes it; otherwise the process is
    // closing it right now.
    let by_network =
        nginx.error != 0 && nginx.old_state == tcp_state::SYN_SENT && nginx.upstream.family != FAMILY_UNIX;
    // What nginx did next, it has done.
    if !well && nginx.flags & (nginx_flag::CLOSER_EXITING | nginx_flag::CLOSED_LATE) == 0 {
        if !by_network && fallback::is_same_turn() {
            nginx.flags |= nginx_flag::SAME_TURN;
        }
        let is_awaited = if by_network {
            fallback::await_close(id)
        } else {
            fallback::await_next(id, 0, client_to_answer(nginx), nginx.client.sock)
        };
        nginx.flags |= if is_awaited { nginx_flag::NEXT_ACTION_FOLLOWS } else { nginx_flag::FACTS_LOST };
    }
    if exchange.nginx.handshake == 0 && exchange.nginx.upstream.family != FAMILY_UNIX {
        send_alone(&exchange.nginx);
    } else {
        send(exchange, may_have_worker);
    }
}

/// The client, if it is what it sent that nginx closes for, without a word: then nginx answers and closes its connection, too, or it goes on
/// with it.
#[inline(always)]
fn client_to_answer(nginx: &NginxEnd) -> u64 {
    let is_its = nginx.flags & nginx_flag::CLIENT_READ != 0 && nginx.word_ns == 0;
    if is_its && nginx.client.state == tcp_state::ESTABLISHED { nginx.client.sock } else { 0 }
}

#[inline(always)]
fn send_alone(nginx: &NginxEnd) {
    let Some(mut entry) = RING.reserve::<NginxOnly>(0) else {
        count!(lost, 1);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is exactly one record; every byte of it is written here.
    unsafe {
        (*record).header = Header { kind: Kind::NginxOnly as u32, len: size_of::<NginxOnly>() as u32 };
        memory::fill(&raw mut (*record).nginx, (&raw const *nginx).cast());
    }
    entry.submit(0);
}

#[inline(always)]
fn send(exchange: &OpenExchange, may_have_worker: bool) {
    match RING.reserve::<ExchangeRecord>(0) {
        Some(mut entry) => {
            let record = entry.as_mut_ptr();
            // SAFETY: the entry is exactly one record; every byte of it is written here.
            unsafe {
                (*record).header =
                    Header { kind: Kind::Exchange as u32, len: size_of::<ExchangeRecord>() as u32 };
                memory::fill(&raw mut (*record).nginx, &raw const exchange.nginx);
                memory::fill(&raw mut (*record).worker, &raw const exchange.worker);
                memory::clear(&raw mut (*record).stops);
                if may_have_worker {
                    deaths::stops(&exchange.worker, &raw mut (*record).stops);
                }
                (*record).reserved = 0;
                match unix_path::of(exchange.path) {
                    Some(path) => memory::fill(&raw mut (*record).path, path),
                    None => memory::clear(&raw mut (*record).path),
                }
            }
            entry.submit(0);
        }
        None => count!(lost, 1),
    }
}

/// Sends the whole end up: nginx's end was emitted before.
#[inline(always)]
pub fn worker_gone(worker: &WorkerEnd) {
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

/// Sends a worker's end up whose nginx is on another host.
#[inline(always)]
pub fn served(visitor: &Visitor, worker: &WorkerEnd) {
    let Some(mut entry) = RING.reserve::<Served>(0) else {
        count!(lost, 1);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is exactly one record; every byte of it is written here.
    unsafe {
        (*record).header = Header { kind: Kind::Served as u32, len: size_of::<Served>() as u32 };
        (*record).handshake = visitor.handshake;
        (*record).peer = visitor.peer;
        (*record).reserved = 0;
        (*record).worker = *worker;
        memory::clear(&raw mut (*record).stops);
        deaths::stops(worker, &raw mut (*record).stops);
    }
    entry.submit(0);
}
