//! Which unix listener a path leads to.
//!
//! A path alone names none: each mount namespace and each root directory has its own, and anyone may make some. What shows it is the
//! connection: its other end shares its listener's address. So a path's listener is the one that it last led to, for processes with the
//! same root, or else the only one that is known by this path.

use core::mem::MaybeUninit;

use aya_ebpf::{
    helpers::{bpf_get_current_task, bpf_probe_read_kernel_str_bytes},
    macros::map,
    maps::{Array, HashMap, LruHashMap},
};
use wire::{FAMILY_UNIX, MISSING, PATH_LEN, tcp_state};

use crate::kernel::{
    memory,
    read::{layout, read},
    sock,
};

/// A path as processes of one root see it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Place {
    mount: u64,
    root: u64,
    path: [u8; PATH_LEN],
    reserved: u32,
}

/// A listener: its address is used again, its inode's number is not.
#[repr(C)]
#[derive(Clone, Copy)]
struct Known {
    sock: u64,
    inode: u64,
    /// One where several were seen by the same name.
    is_ambiguous: u64,
}

/// Where paths led to.
#[map]
static UNIX_LED_TO: LruHashMap<Place, Known> = LruHashMap::with_max_entries(1_024, 0);

/// Listeners by the path that they were bound to.
#[map]
static UNIX_BOUND: HashMap<[u8; PATH_LEN], Known> = HashMap::with_max_entries(2_048, 0);

/// How many found no room there: from then on, the only one that is known by a path need not be the only one.
#[map]
static UNIX_LEFT_OUT: Array<u64> = Array::with_max_entries(1, 0);

/// Listeners by their address in memory, which the sockets that come of them share.
#[map]
static UNIX_SHARED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(2_048, 0);

/// Whether this is a unix listener.
#[inline(always)]
pub fn is_listener(sk: u64) -> bool {
    read::<u8>(sk, layout!(state)) == tcp_state::LISTEN && read::<u16>(sk, layout!(family)) == FAMILY_UNIX
}

#[inline(always)]
fn known(sk: u64) -> Known {
    Known { sock: sk, inode: sock::inode(sk), is_ambiguous: 0 }
}

/// Whether it is still what it was, and listens.
#[inline(always)]
fn is_still(known: &Known) -> bool {
    is_listener(known.sock) && sock::inode(known.sock) == known.inode
}

/// A unix socket listens, as far as is known for the first time or again. Returns whether it is to be found by its path.
#[inline(always)]
pub fn register(sk: u64) -> bool {
    let address: u64 = read(sk, layout!(unix_addr));
    if address == 0 {
        return true;
    }
    let _evicts = UNIX_SHARED.insert(address, sk, 0);
    let mut room = MaybeUninit::uninit();
    let Some(path) = bound(&mut room, address) else { return true };
    let mut new = known(sk);
    // SAFETY: copied out at once.
    if let Some(old) = unsafe { UNIX_BOUND.get(path) }.copied() {
        if old.sock == new.sock && old.inode == new.inode {
            return true;
        }
        new.is_ambiguous = old.is_ambiguous | u64::from(is_still(&old));
    }
    if UNIX_BOUND.insert(path, new, 0).is_ok() {
        return true;
    }
    if let Some(left_out) = UNIX_LEFT_OUT.get_ptr_mut(0) {
        // SAFETY: a counter in a map.
        unsafe { memory::add(left_out, 1) };
    }
    false
}

/// The path that a socket was bound to, in that room; none for a name in the abstract namespace, which begins with a zero, and none for no
/// name at all.
#[inline(always)]
pub fn bound(room: &mut MaybeUninit<[u8; PATH_LEN]>, address: u64) -> Option<&[u8; PATH_LEN]> {
    // SAFETY: all zeroes are an empty path.
    let path = unsafe { memory::cleared(room) };
    let name = (address + u64::from(layout!(unix_address_name)) + 2) as *const u8;
    // SAFETY: the helper checks the address.
    let read = unsafe { bpf_probe_read_kernel_str_bytes(name, path) };
    (address != 0 && read.is_ok_and(|path| !path.is_empty())).then_some(path)
}

/// A unix listener ends. What several were seen by stays ambiguous. A function of its own, for its stack.
#[inline(never)]
pub fn forget(sk: u64) {
    let address: u64 = read(sk, layout!(unix_addr));
    let _gone = UNIX_SHARED.remove(address);
    let mut room = MaybeUninit::uninit();
    if let Some(path) = bound(&mut room, address)
        // SAFETY: copied out at once.
        && let Some(known) = unsafe { UNIX_BOUND.get(path) }.copied()
        && known.sock == sk
        && known.is_ambiguous == 0
    {
        let _gone = UNIX_BOUND.remove(path);
    }
}

/// The place of a path for the running process; none for what does not begin at its root.
#[inline(always)]
fn place<'a>(room: &'a mut MaybeUninit<Place>, path: &[u8; PATH_LEN]) -> Option<&'a Place> {
    if path[0] != b'/' {
        return None;
    }
    // SAFETY: all zeroes are a value of the type, and the path is as long.
    let place = unsafe {
        let place = memory::cleared(room);
        memory::fill(&raw mut place.path, path);
        place
    };
    // SAFETY: the helper takes nothing and returns the address of the running task.
    let fs: u64 = read(unsafe { bpf_get_current_task() }, layout!(task_fs));
    place.mount = read(fs, layout!(fs_root_mount));
    place.root = read(fs, layout!(fs_root));
    Some(place)
}

/// The running process connected to a path and got to this listener. Returns whether that is news.
#[inline(always)]
pub fn led_to(path: &[u8; PATH_LEN], listener: u64) -> bool {
    let mut room = MaybeUninit::uninit();
    let Some(place) = place(&mut room, path) else { return false };
    let new = known(listener);
    // SAFETY: copied out at once.
    if let Some(old) = unsafe { UNIX_LED_TO.get(place) }.copied()
        && old.sock == new.sock
        && old.inode == new.inode
    {
        return false;
    }
    let _evicts = UNIX_LED_TO.insert(place, new, 0);
    true
}

/// The listener that a path leads the running process to, or zero if that is not known.
#[inline(always)]
pub fn at(path: &[u8; PATH_LEN]) -> u64 {
    let mut room = MaybeUninit::uninit();
    if let Some(place) = place(&mut room, path)
        // SAFETY: copied out at once.
        && let Some(known) = unsafe { UNIX_LED_TO.get(place) }.copied()
        && is_still(&known)
    {
        return known.sock;
    }
    // SAFETY: as above.
    match unsafe { UNIX_BOUND.get(path) }.copied() {
        Some(known)
            if known.is_ambiguous == 0
                && UNIX_LEFT_OUT.get(0).is_some_and(|left_out| *left_out == 0)
                && is_still(&known) =>
        {
            known.sock
        }
        _ => 0,
    }
}

/// The listener that `child` came of, or zero if that is not known.
#[inline(always)]
pub fn listener_of(child: u64) -> u64 {
    if layout!(unix_listener) != MISSING {
        let listener: u64 = read(child, layout!(unix_listener));
        if listener != 0 {
            return listener;
        }
    }
    let address: u64 = read(child, layout!(unix_addr));
    // SAFETY: copied out at once.
    match unsafe { UNIX_SHARED.get(address) }.copied() {
        Some(sk) if address != 0 && is_listener(sk) && read::<u64>(sk, layout!(unix_addr)) == address => sk,
        _ => 0,
    }
}
