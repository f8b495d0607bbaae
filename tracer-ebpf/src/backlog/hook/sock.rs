//! Hooks of sockets of any kind (include/trace/events/sock.h).

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{backlog::unix, kernel::preemption::Undisturbed};

/// `sk_data_ready(const struct sock *sk)`, since 6.3; called after a connection entered a unix listener's queue, too, by the
/// process that connects.
#[raw_tracepoint(tracepoint = "sk_data_ready")]
pub fn sk_data_ready(ctx: RawTracePointContext) -> i32 {
    let _undisturbed = Undisturbed::begin();
    unix::ready(ctx.arg(0));
    0
}
