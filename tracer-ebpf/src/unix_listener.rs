//! Unix listeners, and how full their accept queues are.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_ebpf::{FAMILY_UNIX, ListenerView, PATH_LEN, tcp_state};

use crate::{
    kernel::{self, layout, read},
    maps::UNIX_LISTENERS,
};

/// A unix socket began to listen, or was shown to us by userspace while it listens.
#[inline(always)]
pub fn listens(sk: u64) {
    let mut room = MaybeUninit::<[u8; PATH_LEN]>::uninit();
    // SAFETY: all zeroes are an empty path.
    let path = unsafe { kernel::cleared(&mut room) };
    let address: u64 = read(sk, layout!(unix_addr));
    let name = (address + u64::from(layout!(unix_address_name)) + 2) as *const u8;
    // SAFETY: the helper checks the address.
    let read = unsafe { aya_ebpf::helpers::bpf_probe_read_kernel_str_bytes(name, path) };
    if address != 0 && read.is_ok_and(|path| !path.is_empty()) {
        let _evicts = UNIX_LISTENERS.insert(&*path, sk, 0);
    }
}

/// The accept queue behind a path. A listener's address that is no listener any more is not believed.
#[inline(always)]
pub fn look(path: &[u8; PATH_LEN]) -> ListenerView {
    // SAFETY: copied out at once.
    let Some(sock) = (unsafe { UNIX_LISTENERS.get(path) }).copied() else { return ListenerView::default() };
    if read::<u8>(sock, layout!(state)) != tcp_state::LISTEN
        || read::<u16>(sock, layout!(family)) != FAMILY_UNIX
    {
        return ListenerView::default();
    }
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
