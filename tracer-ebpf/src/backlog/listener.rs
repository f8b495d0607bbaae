//! Listeners and their accept queues.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_ktime_get_ns, bpf_probe_read_kernel_str_bytes},
};
use wire::{
    Endpoint, FAMILY_INET, FAMILY_UNIX, Header, PATH_LEN,
    accept_queue::{BUCKETS, Kind, Listener, ListenerClosed, bucket},
};

use crate::{
    backlog::{
        maps::{EMPTY_GROUP, EMPTY_LISTENER, GROUP, GROUPS, Group, LISTENERS, RING, count},
        waiting,
    },
    kernel::{
        address::{ANY4, ListenerKey, is_global, key},
        memory, open_files,
        ports::watch_port,
        put::put,
        read::{layout, read},
        sock, task, unix_place,
    },
};

#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

/// The listener with this socket.
#[inline(always)]
pub fn find<'a>(sock: u64) -> Option<&'a mut Listener> {
    // SAFETY: preallocated map memory.
    LISTENERS.get_ptr_mut(sock).map(|listener| unsafe { &mut *listener })
}

#[inline(always)]
pub fn depth(sock: u64, family: u16) -> u32 {
    if family == FAMILY_UNIX {
        read(sock, layout!(receive_qlen))
    } else {
        read(sock, layout!(sk_ack_backlog))
    }
}

/// Whether no further connection fits (`sk_acceptq_is_full`, `unix_recvq_full`): one more than the backlog do.
#[inline(always)]
pub fn is_full(listener: &Listener) -> bool {
    depth(listener.sock, listener.local.family) > read::<u32>(listener.sock, layout!(sk_max_ack_backlog))
}

/// Reads the queue as it is now. Twice, for another CPU may write down what it read before this one did.
#[inline(always)]
pub fn look(listener: &mut Listener, now: u64) {
    for _ in 0..2 {
        let depth = depth(listener.sock, listener.local.family);
        let limit = read(listener.sock, layout!(sk_max_ack_backlog));
        listener.depth = depth;
        listener.limit = limit;
        if depth > listener.max_depth {
            listener.max_depth = depth;
        }
        if depth > limit {
            if listener.full_since_ns == 0 {
                listener.full_since_ns = now;
            }
        } else if listener.full_since_ns != 0 {
            // Another CPU may have looked a moment later and ended it already.
            listener.full_ns += now.saturating_sub(listener.full_since_ns);
            listener.full_since_ns = 0;
        }
    }
}

/// What names a unix socket for as long as it lives: its inode's number where the kernel shows it.
#[inline(always)]
pub fn lasting_name(sk: u64) -> u64 {
    match sock::inode(sk) {
        0 => sk,
        inode => inode,
    }
}

#[inline(always)]
fn add_under(key: &ListenerKey, sock: u64) {
    if GROUPS.get_ptr(key).is_none() {
        let Some(empty) = EMPTY_GROUP.get(0) else { return };
        if !put!(GROUPS, key, empty, listeners_untracked) {
            return;
        }
    }
    let Some(group) = GROUPS.get_ptr_mut(key) else { return };
    // SAFETY: preallocated map memory.
    let group = unsafe { &mut *group };
    for slot in 0..GROUP {
        if group.socks[slot] == 0 || group.socks[slot] == sock {
            group.socks[slot] = sock;
            if group.used <= slot as u64 {
                group.used = slot as u64 + 1;
            }
            return;
        }
    }
    count!(listeners_untracked, 1);
}

#[inline(always)]
fn remove_under(key: &ListenerKey, sock: u64) {
    let Some(group) = GROUPS.get_ptr_mut(key) else { return };
    // SAFETY: preallocated map memory.
    let group = unsafe { &mut *group };
    let mut left = 0;
    for slot in 0..GROUP {
        if slot as u64 >= group.used {
            break;
        }
        if group.socks[slot] == sock {
            group.socks[slot] = 0;
        }
        left |= group.socks[slot];
    }
    if left == 0 {
        let _gone = GROUPS.remove(key);
    }
}

