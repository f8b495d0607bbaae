//! The client's end of a TCP connection, where the client is on this host: who it is, and how its attempt ends.

use aya_ebpf::{macros::map, maps::Array};
use wire::{
    Task,
    accept_queue::{Fate, Key},
    tcp_state,
};

use crate::{
    backlog::{
        listener,
        maps::{CONNECTING, count},
        victim,
    },
    kernel::{
        memory,
        ports::port_is_watched,
        put::put,
        read::{layout, read},
        recent::{self, Found, Row},
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
    let task = listener::client();
    put!(CONNECTING, sk, task, clients_unkept);
    if listener::is_nginx(&task)
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
    connected(&key, &task);
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
        recent::note::<_, OVER_MASK>(&OVER, number(&key), listener::now(), &key);
    }
}

/// Who has connected to a port that somebody listens on. One that is pushed out has no name.
#[map]
static CLIENTS: Array<Row<Client>> = Array::with_max_entries(MASK as u32 + 1, 0);
const MASK: u64 = 4_095;

/// Clients that met a full queue and whose end is over: what their kernels still send, a FIN first, is of no further connection.
#[map]
static OVER: Array<Row<Key>> = Array::with_max_entries(OVER_MASK as u32 + 1, 0);
const OVER_MASK: u64 = 255;

/// For so long one that is over may still be heard of: its FIN goes out again (ns).
const LATELY_NS: u64 = 60_000_000_000;

/// A client that connected lately.
#[repr(C)]
#[derive(Clone, Copy)]
struct Client {
    key: Key,
    task: Task,
}

/// A number for a key. Two keys may have the same: what is found is compared.
#[inline(always)]
fn number(key: &Key) -> u64 {
    let [a, b, c, d] = key.addr;
    let addr = u64::from(a ^ c) << 32 | u64::from(b ^ d);
    (addr ^ u64::from(key.port) << 16 ^ u64::from(key.listener_port)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[inline(always)]
fn is_same(one: *const Key, other: &Key) -> bool {
    // SAFETY: map memory that is a value of the type.
    let one = unsafe { &*one };
    memory::is_same(&one.addr, &other.addr)
        && one.port == other.port
        && one.listener_port == other.listener_port
}

#[inline(always)]
fn connected(key: &Key, task: &Task) {
    let client = Client { key: *key, task: *task };
    recent::note::<_, MASK>(&CLIENTS, number(key), listener::now(), &client);
    recent::forget::<_, OVER_MASK>(&OVER, number(key));
}

/// Who connected under this key lately, if it is on this host.
#[inline(always)]
pub fn of(key: &Key) -> Option<Task> {
    let task = |client: *const Client| {
        // SAFETY: map memory that is a value of the type.
        unsafe { is_same(&raw const (*client).key, key).then(|| (*client).task) }
    };
    match recent::find_with::<_, _, MASK>(&CLIENTS, number(key), 1, 1, task) {
        Found::It(task) => task,
        Found::MaybePushedOut | Found::Nothing => None,
    }
}

/// Whether what this client's kernel sends is of a connection that is over. Where that is not known any more it is taken to be, and
/// counted.
#[inline(always)]
pub fn is_over(key: &Key) -> bool {
    let lately_ns = listener::now().saturating_sub(LATELY_NS);
    match recent::find_with::<_, _, OVER_MASK>(&OVER, number(key), 1, lately_ns, |over| is_same(over, key)) {
        Found::It(is_same) => is_same,
        Found::MaybePushedOut => {
            count!(clients_unkept, 1);
            true
        }
        Found::Nothing => false,
    }
}
