//! Hooks of the TCP state machine (include/trace/events/sock.h).

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use wire::{
    FAMILY_INET,
    tcp_state::{CLOSE, ESTABLISHED, FIN_WAIT1, LISTEN, SYN_RECV, SYN_SENT},
};

use crate::{
    backlog::{arrival, client, listener},
    kernel::{preemption::Undisturbed, sock},
};

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`, since 4.16; called just
/// before the state is stored.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: RawTracePointContext) -> i32 {
    let _undisturbed = Undisturbed::begin();
    let sk: u64 = ctx.arg(0);
    let old_state = ctx.arg::<u64>(1) as u8;
    match (old_state, ctx.arg::<u64>(2) as u8) {
        (CLOSE, SYN_SENT) => client::connects(sk),
        (SYN_SENT, ESTABLISHED) => client::established(sk),
        (SYN_RECV, ESTABLISHED) => arrival::tcp_arrives(sk),
        (CLOSE, LISTEN) if sock::is_inet(sk) => {
            let _new = listener::add(sk, FAMILY_INET, true);
        }
        (LISTEN, CLOSE) => listener::remove(sk),
        (SYN_SENT, CLOSE) | (ESTABLISHED, FIN_WAIT1 | CLOSE) => client::ended(sk, old_state),
        _ => {}
    }
    0
}
