//! Bytes that processes send and receive, on sockets of any kind.

use aya_ebpf::helpers::bpf_ktime_get_ns;

use crate::{
    kernel::{
        function::{CALLS, call},
        ports::port_is_watched,
        put::put,
        read::{layout, read},
        sock,
    },
    live::{
        entry::{self, reader},
        exchange::{nginx_end, taken},
        explain::last_read,
        fallback,
        maps::{attached, count},
        transport::unwatched,
    },
};

const EAGAIN: i32 = 11;
const EINVAL: i32 = 22;
const ENOTCONN: i32 = 107;
const MSG_PEEK: u64 = 2;

/// The send that a thread is in, among [`CALLS`]: its sock, where its bytes begin (TCP) or how many there are (unix), and when it began.
const SEND: u32 = 0;

/// A send on `sk` returned `ret`.
#[inline(always)]
pub fn sent(sk: u64, ret: i32) {
    sent_at(sk, ret, None);
}

/// The same, at another moment than now.
#[inline(always)]
fn sent_at(sk: u64, ret: i32, ns: Option<u64>) {
    let (remote_port, _) = sock::ports(sk);
    if !nginx_end::sends(sk, remote_port, ret, ns) && remote_port == 0 {
        unwatched::notice(sk);
    }
    if fallback::is_awaited() && ret > 0 {
        fallback::sent(sk, ret as u32, read(sk, layout!(state)));
    }
}

/// A send of `bytes` begins, whose return may be passed over.
#[inline(always)]
pub fn send_begins(sk: u64, bytes: u64) {
    settle();
    let mark = if sock::is_inet(sk) { u64::from(write_seq(sk)) } else { bytes };
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    put!(CALLS, call(SEND), [sk, mark, now], returns_missed);
}

#[inline(always)]
fn write_seq(sk: u64) -> u32 {
    read(sk, layout!(write_seq))
}

/// The bytes that a send took whose return nobody saw: TCP's sequence numbers say, and a unix socket takes all of them unless its
/// peer is gone or its buffer full.
#[inline(always)]
fn bytes_since(sk: u64, mark: u64) -> i32 {
    if sock::is_inet(sk) {
        write_seq(sk).wrapping_sub(mark as u32) as i32
    } else if read::<u8>(sk, layout!(sk_shutdown)) == 0 && !sock::wants_room(sk) {
        mark as i32
    } else {
        0
    }
}

/// It returned.
#[inline(always)]
pub fn send_returned(ret: i32) {
    // SAFETY: copied out at once.
    match unsafe { CALLS.get(call(SEND)) }.copied() {
        Some([sk, _, _]) => {
            let _gone = CALLS.remove(call(SEND));
            sent(sk, ret);
        }
        None => count!(returns_missed, 1),
    }
}

/// The running thread is out of its last send. If nobody has seen that return, the socket shows what came of it; if it sent nothing,
/// why is not known, and that is counted as missed.
#[inline(always)]
pub fn settle() {
    // SAFETY: copied out at once.
    if let Some([sk, mark, began_ns]) = unsafe { CALLS.get(call(SEND)) }.copied() {
        let _gone = CALLS.remove(call(SEND));
        let bytes = bytes_since(sk, mark);
        if bytes != 0 {
            sent_at(sk, bytes, Some(began_ns));
        } else if entry::is_ours(sk) {
            count!(returns_missed, 1);
        }
    }
}

/// Whether a return of a send may have been passed over.
#[inline(always)]
pub fn may_miss_sends() -> bool {
    attached().is_some_and(|attached| attached.sends_by_kprobe != 0)
}

/// A receive on `sk` returned `ret`.
#[inline(always)]
pub fn received(sk: u64, ret: i32, flags: u64) {
    if ret == -ENOTCONN || ret == -EINVAL {
        return;
    }
    if fallback::is_awaited() {
        fallback::received(sk);
    }
    // A worker reads many times, and only the first shows anything, unless the thread is nginx's as well. Whose thread it is is asked first: that
    // is in the CPU's cache, or will be.
    if last_read::is_noted(sk) && reader::is_read_from(sk) {
        return;
    }
    let (remote_port, local_port) = sock::ports(sk);
    if ret != -EAGAIN {
        last_read::note(sk, remote_port);
    }
    if !nginx_end::receives(sk, remote_port, ret, flags & MSG_PEEK != 0) {
        taken::read_from(sk, remote_port, local_port);
    }
}

/// Whether a receive would give something.
#[inline(always)]
fn is_readable(sk: u64) -> bool {
    let waits = if sock::is_inet(sk) { sock::unread(sk) } else { read(sk, layout!(receive_qlen)) };
    waits != 0 || read::<u8>(sk, layout!(sk_shutdown)) != 0 || read::<u32>(sk, layout!(sk_err)) != 0
}

/// A receive on `sk` begins, of which [`receive_ends`] says how it ends. Returns whether this is nginx's end of ours.
#[inline(always)]
pub fn receive_begins(sk: u64) -> bool {
    settle();
    if fallback::is_awaited() {
        fallback::received(sk);
    }
    let (remote_port, local_port) = sock::ports(sk);
    if is_readable(sk) {
        last_read::note(sk, remote_port);
    }
    if entry::find(sk, remote_port).is_some() {
        return true;
    }
    taken::read_from(sk, remote_port, local_port);
    false
}

/// Whether it is worth to look closer.
#[inline(always)]
pub fn may_be_ours(sk: u64) -> bool {
    port_is_watched(sock::ports(sk).0)
}

/// A receive on nginx's end of ours returns `ret`.
#[inline(always)]
pub fn receive_ends(sk: u64, ret: i32, flags: u64) {
    nginx_end::receives(sk, sock::ports(sk).0, ret, flags & MSG_PEEK != 0);
}
