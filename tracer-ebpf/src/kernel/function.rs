//! Programs on the kernel's functions: from one body each an fentry or fexit program, and kprobes.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_probe_read_kernel},
    macros::map,
    maps::LruHashMap,
    programs::ProbeContext,
};
use wire::register_at;

use crate::{
    kernel::{put::put, read::layout},
    maps::count,
};

/// The arguments of functions that kprobes are inside of, by [`call`]. One that is pushed out shows as a return without a call.
#[map]
pub static CALLS: LruHashMap<u64, [u64; 3]> = LruHashMap::with_max_entries(4_096, 0);

/// An argument, or after the last one the returned value. Read as memory: the verifier then takes it for a plain number, and
/// its position need not be constant.
#[inline(always)]
pub fn argument(ctx: &impl EbpfContext, position: u32) -> u64 {
    let arguments = ctx.as_ptr() as u64;
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel((arguments + 8 * u64::from(position)) as *const u64) }.unwrap_or(0)
}

/// Several of them.
#[inline(always)]
pub fn keep<const N: usize>(ctx: &impl EbpfContext, positions: [u32; N]) -> [u64; N] {
    positions.map(|position| argument(ctx, position))
}

/// The same for a kprobe, whose arguments are in registers (`struct pt_regs`).
#[inline(always)]
pub fn probed(ctx: &ProbeContext, position: u32) -> u64 {
    let registers = ctx.as_ptr() as u64;
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel((registers + register(position)) as *const u64) }.unwrap_or(0)
}

/// Where an argument's register lies.
#[inline(always)]
fn register(position: u32) -> u64 {
    let named = match position {
        0 => layout!(register_0),
        1 => layout!(register_1),
        2 => layout!(register_2),
        3 => layout!(register_3),
        _ => layout!(register_4),
    };
    register_at(named, position)
}

/// Names the running thread's call of a function: `thread << 32 | function`. All idle threads have the number zero, and packets come to
/// each at once: there, the processor is named, which they never leave.
#[inline(always)]
pub fn call(function: u32) -> u64 {
    const IDLE: u32 = 1 << 31;
    let thread = match bpf_get_current_pid_tgid() as u32 {
        // SAFETY: the helper takes nothing.
        0 => IDLE | unsafe { bpf_get_smp_processor_id() },
        thread => thread,
    };
    u64::from(thread) << 32 | u64::from(function)
}

/// The last argument of a call whose return has nothing to say any more.
pub const SETTLED: u64 = u64::MAX;

/// A thread enters a function. If it is in it already, it has come out of it without being seen.
#[inline(always)]
pub fn enters(call: u64, arguments: [u64; 3]) {
    // SAFETY: only looked at.
    if unsafe { CALLS.get(call) }.is_some_and(|before| before[2] != SETTLED) {
        count!(returns_missed, 1);
    }
    put!(CALLS, call, arguments, returns_missed);
}

