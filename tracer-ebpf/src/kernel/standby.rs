//! What a program misses, a standby instance of it sees.
//!
//! The kernel does not run a program on a CPU that is inside of it already: in what an interrupt or, where the kernel may preempt
//! programs ([`crate::kernel::preemption`]), another task interrupted. Such an event would be lost. So the programs that must see everything
//! have standby instances: each is a program of its own to the kernel, called for each event in turn.

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_get_current_pid_tgid,
    macros::map,
    maps::{Array, ProgramArray},
};
use wire::{SEEN_LEN, bodies};

use crate::{
    kernel::memory::bounded,
    maps::{attached, count},
};

/// Events that some instance has taken and not all have passed over, by their hash; each with whose turn it was last. There is room for
/// several of one hash: an event whose entry another overwrites is taken twice.
#[map]
static SEEN: Array<[u64; PLACES]> = Array::with_max_entries(SEEN_LEN, 0);
const PLACES: usize = 4;

/// The bits of an entry that say whose turn it was: one more than the turn.
const TURNS: u64 = 3;

/// Which instance this is, and when its turn is.
#[derive(Clone, Copy)]
pub struct Turn {
    is_first: bool,
    turn: u64,
}

/// Tracepoints call programs in the order in which they were attached (`func_add`, `bpf_prog_array_copy`).
pub const IN_ORDER: [Turn; 3] =
    [Turn { is_first: true, turn: 0 }, Turn { is_first: false, turn: 1 }, Turn { is_first: false, turn: 2 }];
/// Functions call them the other way round (`bpf_trampoline_link_prog` puts each at the list's head).
pub const LAST_FIRST: [Turn; 3] =
    [Turn { is_first: true, turn: 2 }, Turn { is_first: false, turn: 1 }, Turn { is_first: false, turn: 0 }];

/// Whether this instance is the one to take the event that these numbers name: none has whose turn came before. What is found of those whose
/// turn is later is left from an event before, which these numbers named, too.
#[inline(always)]
pub fn takes(Turn { is_first, turn }: Turn, sk: u64, what: u64) -> bool {
    if is_first && !are_attached() {
        return true;
    }
    let event = (sk ^ bpf_get_current_pid_tgid() << 32 ^ what << 8) & !TURNS;
    let hash = event >> 6 ^ event >> 20 ^ event >> 33;
    let Some(seen) = SEEN.get_ptr_mut(hash as u32 % SEEN_LEN) else { return is_first };
    let seen = seen.cast::<u64>();
    // SAFETY: map memory, and within it; an entry is a word.
    let at = |place: usize| unsafe { seen.add(place).read_volatile() };
    let (mut place, mut before) = (hash >> 12, 0);
    for free in 0..PLACES {
        if at(free) == 0 {
            place = free as u64;
        }
    }
    for taken in 0..PLACES {
        if at(taken) & !TURNS == event {
            (place, before) = (taken as u64, at(taken) & TURNS);
        }
    }
    let is_taken = (1..=turn).contains(&before);
    let is_last = turn + 1 == TURNS;
    if !is_last || before != 0 {
        let after = if is_last { 0 } else { event | (turn + 1) };
        // SAFETY: the same.
        unsafe { seen.add(bounded::<{ PLACES as u64 - 1 }>(place)).write_volatile(after) };
    }
    // What the first instance missed and another took, less what another took and the first did not miss.
    match (is_first, is_taken) {
        (true, true) => count!(stood_in, u64::MAX),
        (false, false) => count!(stood_in, 1),
        (true, false) | (false, true) => {}
    }
    !is_taken
}

/// Whether standby instances of the programs are attached.
#[inline(always)]
pub fn are_attached() -> bool {
    attached().is_some_and(|attached| attached.standby != 0)
}

/// The bodies of raw tracepoints' programs ([`wire::bodies`]).
#[map]
pub static BODIES: ProgramArray = ProgramArray::with_max_entries(bodies::OF_RAW_TRACEPOINTS.len() as u32, 0);

/// The bodies of system calls' programs.
#[map]
pub static SYSTEM_CALL_BODIES: ProgramArray =
    ProgramArray::with_max_entries(bodies::OF_SYSTEM_CALLS.len() as u32, 0);

/// Goes on in a body, for good: nothing is left to be done here. Userspace has put it there before it attached any instance.
#[inline(always)]
pub fn go_on(ctx: &impl EbpfContext, bodies: &ProgramArray, place: u32) {
    // SAFETY: nothing of the caller's is to be dropped.
    unsafe { bodies.tail_call(ctx, place) };
    count!(lost, 1);
}

