//! The client's end of a TCP connection, where the client is on this host: who it is, and how its attempt ends.

use wire::{
    accept_queue::{Fate, Key},
    tcp_state,
};

use crate::{
    backlog::{caller, clients, listener, maps::CONNECTING, victim},
    kernel::{
        ports::port_is_watched,
        put::put,
        read::{layout, read},
        sock,
    },
};

const IPPROTO_TCP: u16 = 6;
const ECONNRESET: u32 = 104;

/// connect was called on `sk`: the destination is set, the local port and the sequence numbers are not yet.
#[inline(always)]
pub fn connects(sk: u64) {
    if !port_is_watched(sock::ports(sk).0)
        || !sock::is_inet(sk)
        || read::<u16>(sk, layout!(sk_protocol)) != IPPROTO_TCP
    {
        return;
    }
    let task = caller::client();
    put!(CONNECTING, sk, task, clients_unkept);
    if caller::is_nginx(&task)
        && let Some(group) = listener::group(sock::net(sk), &sock::remote(sk))
    {
        let _all = listener::first(group, |listener| {
            listener.by_nginx = 1;
            false
        });
    }
}

#[inline(always)]
fn key(sk: u64) -> Key {
    victim::key(sock::net(sk), &sock::local(sk), sock::ports(sk).0)
}

/// The SYN goes out again: its first one may have been a victim.
#[inline(always)]
pub fn syn_sent_again(sk: u64) {
    if !victim::any() || !port_is_watched(sock::ports(sk).0) {
        return;
    }
    // SAFETY: copied out at once.
    if let Some(task) = unsafe { CONNECTING.get(sk) }.copied()
        && let Some(victim) = victim::find(&key(sk))
    {
        victim::name(victim, &task);
    }
}

/// The handshake is over on the client's side.
#[inline(always)]
pub fn established(sk: u64) {
    if !port_is_watched(sock::ports(sk).0) {
        return;
    }
    // SAFETY: copied out at once.
    let Some(task) = unsafe { CONNECTING.get(sk) }.copied() else { return };
    let _gone = CONNECTING.remove(sk);
    let key = key(sk);
    clients::connected(&key, &task);
    if victim::any()
        && let Some(victim) = victim::find(&key)
    {
        victim::name(victim, &task);
    }
}

/// The client's end is over, by its process, its kernel or a reset.
#[inline(always)]
pub fn ended(sk: u64, old_state: u8) {
    if !port_is_watched(sock::ports(sk).0) {
        return;
    }
    // SAFETY: copied out at once.
    let task = unsafe { CONNECTING.get(sk) }.copied();
    if task.is_some() {
        let _gone = CONNECTING.remove(sk);
    }
    if !victim::any() {
        return;
    }
    let key = key(sk);
    let Some(victim) = victim::find(&key) else { return };
    if let Some(task) = task {
        victim::name(victim, &task);
    }
    // Set before the state changes by resets and timers, not by a closing process.
    let errno: u32 = read(sk, layout!(sk_err));
    let fate = match errno {
        0 => Fate::ClosedByClient,
        ECONNRESET if old_state != tcp_state::SYN_SENT => Fate::Reset,
        _ => Fate::Failed,
    };
    victim::ended(&key, fate, errno);
    if old_state != tcp_state::SYN_SENT {
        clients::ended(&key);
    }
}
