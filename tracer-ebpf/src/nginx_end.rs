//! nginx's end of an exchange.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use tracer_ebpf::{Endpoint, Exchange, Header, Kind, NginxEnd, nginx_flag, tcp_state};

use crate::{
    aftermath,
    kernel::{self, filter, layout, read},
    listener,
    maps::{
        ConnectionId, EMPTY_EXCHANGE, EXCHANGES, HANDSHAKES, OpenExchange, RING, WANTED, count,
        port_is_watched, watch_port,
    },
    reset, worker_end,
};

const IPPROTO_TCP: u16 = 6;
const EAGAIN: i32 = 11;

/// Whether the user asked for this upstream, by address and port or by port alone.
#[inline(always)]
fn is_wanted(upstream: &Endpoint) -> bool {
    if filter!(upstreams) == 0 {
        return true;
    }
    let mut key = Endpoint { family: 0, ..*upstream };
    // SAFETY: only tested for presence.
    unsafe {
        if WANTED.get(key).is_some() {
            return true;
        }
        key.addr = [0; 4];
        WANTED.get(key).is_some()
    }
}

/// Whether connections of the running task are ours.
#[inline(always)]
fn is_our_task(task: &tracer_ebpf::Task) -> bool {
    let comm = filter!(comm);
    if comm[0] != 0 && comm != task.comm {
        return false;
    }
    let pid = filter!(pid);
    task.tgid != filter!(own_pid) && (pid == 0 || pid == task.tgid || pid == kernel::current_parent())
}

/// connect was called on `sk`: the destination is set, the local port and the sequence numbers are not yet.
#[inline(always)]
pub fn connects(sk: u64) {
    let task = kernel::current();
    if !is_our_task(&task) || !kernel::is_inet(sk) || read::<u16>(sk, layout!(sk_protocol)) != IPPROTO_TCP {
        return;
    }
    if aftermath::is_awaited() {
        aftermath::connected(sk);
    }
    let upstream = kernel::remote(sk);
    if !is_wanted(&upstream) {
        return;
    }
    count!(connections, 1);
    let Some(empty) = EMPTY_EXCHANGE.get(0) else { return };
    if EXCHANGES.insert(sk, empty, 0).is_err() {
        count!(untracked, 1);
        return;
    }
    let Some(exchange) = EXCHANGES.get_ptr_mut(sk) else { return };
    // SAFETY: preallocated map memory, made just above.
    let nginx = unsafe { &mut (*exchange).nginx };
    nginx.sock = sk;
    nginx.net = kernel::net(sk);
    // SAFETY: the helper takes nothing.
    nginx.connect_ns = unsafe { bpf_ktime_get_ns() };
    nginx.exchange = 1;
    nginx.nginx = task;
    nginx.upstream = upstream;
    nginx.listener_first = listener::view(nginx.net, &upstream);
    if listener::is_full(&nginx.listener_first) {
        nginx.flags = nginx_flag::QUEUE_FULL_AT_CONNECT;
    }
    watch_port(upstream.port);
}

#[inline(always)]
fn find<'a>(sk: u64, remote_port: u16) -> Option<&'a mut OpenExchange> {
    if !port_is_watched(remote_port) {
        return None;
    }
    // SAFETY: preallocated map memory.
    EXCHANGES.get_ptr_mut(sk).map(|exchange| unsafe { &mut *exchange })
}

/// The handshake is over on this side.
#[inline(always)]
pub fn established(sk: u64) {
    let Some(OpenExchange { nginx, .. }) = find(sk, kernel::ports(sk).0) else { return };
    // SAFETY: the helper takes nothing.
    nginx.established_ns = unsafe { bpf_ktime_get_ns() };
    let nginx_isn: u32 = read(sk, layout!(snd_nxt));
    let worker_isn: u32 = read(sk, layout!(rcv_nxt));
    nginx.handshake = u64::from(nginx_isn) << 32 | u64::from(worker_isn);
    let id = ConnectionId { sock: sk, connect_ns: nginx.connect_ns };
    if HANDSHAKES.insert(nginx.handshake, &id, 0).is_err() {
        count!(workers_untracked, 1);
    }
}

/// The SYN goes out again: looks at the listener's queue at this moment.
#[inline(always)]
pub fn syn_sent_again(sk: u64) {
    let Some(OpenExchange { nginx, .. }) = find(sk, kernel::ports(sk).0) else { return };
    nginx.syn_retransmits += 1;
    nginx.listener_last = listener::view(nginx.net, &nginx.upstream);
    if !listener::is_full(&nginx.listener_last) {
        nginx.flags &= !nginx_flag::QUEUE_FULL_AT_CONNECT;
    }
}

/// A reset arrived.
#[inline(always)]
pub fn reset_received(sk: u64) {
    if let Some(OpenExchange { nginx, .. }) = find(sk, kernel::ports(sk).0) {
        nginx.flags |= nginx_flag::RESET_RECEIVED;
    }
}

#[inline(always)]
fn keep_error(nginx: &mut NginxEnd, ret: i32) {
    if ret < 0 && ret != -EAGAIN {
        nginx.errno = -ret as u16;
    }
}

