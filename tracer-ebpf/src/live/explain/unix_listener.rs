//! Unix listeners, and how full their accept queues are.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use wire::{ListenerView, PATH_LEN};

use crate::{
    kernel::{
        read::{layout, read},
        unix_place,
    },
    live::maps::count,
};

/// A unix socket began to listen, or is shown to us by userspace while it listens.
#[inline(always)]
pub fn listens(sk: u64) {
    if unix_place::is_listener(sk) && !unix_place::register(sk) {
        count!(listeners_untracked, 1);
    }
}

/// The accept queue that a path leads the running process to; all zeroes where that is not known.
#[inline(always)]
pub fn look(path: &[u8; PATH_LEN]) -> ListenerView {
    let sock = unix_place::at(path);
    if sock == 0 { ListenerView::default() } else { queue_of(sock) }
}

/// The accept queue of a listener.
#[inline(always)]
pub fn queue_of(sock: u64) -> ListenerView {
    ListenerView {
        sock,
        // SAFETY: the helper takes nothing.
        ns: unsafe { bpf_ktime_get_ns() },
        depth: read(sock, layout!(receive_qlen)),
        limit: read(sock, layout!(sk_max_ack_backlog)),
        drops: 0,
        shared: 1,
        syn_queue: 0,
        elsewhere: 0,
    }
}
