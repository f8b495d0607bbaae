//! Looks at the queues of the listener that nginx connects to.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use wire::{NginxEnd, nginx_flag};

use crate::{
    kernel::{sock, verified_once::verified_once},
    live::{entry, explain::listener, maps::OpenExchange},
};

/// Looks at the listener's queues before the first SYN.
#[inline(always)]
pub fn look_first(nginx: &mut NginxEnd, sk: u64, now: u64) {
    nginx.listener_first = listener::view(sk, nginx.net, &nginx.upstream, now);
    nginx.flags &= !(nginx_flag::QUEUE_FULL_AT_CONNECT | nginx_flag::SYN_QUEUE_FULL_AT_CONNECT);
    if listener::is_full(&nginx.listener_first) {
        nginx.flags |= nginx_flag::QUEUE_FULL_AT_CONNECT;
    }
    if listener::syn_queue_is_full(&nginx.listener_first) {
        nginx.flags |= nginx_flag::SYN_QUEUE_FULL_AT_CONNECT;
    }
    if listener::may_be_left_out(&nginx.listener_first) {
        nginx.flags |= nginx_flag::LISTENER_LEFT_OUT;
    }
}

verified_once! {
    /// Looks at the queues that `sk` connects to once more.
    pub fn look_again(sk: u64, now: u64) = looks_again(sk, now);
}

#[inline(always)]
fn looks_again(sk: u64, now: u64) {
    let Some(OpenExchange { nginx, .. }) = entry::of(sk) else { return };
    nginx.listener_last = listener::view(sk, nginx.net, &nginx.upstream, now);
    if listener::may_be_left_out(&nginx.listener_last) {
        nginx.flags |= nginx_flag::LISTENER_LEFT_OUT;
    }
}

/// The SYN is about to be made (`tcp_connect`): the look at the queues when connect was called is a moment old by now.
#[inline(always)]
pub fn syn_goes_out(sk: u64) {
    if let Some(OpenExchange { nginx, .. }) = entry::find(sk, sock::ports(sk).0) {
        // SAFETY: the helper takes nothing.
        look_first(nginx, sk, unsafe { bpf_ktime_get_ns() });
    }
}

/// The SYN goes out again: looks at the listener's queue at this moment.
#[inline(always)]
pub fn syn_sent_again(sk: u64) {
    let Some(OpenExchange { nginx, .. }) = entry::find(sk, sock::ports(sk).0) else { return };
    nginx.syn_retransmits += 1;
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    look_again(sk, now);
    let Some(OpenExchange { nginx, .. }) = entry::of(sk) else { return };
    if !listener::is_full(&nginx.listener_last) {
        nginx.flags &= !nginx_flag::QUEUE_FULL_AT_CONNECT;
    }
    if !listener::syn_queue_is_full(&nginx.listener_last) {
        nginx.flags &= !nginx_flag::SYN_QUEUE_FULL_AT_CONNECT;
    }
}
