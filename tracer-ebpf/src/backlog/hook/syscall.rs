//! Hooks of system calls (include/trace/events/syscalls.h), where the functions behind them cannot be hooked: they make every
//! system call of the host take the kernel's slow way in.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::{
    backlog::{listener, unix},
    kernel::{preemption::Undisturbed, task},
};

/// A system call's argument: they follow the common fields and the call's number, eight bytes each.
#[inline(always)]
fn argument(ctx: &TracePointContext, number: usize) -> u64 {
    // SAFETY: the kernel checks the offset against the record's size when the program is attached.
    unsafe { ctx.read_at::<u64>(16 + 8 * number) }.unwrap_or(0)
}

/// `connect(int fd, struct sockaddr *uservaddr, int addrlen)`.
#[tracepoint(category = "syscalls", name = "sys_enter_connect")]
pub fn sys_enter_connect(ctx: TracePointContext) -> u32 {
    let _undisturbed = Undisturbed::begin();
    unix::connect_called(argument(&ctx, 0), argument(&ctx, 1), argument(&ctx, 2) as u32);
    0
}

/// What connect returned.
#[tracepoint(category = "syscalls", name = "sys_exit_connect")]
pub fn sys_exit_connect(ctx: TracePointContext) -> u32 {
    let _undisturbed = Undisturbed::begin();
    unix::connect_returned(argument(&ctx, 0) as i64);
    0
}

/// The descriptor that accept returned, or an error.
#[tracepoint(category = "syscalls", name = "sys_exit_accept")]
pub fn sys_exit_accept(ctx: TracePointContext) -> u32 {
    accept_returned(&ctx)
}

/// The same for accept4.
#[tracepoint(category = "syscalls", name = "sys_exit_accept4")]
pub fn sys_exit_accept4(ctx: TracePointContext) -> u32 {
    accept_returned(&ctx)
}

#[inline(always)]
fn accept_returned(ctx: &TracePointContext) -> u32 {
    let _undisturbed = Undisturbed::begin();
    let returned = argument(ctx, 0) as i64;
    if returned >= 0 {
        listener::accepted(task::sock_of(returned as u64));
    }
    0
}
