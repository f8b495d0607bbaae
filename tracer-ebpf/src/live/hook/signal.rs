//! Hooks of signals (kernel/signal.c).

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{
    kernel::standby::with_standby,
    live::{explain::signals, starts},
};

/// Marks this event among those that standby instances see ([`crate::kernel::standby`]).
const SENT: u64 = 1 << 45;

with_standby! {
    /// `signal_generate(int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result)`,
    /// since 2.6.34; called in the sender's context.
    "signal_generate":
    signal_generate, signal_generate_body, signal_generate_1, signal_generate_2, signal_generate_3;
    |ctx| (ctx.arg::<u64>(2), SENT | ctx.arg::<u64>(0)) => {
        starts::signalled(ctx.arg::<u64>(0) as u32, ctx.arg(2));
        signals::sent(ctx.arg::<u64>(0) as u32, ctx.arg(1), ctx.arg(2), ctx.arg::<u64>(4) as u32)
    }
}
