//! Whether the kernel lets its functions be hooked (fentry and fexit).

use std::{
    io,
    mem::{MaybeUninit, offset_of},
    os::fd::{FromRawFd as _, OwnedFd, RawFd},
};

use aya_obj::generated::{
    bpf_attach_type::BPF_TRACE_FENTRY, bpf_attr__bindgen_ty_4 as Load, bpf_cmd::BPF_PROG_LOAD,
    bpf_prog_type::BPF_PROG_TYPE_TRACING,
};

use super::btf::{self, FUNCTION};

/// Returns zero: what a program of a function's start must, and all that this one does.
const PROGRAM: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// Whether this kernel refuses programs of functions as such, with `EPERM`, as one does that is locked down.
pub(super) fn are_refused(kernel: &btf::Kernel) -> bool {
    kernel.function(FUNCTION).is_some_and(|function| {
        load(function).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    })
}

/// Loads the program for a function, by the number of its type. The loader could, too, with all of the kernel's types in memory: this is asked
/// before it is known whether they are needed.
fn load(function: u32) -> io::Result<OwnedFd> {
    // SAFETY: numbers, and addresses as numbers: all zeroes are a value of the type.
    let mut attributes: Load = unsafe { MaybeUninit::zeroed().assume_init() };
    attributes.prog_type = BPF_PROG_TYPE_TRACING as u32;
    attributes.expected_attach_type = BPF_TRACE_FENTRY as u32;
    attributes.insns = PROGRAM.as_ptr() as u64;
    attributes.insn_cnt = PROGRAM.len() as u32;
    attributes.license = c"GPL".as_ptr() as u64;
    attributes.attach_btf_id = function;
    let len = offset_of!(Load, attach_btf_id) + size_of::<u32>();
    // SAFETY: the attributes, and what they point to, outlive the call, and the kernel reads no more than their length.
    let descriptor = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD as libc::c_long, (&raw const attributes).cast::<u8>(), len)
    };
    match RawFd::try_from(descriptor) {
        // SAFETY: the kernel made it, and nobody else has it.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
