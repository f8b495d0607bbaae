//! nginx's end of an exchange, as long as that goes on: it sends, receives, and is reset.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use wire::{NginxEnd, nginx_flag};

use crate::{
    kernel::sock,
    live::{
        entry,
        explain::{last_read, word},
        maps::OpenExchange,
    },
};

/// A reset arrived.
#[inline(always)]
pub fn reset_received(sk: u64) {
    if let Some(OpenExchange { nginx, .. }) = entry::find(sk, sock::ports(sk).0) {
        nginx.flags |= nginx_flag::RESET_RECEIVED;
    }
}

const EAGAIN: i32 = 11;

#[inline(always)]
fn keep_error(nginx: &mut NginxEnd, ret: i32) {
    if ret < 0 && ret != -EAGAIN {
        nginx.errno = -ret as u16;
    }
}

/// nginx's send returned `ret`, now or at another moment. Bytes sent after bytes read begin the connection's next exchange.
/// Returns whether this was an end of ours.
#[inline(always)]
pub fn sends(sk: u64, remote_port: u16, ret: i32, ns: Option<u64>) -> bool {
    let Some(OpenExchange { nginx, .. }) = entry::find(sk, remote_port) else { return false };
    if ret <= 0 {
        keep_error(nginx, ret);
        return true;
    }
    if word::is_said() {
        // nginx gives it up already: what it sends a TLS upstream now is a goodbye, and no request.
        return true;
    }
    // SAFETY: the helper takes nothing.
    let now = ns.unwrap_or_else(|| unsafe { bpf_ktime_get_ns() });
    if nginx.flags & nginx_flag::READ_LAST != 0 {
        nginx.flags &= !(nginx_flag::READ_LAST | nginx_flag::PEEKED);
        nginx.exchange += 1;
        nginx.idle_since_ns = nginx.last_received_ns;
        nginx.first_sent_ns = 0;
        nginx.first_received_ns = 0;
        nginx.last_received_ns = 0;
        nginx.sent = 0;
        nginx.received = 0;
        last_read::begins(nginx);
    }
    if nginx.first_sent_ns == 0 {
        nginx.first_sent_ns = now;
    }
    nginx.last_sent_ns = now;
    nginx.sent += ret as u64;
    true
}

/// nginx's receive returned `ret`. Returns whether this was an end of ours.
#[inline(always)]
pub fn receives(sk: u64, remote_port: u16, ret: i32, is_peek: bool) -> bool {
    let Some(OpenExchange { nginx, .. }) = entry::find(sk, remote_port) else { return false };
    if is_peek {
        if nginx.flags & nginx_flag::READ_LAST != 0 {
            nginx.flags |= nginx_flag::PEEKED;
        }
        return true;
    }
    if ret <= 0 {
        if ret == 0 {
            nginx.flags |= nginx_flag::END_READ;
        }
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

/// Whether nginx still had something to send.
#[inline(always)]
pub fn note_blocked(nginx: &mut NginxEnd, sk: u64) {
    if sock::wants_room(sk) {
        nginx.flags |= nginx_flag::SEND_BLOCKED;
    }
}

/// The worker's end was open when nginx's end ended.
#[inline(always)]
pub fn note_worker(nginx: &mut NginxEnd, has_socket: bool) {
    nginx.flags |= nginx_flag::WORKER_OPEN;
    if has_socket {
        nginx.flags |= nginx_flag::WORKER_ACCEPTED;
    }
}
