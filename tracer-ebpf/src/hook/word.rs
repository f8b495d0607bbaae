//! Hooks of nginx itself (src/core/ngx_log.c).

use aya_ebpf::{macros::uprobe, programs::ProbeContext};

use crate::{preemption::Undisturbed, word};

/// `void ngx_log_error_core(ngx_uint_t level, ngx_log_t *log, ngx_err_t err, const char *fmt, ...)`: nginx calls it for each line
/// that its log lets through. It is exported (`-Wl,-E`), variadic, and so never inlined; the first two variadic arguments are in
/// registers.
#[uprobe]
pub fn ngx_log_error_core(ctx: ProbeContext) -> u32 {
    let argument = |number| ctx.arg::<u64>(number).unwrap_or(0);
    let level = argument(0);
    // A debug log calls for each of its lines.
    if level <= word::ERROR {
        let _undisturbed = Undisturbed::begin();
        word::said(level, argument(1), argument(2) as u32, argument(3), argument(4), argument(5));
    }
    0
}
