//! Runs of the programs that the kernel left out.

use std::{
    ffi::c_long,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use aya::Ebpf;
use aya_obj::generated::{bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, bpf_prog_info};
use zerocopy::IntoBytes;

use super::hooks;

/// How often the kernel did not call a program because the same program was running on that CPU already, in what the event
/// interrupted (`bpf_prog_inc_misses_counter`, shown since 5.12, zero before): those events are lost. By the program's name, only those
/// that missed any.
///
/// # Errors
/// If the kernel says nothing of a program of ours.
pub(super) fn count(object: &Ebpf) -> io::Result<Vec<(&str, u64)>> {
    let mut all = Vec::new();
    for (name, program) in object.programs() {
        let Ok(descriptor) = program.fd() else { continue };
        let count = info(descriptor.as_fd())?.recursion_misses;
        if count > 0 {
            all.push((hooks::program_of(name), count));
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

/// What the kernel says of a program in one call, for this is asked once a second of each; its fdinfo in /proc takes four.
fn info(program: BorrowedFd<'_>) -> io::Result<bpf_prog_info> {
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
    if result == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{
        super::{
            fdinfo, held_sockets,
            loader::{loader, prepare},
            open_files,
            types::Types,
        },
        *,
    };

    #[test]
    fn what_the_kernel_says_of_a_program_is_what_its_fdinfo_shows() {
        let loaded =
            prepare().and_then(|(kernel, layout)| held_sockets::object(&mut loader(&layout), &kernel));
        // Only root may load one.
        let Ok(mut object) = loaded else { return };
        open_files::load(&mut object, "sockets", &mut Types::default()).unwrap();
        let (_, program) = object.programs().next().unwrap();
        let program = program.fd().unwrap().as_fd();
        let shown = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).unwrap();
        let info = info(program).unwrap();
        let number = |field: &str| fdinfo::number(&shown, field);
        assert_eq!(
            (u64::from(info.id), info.recursion_misses),
            (number("prog_id:"), number("recursion_misses:"))
        );
        // It stands behind the misses, and is not zero where it is shown (since 5.16).
        assert_eq!(u64::from(info.verified_insns), number("verified_insns:"));
        assert!(info.id != 0);
    }
}
