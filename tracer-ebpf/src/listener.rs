//! Listeners: which socket answers at an address, and how full its accept queue is.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_ebpf::{Endpoint, ListenerView};

use crate::{
    kernel::{self, layout, read},
    maps::{LISTENERS, Listener, ListenerKey},
};

/// The unspecified IPv4 address, mapped; the IPv6 one is all zeroes.
const ANY4: [u32; 4] = [0, 0, 0xffff_u32.to_be(), 0];

#[inline(always)]
fn key(net: u64, addr: [u32; 4], port: u16) -> ListenerKey {
    ListenerKey { net, addr, port: u32::from(port), reserved: 0 }
}

/// Whether an address means the same in every network namespace, so that one can look for it in all.
#[inline(always)]
fn is_global(addr: &[u32; 4]) -> bool {
    let is_mapped = addr[0] == 0 && addr[1] == 0 && addr[2] == 0xffff_u32.to_be();
    let first_octet = u32::from_be(addr[3]) >> 24;
    let is_loopback_or_any6 = addr[0] == 0 && addr[1] == 0 && addr[2] == 0;
    !(is_loopback_or_any6 || is_mapped && (first_octet == 127 || first_octet == 0))
}

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

/// The listener that answers at `upstream` for sockets of `net`: on this very address, on all, or in another
/// network namespace of this host.
#[inline(always)]
fn find(net: u64, upstream: &Endpoint) -> Option<Listener> {
    let mut key = key(net, upstream.addr, upstream.port);
    // SAFETY: entries are copied out at once.
    unsafe {
        if let Some(found) = LISTENERS.get(&key) {
            return Some(*found);
        }
        key.addr = ANY4;
        if let Some(found) = LISTENERS.get(&key) {
            return Some(*found);
        }
        key.addr = [0; 4];
        if let Some(found) = LISTENERS.get(&key) {
            return Some(*found);
        }
        key.net = 0;
        key.addr = upstream.addr;
        LISTENERS.get(&key).copied()
    }
}

/// Reads the state of one listener's accept queue.
#[inline(always)]
fn look(listener: Listener) -> ListenerView {
    ListenerView {
        sock: listener.sock,
        // SAFETY: the helper takes nothing.
        ns: unsafe { bpf_ktime_get_ns() },
        depth: read(listener.sock, layout!(sk_ack_backlog)),
        limit: read(listener.sock, layout!(sk_max_ack_backlog)),
        drops: read(listener.sock, layout!(sk_drops)),
        shared: listener.shared as u32,
        syn_queue: read(listener.sock, layout!(syn_queue)),
        reserved: 0,
    }
}

/// Looks at the accept queue behind `upstream`; all zeroes where no listener of this host is known.
#[inline(always)]
pub fn view(net: u64, upstream: &Endpoint) -> ListenerView {
    match find(net, upstream) {
        Some(listener) => look(listener),
        None => ListenerView::default(),
    }
}

/// Whether a SYN arriving at the time of this view was dropped (`sk_acceptq_is_full`).
#[inline(always)]
pub fn is_full(view: &ListenerView) -> bool {
    view.sock != 0 && view.depth > view.limit
}
