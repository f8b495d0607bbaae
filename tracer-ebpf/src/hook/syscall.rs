//! Hooks of system calls (include/trace/events/syscalls.h), attached only while unix upstreams are watched: while any
//! is, every system call of the host takes the kernel's slow way in.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::{connect_call, unix_end};

/// A system call's argument: they follow the common fields and the call's number, eight bytes each.
#[inline(always)]
fn argument(ctx: &TracePointContext, number: usize) -> u64 {
    // SAFETY: the kernel checks the offset against the record's size when the program is attached.
    unsafe { ctx.read_at::<u64>(16 + 8 * number) }.unwrap_or(0)
}

/// `connect(int fd, struct sockaddr *uservaddr, int addrlen)`.
#[tracepoint(category = "syscalls", name = "sys_enter_connect")]
pub fn sys_enter_connect(ctx: TracePointContext) -> u32 {
    connect_call::called(argument(&ctx, 0), argument(&ctx, 1), argument(&ctx, 2));
    0
}

/// What connect returned.
#[tracepoint(category = "syscalls", name = "sys_exit_connect")]
pub fn sys_exit_connect(ctx: TracePointContext) -> u32 {
    connect_call::returned(argument(&ctx, 0) as i64);
    0
}

/// `close(unsigned int fd)`.
#[tracepoint(category = "syscalls", name = "sys_enter_close")]
pub fn sys_enter_close(ctx: TracePointContext) -> u32 {
    unix_end::close_called(argument(&ctx, 0));
    0
}
