//! Listeners: which socket answers at an address, and how full its accept queue is.
//!
//! Anyone may listen on as many addresses as he likes. So what finds no room is not just left out: its address is looked up again once an
//! upstream is there ([`ask`]), and until userspace has had every listener shown anew, nobody takes it for absent.

use core::mem::MaybeUninit;

use wire::{Endpoint, ListenerView, MISSING, shown, tcp_state};

use crate::{
    kernel::{
        address::{ANY4, ListenerKey, is_global, key},
        memory,
        put::put,
        read::{filter, layout, read},
        sock::{self, Common},
    },
    live::maps::{LISTENERS, Listener, PEERS, PEERS_LEFT_OUT, SHOWN, SOUGHT, Sought, change, count, is_any},
};

/// `::1`.
const LOOPBACK6: [u32; 4] = [0, 0, 0, 1_u32.to_be()];

/// Whether this socket listens at that address, still. Without a branch for each question: verifiers would follow each.
#[inline(always)]
fn is_at(sock: u64, key: &ListenerKey) -> bool {
    // Zero cannot be read, and all zeroes are no listener.
    let common = Common::of(sock);
    let local = common.local();
    (common.state() == tcp_state::LISTEN)
        & common.is_inet()
        & (u32::from(local.port) == key.port)
        & memory::is_same(&local.addr, &key.addr)
        & ((key.net == 0) | (common.net() == key.net))
}

/// Another listener of the group that shares this one's address (`SO_REUSEPORT`), or zero. The group's listeners come first in it.
#[inline(always)]
fn fellow(sock: u64) -> u64 {
    let group = group(sock);
    if group == 0 || layout!(reuseport_socks) == MISSING {
        return 0;
    }
    let [first, second] = read::<[u64; 2]>(group, layout!(reuseport_socks));
    match read::<u16>(group, layout!(reuseport_count)) {
        0 | 1 => 0,
        _ if first == sock => second,
        _ => first,
    }
}

#[inline(always)]
fn group(sock: u64) -> u64 {
    if sock == 0 || layout!(sk_reuseport) == MISSING || layout!(reuseport_count) == MISSING {
        0
    } else {
        read(sock, layout!(sk_reuseport))
    }
}

/// How many listeners share the address of this one.
#[inline(always)]
fn shared(listener: &Listener) -> u32 {
    let group = group(listener.sock);
    let known = 1 + u32::from(listener.other != 0);
    if group == 0 { known } else { known.max(read::<u16>(group, layout!(reuseport_count)).into()) }
}

#[inline(always)]
fn add_under(key: &ListenerKey, sock: u64) {
    let mut entry = Listener { sock, other: fellow(sock) };
    if entry.other == 0
        && let Some(old) = at(key)
        && old.sock != sock
        && is_at(old.sock, key)
    {
        entry.other = old.sock;
    }
    if LISTENERS.insert(key, &entry, 0).is_ok() {
        return;
    }
    // SAFETY: copied out at once.
    match unsafe { SOUGHT.get(key) }.copied() {
        Some(sought) if SOUGHT.insert(key, &Sought { listener: entry, ..sought }, 0).is_ok() => {}
        _ => leave_out(),
    }
}

/// A listener found no room.
#[inline(always)]
fn leave_out() {
    count!(listeners_untracked, 1);
    if let Some(left_out) = SHOWN.get_ptr_mut(shown::LEFT_OUT) {
        // SAFETY: a counter in a map.
        unsafe { memory::add(left_out, 1) };
    }
}

/// What is left at an address once `sock` listens there no more.
#[inline(always)]
fn without(listener: &Listener, sock: u64, key: &ListenerKey) -> Listener {
    let left = if listener.sock == sock { listener.other } else { listener.sock };
    if is_at(left, key) {
        Listener { sock: left, other: fellow(left) }
    } else {
        Listener { sock: 0, other: 0 }
    }
}

#[inline(always)]
fn remove_under(key: &ListenerKey, sock: u64) {
    // SAFETY: copied out at once.
    if let Some(entry) = unsafe { LISTENERS.get(key) }.copied() {
        if entry.sock != sock && entry.other != sock {
            return;
        }
        let left = without(&entry, sock, key);
        if left.sock == 0 {
            let _gone = LISTENERS.remove(key);
        } else if LISTENERS.insert(key, &left, 0).is_err() {
            // What stays there has gone: nobody is to take that for nobody.
            leave_out();
        }
    } else if let Some(sought) = unsafe { SOUGHT.get(key) }.copied()
        && (sought.listener.sock == sock || sought.listener.other == sock)
    {
        let listener = without(&sought.listener, sock, key);
        if SOUGHT.insert(key, &Sought { listener, ..sought }, 0).is_err() {
            // To be asked for anew.
            let _gone = SOUGHT.remove(key);
        }
    }
}

