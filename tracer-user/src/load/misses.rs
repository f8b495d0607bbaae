//! Runs of the programs that the kernel left out.

use std::{
    ffi::c_long,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use aya::Ebpf;
use aya_obj::generated::{bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, bpf_prog_info};
use zerocopy::IntoBytes;

/// How often the kernel did not call a program because the same program was running on that CPU already, in what the event
/// interrupted (`bpf_prog_inc_misses_counter`, told since 5.12, zero before): those events are lost. By the program's name, only those
/// that missed any.
///
/// # Errors
/// If the kernel does not tell of a program of ours.
pub(super) fn count(object: &Ebpf) -> io::Result<Vec<(&str, u64)>> {
    let mut all = Vec::new();
    for (name, program) in object.programs() {
        let Ok(descriptor) = program.fd() else { continue };
        let count = misses(descriptor.as_fd())?;
        if count > 0 {
            all.push((name, count));
        }
    }
    Ok(all)
}

/// What `BPF_OBJ_GET_INFO_BY_FD` is asked (`union bpf_attr`).
#[repr(C)]
#[derive(IntoBytes, zerocopy::Immutable)]
struct Asked {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// One call of the kernel's, for this is asked once a second of each program; its fdinfo in /proc takes four.
fn misses(program: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: numbers and addresses, which may all be zero: then nothing is asked for but what has room in it.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let asked = Asked {
        fd: program.as_raw_fd().cast_unsigned(),
        info_len: size_of::<bpf_prog_info>() as u32,
        info: (&raw mut info).expose_provenance() as u64,
    };
    let asked = asked.as_bytes();
    // SAFETY: the kernel reads the question, and writes at most `info_len` bytes to `info`, which outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD as c_long, asked.as_ptr(), asked.len())
    };
    if result == 0 { Ok(info.recursion_misses) } else { Err(io::Error::last_os_error()) }
}
