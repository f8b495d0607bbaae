//! Keeps several tasks from writing over one stack.
//!
//! Since 6.13 a program of a kprobe's type whose function takes 64 bytes of stack or more has that not of its task, but of the CPU
//! (`bpf_enable_priv_stack`, `BPF_PRIV_STACK_MIN_SIZE`, kernel/bpf/verifier.c), which the kernel's refusal to run a program inside of itself
//! makes safe. Uprobes' programs are of that type, may be preempted, and are not refused (`bpf_prog_run_array_uprobe`): of two tasks inside of
//! one on a CPU, each finds what the other left. Userspace decides whether the marks become calls ([`wire::KERNEL_FUNCTIONS`]).

use wire::{SHARED_STACK_BEGIN, SHARED_STACK_END};

use crate::kernel::preemption::function;

/// While there is one of these, no other task gets this CPU where that one would have this one's stack. What such a program does without it
/// must take less stack.
#[must_use]
pub struct SharedStack(());

impl SharedStack {
    /// From now on.
    #[inline(always)]
    pub fn begin() -> Self {
        // SAFETY: a function of this type, or nothing at all.
        unsafe { function(SHARED_STACK_BEGIN)() };
        Self(())
    }
}

impl Drop for SharedStack {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: a function of this type, or nothing at all.
        unsafe { function(SHARED_STACK_END)() };
    }
}