/// Says that all of an entry is written: no write before is moved behind this one.
#[inline(always)]
fn publish(listener: &mut Listener, now: u64) {
    // SAFETY: an aligned field of eight bytes. Inline, for the compiler keeps other writes on their side of it.
    unsafe {
        core::arch::asm!(
            "*(u64 *)({field} + 0) = {now}",
            field = in(reg) &raw mut listener.since_ns,
            now = in(reg) now,
            options(nostack),
        );
    }
}

/// A new entry, or none where another one is. Of one that is still being written on another CPU the rest is written twice: both say the same.
#[inline(always)]
fn fresh<'a>(sk: u64, by_owner: bool) -> Option<&'a mut Listener> {
    let empty = EMPTY_LISTENER.get(0)?;
    if let Some(old) = find(sk)
        && old.since_ns != 0
    {
        if !by_owner {
            return None;
        }
        // It does not listen yet: that was another one, whose end was not seen.
        let _gone = LISTENERS.remove(sk);
    }
    // Never in place of another one: who is writing that would go on in memory that is somebody else's by then.
    if LISTENERS.insert(sk, empty, BPF_NOEXIST.into()).is_err() && find(sk).is_none() {
        count!(listeners_untracked, 1);
    }
    find(sk)
}

/// A socket began to listen, called by its owner, or was shown to us by userspace while it listens. Returns whether it was written down
/// now.
#[inline(always)]
pub fn add(sk: u64, family: u16, by_owner: bool) -> bool {
    let Some(listener) = fresh(sk, by_owner) else { return false };
    listener.sock = sk;
    listener.net = sock::net(sk);
    listener.inode = sock::inode(sk);
    listener.netns = read(listener.net, layout!(net_inum));
    if by_owner {
        let task = task::current();
        listener.tgid = task.tgid;
        listener.comm = task.comm;
    }
    listener.drops_counted = u64::from(read::<u32>(sk, layout!(sk_drops)));
    if family == FAMILY_UNIX {
        listener.local.family = FAMILY_UNIX;
        read_path(sk, &mut listener.path);
        if !unix_place::register(sk) {
            count!(listeners_untracked, 1);
        }
    } else {
        listener.local = sock::local(sk);
        watch_port(listener.local.port);
        add_under(&key(listener.net, listener.local.addr, listener.local.port), sk);
        if is_global(&listener.local.addr) {
            add_under(&key(0, listener.local.addr, listener.local.port), sk);
        }
    }
    listener.first_depth = depth(sk, family);
    let now = now();
    look(listener, now);
    publish(listener, now);
    true
}

/// Userspace shows a listener, maybe once more.
#[inline(always)]
pub fn shown(sk: u64) {
    if find(sk).is_none() {
        let is_inet = sock::is_inet(sk);
        let is_new = add(sk, if is_inet { FAMILY_INET } else { FAMILY_UNIX }, false);
        // Closed while it was written down: see `remove`.
        if is_new && is_inet && !open_files::is_listener(sk) {
            remove(sk);
        }
    }
}

/// A TCP listener was closed: emits what it came to. One that is being written down at this moment is left to who does that.
#[inline(always)]
pub fn remove(sk: u64) {
    let Some(listener) = find(sk) else { return };
    if listener.since_ns == 0 {
        return;
    }
    let (addr, port) = (listener.local.addr, listener.local.port);
    remove_under(&key(listener.net, addr, port), sk);
    if is_global(&addr) {
        remove_under(&key(0, addr, port), sk);
    }
    emit_closed(listener);
    let _gone = LISTENERS.remove(sk);
}