/// nginx's send returned `ret`. Bytes sent after bytes read begin the connection's next exchange.
#[inline(always)]
pub fn sends(sk: u64, remote_port: u16, ret: i32) {
    let Some(OpenExchange { nginx, .. }) = find(sk, remote_port) else { return };
    if ret <= 0 {
        keep_error(nginx, ret);
        return;
    }
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    if nginx.flags & nginx_flag::READ_LAST != 0 {
        nginx.flags &= !nginx_flag::READ_LAST;
        nginx.exchange += 1;
        nginx.first_sent_ns = 0;
        nginx.first_received_ns = 0;
        nginx.last_received_ns = 0;
        nginx.sent = 0;
        nginx.received = 0;
    }
    if nginx.first_sent_ns == 0 {
        nginx.first_sent_ns = now;
    }
    nginx.last_sent_ns = now;
    nginx.sent += ret as u64;
}

/// nginx's receive returned `ret`. Returns whether this was an end of ours.
#[inline(always)]
pub fn receives(sk: u64, remote_port: u16, ret: i32) -> bool {
    let Some(OpenExchange { nginx, .. }) = find(sk, remote_port) else { return false };
    if ret <= 0 {
        keep_error(nginx, ret);
        return true;
    }
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    nginx.flags |= nginx_flag::READ_LAST;
    if nginx.first_received_ns == 0 {
        nginx.first_received_ns = now;
    }
    nginx.last_received_ns = now;
    nginx.received += ret as u64;
    true
}

/// Whether nothing is left to tell: the response was read and then the connection closed, by either end, by
/// processes that live on, and the connection came about at the first SYN.
#[inline(always)]
fn ended_well(exchange: &OpenExchange, now: u64) -> bool {
    let nginx = &exchange.nginx;
    let settled = u64::from(filter!(settle_ms)) * 1_000_000;
    nginx.error == 0
        && nginx.flags & nginx_flag::READ_LAST != 0
        && nginx.flags & nginx_flag::CLOSER_EXITING == 0
        && exchange.worker.exiting == 0
        && (nginx.old_state == tcp_state::CLOSE_WAIT && nginx.new_state == tcp_state::LAST_ACK
            || nginx.old_state == tcp_state::ESTABLISHED
                && nginx.new_state == tcp_state::FIN_WAIT1
                && now - nginx.last_received_ns < settled)
}

/// This end ended. Returns whether it was an end of ours.
#[inline(always)]
pub fn ended(sk: u64, remote_port: u16, old_state: u8, new_state: u8) -> bool {
    let Some(exchange) = find(sk, remote_port) else { return false };
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    let nginx = &mut exchange.nginx;
    nginx.ended_ns = now;
    nginx.old_state = old_state;
    nginx.new_state = new_state;
    // Set before the state changes by tcp_reset and the timers, not by a closing process.
    nginx.error = read(sk, layout!(sk_err));
    if nginx.error == 0
        && let Some(exit_code) = kernel::current_exit()
    {
        nginx.flags |= nginx_flag::CLOSER_EXITING;
        nginx.exit_code = exit_code;
    }
    count!(exchanges, u64::from(nginx.exchange));
    let well = ended_well(exchange, now);
    if !well || exchange.nginx.syn_retransmits > 0 {
        tell(exchange, sk, now, well);
    }
    if exchange.nginx.worker_sock == 0 && exchange.nginx.handshake != 0 {
        let _gone = HANDSHAKES.remove(exchange.nginx.handshake);
    }
    let _gone = EXCHANGES.remove(sk);
    true
}

/// Completes the story from the kernel's own account and sends it up.
#[inline(always)]
fn tell(exchange: &mut OpenExchange, sk: u64, now: u64, well: bool) {
    let nginx = &mut exchange.nginx;
    nginx.local = kernel::local(sk);
    nginx.netns = read(nginx.net, layout!(net_inum));
    nginx.arrived = read(sk, layout!(bytes_received));
    nginx.unread = kernel::unread(sk);
    nginx.retransmits = read(sk, layout!(total_retrans));
    let snd_una: u32 = read(sk, layout!(snd_una));
    nginx.unacked = read::<u32>(sk, layout!(snd_nxt)).wrapping_sub(snd_una);
    nginx.listener_last = listener::view(nginx.net, &nginx.upstream);
    // In SYN_SENT the first unacknowledged byte is the SYN itself.
    if nginx.old_state == tcp_state::SYN_SENT
        && let Some(reset) = reset::of_syn(snd_una, nginx.connect_ns)
    {
        nginx.reset = reset;
    }
    if well {
        nginx.flags |= nginx_flag::ENDED_WELL;
    }
    let nginx_closed_first = nginx.error == 0 && nginx.old_state != tcp_state::CLOSE_WAIT;
    let awaits = nginx_closed_first && !well && nginx.flags & nginx_flag::CLOSER_EXITING == 0;
    if awaits {
        nginx.flags |= nginx_flag::AFTERMATH_FOLLOWS;
    }
    if let Some(worker) = worker_end::look(nginx, now) {
        nginx.flags |= nginx_flag::WORKER_OPEN;
        if worker.has_socket != 0 {
            nginx.flags |= nginx_flag::WORKER_ACCEPTED;
        }
        exchange.worker = worker;
    }
    let id = ConnectionId { sock: sk, connect_ns: exchange.nginx.connect_ns };
    match RING.reserve::<Exchange>(0) {
        Some(mut entry) => {
            let record = entry.as_mut_ptr();
            // SAFETY: the entry is exactly one record; every byte of it is written here.
            unsafe {
                (*record).header = Header { kind: Kind::Exchange as u32, len: size_of::<Exchange>() as u32 };
                (*record).nginx = exchange.nginx;
                (*record).worker = exchange.worker;
            }
            entry.submit(0);
        }
        None => count!(lost, 1),
    }
    if awaits {
        aftermath::await_next(id);
    }
}
