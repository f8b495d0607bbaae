//! Hooks of signals (kernel/signal.c).

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::signal;

/// `signal_generate(int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result)`,
/// since 2.6.34; called in the sender's context.
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn signal_generate(ctx: RawTracePointContext) -> i32 {
    signal::sent(ctx.arg::<u64>(0) as u32, ctx.arg(1), ctx.arg(2), ctx.arg::<u64>(4) as u32);
    0
}
