//! Hooks of system calls (include/trace/events/syscalls.h), attached only while unix upstreams are watched: while any
//! is, every system call of the host takes the kernel's slow way in.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::{
    kernel::standby::three,
    live::transport::{connect, unix},
};

/// A system call's argument: they follow the common fields and the call's number, eight bytes each.
#[inline(always)]
fn argument(ctx: &TracePointContext, number: usize) -> u64 {
    // SAFETY: the kernel checks the offset against the record's size when the program is attached.
    unsafe { ctx.read_at::<u64>(16 + 8 * number) }.unwrap_or(0)
}

/// What an event is told apart by.
const CONNECTS: u64 = 1 << 47;
const RETURNS: u64 = 1 << 48;
const CLOSES: u64 = 1 << 49;

/// Declares the instances of these programs.
macro_rules! with_standby {
    ($($(#[$meta:meta])* $name:literal:
        $alone:ident, $shared:ident, $first:ident, $second:ident, $last:ident;
        |$ctx:ident| $what:expr => $body:expr)*) => {$(
        three! {
            [$(#[$meta])*] [tracepoint(category = "syscalls", name = $name)]
            TracePointContext -> u32, SYSTEM_CALL_BODIES of OF_SYSTEM_CALLS:
            $alone, $shared, $first, $second, $last; |$ctx| (argument($ctx, 0) << 6, $what) => $body
        }
    )*};
}

with_standby! {
    /// `connect(int fd, struct sockaddr *uservaddr, int addrlen)`.
    "sys_enter_connect":
    sys_enter_connect, sys_enter_connect_body, sys_enter_connect_1, sys_enter_connect_2, sys_enter_connect_3;
    |ctx| CONNECTS => connect::called(argument(ctx, 0), argument(ctx, 1), argument(ctx, 2))

    /// What connect returned.
    "sys_exit_connect":
    sys_exit_connect, sys_exit_connect_body, sys_exit_connect_1, sys_exit_connect_2, sys_exit_connect_3;
    |ctx| RETURNS => connect::returned(argument(ctx, 0) as i64)

    /// `close(unsigned int fd)`.
    "sys_enter_close":
    sys_enter_close, sys_enter_close_body, sys_enter_close_1, sys_enter_close_2, sys_enter_close_3;
    |ctx| CLOSES => unix::close_called(argument(ctx, 0))
}
