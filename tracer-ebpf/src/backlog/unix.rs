//! Unix stream sockets: no counter of the kernel and no tracepoint of their own shows a full queue, so connect is watched.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::{
    bpf_probe_read_user,
    generated::{bpf_probe_read_kernel_str, bpf_probe_read_user_str},
};
use wire::{
    Endpoint, FAMILY_UNIX, PATH_LEN,
    accept_queue::{Fate, Key, Listener},
};

use crate::{
    backlog::{
        caller, listener,
        maps::{Connecting, LISTENERS, UNIX_CALLS, UNIX_PATHS, attached, count},
        victim::{self, Stage},
    },
    kernel::{
        memory,
        put::put,
        read::{layout, read},
        task,
        unix_place::{self, is_listener},
    },
};

const EAGAIN: i64 = 11;
const EINPROGRESS: i64 = 115;

/// A connect that met a full queue and succeeded no later than this did not wait: there was room by the time it looked.
const AT_ONCE_NS: u64 = 1_000_000;

/// The listener at an address. It is not believed once another socket has taken the address.
#[inline(always)]
fn known<'a>(sock: u64) -> Option<&'a mut Listener> {
    let found = listener::find(sock)?;
    if found.inode != 0 && listener::lasting_name(sock) != found.inode {
        listener::emit_closed(found);
        let _gone = LISTENERS.remove(sock);
        return None;
    }
    Some(found)
}

/// The listener at an address, learned now if it is new.
#[inline(always)]
fn known_or_new<'a>(sock: u64) -> Option<&'a mut Listener> {
    if known(sock).is_none() && listener::add(sock, FAMILY_UNIX, false) {
        // What entered its queue just now is emitted as an arrival.
        let new = listener::find(sock)?;
        new.first_depth = new.first_depth.saturating_sub(1);
    }
    listener::find(sock)
}

/// Its owner called listen on `sk`, for the first time or again.
#[inline(always)]
pub fn listens(sk: u64) {
    if is_listener(sk) && known(sk).is_none() {
        let _new = listener::add(sk, FAMILY_UNIX, true);
    }
}

/// More than a path, and than what the kernel writes of one: a power of two.
const PATH_ROOM: usize = 128;

/// An empty path in that room.
#[inline(always)]
fn empty_path(room: &mut MaybeUninit<[u8; PATH_ROOM]>) -> &mut [u8; PATH_LEN] {
    // SAFETY: all zeroes are a path, and there is more room.
    unsafe { &mut *memory::cleared(room).as_mut_ptr().cast() }
}

#[inline(always)]
fn at_path<'a>(path: &[u8; PATH_LEN]) -> Option<&'a mut Listener> {
    match unix_place::at(path) {
        0 => None,
        sock => known(sock),
    }
}

/// Data, or on a listener a connection, has become ready on `sk`.
#[inline(always)]
pub fn ready(sk: u64) {
    if !is_listener(sk) {
        return;
    }
    // The newest packet of its queue; the queue's pointers stand before its length.
    let newest: u64 = read(sk, layout!(receive_qlen) - 8);
    let child: u64 = read(newest, layout!(skb_sk));
    if let Some(listener) = known_or_new(sk) {
        listener::arrives(listener, child);
        note_nginx(listener);
    }
}

#[inline(always)]
fn note_nginx(listener: &mut Listener) {
    if listener.by_nginx == 0 && caller::is_nginx(&caller::client()) {
        listener.by_nginx = 1;
    }
}

/// connect is called on `sk`, which is a unix stream socket, with a path.
#[inline(always)]
fn begins(sk: u64, path: &[u8; PATH_LEN]) {
    let mut call = Connecting { start_ns: listener::now(), sock: sk, listener: 0, met_full: 0 };
    if let Some(listener) = at_path(path) {
        call.listener = listener.sock;
        call.met_full = u64::from(listener::is_full(listener));
        note_nginx(listener);
        if call.met_full != 0 {
            // It may have to wait, for ever maybe: it is known from now on.
            meets(listener, sk);
        }
    }
    // It has come out of its last call without being seen.
    // SAFETY: only tested for presence.
    if unsafe { UNIX_CALLS.get(task::thread()) }.is_some() {
        count!(returns_missed, 1);
    }
    put!(UNIX_CALLS, task::thread(), call, returns_missed);
    put!(UNIX_PATHS, task::thread(), path, returns_missed);
}

#[inline(always)]
fn key(sk: u64) -> Key {
    let name = listener::lasting_name(sk);
    Key { addr: [name as u32, (name >> 32) as u32, 0, 0], port: Key::UNIX, listener_port: 0 }
}