/// A socket began to listen, or is shown to us by userspace while it listens, maybe once more.
#[inline(always)]
pub fn add(sk: u64) {
    // The TCP socket under it listens, and is emitted by itself.
    if sock::is_mptcp(sk) {
        return;
    }
    let local = sock::local(sk);
    add_under(&key(sock::net(sk), local.addr, local.port), sk);
    if is_global(&local.addr) {
        add_under(&key(0, local.addr, local.port), sk);
    }
}

/// A listener was closed.
#[inline(always)]
pub fn remove(sk: u64) {
    let local = sock::local(sk);
    remove_under(&key(sock::net(sk), local.addr, local.port), sk);
    if is_global(&local.addr) {
        remove_under(&key(0, local.addr, local.port), sk);
    }
}

/// Whether `sk` stays within its network namespace: it goes to the loopback, or to the very address it comes from, as
/// routes to a host's own addresses choose it.
#[inline(always)]
fn stays(sk: u64, upstream: &Endpoint) -> bool {
    let addr = &upstream.addr;
    let is_loopback4 =
        addr[0] == 0 && addr[1] == 0 && addr[2] == 0xffff_u32.to_be() && u32::from_be(addr[3]) >> 24 == 127;
    is_loopback4 || memory::is_same(addr, &LOOPBACK6) || memory::is_same(&sock::local(sk).addr, addr)
}

/// What is known at this very address. One that has gone since is not believed.
#[inline(always)]
fn at(key: &ListenerKey) -> Option<Listener> {
    // SAFETY: copied out at once, both.
    let found = unsafe { LISTENERS.get(key) }.copied();
    let found = match found {
        Some(found) => Some(found),
        None if has_left_out() => unsafe { SOUGHT.get(key) }.map(|sought| sought.listener),
        None => None,
    };
    found.filter(|found| is_at(found.sock, key))
}

/// The listener at an address or, in its namespace, on all addresses.
#[inline(always)]
fn at_or_on_all(key: &mut ListenerKey) -> Option<Listener> {
    // No closures: each would be a function of its own, with a stack that counts.
    for step in 0..3 {
        match step {
            0 => {}
            1 => key.addr = ANY4,
            _ => memory::unspecify(&mut key.addr),
        }
        let found = at(key);
        if found.is_some() {
            return found;
        }
    }
    None
}

/// The listener that answers `sk`'s SYN to `upstream`, and whether it is in another network namespace or behind address
/// translation: where connections to that address were seen to end up, or else one on this very address.
#[inline(always)]
fn find(sk: u64, net: u64, upstream: &Endpoint) -> Option<(Listener, bool)> {
    let mut key = key(net, upstream.addr, upstream.port);
    if stays(sk, upstream) {
        return at_or_on_all(&mut key).map(|found| (found, false));
    }
    if let Some(found) = at(&key) {
        return Some((found, false));
    }
    if filter!(netns) != 0 {
        return None;
    }
    // SAFETY: copied out at once, over a value of the type.
    if let Some(peer) = unsafe { PEERS.get(&key) } {
        unsafe { memory::fill(&raw mut key, peer) };
        return at_or_on_all(&mut key).map(|found| (found, true));
    }
    key.net = 0;
    at(&key).map(|found| (found, true))
}

/// Whether listeners were left out for want of room.
#[inline(always)]
fn has_left_out() -> bool {
    SHOWN.get(shown::LEFT_OUT).is_some_and(|left_out| *left_out != 0)
}

/// Asks for one address. Returns whether the listeners have all been shown since it was asked for first.
#[inline(always)]
fn ask(key: &ListenerKey, begun: u64, done: u64) -> bool {
    // SAFETY: copied out at once.
    if let Some(sought) = unsafe { SOUGHT.get(key) }.copied() {
        return done > sought.since;
    }
    let mut room = MaybeUninit::uninit();
    // SAFETY: all zeroes are a value of the type.
    let new: &mut Sought = unsafe { memory::cleared(&mut room) };
    new.since = begun;
    let _evicts = SOUGHT.insert(key, &*new, 0);
    count!(listeners_sought, 1);
    false
}

