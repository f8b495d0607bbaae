//! What the first copy of a program misses, a further one sees.
//!
//! The kernel does not run a program on a CPU that is inside of it already: in what an interrupt or, where the kernel may preempt
//! programs (raw tracepoints since 7.0), another task interrupted. Such an event would be lost. So the programs that must see
//! everything exist in copies: each is a program of its own to the kernel, called for each event in turn.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::map, maps::Array};
use tracer_ebpf::{SEEN_LEN, copy};

use crate::maps::{ATTACHED, count};

/// Events that one copy has taken and not all have passed over, by their hash; each with a bit for each copy that has seen it.
#[map]
static SEEN: Array<u64> = Array::with_max_entries(SEEN_LEN, 0);

/// The bits of all copies.
const ALL: u64 = 1 << copy::FIRST | 1 << copy::SECOND | 1 << copy::LAST;

/// Whether this copy is the one to take the event that these numbers name: whichever is called first. Tracepoints call programs in
/// the order in which they were attached, trampolines the other way round.
#[inline(always)]
pub fn takes(number: u32, sk: u64, what: u64) -> bool {
    let is_first = number == copy::FIRST;
    if is_first && ATTACHED.get(0).is_none_or(|attached| attached.copies == 0) {
        return true;
    }
    let event = (sk ^ bpf_get_current_pid_tgid() << 32 ^ what << 8) & !ALL;
    let place = (event >> 6 ^ event >> 20 ^ event >> 33) as u32 % SEEN_LEN;
    let Some(seen) = SEEN.get_ptr_mut(place) else { return is_first };
    let bit = 1 << number;
    // SAFETY: map memory; an entry is a word, and an event whose entry is overwritten is at worst taken twice.
    let before = unsafe { seen.read_volatile() };
    let is_taken = before & !ALL == event && before & ALL != 0 && before & bit == 0;
    let after = if is_taken { before | bit } else { event | bit };
    // SAFETY: the same.
    unsafe { seen.write_volatile(if after & ALL == ALL { 0 } else { after }) };
    // What the first copy missed and another took, less what another took and the first did not miss.
    match (is_first, is_taken) {
        (true, true) => count!(stood_in, u64::MAX),
        (false, false) => count!(stood_in, 1),
        (true, false) | (false, true) => {}
    }
    !is_taken
}

/// Declares the copies of a raw tracepoint's program: `|context| (sk, what), body`.
macro_rules! in_copies {
    ($($(#[$meta:meta])* $tracepoint:literal: $first:ident, $second:ident, $last:ident;
        |$ctx:ident| ($sk:expr, $what:expr) => $body:expr)*) => {$(
        $(#[$meta])*
        #[raw_tracepoint(tracepoint = $tracepoint)]
        pub fn $first(ctx: RawTracePointContext) -> i32 {
            let $ctx = &ctx;
            if $crate::copies::takes(tracer_ebpf::copy::FIRST, $sk, $what) {
                $body;
            }
            0
        }

        /// The second copy.
        #[raw_tracepoint(tracepoint = $tracepoint)]
        pub fn $second(ctx: RawTracePointContext) -> i32 {
            let $ctx = &ctx;
            if $crate::copies::takes(tracer_ebpf::copy::SECOND, $sk, $what) {
                $body;
            }
            0
        }

        /// The last copy.
        #[raw_tracepoint(tracepoint = $tracepoint)]
        pub fn $last(ctx: RawTracePointContext) -> i32 {
            let $ctx = &ctx;
            if $crate::copies::takes(tracer_ebpf::copy::LAST, $sk, $what) {
                $body;
            }
            0
        }
    )*};
}
pub(crate) use in_copies;

/// Leaves a call to the further copy of this name, if that has taken it.
macro_rules! first {
    ($copy:ident, $arguments:expr, $returned:expr) => {
        if !$crate::copies::takes(tracer_ebpf::copy::FIRST, $arguments[0], $returned) {
            return 0;
        }
    };
}
pub(crate) use first;

/// The further copies of a program on a function.
macro_rules! further {
    ($kind:ident $function:literal $Context:ident $second:ident $last:ident: |$ctx:ident| $all:expr, $returns:expr =>
        |$arguments:pat_param, $returned:ident| $body:expr;) => {
        /// The second copy.
        #[aya_ebpf::macros::$kind(function = $function)]
        pub fn $second($ctx: aya_ebpf::programs::$Context) -> i32 {
            let (arguments, $returned) = ($all, $returns);
            if $crate::copies::takes(tracer_ebpf::copy::SECOND, arguments[0], $returned) {
                let $arguments = arguments;
                $body;
            }
            0
        }

        /// The last copy.
        #[aya_ebpf::macros::$kind(function = $function)]
        pub fn $last($ctx: aya_ebpf::programs::$Context) -> i32 {
            let (arguments, $returned) = ($all, $returns);
            if $crate::copies::takes(tracer_ebpf::copy::LAST, arguments[0], $returned) {
                let $arguments = arguments;
                $body;
            }
            0
        }
    };
}
pub(crate) use further;
