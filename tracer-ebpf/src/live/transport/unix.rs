//! How exchanges over unix sockets end. No tracepoint shows them, so connect ([`super::connect`]) and close are seen as calls; the rest as
//! for TCP. A unix socket has no port: port 0 stands for it among the watched ports.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated::bpf_for_each_map_elem};
use wire::{FAMILY_UNIX, MISSING, WorkerEnd, nginx_flag, tcp_state};

use crate::{
    kernel::{
        ports::port_is_watched,
        read::{layout, read},
        sock, task, unix_place,
    },
    live::{
        emit,
        entry::{self, NO_PORT, joined, unix_path},
        exchange::{
            abandoned,
            ending::{self, Ending},
            nginx_end, worker_end,
        },
        explain::{closed_listener, deaths, process, unix_listener::look, word},
        maps::{EXCHANGES, OpenExchange, WORKERS, attached, count},
        scope,
        transport::transfer,
    },
};

/// A process closes a descriptor.
#[inline(always)]
pub fn close_called(fd: u64) {
    let task = task::current();
    let held = abandoned::held_by(task.tgid);
    if held == 0 && !scope::is_our_task(&task) {
        return;
    }
    let sk = task::sock_of(fd);
    if sk == 0 {
        return;
    }
    if sk == held {
        abandoned::closed(sk, task.tgid);
        return;
    }
    match entry::find(sk, NO_PORT) {
        Some(exchange) if exchange.nginx.upstream.family == FAMILY_UNIX => ended(exchange, sk),
        None if !sock::is_inet(sk) => word::forget(),
        Some(_) | None => {}
    }
}

/// The running process ends, maybe one of ours: its open exchanges end with it, without a system call.
#[inline(always)]
pub fn owner_dies() {
    if !scope::is_our_task(&task::current()) || !port_is_watched(NO_PORT) {
        return;
    }
    // SAFETY: the callback has the signature that the helper asks for, and uses no context.
    unsafe {
        bpf_for_each_map_elem(
            (&raw const EXCHANGES).cast_mut().cast(),
            ends_with_owner as *mut c_void,
            core::ptr::null_mut(),
            0,
        );
    }
}

/// For each open exchange, while a process of ours ends. An entry may be removed from within.
extern "C" fn ends_with_owner(
    _map: *mut c_void,
    sk: *const u64,
    exchange: *mut OpenExchange,
    _context: *mut c_void,
) -> i64 {
    // SAFETY: the helper hands over the entry's own memory.
    let (sk, exchange) = unsafe { (*sk, &mut *exchange) };
    if exchange.nginx.upstream.family == FAMILY_UNIX
        && exchange.nginx.nginx.tgid == (bpf_get_current_pid_tgid() >> 32) as u32
    {
        ended(exchange, sk);
    }
    0
}

/// nginx closes its end, which is that of this open exchange.
#[inline(always)]
fn ended(exchange: *mut OpenExchange, sk: u64) {
    // SAFETY: preallocated map memory. What emits it finds it by itself: nobody has it then.
    if ends(unsafe { &mut *exchange }) != Ending::Well {
        emit::exchange(sk, false);
    }
    let _gone = EXCHANGES.remove(sk);
}

/// Writes down that nginx closes its end. What it read last shows whether the peer had closed before, and how. A function of its
/// own, for its stack.
#[inline(never)]
fn ends(exchange: &mut OpenExchange) -> Ending {
    let sk = exchange.nginx.sock;
    let nginx = &mut exchange.nginx;
    (nginx.old_state, nginx.new_state) = if nginx.errno != 0 {
        nginx.error = u32::from(nginx.errno);
        (tcp_state::ESTABLISHED, tcp_state::CLOSE)
    } else if nginx.flags & nginx_flag::END_READ != 0 {
        (tcp_state::CLOSE_WAIT, tcp_state::LAST_ACK)
    } else {
        (tcp_state::ESTABLISHED, tcp_state::FIN_WAIT1)
    };
    nginx.unread = read(sk, layout!(receive_qlen));
    if nginx.unread > 0 && nginx.error == 0 {
        nginx.new_state = tcp_state::CLOSE;
    }
    nginx_end::note_blocked(nginx, sk);
    take_worker(exchange);
    let (well, now) = ending::ends(exchange);
    if !well {
        if let Some(path) = unix_path::of(exchange.path) {
            exchange.nginx.listener_last = look(path);
        }
        let worker = &mut exchange.worker;
        if worker_end::is_open(worker) {
            worker.abandoned_ns = now;
            if is_release_seen() {
                worker_end::outlives(worker);
            } else {
                abandoned::keep(worker);
            }
        }
    }
    if well { Ending::Well } else { Ending::Failed }
}