/// Declares the instances of a program: `|context| (sk, what), body`; with `if`, what does not matter is left at once, unless others are
/// on standby: of what the first misses, nobody knows whether it mattered, so that all must have been taken by some instance.
///
/// Where there are no others, the program does it all by itself. Where there are, from the start, three short ones take turns and go on in a
/// body that they share: the kernel verifies each program, and one body of thousands of instructions is enough. Where the others come
/// later, the program stays as the first of three.
macro_rules! three {
    ([$($meta:tt)*] [$($hook:tt)+] $Context:ident -> $Returned:ty, $bodies:ident of $LIST:ident:
        $alone:ident, $shared:ident, $first:ident, $second:ident, $last:ident;
        |$ctx:ident| $(if $matters:expr;)? ($sk:expr, $what:expr) => $body:expr) => {
        $($meta)*
        #[$($hook)+]
        pub fn $alone(ctx: $Context) -> $Returned {
            $({
                let $ctx = &ctx;
                if !$matters && !$crate::kernel::standby::are_attached() {
                    return 0;
                }
            })?
            let _undisturbed = $crate::kernel::preemption::Undisturbed::begin();
            let $ctx = &ctx;
            if $crate::kernel::standby::takes($crate::kernel::standby::IN_ORDER[0], $sk, $what) {
                $body;
            }
            0
        }

        /// What the instances share.
        #[$($hook)+]
        pub fn $shared(ctx: $Context) -> $Returned {
            let _undisturbed = $crate::kernel::preemption::Undisturbed::begin();
            let $ctx = &ctx;
            // Not every body looks at what it is called with.
            let _context = $ctx;
            $body;
            0
        }

        $crate::kernel::standby::turn! {
            [$($hook)+] $Context -> $Returned, $bodies of $LIST: $alone, $first, 0; |$ctx| ($sk, $what)
        }
        $crate::kernel::standby::turn! {
            [$($hook)+] $Context -> $Returned, $bodies of $LIST: $alone, $second, 1; |$ctx| ($sk, $what)
        }
        $crate::kernel::standby::turn! {
            [$($hook)+] $Context -> $Returned, $bodies of $LIST: $alone, $last, 2; |$ctx| ($sk, $what)
        }
    };
}
pub(crate) use three;

/// One of those that share a body.
macro_rules! turn {
    ([$($hook:tt)+] $Context:ident -> $Returned:ty, $bodies:ident of $LIST:ident:
        $alone:ident, $instance:ident, $turn:literal; |$ctx:ident| ($sk:expr, $what:expr)) => {
        /// The instance of this turn.
        #[$($hook)+]
        pub fn $instance(ctx: $Context) -> $Returned {
            const PLACE: u32 = match wire::bodies::place(&wire::bodies::$LIST, stringify!($alone)) {
                Some(place) => place,
                None => panic!("it is not in the list of bodies"),
            };
            let $ctx = &ctx;
            if $crate::kernel::standby::takes($crate::kernel::standby::IN_ORDER[$turn], $sk, $what) {
                $crate::kernel::standby::go_on($ctx, &$crate::kernel::standby::$bodies, PLACE);
            }
            0
        }
    };
}
pub(crate) use turn;

/// The same for raw tracepoints.
macro_rules! with_standby {
    ($($(#[$meta:meta])* $tracepoint:literal:
        $alone:ident, $shared:ident, $first:ident, $second:ident, $last:ident;
        |$ctx:ident| $(if $matters:expr;)? ($sk:expr, $what:expr) => $body:expr)*) => {$(
        $crate::kernel::standby::three! {
            [$(#[$meta])*] [raw_tracepoint(tracepoint = $tracepoint)]
            RawTracePointContext -> i32, BODIES of OF_RAW_TRACEPOINTS: $alone, $shared, $first, $second, $last;
            |$ctx| $(if $matters;)? ($sk, $what) => $body
        }
    )*};
}
pub(crate) use with_standby;

/// Leaves a call to the standby instance of this name, if that has taken it.
macro_rules! first {
    ($standby:ident, $arguments:expr, $returned:expr) => {
        if !$crate::kernel::standby::takes($crate::kernel::standby::LAST_FIRST[0], $arguments[0], $returned) {
            return 0;
        }
    };
}
pub(crate) use first;

/// The standby instances of a program on a function.
macro_rules! further {
    ($kind:ident $function:literal $Context:ident $second:ident $last:ident: |$ctx:ident| $all:expr, $returns:expr =>
        |$arguments:pat_param, $returned:ident| $body:expr;) => {
        /// The first standby instance.
        #[aya_ebpf::macros::$kind(function = $function)]
        pub fn $second($ctx: aya_ebpf::programs::$Context) -> i32 {
            let (arguments, $returned) = ($all, $returns);
            if $crate::kernel::standby::takes($crate::kernel::standby::LAST_FIRST[1], arguments[0], $returned)
            {
                let _undisturbed = $crate::kernel::preemption::Undisturbed::begin();
                let $arguments = arguments;
                $body;
            }
            0
        }

        /// The last standby instance.
        #[aya_ebpf::macros::$kind(function = $function)]
        pub fn $last($ctx: aya_ebpf::programs::$Context) -> i32 {
            let (arguments, $returned) = ($all, $returns);
            if $crate::kernel::standby::takes($crate::kernel::standby::LAST_FIRST[2], arguments[0], $returned)
            {
                let _undisturbed = $crate::kernel::preemption::Undisturbed::begin();
                let $arguments = arguments;
                $body;
            }
            0
        }
    };
}
pub(crate) use further;