#[inline(always)]
fn meets(listener: &Listener, sk: u64) {
    let client = Endpoint { addr: [0; 4], port: 0, family: FAMILY_UNIX };
    if let Some(victim) = victim::met_full(listener, &key(sk), &client, 0, Stage::First, || None) {
        victim.task = caller::client();
    }
}

/// The bytes of a path, and a zero after it, in an address of `len` bytes, more than 3: the zero need not be there, and then what
/// follows in memory is anything.
#[inline(always)]
fn path_size(len: u32) -> u32 {
    memory::bounded::<{ PATH_ROOM as u64 - 1 }>(u64::from(len - 1)) as u32
}

/// The system call connect begins, with an address of `len` bytes in user memory.
#[inline(always)]
pub fn connect_called(fd: u64, address: u64, len: u32) {
    // SAFETY: the helper checks the address; a system call's argument is a user address.
    if len <= 3 || unsafe { bpf_probe_read_user(address as *const u16) } != Ok(FAMILY_UNIX) {
        return;
    }
    let mut room = MaybeUninit::uninit();
    let path = empty_path(&mut room);
    // SAFETY: as above; there is room.
    let _unreadable = unsafe {
        bpf_probe_read_user_str(path.as_mut_ptr().cast(), path_size(len), (address + 2) as *const c_void)
    };
    path[PATH_LEN - 1] = 0;
    if path[0] != 0 {
        begins(task::sock_of(fd), path);
    }
}

/// The kernel's own connect begins, with an address of `len` bytes in kernel memory.
#[inline(always)]
pub fn connect_begins(sk: u64, address: u64, len: u32) {
    if len <= 3 || read::<u16>(address, 0) != FAMILY_UNIX {
        return;
    }
    let mut room = MaybeUninit::uninit();
    let path = empty_path(&mut room);
    // SAFETY: the helper checks the address; there is room.
    let _unreadable = unsafe {
        bpf_probe_read_kernel_str(path.as_mut_ptr().cast(), path_size(len), (address + 2) as *const c_void)
    };
    path[PATH_LEN - 1] = 0;
    if path[0] != 0 {
        begins(sk, path);
    }
}

/// The thread's connect has succeeded: its path leads to where it came.
#[inline(always)]
fn learn(thread: u32, sk: u64) {
    let listener = unix_place::listener_of(read(sk, layout!(unix_peer)));
    if listener != 0
        && let Some(path) = UNIX_PATHS.get_ptr(thread)
    {
        // SAFETY: preallocated map memory of this thread's own.
        let _is_news = unix_place::led_to(unsafe { &*path }, listener);
    }
}

/// connect returned `ret`.
#[inline(always)]
pub fn connect_returned(ret: i64) {
    let thread = task::thread();
    // SAFETY: copied out at once.
    let Some(call) = unsafe { UNIX_CALLS.get(thread) }.copied() else { return };
    let _gone = UNIX_CALLS.remove(thread);
    let key = key(call.sock);
    if ret == 0 {
        learn(thread, call.sock);
    }
    let _gone = UNIX_PATHS.remove(thread);
    if ret == 0 && attached().is_some_and(|attached| attached.unix_arrivals == 0) {
        let child: u64 = read(call.sock, layout!(unix_peer));
        if let Some(listener) = listener::listener_of(child) {
            listener::arrives(listener, child);
        }
    }
    let Some(listener) = listener::find(call.listener) else {
        if ret == -EAGAIN {
            count!(unattributed, 1);
        }
        return;
    };
    let waited = listener::now().saturating_sub(call.start_ns);
    match ret {
        0 if call.met_full != 0 && waited <= AT_ONCE_NS => {
            let _was_open = victim::forgotten(&key);
        }
        0 if call.met_full != 0 => {
            // SAFETY: a counter in a map.
            unsafe { memory::add(&raw mut listener.unix_waited, 1) };
            victim::ended(&key, Fate::GotIn, 0);
        }
        // It was refused before, and tried again.
        0 if victim::any() => victim::ended(&key, Fate::GotIn, 0),
        _ if ret == -EAGAIN => {
            // SAFETY: a counter in a map.
            unsafe { memory::add(&raw mut listener.unix_refused, 1) };
            listener::look(listener, listener::now());
            if call.met_full == 0 {
                meets(listener, call.sock);
            }
            if let Some(victim) = victim::find(&key) {
                victim.fate = Fate::Refused as u32;
                victim.errno = EAGAIN as u32;
            }
        }
        _ if call.met_full != 0 && ret != -EINPROGRESS => victim::ended(&key, Fate::Failed, -ret as u32),
        _ => {}
    }
}
