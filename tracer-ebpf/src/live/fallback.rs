//! What nginx does right after it closed an unfinished exchange of its own accord. It tells a timeout (it answers
//! the client) from a client that went away (it closes the client's socket, whose peer had closed).

use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use wire::{Action, Header, Kind, NextAction, tcp_state};

use crate::{
    kernel::{memory, put::put, sock, task},
    live::{
        entry,
        explain::hop,
        maps::{
            AWAITED, AWAITING, Awaited, BROKEN, ConnectionId, LAST_CLOSED, LESS, RING, change, count, is_any,
        },
    },
};

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

/// Whether any thread's next act is awaited: false nearly always.
#[inline(always)]
pub fn is_awaited() -> bool {
    is_any(&AWAITED)
}

/// From now on, this thread's next act is emitted, and with it the word that nginx said about a connection that the network had ended; if
/// it answers `answered_client` before, that, and the act after that. Whose request it serves is emitted already if its client is known.
/// Returns whether there is room for that.
#[inline(always)]
pub fn await_next(id: ConnectionId, word_ns: u64, answered_client: u64, client: u64) -> bool {
    let thread = task::thread();
    // SAFETY: only tested for presence.
    let is_new = unsafe { AWAITING.get(thread) }.is_none();
    let mut room = MaybeUninit::uninit();
    // SAFETY: all zeroes are a value of the type.
    let awaited: &mut Awaited = unsafe { memory::cleared(&mut room) };
    awaited.id = id;
    awaited.closed_ns = now();
    awaited.word_ns = word_ns;
    awaited.client = answered_client;
    awaited.is_client_known = u64::from(client != 0);
    let is_kept = put!(AWAITING, thread, &*awaited, acts_unkept);
    if is_kept && is_new {
        change(&AWAITED, 1);
    }
    is_kept
}

/// Whether this thread's next act is awaited for an exchange that it closed before, and it has neither acted nor received anything since.
#[inline(always)]
pub fn is_same_turn() -> bool {
    // SAFETY: only looked at.
    let awaited = unsafe { AWAITING.get(task::thread()) };
    awaited.is_some_and(|awaited| awaited.turned_to == 0 && awaited.answered == 0)
}

/// The thread receives from `sk`: if it comes to no act before that, its next one belongs to something else.
#[inline(always)]
pub fn received(sk: u64) {
    if let Some(awaited) = AWAITING.get_ptr_mut(task::thread()) {
        // SAFETY: preallocated map memory of this thread's own.
        let awaited = unsafe { &mut *awaited };
        if awaited.turned_to == 0 {
            awaited.turned_to = sk;
        }
        // What follows from here on is no part of that answer.
        awaited.answered = 0;
    }
}

/// The thread ends: it will not act any more.
#[inline(always)]
pub fn thread_ends() {
    if is_awaited() && AWAITING.remove(task::thread()).is_ok() {
        change(&AWAITED, LESS);
    }
}

/// The network ended a connection: its process's next act is emitted from when it closes the socket. Returns whether there is room for
/// that.
#[inline(always)]
pub fn await_close(id: ConnectionId) -> bool {
    let is_kept = put!(BROKEN, id.sock, id.connect_ns, acts_unkept);
    if is_kept {
        change(&AWAITED, 1);
    }
    is_kept
}

#[inline(always)]
fn act(action: Action, sk: u64, bytes: u32, old_state: u8, ns: u64) {
    let thread = task::thread();
    let Some(awaited) = AWAITING.get_ptr_mut(thread) else { return };
    // SAFETY: preallocated map memory of this thread's own.
    let awaited = unsafe { &mut *awaited };
    let is_answer = matches!(action, Action::Sent) && awaited.client == sk && sk != 0;
    if is_answer {
        let is_first = awaited.answered == 0 && awaited.turned_to == 0;
        awaited.answered += u64::from(bytes);
        if !is_first {
            return;
        }
    }
    let Awaited { id, closed_ns, turned_to, word_ns, client, answered, is_client_known } = *awaited;
    let is_end = matches!(action, Action::Closed | Action::ShutDown);
    let bytes = if is_end && client == sk { answered as u32 } else { bytes };
    // Closing it may show twice. Anything else on this address is done on a new socket, and often it is the next one made.
    if matches!(action, Action::Closed) && id.sock == sk {
        return;
    }
    // An answer that nginx gives at once is emitted at once, for it may be the last act for a long time.
    if !is_answer && AWAITING.remove(thread).is_ok() {
        change(&AWAITED, LESS);
    }
    if turned_to == 0 && is_client_known == 0 {
        hop::emit(id, sk);
    }
    let Some(mut entry) = RING.reserve::<NextAction>(0) else {
        count!(lost, 1);
        return;
    };
    entry.write(NextAction {
        header: Header { kind: Kind::NextAction as u32, len: size_of::<NextAction>() as u32 },
        sock: id.sock,
        connect_ns: id.connect_ns,
        ns,
        closed_ns,
        turned_to,
        other_sock: sk,
        action: action as u32,
        bytes,
        old_state: u32::from(old_state),
        peer: sock::remote(sk),
        word_ns,
    });
    entry.submit(0);
}

/// The thread sent `bytes` on `sk`, which was in `state`. Datagrams are no answer to a client: nginx writes its logs with them.
#[inline(always)]
pub fn sent(sk: u64, bytes: u32, state: u8) {
    if sock::is_stream(sk) {
        // On an end of ours it is the next upstream's turn, on a connection that was kept.
        match entry::just_began(sk) {
            Some(began_ns) => connected(sk, began_ns),
            // Any other request that goes out belongs to a client whose turn has come.
            None if entry::is_ours(sk) => received(sk),
            None => act(Action::Sent, sk, bytes, state, now()),
        }
    }
}

/// The thread closed `sk`, which was in `old_state`, or ended its own side of it.
#[inline(always)]
pub fn closed(sk: u64, old_state: u8) {
    let action = if sock::is_half_closed(sk) { Action::ShutDown } else { Action::Closed };
    act(action, sk, 0, old_state, now());
}

/// The thread began an exchange on `sk` at `began_ns`.
#[inline(always)]
pub fn connected(sk: u64, began_ns: u64) {
    act(Action::Connected, sk, 0, tcp_state::CLOSE, began_ns);
}

/// A connection is over that its process had closed before: the destruction that follows at once is no act of this thread. One
/// whose process still has it is destroyed when that closes it, which is an act.
#[inline(always)]
pub fn mark_over(sk: u64) {
    if sock::has_socket(sk) {
        return;
    }
    if let Some(last) = LAST_CLOSED.get_ptr_mut(0) {
        // SAFETY: this CPU's own entry.
        unsafe { *last = sk };
    }
}

/// Whether the socket that is destroyed now was over just before. Forgotten at once: the next socket may have its address.
#[inline(always)]
pub fn take_over(sk: u64) -> bool {
    let Some(last) = LAST_CLOSED.get_ptr_mut(0) else { return false };
    // SAFETY: this CPU's own entry.
    unsafe {
        let was_over = *last == sk;
        if was_over {
            *last = 0;
        }
        was_over
    }
}

/// The thread closed `sk`, whose connection was over before.
#[inline(always)]
pub fn closed_over(sk: u64) {
    act(Action::Closed, sk, 0, tcp_state::CLOSE, now());
}