/// Whether a unix socket that a listener made was handed to a process, be it closed since or not: `unix_accept` takes the
/// listener out of it (`unix_update_edges`, since 6.10).
#[inline(always)]
fn was_accepted(sk: u64) -> bool {
    sock::has_socket(sk) || layout!(unix_listener) != MISSING && read::<u64>(sk, layout!(unix_listener)) == 0
}

/// Whether the end of every unix socket is seen.
#[inline(always)]
fn is_release_seen() -> bool {
    attached().is_some_and(|attached| attached.unix_release != 0)
}

/// A unix socket ends: its process closed it, or died; or its listener did, before anyone had accepted it.
#[inline(always)]
pub fn released(sk: u64, was_queued: bool) {
    if unix_place::is_listener(sk) {
        closed_listener::closes_unix(sk);
        unix_place::forget(sk);
    }
    if !port_is_watched(NO_PORT) {
        return;
    }
    if transfer::may_miss_sends() {
        transfer::settle();
    }
    if let Some(exchange) = entry::find(sk, NO_PORT) {
        if exchange.nginx.upstream.family == FAMILY_UNIX {
            ended(exchange, sk);
        }
        return;
    }
    other_released(sk, was_queued);
}

/// What ends is no end of nginx's. A function of its own, for its stack.
#[inline(never)]
fn other_released(sk: u64, was_queued: bool) {
    if let Some(OpenExchange { worker, .. }) = joined::exchange_of(sk, NO_PORT) {
        worker_released(worker, sk, was_queued);
    } else if let Some(worker) = worker_end::alone(sk) {
        worker_released(worker, sk, was_queued);
        emit::worker_gone(worker);
        let _gone = WORKERS.remove(sk);
    } else {
        word::forget();
    }
}

/// Writes down how a worker's end ends.
#[inline(always)]
fn worker_released(worker: &mut WorkerEnd, sk: u64, was_queued: bool) {
    worker_end::closes(worker);
    worker.has_socket = u32::from(!was_queued);
    // A queue that is not empty makes the release a reset (unix_release_sock).
    worker.unread = read(sk, layout!(receive_qlen));
    worker.old_state = tcp_state::ESTABLISHED;
    worker.new_state = tcp_state::CLOSE;
}

/// Takes over what is known of the worker's end: whether it was accepted, by whom, and whether that process died.
#[inline(always)]
fn take_worker(exchange: &mut OpenExchange) {
    let OpenExchange { nginx, worker, .. } = exchange;
    if !worker_end::is_open(worker) {
        return;
    }
    worker.has_socket = u32::from(worker.accepted_ns != 0 || was_accepted(nginx.worker_sock));
    // unix_release_sock gives the peer ECONNRESET or an end of file when the worker's end goes.
    if nginx.error == 0 && nginx.flags & nginx_flag::END_READ == 0 {
        nginx_end::note_worker(nginx, worker.has_socket != 0);
        return;
    }
    // SAFETY: the helper takes nothing.
    worker.ended_ns = unsafe { bpf_ktime_get_ns() };
    worker.old_state = tcp_state::ESTABLISHED;
    worker.new_state = tcp_state::CLOSE;
    if worker.accepted_ns == 0 {
        return;
    }
    match process::find(worker.worker.tgid).filter(|process| process.began_ns <= worker.accepted_ns) {
        Some(process) if process.ended_ns > worker.accepted_ns => {
            worker.closer = worker.worker;
            worker.ended_ns = process.ended_ns;
            worker.exiting = 1;
            worker.exit_code = process.exit_code;
            deaths::of_death(worker.worker.tgid, process.began_ns, process.exit_code, &mut worker.signal);
        }
        Some(_) => worker.closer = worker.worker,
        // Whether it lives is not known: nor who closed.
        None => {
            nginx.flags |= nginx_flag::FACTS_LOST;
            count!(processes_unkept, 1);
        }
    }
}
