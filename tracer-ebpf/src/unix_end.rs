//! Exchanges over unix sockets. No tracepoint tells of them, so connect and close are seen as system calls; the rest
//! as for TCP. A unix socket has no port: port 0 stands for it among the watched ports.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_user, bpf_probe_read_user_str_bytes,
    generated::{self, bpf_for_each_map_elem},
};
use tracer_ebpf::{FAMILY_INET, FAMILY_INET6, FAMILY_UNIX, MISSING, PATH_LEN, nginx_flag, tcp_state};

use crate::{
    aftermath,
    function::{CALLS, SETTLED, call},
    kernel::{self, filter, layout, read},
    maps::{
        ABANDONED, ATTACHED, CONNECTING, Connecting, DEATHS, EMPTY_EXCHANGE, EXCHANGES, HOLDERS,
        OpenExchange, PATHS, SCRATCH, UNIX_LISTENERS, WANTED_PATHS, WORKERS, count, port_is_watched,
        watch_port,
    },
    nginx_end, signal,
    tell::tell,
    transfer,
    unix_listener::look,
    worker_end,
};

const EADDRNOTAVAIL: i64 = 99;
const EINPROGRESS: i64 = 115;
const NO_PORT: u16 = 0;
/// Calls of tcp_v4_connect that a thread is in, among [`crate::function::CALLS`].
pub const CONNECT_V4: u32 = 9;
/// The same of tcp_v6_connect.
pub const CONNECT_V6: u32 = 11;

#[inline(always)]
fn thread() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

/// Whether the peer of this unix socket is bound to a path (a listener's children share its address).
#[inline(always)]
fn has_path(peer: u64) -> bool {
    let address: u64 = read(peer, layout!(unix_addr));
    address != 0 && read::<u8>(address, layout!(unix_address_name) + 2) != 0
}

/// A process of ours sent on a socket without a port that is not watched: userspace learns that unix upstreams are in
/// use.
#[inline(always)]
pub fn notice(sk: u64) {
    if read::<u16>(sk, layout!(family)) == FAMILY_UNIX
        && nginx_end::is_our_task(&kernel::current())
        && has_path(read(sk, layout!(unix_peer)))
    {
        count!(unix_seen, 1);
    }
}

/// Makes room for a connect to an address of this family.
#[inline(always)]
fn forget(call: &mut Connecting, family: u16) {
    // SAFETY: all zeroes are an address and a path.
    unsafe {
        kernel::clear(&raw mut call.upstream);
        kernel::clear(&raw mut call.path);
    }
    call.upstream.family = family;
}

