//! Functions that verifiers look at once, however many ways lead to them: global ones (since 5.6; kernel/bpf/verifier.c,
//! `do_check_subprogs`). A function that is not global they go through anew for each state in which it is called.
//!
//! Global functions are given numbers only (before 5.12 nothing else), and return one. They find what they work on by themselves: that
//! costs a look-up, so they are for what few exchanges come to.

/// Defines functions whose body, a call, is verified once: those that return nothing, and those that return a yes or no.
macro_rules! verified_once {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($argument:ident: $kind:ty),*) $(-> $answer:ident)? = $body:expr;)*) => {$(
        $(#[$meta])*
        #[inline(always)]
        $vis fn $name($($argument: $kind),*) $(-> $answer)? {
            #[unsafe(no_mangle)]
            #[inline(never)]
            extern "C" fn $name($($argument: $kind),*) -> u64 {
                $crate::kernel::verified_once::Said::number($body)
            }
            $crate::kernel::verified_once::Said::of($name($($argument),*))
        }
    )*};
}
pub(crate) use verified_once;

/// What such a function returns.
pub trait Said {
    /// As the number that verifiers allow.
    fn number(self) -> u64;
    /// What that number says.
    fn of(number: u64) -> Self;
}

impl Said for () {
    #[inline(always)]
    fn number(self) -> u64 {
        0
    }

    #[inline(always)]
    fn of(_number: u64) {}
}

impl Said for bool {
    #[inline(always)]
    fn number(self) -> u64 {
        self.into()
    }

    #[inline(always)]
    fn of(number: u64) -> Self {
        number != 0
    }
}
