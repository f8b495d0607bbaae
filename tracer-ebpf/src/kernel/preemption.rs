//! Keeps other tasks from this CPU while a program is inside of its body.
//!
//! Since 7.0 the kernel may preempt the programs of tracepoints; those on its functions always were. It does not run a program on a CPU
//! that is inside of it already: until the preempted task's turn comes again, maybe after many of others, each of their events
//! would be missed. Userspace decides whether the marks become calls ([`wire::KERNEL_FUNCTIONS`]).

use core::mem::MaybeUninit;

use wire::{IRQ_RESTORE, IRQ_SAVE, KernelFunction, PREEMPT_DISABLE, PREEMPT_ENABLE};

/// While there is one of these, no other task gets this CPU.
#[must_use]
pub struct Undisturbed(());

impl Undisturbed {
    /// From now on.
    #[inline(always)]
    pub fn begin() -> Self {
        // SAFETY: a function of this type, or nothing at all.
        unsafe { function(PREEMPT_DISABLE)() };
        Self(())
    }
}

impl Drop for Undisturbed {
    /// Who is to have the CPU instead gets it once the program is over. Where preemption is allowed again, the kernel would give it away
    /// at once, inside of the program, but for the interrupts that are held back meanwhile.
    #[inline(always)]
    fn drop(&mut self) {
        let mut flags = MaybeUninit::<u64>::uninit();
        // SAFETY: functions of these types, or nothing at all; the flags are on the stack.
        unsafe {
            function_of_flags(IRQ_SAVE)(flags.as_mut_ptr());
            function(PREEMPT_ENABLE)();
            function_of_flags(IRQ_RESTORE)(flags.as_mut_ptr());
        }
    }
}

/// One of the functions that take nothing.
#[inline(always)]
pub fn function(KernelFunction { mark, .. }: KernelFunction) -> unsafe extern "C" fn() {
    // SAFETY: to this target, a call of a constant address is one of the function of that number.
    unsafe { core::mem::transmute(u64::from(mark)) }
}

#[inline(always)]
fn function_of_flags(KernelFunction { mark, .. }: KernelFunction) -> unsafe extern "C" fn(*mut u64) {
    // SAFETY: the same.
    unsafe { core::mem::transmute(u64::from(mark)) }
}
