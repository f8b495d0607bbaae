//! connect, seen as a call: of unix sockets, for which TCP's hooks do nothing, and of TCP where it fails before those see it.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::{
    bpf_ktime_get_ns, bpf_probe_read_kernel_str_bytes, bpf_probe_read_user, bpf_probe_read_user_str_bytes,
    generated,
};
use wire::{FAMILY_INET, FAMILY_INET6, FAMILY_UNIX, PATH_LEN, tcp_state};

use crate::{
    kernel::{
        function::{CALLS, SETTLED, call},
        memory,
        ports::watch_port,
        put::put,
        read::{layout, read},
        sock, task, trust, unix_place,
    },
    live::{
        emit,
        entry::{NO_PORT, reader, share, unix_path},
        exchange::{abandoned, ending, worker_end},
        explain::{
            doing, icmp, last_read,
            unix_listener::{listens, look, queue_of},
        },
        fallback,
        maps::{CONNECTING, Connecting, EMPTY_EXCHANGE, EXCHANGES, OpenExchange, attached, count},
        scope,
    },
};

const EADDRNOTAVAIL: i64 = 99;
const EINPROGRESS: i64 = 115;
/// Calls of tcp_v4_connect that a thread is in, among [`crate::kernel::function::CALLS`].
pub const CONNECT_V4: u32 = 9;
/// The same of tcp_v6_connect.
pub const CONNECT_V6: u32 = 11;

/// A connect to an address of this family.
#[inline(always)]
fn connect_to(room: &mut MaybeUninit<Connecting>, family: u16) -> &mut Connecting {
    // SAFETY: all zeroes are a value of the type.
    let call = unsafe { memory::cleared(room) };
    call.upstream.family = family;
    call
}

/// Whether the running task's connects are ours. Strangers are counted: userspace looks at who they are.
#[inline(always)]
fn is_ours() -> bool {
    let task = task::current();
    if !task::is_asked_for(&task) {
        return false;
    }
    let is_trusted = trust::is_trusted(&task);
    if !is_trusted {
        count!(unix_strangers, 1);
    }
    is_trusted
}

/// connect is called with an address of `len` bytes in user memory.
#[inline(always)]
pub fn called(fd: u64, address: u64, len: u64) {
    if !is_ours() {
        return;
    }
    // SAFETY: the helper checks the address; a system call's argument is a user address.
    let family = unsafe { bpf_probe_read_user(address as *const u16) }.unwrap_or(0);
    let mut room = MaybeUninit::uninit();
    let call = connect_to(&mut room, family);
    call.fd = fd;
    match family {
        FAMILY_UNIX if len > 3 => {
            // SAFETY: as above. A name in the abstract namespace begins with a zero and is read as empty.
            let path = unsafe { bpf_probe_read_user_str_bytes((address + 2) as *const u8, &mut call.path) };
            if path.is_ok_and(<[u8]>::is_empty) {
                return;
            }
        }
        FAMILY_INET => {
            // SAFETY: as above; struct sockaddr_in has the port at 2 and the address at 4.
            unsafe {
                call.upstream.port =
                    u16::from_be(bpf_probe_read_user((address + 2) as *const u16).unwrap_or(0));
                let addr: u32 = bpf_probe_read_user((address + 4) as *const u32).unwrap_or(0);
                call.upstream.addr = [0, 0, 0xffff_u32.to_be(), addr];
            }
        }
        FAMILY_INET6 => {
            // SAFETY: as above; struct sockaddr_in6 has the port at 2 and the address at 8.
            unsafe {
                call.upstream.port =
                    u16::from_be(bpf_probe_read_user((address + 2) as *const u16).unwrap_or(0));
                let addr = (&raw mut call.upstream.addr).cast();
                generated::bpf_probe_read_user(addr, size_of::<[u32; 4]>() as u32, (address + 8) as *const _);
            }
        }
        _ => return,
    }
    // SAFETY: the helper takes nothing.
    call.start_ns = unsafe { bpf_ktime_get_ns() };
    put!(CONNECTING, task::thread(), &*call, untracked);
}

/// The running thread ends: a connect that was not seen to return does not.
#[inline(always)]
pub fn thread_ends() {
    if attached().is_some_and(|attached| attached.system_calls != 0) {
        let _gone = CONNECTING.remove(task::thread());
    }
}

/// The running thread's connect of `sk` got as far as TCP's own hooks: those emit it from here.
#[inline(always)]
pub fn goes_on(sk: u64) {
    let Some(attached) = attached() else { return };
    if attached.system_calls != 0 {
        let _gone = CONNECTING.remove(task::thread());
    }
    if attached.connects_by_kprobe != 0 {
        settles(call(CONNECT_V4), sk);
        settles(call(CONNECT_V6), sk);
    }
}

/// If the running thread is in this call with `sk`, its return has nothing to say any more but that connect ends.
#[inline(always)]
fn settles(call: u64, sk: u64) {
    if let Some(arguments) = CALLS.get_ptr_mut(call) {
        // SAFETY: preallocated map memory of this thread's own.
        let arguments = unsafe { &mut *arguments };
        if arguments[0] == sk {
            (arguments[1], arguments[2]) = (0, SETTLED);
        }
    }
}

