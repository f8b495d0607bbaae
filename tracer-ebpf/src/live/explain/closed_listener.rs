//! Listeners that were closed lately, and by whom: what userspace reads where nobody listens at an upstream. Written when somebody closes a
//! listener, and when somebody begins to listen, and at no exchange.
//!
//! Anybody may fill them, so what is not found here says nothing.

use core::mem::MaybeUninit;

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::map, maps::LruHashMap};
use wire::{ClosedListener, ListenPlace, PATH_LEN, Task};

use crate::kernel::{
    read::{layout, read},
    sock, task, unix_place,
};

/// By address.
#[map]
static CLOSED: LruHashMap<ListenPlace, ClosedListener> = LruHashMap::with_max_entries(512, 0);

/// By the path that a unix listener was bound to, as its process had named it.
#[map]
static UNIX_CLOSED: LruHashMap<[u8; PATH_LEN], ClosedListener> = LruHashMap::with_max_entries(128, 0);

#[inline(always)]
fn netns(sk: u64) -> u32 {
    read(sock::net(sk), layout!(net_inum))
}

#[inline(always)]
fn place(sk: u64) -> ListenPlace {
    let local = sock::local(sk);
    ListenPlace { netns: netns(sk), port: u32::from(local.port), addr: local.addr }
}

/// By the running process, now.
#[inline(always)]
fn closed(sk: u64) -> ClosedListener {
    let Task { tgid, comm, .. } = task::current();
    let exit = task::current_exit();
    ClosedListener {
        // SAFETY: the helper takes nothing.
        ns: unsafe { bpf_ktime_get_ns() },
        again_ns: 0,
        tgid,
        netns: netns(sk),
        exiting: u32::from(exit.is_some()),
        exit_code: exit.unwrap_or(0),
        comm,
    }
}

#[inline(always)]
fn opens(closed: *mut ClosedListener) {
    // SAFETY: preallocated map memory; the helper takes nothing.
    unsafe {
        if (*closed).again_ns == 0 {
            (*closed).again_ns = bpf_ktime_get_ns();
        }
    }
}

/// The running process has closed a TCP listener.
#[inline(always)]
pub fn closes(sk: u64) {
    let _evicts = CLOSED.insert(place(sk), closed(sk), 0);
}

/// Somebody begins to listen there.
#[inline(always)]
pub fn opens_again(sk: u64) {
    if let Some(closed) = CLOSED.get_ptr_mut(place(sk)) {
        opens(closed);
    }
}

/// The running process has closed a unix listener. In a function of its own, for its room on the stack.
#[inline(never)]
pub fn closes_unix(sk: u64) {
    let mut room = MaybeUninit::uninit();
    if let Some(path) = unix_place::bound(&mut room, read(sk, layout!(unix_addr))) {
        let _evicts = UNIX_CLOSED.insert(path, closed(sk), 0);
    }
}

/// Somebody begins to listen on this unix socket. The same.
#[inline(never)]
pub fn opens_unix_again(sk: u64) {
    let mut room = MaybeUninit::uninit();
    if let Some(path) = unix_place::bound(&mut room, read(sk, layout!(unix_addr)))
        && let Some(closed) = UNIX_CLOSED.get_ptr_mut(path)
    {
        opens(closed);
    }
}