/// Hooks that need a function's arguments and what it returns, where fexit is to be had: `|three arguments, returned| body`.
macro_rules! on_fexit {
    ($($(#[$meta:meta])* $function:literal: $fexit:ident $(, standby $second:ident $last:ident)?;
        $kept:expr, returns at $returns:expr => |$arguments:pat_param, $returned:ident| $body:expr;)*) => {$(
        $(#[$meta])*
        #[aya_ebpf::macros::fexit(function = $function)]
        pub fn $fexit(ctx: aya_ebpf::programs::FExitContext) -> i32 {
            let _undisturbed = $crate::kernel::preemption::Undisturbed::begin();
            let arguments = $crate::kernel::function::keep(&ctx, $kept);
            let $returned = $crate::kernel::function::argument(&ctx, $returns);
            $($crate::kernel::standby::first!($second, arguments, $returned);)?
            let $arguments = arguments;
            $body;
            0
        }

        $($crate::kernel::standby::further! {
            fexit $function FExitContext $second $last:
            |ctx| $crate::kernel::function::keep(&ctx, $kept), $crate::kernel::function::argument(&ctx, $returns) =>
            |$arguments, $returned| $body;
        })?
    )*};
}
pub(crate) use on_fexit;

/// The same where only kprobes are to be had. The kernel has room for few calls that a kretprobe is inside of (as many as it may have
/// CPUs; ten or more since 6.2) and passes over what finds none: so this is only for functions that do not wait.
macro_rules! on_kretprobe {
    ($($(#[$meta:meta])* call $number:expr, $kprobe:ident, $kretprobe:ident;
        $kept:expr => |$arguments:pat_param, $returned:ident| $body:expr;)*) => {$(
        $(#[$meta])*
        #[aya_ebpf::macros::kprobe]
        pub fn $kprobe(ctx: aya_ebpf::programs::ProbeContext) -> u32 {
            let arguments = $kept.map(|position: u32| $crate::kernel::function::probed(&ctx, position));
            $crate::kernel::function::enters($crate::kernel::function::call($number), arguments);
            0
        }

        $(#[$meta])*
        #[aya_ebpf::macros::kretprobe]
        pub fn $kretprobe(ctx: aya_ebpf::programs::RetProbeContext) -> u32 {
            // SAFETY: copied out at once.
            match unsafe { $crate::kernel::function::CALLS.get($crate::kernel::function::call($number)) }.copied() {
                Some($arguments) => {
                    let _gone = $crate::kernel::function::CALLS.remove($crate::kernel::function::call($number));
                    let $returned = ctx.ret::<u64>();
                    $body;
                }
                None => $crate::maps::count!(returns_missed, 1),
            }
            0
        }
    )*};
}
pub(crate) use on_kretprobe;

/// Both of one body.
macro_rules! on_return {
    ($($(#[$meta:meta])* $number:literal $function:literal: $fexit:ident, $kprobe:ident, $kretprobe:ident
        $(, standby $second:ident $last:ident)?;
        $kept:expr, returns at $returns:expr => |$arguments:pat_param, $returned:ident| $body:expr;)*) => {$(
        $crate::kernel::function::on_fexit! {
            $(#[$meta])*
            $function: $fexit $(, standby $second $last)?;
            $kept, returns at $returns => |$arguments, $returned| $body;
        }

        $crate::kernel::function::on_kretprobe! {
            $(#[$meta])*
            call $number, $kprobe, $kretprobe;
            $kept => |$arguments, $returned| $body;
        }
    )*};
}
pub(crate) use on_return;

/// Hooks that need a function's arguments only, where only kprobes are to be had: `|arguments| body`.
macro_rules! on_kprobe {
    ($($(#[$meta:meta])* $kprobe:ident; $kept:expr => |$arguments:pat_param| $body:expr;)*) => {$(
        $(#[$meta])*
        #[aya_ebpf::macros::kprobe]
        pub fn $kprobe(ctx: aya_ebpf::programs::ProbeContext) -> u32 {
            let $arguments = $kept.map(|position: u32| $crate::kernel::function::probed(&ctx, position));
            $body;
            0
        }
    )*};
}
pub(crate) use on_kprobe;

/// The same with fentry, of one body.
macro_rules! on_entry {
    ($($(#[$meta:meta])* $function:literal: $fentry:ident, $kprobe:ident $(, standby $second:ident $last:ident)?;
        $kept:expr => |$arguments:pat_param| $body:expr;)*) => {$(
        $(#[$meta])*
        #[aya_ebpf::macros::fentry(function = $function)]
        pub fn $fentry(ctx: aya_ebpf::programs::FEntryContext) -> i32 {
            let _undisturbed = $crate::kernel::preemption::Undisturbed::begin();
            let arguments = $crate::kernel::function::keep(&ctx, $kept);
            $($crate::kernel::standby::first!($second, arguments, 0);)?
            let $arguments = arguments;
            $body;
            0
        }

        $($crate::kernel::standby::further! {
            fentry $function FEntryContext $second $last: |ctx| $crate::kernel::function::keep(&ctx, $kept), 0_u64 =>
            |$arguments, _returned| $body;
        })?

        $crate::kernel::function::on_kprobe! {
            $(#[$meta])*
            $kprobe; $kept => |$arguments| $body;
        }
    )*};
}
pub(crate) use on_entry;