#[inline(always)]
pub fn emit_closed(listener: &Listener) {
    let Some(mut entry) = RING.reserve::<ListenerClosed>(0) else {
        count!(lost, 1);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is exactly one record; every byte of it is written here.
    unsafe {
        (*record).header =
            Header { kind: Kind::ListenerClosed as u32, len: size_of::<ListenerClosed>() as u32 };
        (*record).listener = *listener;
    }
    entry.submit(0);
}

/// The listeners on an address, or in its namespace on all addresses.
#[inline(always)]
pub fn group<'a>(net: u64, local: &Endpoint) -> Option<&'a Group> {
    let mut key = key(net, local.addr, local.port);
    let found = GROUPS
        .get_ptr(key)
        .or_else(|| {
            key.addr = ANY4;
            GROUPS.get_ptr(key)
        })
        .or_else(|| {
            key.addr = [0; 4];
            GROUPS.get_ptr(key)
        });
    // SAFETY: preallocated map memory.
    found.map(|group| unsafe { &*group })
}

/// The first listener of a group for which `is_it` holds.
#[inline(always)]
pub fn first<'a>(group: &Group, mut is_it: impl FnMut(&mut Listener) -> bool) -> Option<&'a mut Listener> {
    for slot in 0..GROUP {
        if slot as u64 >= group.used {
            break;
        }
        let sock = group.socks[slot];
        if sock != 0
            && let Some(listener) = find(sock)
            && is_it(listener)
        {
            return Some(listener);
        }
    }
    None
}

/// `child` has entered a queue.
#[inline(always)]
pub fn arrives(listener: &mut Listener, child: u64) {
    let now = now();
    // SAFETY: a counter in a map.
    unsafe { memory::add(&raw mut listener.arrivals, 1) };
    waiting::begins(child, listener.sock, now);
    look(listener, now);
    // With room to spare no SYN is being dropped at this moment: the count of drops can be set anew.
    if listener.depth.saturating_mul(2) <= listener.limit {
        listener.drops_counted = u64::from(read::<u32>(listener.sock, layout!(sk_drops)));
    }
}

/// A process has accepted `child`.
#[inline(always)]
pub fn accepted(child: u64) {
    if child == 0 {
        return;
    }
    let Some(waiting) = waiting::ends(child) else {
        older_accepted(child);
        return;
    };
    let Some(listener) = find(waiting.listener) else { return };
    let now = now();
    let wait = now.saturating_sub(waiting.queued_ns);
    let bucket = memory::bounded::<{ BUCKETS as u64 - 1 }>(bucket(wait / 1_000) as u64);
    // SAFETY: counters in a map, the first one within its array.
    unsafe {
        memory::add((&raw mut listener.waits).cast::<u64>().add(bucket), 1);
        memory::add(&raw mut listener.waited_ns, wait);
    }
    if wait > listener.longest_wait_ns {
        listener.longest_wait_ns = wait;
    }
    look(listener, now);
}

/// It was in the queue before the tracer was: only the depth changes.
#[inline(always)]
fn older_accepted(child: u64) {
    if sock::is_inet(child) {
        if let Some(group) = group(sock::net(child), &sock::local(child)) {
            let now = now();
            let _all = first(group, |listener| {
                look(listener, now);
                false
            });
        }
    } else if let Some(listener) = listener_of(child) {
        look(listener, now());
    }
}

/// Reads the path that a socket is bound to; empty if it is bound to none.
#[inline(always)]
pub fn read_path(sk: u64, path: &mut [u8; PATH_LEN]) {
    let address: u64 = read(sk, layout!(unix_addr));
    if address != 0 {
        let name = (address + u64::from(layout!(unix_address_name)) + 2) as *const u8;
        // SAFETY: the helper checks the address; a name in the abstract namespace begins with a zero and is read as empty.
        let _unreadable = unsafe { bpf_probe_read_kernel_str_bytes(name, path) };
    }
}

/// The listener whose queue `child` waits in, or has left.
#[inline(always)]
pub fn listener_of<'a>(child: u64) -> Option<&'a mut Listener> {
    match unix_place::listener_of(child) {
        0 => None,
        sock => find(sock),
    }
}