/// connect is called with an address of `len` bytes in user memory.
#[inline(always)]
pub fn connect_called(fd: u64, address: u64, len: u64) {
    if !nginx_end::is_our_task(&kernel::current()) {
        return;
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own entry, and nothing interrupts this program that uses it, too.
    let call = unsafe { &mut *scratch };
    // SAFETY: the helper checks the address; a system call's argument is a user address.
    let family = unsafe { bpf_probe_read_user(address as *const u16) }.unwrap_or(0);
    call.fd = fd;
    forget(call, family);
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
    let _evicts = CONNECTING.insert(thread(), &*call, 0);
}

/// The running thread's connect of `sk` got as far as TCP's own hooks: those tell it from here.
#[inline(always)]
pub fn no_unix_connect(sk: u64) {
    let Some(attached) = ATTACHED.get(0) else { return };
    if attached.system_calls != 0 {
        let _gone = CONNECTING.remove(thread());
    }
    if attached.connects_by_kprobe != 0 {
        settles(call(CONNECT_V4), sk);
        settles(call(CONNECT_V6), sk);
    }
}

/// If the running thread is in this call with `sk`, its return has nothing to tell any more but that connect ends.
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
pub fn connect_returned(ret: i64) {
    let thread = thread();
    let Some(call) = CONNECTING.get_ptr_mut(thread) else { return };
    // SAFETY: preallocated map memory of this thread's own.
    let call = unsafe { &*call };
    let is_unix = call.upstream.family == FAMILY_UNIX;
    let is_ours = if is_unix { is_wanted_path(&call.path) } else { nginx_end::is_wanted(&call.upstream) };
    if is_ours && ret != -EINPROGRESS && (is_unix || ret < 0) {
        begin(kernel::sock_of(call.fd), call, ret);
    }
    let _gone = CONNECTING.remove(thread);
}

/// The kernel's own connect of `sk` to an address of `len` bytes in kernel memory returned `ret`. Of TCP only what failed before
/// a SYN was sent is told here.
#[inline(always)]
pub fn connected(sk: u64, address: u64, len: u64, ret: i32) {
    let ret = i64::from(ret);
    let family: u16 = read(address, 0);
    let is_unix = family == FAMILY_UNIX;
    if ret == -EINPROGRESS {
        nginx_end::may_be_answered(sk);
    }
    if ret == -EINPROGRESS || !is_unix && ret >= 0 || !nginx_end::is_our_task(&kernel::current()) {
        return;
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own entry.
    let call = unsafe { &mut *scratch };
    forget(call, family);
    match family {
        FAMILY_UNIX if len > 3 => {
            // SAFETY: the helper checks the address.
            let path = unsafe {
                aya_ebpf::helpers::bpf_probe_read_kernel_str_bytes((address + 2) as *const u8, &mut call.path)
            };
            if path.is_ok_and(<[u8]>::is_empty) || !is_wanted_path(&call.path) {
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
    // An exchange that TCP's own hooks know, or knew a moment ago, is told by them: it has a port, or found none.
    if !is_unix
        && (ret == -EADDRNOTAVAIL
            || !nginx_end::is_wanted(&call.upstream)
            || kernel::lasting_local_port(sk) != 0)
    {
        return;
    }
    // SAFETY: the helper takes nothing.
    call.start_ns = unsafe { bpf_ktime_get_ns() };
    begin(sk, call, ret);
}

/// Whether the user asked for this path, or for none in particular.
#[inline(always)]
fn is_wanted_path(path: &[u8; PATH_LEN]) -> bool {
    // SAFETY: only tested for presence.
    filter!(upstreams) == 0 || unsafe { WANTED_PATHS.get(path) }.is_some()
}

/// A connect is over: unix ones are complete at once, well or not; a TCP one comes here only if it failed at once.
#[inline(always)]
fn begin(sk: u64, call: &Connecting, ret: i64) {
    count!(connections, 1);
    if aftermath::is_awaited() {
        aftermath::connected(sk, call.start_ns);
    }
    let Some(empty) = EMPTY_EXCHANGE.get(0) else { return };
    if sk == 0 || EXCHANGES.insert(sk, empty, 0).is_err() {
        count!(untracked, 1);
        return;
    }
    let Some(exchange) = EXCHANGES.get_ptr_mut(sk) else { return };
    // SAFETY: preallocated map memory, made just above.
    let exchange = unsafe { &mut *exchange };
    let nginx = &mut exchange.nginx;
    nginx.sock = sk;
    nginx.net = kernel::net(sk);
    nginx.netns = read(nginx.net, layout!(net_inum));
    nginx.connect_ns = call.start_ns;
    nginx.exchange = 1;
    nginx.nginx = kernel::current();
    // SAFETY: map memory that is already a value of the type.
    unsafe { kernel::fill(&raw mut nginx.upstream, &raw const call.upstream) };
    if call.upstream.family == FAMILY_UNIX {
        let _evicts = PATHS.insert(sk, call.path, 0);
        nginx.listener_first = look(&call.path);
    }
    if ret < 0 {
        nginx.error = -ret as u32;
        nginx.old_state = tcp_state::SYN_SENT;
        nginx.new_state = tcp_state::CLOSE;
        // A unix queue is looked at just after the refusal.
        // SAFETY: map memory that is already a value of the type.
        unsafe { kernel::fill(&raw mut nginx.listener_last, &raw const nginx.listener_first) };
        nginx_end::ends(exchange);
        tell(exchange, false);
        let _gone = EXCHANGES.remove(sk);
        return;
    }
    join(exchange, &call.path, empty);
}

/// A unix connection came about: its other end exists already and waits to be accepted.
#[inline(always)]
fn join(exchange: &mut OpenExchange, path: &[u8; PATH_LEN], empty: &OpenExchange) {
    let nginx = &mut exchange.nginx;
    // SAFETY: the helper takes nothing.
    nginx.established_ns = unsafe { bpf_ktime_get_ns() };
    let peer: u64 = read(nginx.sock, layout!(unix_peer));
    nginx.worker_sock = peer;
    if layout!(unix_listener) != MISSING {
        let listener: u64 = read(peer, layout!(unix_listener));
        if listener != 0 {
            let _evicts = UNIX_LISTENERS.insert(path, listener, 0);
        }
        if nginx.listener_first.sock == 0 {
            nginx.listener_first = look(path);
        }
    }
    watch_port(NO_PORT);
    let _gone = ABANDONED.remove(peer);
    worker_end::is_unread(peer);
    if WORKERS.insert(peer, &empty.worker, 0).is_err() {
        count!(workers_untracked, 1);
        return;
    }
    let Some(worker) = WORKERS.get_ptr_mut(peer) else { return };
    // SAFETY: preallocated map memory, made just above.
    let worker = unsafe { &mut *worker };
    worker.sock = peer;
    worker.nginx_sock = nginx.sock;
    worker.connect_ns = nginx.connect_ns;
    worker.created_ns = nginx.established_ns;
}

/// A process closes a descriptor.
#[inline(always)]
pub fn close_called(fd: u64) {
    let task = kernel::current();
    // SAFETY: copied out at once.
    let held = unsafe { HOLDERS.get(task.tgid) }.copied().unwrap_or(0);
    if held == 0 && !nginx_end::is_our_task(&task) {
        return;
    }
    let sk = kernel::sock_of(fd);
    if sk == 0 {
        return;
    }
    if sk == held {
        abandoned_ends(sk, task.tgid);
        return;
    }
    let Some(exchange) = nginx_end::find(sk, NO_PORT) else { return };
    if exchange.nginx.upstream.family == FAMILY_UNIX {
        ended(exchange, sk);
    }
}

/// The running process ends, maybe one of ours: its open exchanges end with it, without a system call.
#[inline(always)]
pub fn owner_dies() {
    if !nginx_end::is_our_task(&kernel::current()) || !port_is_watched(NO_PORT) {
        return;
    }
    // SAFETY: the callback has the signature that the helper asks for, and uses no context.
    unsafe {
        bpf_for_each_map_elem(
            (&raw const EXCHANGES).cast_mut().cast(),
            ends_with_owner as *mut c_void,
            core::ptr::null_mut(),
            0,
        );
    }
}

/// For each open exchange, while a process of ours ends. An entry may be removed from within.
extern "C" fn ends_with_owner(
    _map: *mut c_void,
    sk: *const u64,
    exchange: *mut OpenExchange,
    _context: *mut c_void,
) -> i64 {
    // SAFETY: the helper hands over the entry's own memory.
    let (sk, exchange) = unsafe { (*sk, &mut *exchange) };
    if exchange.nginx.upstream.family == FAMILY_UNIX
        && exchange.nginx.nginx.tgid == (bpf_get_current_pid_tgid() >> 32) as u32
    {
        ended(exchange, sk);
    }
    0
}

/// The running process ends, and with it closes what it holds without a system call.
#[inline(always)]
pub fn holder_dies() {
    let task = kernel::current();
    // SAFETY: copied out at once.
    if let Some(held) = unsafe { HOLDERS.get(task.tgid) }.copied() {
        abandoned_ends(held, task.tgid);
    }
}

/// A process read from a unix socket that nginx has given up.
#[inline(always)]
pub fn abandoned_read_from(sk: u64) {
    let Some(worker) = ABANDONED.get_ptr_mut(sk) else { return };
    // SAFETY: preallocated map memory.
    let worker = unsafe { &mut *worker };
    // The socket keeps its peer for as long as it lives: another one at this address has another peer.
    if worker.accepted_ns != 0 || read::<u64>(sk, layout!(unix_peer)) != worker.nginx_sock {
        return;
    }
    // SAFETY: the helper takes nothing.
    worker.accepted_ns = unsafe { bpf_ktime_get_ns() };
    worker.worker = kernel::current();
    let _evicts = HOLDERS.insert(worker.worker.tgid, sk, 0);
}

/// The worker's end of an exchange that nginx had given up is closed by the running process.
#[inline(always)]
fn abandoned_ends(sk: u64, tgid: u32) {
    let _gone = HOLDERS.remove(tgid);
    let Some(worker) = ABANDONED.get_ptr_mut(sk) else { return };
    // SAFETY: preallocated map memory.
    let worker = unsafe { &mut *worker };
    if read::<u64>(sk, layout!(unix_peer)) == worker.nginx_sock {
        worker_end::closes(worker);
        worker_end::tell(worker);
    }
    let _gone = ABANDONED.remove(sk);
}

/// nginx closes its end. What it read last tells whether the peer had closed before, and how.
#[inline(always)]
fn ended(exchange: &mut OpenExchange, sk: u64) {
    let nginx = &mut exchange.nginx;
    (nginx.old_state, nginx.new_state) = if nginx.errno != 0 {
        nginx.error = u32::from(nginx.errno);
        (tcp_state::ESTABLISHED, tcp_state::CLOSE)
    } else if nginx.flags & nginx_flag::END_READ != 0 {
        (tcp_state::CLOSE_WAIT, tcp_state::LAST_ACK)
    } else {
        (tcp_state::ESTABLISHED, tcp_state::FIN_WAIT1)
    };
    nginx.unread = read(sk, layout!(receive_qlen));
    if nginx.unread > 0 && nginx.error == 0 {
        nginx.new_state = tcp_state::CLOSE;
    }
    nginx_end::note_blocked(nginx, sk);
    take_worker(exchange);
    let (well, now) = nginx_end::ends(exchange);
    if !well {
        // SAFETY: the path is copied into the view's key at once.
        if let Some(path) = unsafe { PATHS.get(sk) } {
            exchange.nginx.listener_last = look(path);
        }
        let worker = &mut exchange.worker;
        if worker.sock != 0 && worker.ended_ns == 0 {
            worker.abandoned_ns = now;
            if !is_release_seen() {
                let _evicts = ABANDONED.insert(worker.sock, &*worker, 0);
            }
            if worker.accepted_ns != 0 && !is_release_seen() {
                let _evicts = HOLDERS.insert(worker.worker.tgid, worker.sock, 0);
            }
        }
        tell(exchange, well);
    }
    if !is_release_seen() || exchange.worker.ended_ns != 0 {
        let _gone = WORKERS.remove(exchange.nginx.worker_sock);
    } else if let Some(worker) = WORKERS.get_ptr_mut(exchange.nginx.worker_sock) {
        // SAFETY: preallocated map memory.
        unsafe { (*worker).abandoned_ns = now };
    }
    let _gone = PATHS.remove(sk);
    let _gone = EXCHANGES.remove(sk);
}

/// Whether a unix socket that a listener made was handed to a process, be it closed since or not: `unix_accept` takes the
/// listener out of it (`unix_update_edges`, since 6.10).
#[inline(always)]
fn was_accepted(sk: u64) -> bool {
    kernel::has_socket(sk)
        || layout!(unix_listener) != MISSING && read::<u64>(sk, layout!(unix_listener)) == 0
}

/// Whether the end of every unix socket is seen.
#[inline(always)]
fn is_release_seen() -> bool {
    ATTACHED.get(0).is_some_and(|attached| attached.unix_release != 0)
}

/// A unix socket ends: its process closed it, or died; or its listener did, before anyone had accepted it.
#[inline(always)]
pub fn released(sk: u64, was_queued: bool) {
    if !port_is_watched(NO_PORT) {
        return;
    }
    if transfer::may_miss_sends() {
        transfer::settle();
    }
    if let Some(exchange) = nginx_end::find(sk, NO_PORT) {
        if exchange.nginx.upstream.family == FAMILY_UNIX {
            ended(exchange, sk);
        }
        return;
    }
    let Some(worker) = WORKERS.get_ptr_mut(sk) else { return };
    // SAFETY: preallocated map memory.
    let worker = unsafe { &mut *worker };
    worker_end::closes(worker);
    worker.has_socket = u32::from(!was_queued);
    // A queue that is not empty makes the release a reset (unix_release_sock).
    worker.unread = read(sk, layout!(receive_qlen));
    worker.old_state = tcp_state::ESTABLISHED;
    worker.new_state = tcp_state::CLOSE;
    if worker.abandoned_ns != 0 {
        worker_end::tell(worker);
        let _gone = WORKERS.remove(sk);
    }
}

/// Takes over what is known of the worker's end: whether it was accepted, by whom, and whether that process died.
#[inline(always)]
fn take_worker(exchange: &mut OpenExchange) {
    let nginx = &mut exchange.nginx;
    let Some(worker) = WORKERS.get_ptr_mut(nginx.worker_sock) else { return };
    // SAFETY: preallocated map memory; the connection's name is checked just below.
    let worker = unsafe { &mut *worker };
    if worker.nginx_sock != nginx.sock || worker.connect_ns != nginx.connect_ns {
        return;
    }
    worker_end::copy(&mut exchange.worker, worker);
    let worker = &mut exchange.worker;
    if worker.ended_ns != 0 {
        return;
    }
    worker.has_socket = u32::from(worker.accepted_ns != 0 || was_accepted(nginx.worker_sock));
    // unix_release_sock gives the peer ECONNRESET or an end of file when the worker's end goes.
    if nginx.error == 0 && nginx.flags & nginx_flag::END_READ == 0 {
        nginx_end::note_worker(nginx, worker.has_socket != 0);
        return;
    }
    // SAFETY: the helper takes nothing.
    worker.ended_ns = unsafe { bpf_ktime_get_ns() };
    worker.old_state = tcp_state::ESTABLISHED;
    worker.new_state = tcp_state::CLOSE;
    worker.closer = worker.worker;
    // SAFETY: copied out at once.
    if worker.accepted_ns != 0
        && let Some(death) = unsafe { DEATHS.get(worker.worker.tgid) }.copied()
        && death.ns > worker.accepted_ns
    {
        worker.ended_ns = death.ns;
        worker.exiting = 1;
        worker.exit_code = death.exit_code;
        signal::of_death(worker.worker.tgid, death.exit_code, &mut worker.signal);
    }
}