/// connect returned `ret`.
#[inline(always)]
pub fn returned(ret: i64) {
    let thread = task::thread();
    let Some(call) = CONNECTING.get_ptr_mut(thread) else { return };
    // SAFETY: preallocated map memory of this thread's own.
    let call = unsafe { &*call };
    let is_unix = call.upstream.family == FAMILY_UNIX;
    let is_ours = if is_unix { scope::is_wanted_path(&call.path) } else { scope::is_wanted(&call.upstream) };
    let sk = task::sock_of(call.fd);
    // A resolver and a log are asked by datagrams.
    let is_stream = sk == 0 || sock::is_stream(sk);
    if is_ours && is_stream && ret != -EINPROGRESS && (is_unix || ret < 0) {
        begin(sk, call, ret);
    }
    let _gone = CONNECTING.remove(thread);
}

/// The kernel's own connect of `sk` to an address of `len` bytes in kernel memory returned `ret`. Of TCP only what failed before
/// a SYN was sent is emitted here.
#[inline(always)]
pub fn connected(sk: u64, address: u64, len: u64, ret: i32) {
    let ret = i64::from(ret);
    let family: u16 = read(address, 0);
    let is_unix = family == FAMILY_UNIX;
    if ret == -EINPROGRESS {
        icmp::may_be_answered(sk);
    }
    if ret == -EINPROGRESS || !is_unix && ret >= 0 || !is_ours() {
        return;
    }
    let mut room = MaybeUninit::uninit();
    let call = connect_to(&mut room, family);
    match family {
        FAMILY_UNIX if len > 3 => {
            // SAFETY: the helper checks the address.
            let path = unsafe { bpf_probe_read_kernel_str_bytes((address + 2) as *const u8, &mut call.path) };
            if path.is_ok_and(<[u8]>::is_empty) || !scope::is_wanted_path(&call.path) {
                return;
            }
        }
        FAMILY_INET => {
            call.upstream.port = u16::from_be(read(address, 2));
            call.upstream.addr = [0, 0, 0xffff_u32.to_be(), read(address, 4)];
        }
        FAMILY_INET6 => {
            call.upstream.port = u16::from_be(read(address, 2));
            call.upstream.addr = read(address, 8);
        }
        _ => return,
    }
    // An exchange that TCP's own hooks know, or knew a moment ago, is emitted by them: it has a port, or found none.
    if !is_unix
        && (ret == -EADDRNOTAVAIL || !scope::is_wanted(&call.upstream) || sock::lasting_local_port(sk) != 0)
    {
        return;
    }
    // SAFETY: the helper takes nothing.
    call.start_ns = unsafe { bpf_ktime_get_ns() };
    begin(sk, call, ret);
}

/// A connect is over: unix ones are complete at once, well or not; a TCP one comes here only if it failed at once.
#[inline(always)]
fn begin(sk: u64, call: &Connecting, ret: i64) {
    count!(connections, 1);
    if fallback::is_awaited() {
        fallback::connected(sk, call.start_ns);
    }
    let Some(empty) = EMPTY_EXCHANGE.get(0) else { return };
    let task = task::current();
    let is_unix = call.upstream.family == FAMILY_UNIX;
    let path = if is_unix { unix_path::keep(&call.path) } else { 0 };
    let has_no_room = is_unix && path == 0 || share::is_used_up(&task);
    if sk == 0 || has_no_room || EXCHANGES.insert(sk, empty, 0).is_err() {
        share::refused(&task);
        return;
    }
    let Some(exchange) = EXCHANGES.get_ptr_mut(sk) else { return };
    // SAFETY: preallocated map memory, made just above.
    let exchange = unsafe { &mut *exchange };
    exchange.connection = doing::connection_of(sk);
    exchange.path = path;
    let nginx = &mut exchange.nginx;
    nginx.flags |= doing::purpose(exchange.connection);
    nginx.sock = sk;
    nginx.net = sock::net(sk);
    nginx.netns = read(nginx.net, layout!(net_inum));
    nginx.connect_ns = call.start_ns;
    nginx.exchange = 1;
    nginx.nginx = task;
    reader::forget(sk);
    last_read::begins(nginx);
    // SAFETY: map memory that is already a value of the type.
    unsafe { memory::fill(&raw mut nginx.upstream, &raw const call.upstream) };
    if ret < 0 {
        if is_unix {
            nginx.listener_first = look(&call.path);
        }
        nginx.error = -ret as u32;
        nginx.old_state = tcp_state::SYN_SENT;
        nginx.new_state = tcp_state::CLOSE;
        // A unix queue is looked at just after the refusal.
        // SAFETY: map memory that is already a value of the type.
        unsafe { memory::fill(&raw mut nginx.listener_last, &raw const nginx.listener_first) };
        ending::ends_unconnected(exchange);
        emit::unconnected(exchange);
        let _gone = EXCHANGES.remove(sk);
        return;
    }
    join(exchange, &call.path);
}

/// A unix connection came about: its other end exists already and waits to be accepted.
#[inline(always)]
fn join(exchange: &mut OpenExchange, path: &[u8; PATH_LEN]) {
    let nginx = &mut exchange.nginx;
    // SAFETY: the helper takes nothing.
    nginx.established_ns = unsafe { bpf_ktime_get_ns() };
    let peer: u64 = read(nginx.sock, layout!(unix_peer));
    nginx.worker_sock = peer;
    let listener = unix_place::listener_of(peer);
    if listener == 0 {
        nginx.listener_first = look(path);
    } else {
        if unix_place::led_to(path, listener) {
            listens(listener);
        }
        nginx.listener_first = queue_of(listener);
    }
    watch_port(NO_PORT);
    abandoned::forget(peer);
    reader::forget(peer);
    let created_ns = nginx.established_ns;
    worker_end::begins(exchange, created_ns);
}