/// No listener is known for `upstream`, and some were left out: asks userspace to show them again, and keeps room for this one. Returns
/// whether it is absent for certain.
#[inline(always)]
fn is_absent(sk: u64, net: u64, upstream: &Endpoint) -> bool {
    if !has_left_out() {
        return true;
    }
    let (begun, done) = match (SHOWN.get(shown::BEGUN), SHOWN.get(shown::DONE)) {
        (Some(begun), Some(done)) => (*begun, *done),
        _ => return false,
    };
    let mut key = key(net, upstream.addr, upstream.port);
    let here = ask(&key, begun, done);
    if stays(sk, upstream) {
        key.addr = ANY4;
        let on_all4 = ask(&key, begun, done);
        memory::unspecify(&mut key.addr);
        here & on_all4 & ask(&key, begun, done)
    } else {
        key.net = 0;
        here & ask(&key, begun, done)
    }
}

/// A connection of `net` to `upstream` came about, whose other end is `local` in namespace `there`: remembers that, unless it is
/// where one would look anyway.
#[inline(always)]
pub fn learn(net: u64, upstream: &Endpoint, there: u64, local: &Endpoint) {
    if there != net || local.port != upstream.port || !memory::is_same(&local.addr, &upstream.addr) {
        let (from, to) = (key(net, upstream.addr, upstream.port), key(there, local.addr, local.port));
        if !put!(PEERS, from, &to, translations_unkept) {
            change(&PEERS_LEFT_OUT, 1);
        }
    }
}

/// Whether address translation may lead to a listener that nobody remembers, for want of room.
#[inline(always)]
fn may_be_elsewhere(sk: u64, upstream: &Endpoint) -> bool {
    is_any(&PEERS_LEFT_OUT) && !stays(sk, upstream)
}

/// Reads the state of one listener's accept queue.
#[inline(always)]
fn look(listener: Listener, elsewhere: bool, ns: u64) -> ListenerView {
    ListenerView {
        sock: listener.sock,
        ns,
        depth: read(listener.sock, layout!(sk_ack_backlog)),
        limit: read(listener.sock, layout!(sk_max_ack_backlog)),
        drops: read(listener.sock, layout!(sk_drops)),
        shared: shared(&listener),
        syn_queue: read(listener.sock, layout!(syn_queue)),
        elsewhere: u32::from(elsewhere),
    }
}

/// Looks, now, at the accept queue that `sk` connects to; all zeroes where no listener of this host is known, with the moment where there
/// may be one nonetheless.
#[inline(always)]
pub fn view(sk: u64, net: u64, upstream: &Endpoint, now: u64) -> ListenerView {
    match find(sk, net, upstream) {
        Some((listener, elsewhere)) => look(listener, elsewhere, now),
        None if is_absent(sk, net, upstream) && !may_be_elsewhere(sk, upstream) => ListenerView::default(),
        None => ListenerView { ns: now, ..ListenerView::default() },
    }
}

/// Whether a listener made this socket: one that nginx has accepted, and did not connect itself.
#[inline(always)]
pub fn has_made(sk: u64) -> bool {
    let local = sock::local(sk);
    let net = sock::net(sk);
    // SAFETY: only tested for presence.
    let is_at = |addr| unsafe { LISTENERS.get(key(net, addr, local.port)) }.is_some();
    is_at(local.addr) || is_at(ANY4) || is_at([0; 4])
}

/// Whether there may be a listener that is not known, for want of room.
#[inline(always)]
pub fn may_be_left_out(view: &ListenerView) -> bool {
    view.sock == 0 && view.ns != 0
}

/// Whether a SYN arriving at the time of this view was dropped (`sk_acceptq_is_full`).
#[inline(always)]
pub fn is_full(view: &ListenerView) -> bool {
    view.sock != 0 && view.depth > view.limit
}

/// Whether one was dropped because too many handshakes were unfinished (`inet_csk_reqsk_queue_is_full`) and the
/// listener may not send SYN cookies. Old kernels (5.10, for one) take one less than new ones, and which a kernel does it
/// does not say: without drop reasons (before 5.17) userspace takes exactly the limit for an inference.
#[inline(always)]
pub fn syn_queue_is_full(view: &ListenerView) -> bool {
    let is_old = layout!(drop_reason_arg) == MISSING;
    view.sock != 0
        && (view.syn_queue > view.limit || is_old && view.syn_queue == view.limit && view.limit > 0)
        && layout!(net_syncookies) != MISSING
        && read::<u8>(sock::net(view.sock), layout!(net_syncookies)) == 0
}
