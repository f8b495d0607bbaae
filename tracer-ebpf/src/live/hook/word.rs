//! Hooks of nginx itself (src/core/ngx_log.c).

use core::mem::MaybeUninit;

use aya_ebpf::{helpers::generated::bpf_copy_from_user, macros::uprobe, programs::ProbeContext};

use crate::live::{explain::word, shared_stack::SharedStack};

/// `void ngx_log_error_core(ngx_uint_t level, ngx_log_t *log, ngx_err_t err, const char *fmt, ...)`: nginx calls it for each line
/// that its log lets through. It is exported (`-Wl,-E`), variadic, and so never inlined; the first two variadic arguments are in
/// registers.
#[uprobe]
pub fn ngx_log_error_core(ctx: ProbeContext) -> u32 {
    if !is_turned_away(&ctx) {
        let _shared_stack = SharedStack::begin();
        heard(ctx);
    }
    0
}

/// The same where a program may wait for memory (since 6.0): a text that the worker itself has never looked at is not mapped yet, and
/// nobody else can read it then. The first failure of each kind after a start or a reload is said in such a text.
#[uprobe(sleepable)]
pub fn ngx_log_error_core_sleepable(ctx: ProbeContext) -> u32 {
    if is_turned_away(&ctx) {
        return 0;
    }
    let argument = |number| ctx.arg::<u64>(number).unwrap_or(0);
    let action = bring_in(argument(1).wrapping_add(word::LOG_ACTION));
    bring_in(action);
    if bring_in(argument(3)) == word::UPSTREAM {
        // A reason of OpenSSL's, where it is one.
        bring_in(argument(5));
    }
    let _shared_stack = SharedStack::begin();
    heard(ctx);
    0
}

/// Whether a call is of no interest, which is counted. A debug log calls for each of its lines, and clients can make nginx log as many of no
/// upstream as they like.
#[inline(always)]
fn is_turned_away(ctx: &ProbeContext) -> bool {
    let argument = |number| ctx.arg::<u64>(number).unwrap_or(0);
    let is_turned_away = argument(0) > word::ERROR || word::is_surely_foreign(argument(1), argument(3));
    if is_turned_away {
        word::turn_away();
    }
    is_turned_away
}

/// A function of its own, for it takes more stack than may be used without a [`SharedStack`].
#[inline(never)]
fn heard(ctx: ProbeContext) {
    let argument = |number| ctx.arg::<u64>(number).unwrap_or(0);
    word::said(argument(0), argument(1), argument(2) as u32, argument(3), argument(4), argument(5));
}

/// Has the process's memory at an address mapped, and returns the eight characters there; zeroes if there are none.
#[inline(always)]
fn bring_in(from: u64) -> u64 {
    let mut value = MaybeUninit::<u64>::zeroed();
    // SAFETY: the helper checks where it reads and writes the whole value, whatever comes of it.
    unsafe {
        let _refused = bpf_copy_from_user(value.as_mut_ptr().cast(), 8, from as *const _);
        value.assume_init()
    }
}
