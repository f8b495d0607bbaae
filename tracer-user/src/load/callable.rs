//! What is asked for of the functions of the kernel's own that programs may call.

use std::fs;

use wire::KERNEL_FUNCTIONS;

/// Zero where the kernel interprets programs.
const COMPILES: &str = "/proc/sys/net/core/bpf_jit_enable";

/// Guards the programs of raw tracepoints in a kernel that may preempt them (`__DO_TRACE`, since 7.0).
pub(super) const PREEMPTIBLE: &str = "class_srcu_fast_notrace_t";

/// Is there in a kernel that gives programs stacks which belong to the CPU (since 6.13).
pub(super) const SHARES_STACKS: &str = "bpf_jit_supports_private_stack";

/// The names that are asked for.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KERNEL_FUNCTIONS.iter().map(|function| function.name).chain([PREEMPTIBLE, SHARES_STACKS])
}

/// Whether this kernel interprets programs; it then refuses those that call its functions.
pub(super) fn interprets() -> bool {
    fs::read_to_string(COMPILES).is_ok_and(|compiles| compiles.trim() == "0")
}
