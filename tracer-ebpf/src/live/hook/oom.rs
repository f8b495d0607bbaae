//! Hooks of the out-of-memory killer (mm/oom_kill.c).

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{kernel::preemption::Undisturbed, live::explain::signals};

/// `mark_victim(struct task_struct *task, uid_t uid)`, before 6.8 `mark_victim(int pid)`; since 4.14. Called after the victim was sent
/// SIGKILL.
#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn mark_victim(ctx: RawTracePointContext) -> i32 {
    let _undisturbed = Undisturbed::begin();
    signals::out_of_memory(ctx.arg(0));
    0
}
