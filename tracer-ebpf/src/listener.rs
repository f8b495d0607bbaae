//! Listeners: which socket answers at an address, and how full its accept queue is.

use tracer_ebpf::{Endpoint, ListenerView, MISSING};

use crate::{
    address::{ANY4, is_global, key},
    kernel::{self, filter, layout, read},
    maps::{LISTENERS, Listener, ListenerKey, PEERS},
};

/// `::1`.
const LOOPBACK6: [u32; 4] = [0, 0, 0, 1_u32.to_be()];

#[inline(always)]
fn add_under(key: &ListenerKey, sock: u64) {
    let mut entry = Listener { sock, shared: 1 };
    // SAFETY: the entry is copied; a listener removed meanwhile is overwritten below.
    if let Some(old) = unsafe { LISTENERS.get(key) }
        && old.sock != sock
    {
        entry.shared = old.shared + 1;
    }
    let _full = LISTENERS.insert(key, &entry, 0);
}

#[inline(always)]
fn remove_under(key: &ListenerKey, sock: u64) {
    if let Some(entry) = LISTENERS.get_ptr_mut(key) {
        // SAFETY: the pointer is into the map's preallocated memory.
        let entry = unsafe { &mut *entry };
        if entry.shared > 1 {
            entry.shared -= 1;
        } else if entry.sock == sock {
            let _gone = LISTENERS.remove(key);
        }
    }
}

/// A socket began to listen, or was shown to us by userspace while it listens.
#[inline(always)]
pub fn add(sk: u64) {
    let local = kernel::local(sk);
    add_under(&key(kernel::net(sk), local.addr, local.port), sk);
    if is_global(&local.addr) {
        add_under(&key(0, local.addr, local.port), sk);
    }
}

/// A listener was closed.
#[inline(always)]
pub fn remove(sk: u64) {
    let local = kernel::local(sk);
    remove_under(&key(kernel::net(sk), local.addr, local.port), sk);
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
    is_loopback4 || kernel::is_same(addr, &LOOPBACK6) || kernel::is_same(&kernel::local(sk).addr, addr)
}

#[inline(always)]
fn at(key: &ListenerKey) -> Option<Listener> {
    // SAFETY: copied out at once.
    unsafe { LISTENERS.get(key) }.copied()
}

/// The listener at an address or, in its namespace, on all addresses.
#[inline(always)]
fn at_or_on_all(key: &mut ListenerKey) -> Option<Listener> {
    at(key)
        .or_else(|| {
            key.addr = ANY4;
            at(key)
        })
        .or_else(|| {
            kernel::unspecify(&mut key.addr);
            at(key)
        })
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
        unsafe { kernel::fill(&raw mut key, peer) };
        return at_or_on_all(&mut key).map(|found| (found, true));
    }
    key.net = 0;
    at(&key).map(|found| (found, true))
}

/// A connection of `net` to `upstream` came about, whose other end is `local` in namespace `there`: remembers that, unless it is
/// where one would look anyway.
#[inline(always)]
pub fn learn(net: u64, upstream: &Endpoint, there: u64, local: &Endpoint) {
    if there != net || local.port != upstream.port || !kernel::is_same(&local.addr, &upstream.addr) {
        let (from, to) = (key(net, upstream.addr, upstream.port), key(there, local.addr, local.port));
        let _evicts = PEERS.insert(&from, &to, 0);
    }
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
        shared: listener.shared as u32,
        syn_queue: read(listener.sock, layout!(syn_queue)),
        elsewhere: u32::from(elsewhere),
    }
}

/// Looks, now, at the accept queue that `sk` connects to; all zeroes where no listener of this host is known.
#[inline(always)]
pub fn view(sk: u64, net: u64, upstream: &Endpoint, now: u64) -> ListenerView {
    match find(sk, net, upstream) {
        Some((listener, elsewhere)) => look(listener, elsewhere, now),
        None => ListenerView::default(),
    }
}

/// Whether a SYN arriving at the time of this view was dropped (`sk_acceptq_is_full`).
#[inline(always)]
pub fn is_full(view: &ListenerView) -> bool {
    view.sock != 0 && view.depth > view.limit
}

/// Whether one was dropped because too many handshakes were unfinished (`inet_csk_reqsk_queue_is_full`) and the
/// listener may not send SYN cookies. Old kernels (5.10, for one) take one less than new ones, and which a kernel does it
/// does not tell: without drop reasons (before 5.17) userspace takes exactly the limit for an inference.
#[inline(always)]
pub fn syn_queue_is_full(view: &ListenerView) -> bool {
    let is_old = layout!(drop_reason_arg) == MISSING;
    view.sock != 0
        && (view.syn_queue > view.limit || is_old && view.syn_queue == view.limit && view.limit > 0)
        && layout!(net_syncookies) != MISSING
        && read::<u8>(kernel::net(view.sock), layout!(net_syncookies)) == 0
}
