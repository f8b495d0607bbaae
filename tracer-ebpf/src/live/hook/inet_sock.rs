//! Hooks of the TCP state machine (net/ipv4/af_inet.c).

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext};
use wire::{
    NginxEnd,
    tcp_state::{CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, LAST_ACK, LISTEN, SYN_RECV, SYN_SENT},
};

use crate::{
    kernel::{
        ports::port_is_watched,
        read::{layout, read},
        sock,
        standby::with_standby,
        verified_once::verified_once,
    },
    live::{
        explain::{closed_listener, icmp, listener, word},
        fallback,
        transport::{
            tcp::{begin, end, queue},
            transfer,
        },
    },
};

with_standby! {
    /// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`, since 4.16; called just
    /// before the state is stored.
    "inet_sock_set_state":
    inet_sock_set_state, inet_sock_set_state_body, inet_sock_set_state_1, inet_sock_set_state_2, inet_sock_set_state_3;
    |ctx| if matters(ctx.arg::<u64>(1) as u8, ctx.arg::<u64>(2) as u8);
    (ctx.arg(0), ctx.arg::<u64>(1) << 8 | ctx.arg::<u64>(2)) => {
        changes(ctx.arg(0), ctx.arg::<u64>(1) as u8, ctx.arg::<u64>(2) as u8)
    }

    /// `inet_sk_error_report(const struct sock *sk)`, since 5.15; called when a process is to learn of an error.
    "inet_sk_error_report":
    inet_sk_error_report, inet_sk_error_report_body, inet_sk_error_report_1, inet_sk_error_report_2, inet_sk_error_report_3;
    |ctx| (ctx.arg(0), 1 << 46) => icmp::error_reported(ctx.arg(0))
}

/// Whether such a change shows anything: most of each connection's do not.
#[inline(always)]
fn matters(old_state: u8, new_state: u8) -> bool {
    new_state == CLOSE
        || matches!(
            (old_state, new_state),
            (CLOSE, SYN_SENT | LISTEN)
                | (SYN_SENT | SYN_RECV, ESTABLISHED)
                | (ESTABLISHED, FIN_WAIT1)
                | (CLOSE_WAIT, LAST_ACK)
        )
}

/// A socket goes from one state to the next.
#[inline(always)]
fn changes(sk: u64, old_state: u8, new_state: u8) {
    match (old_state, new_state) {
        (CLOSE, SYN_SENT) => {
            // One moment for both: by it, userspace knows the exchange that nginx turned to.
            // SAFETY: the helper takes nothing.
            let now = unsafe { bpf_ktime_get_ns() };
            if fallback::is_awaited() {
                turns_to(sk, now);
            }
            if let Some(nginx) = connects(sk, now) {
                looks_first(nginx, sk);
            }
        }
        (SYN_SENT, ESTABLISHED) => established(sk),
        (SYN_RECV, ESTABLISHED) => accepts(sk),
        (CLOSE, LISTEN) => {
            listens(sk);
            opens_again(sk);
        }
        (LISTEN, CLOSE) => {
            listens_no_more(sk);
            closes(sk);
        }
        (SYN_SENT, CLOSE) | (ESTABLISHED, FIN_WAIT1 | CLOSE) | (CLOSE_WAIT, LAST_ACK | CLOSE) => {
            ended(sk, old_state, new_state);
        }
        (_, CLOSE) if fallback::is_awaited() => fallback::mark_over(sk),
        _ => {}
    }
}

// Functions of their own, since each has a stack of its own then: one for all has no room for what they need. None calls another: before
// 6.13 the stacks of a chain of calls count together.

#[inline(never)]
fn connects<'a>(sk: u64, now: u64) -> Option<&'a mut NginxEnd> {
    begin::connects(sk, now)
}

#[inline(never)]
fn looks_first(nginx: &mut NginxEnd, sk: u64) {
    queue::look_first(nginx, sk, nginx.connect_ns);
}

verified_once! {
    fn turns_to(sk: u64, now: u64) = fallback::connected(sk, now);
    fn established(sk: u64) = begin::established(sk);
    fn accepts(sk: u64) = begin::child_established(sk);
    fn listens(sk: u64) = listener::add(sk);
    fn opens_again(sk: u64) = closed_listener::opens_again(sk);
    fn closes(sk: u64) = closed_listener::closes(sk);
    fn listens_no_more(sk: u64) = listener::remove(sk);
    fn settles() = transfer::settle();
    fn nginx_ended(sk: u64, remote_port: u16, old_state: u8, new_state: u8) -> bool =
        end::ended(sk, remote_port, old_state, new_state);
    fn worker_ended(sk: u64, remote_port: u16, old_state: u8, new_state: u8) -> bool =
        end::worker_ended(sk, remote_port, old_state, new_state);
    fn closed(sk: u64, old_state: u8) = fallback::closed(sk, old_state);
}

/// An end of somebody's connection ended: by its process, a reset or a timeout.
#[inline(always)]
fn ended(sk: u64, old_state: u8, new_state: u8) {
    // A closing process is out of its sends.
    if transfer::may_miss_sends() && sock::is_owned(sk) && read::<u32>(sk, layout!(sk_err)) == 0 {
        settles();
    }
    let (remote_port, local_port) = sock::ports(sk);
    if nginx_ended(sk, remote_port, old_state, new_state) {
        return;
    }
    // With an error it was the network that closed it, not this thread. A worker's end is nginx's client, too, where one nginx asks another.
    if (fallback::is_awaited() || word::is_any()) && read::<u32>(sk, layout!(sk_err)) == 0 {
        word::forget();
        closed(sk, old_state);
    }
    if port_is_watched(if local_port != 0 { local_port } else { sock::lasting_local_port(sk) }) {
        worker_ended(sk, remote_port, old_state, new_state);
    }
}
