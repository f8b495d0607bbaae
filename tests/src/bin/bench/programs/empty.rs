//! A BPF program that does nothing, run by request: bpf(2) as it is, since aya loads only whole objects.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc::{SYS_bpf, c_long, syscall};

/// BPF_PROG_LOAD and BPF_PROG_TEST_RUN of bpf(2), and BPF_PROG_TYPE_SOCKET_FILTER.
const LOAD: c_long = 5;
const TEST_RUN: c_long = 10;
const SOCKET_FILTER: u32 = 1;

/// `r0 = 0; exit`
const INSTRUCTIONS: [u64; 2] = [0xb7, 0x95];

/// The beginning of `union bpf_attr` for BPF_PROG_LOAD; the kernel takes what is left out as zero.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    at: u64,
    license: u64,
}

/// The same for BPF_PROG_TEST_RUN.
#[repr(C)]
struct Run {
    program: u32,
    returned: u32,
    data_in: u32,
    data_out: u32,
    data_in_at: u64,
    data_out_at: u64,
    repeat: u32,
    duration: u32,
}

/// Loads it.
pub(super) fn load() -> Result<OwnedFd> {
    let license = c"GPL";
    let attributes = Load {
        kind: SOCKET_FILTER,
        instructions: u32::try_from(INSTRUCTIONS.len())?,
        at: INSTRUCTIONS.as_ptr() as u64,
        license: license.as_ptr() as u64,
    };
    let descriptor = bpf(LOAD, &attributes).context("loading an empty program")?;
    // SAFETY: bpf(2) has just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(descriptor)?) })
}

/// Runs it so many times.
pub(super) fn run(program: &OwnedFd, repeat: u32) -> Result<()> {
    // A socket filter is given a packet of at least an Ethernet header.
    let packet = [0u8; 64];
    let attributes = Run {
        program: u32::try_from(program.as_raw_fd())?,
        returned: 0,
        data_in: u32::try_from(packet.len())?,
        data_out: 0,
        data_in_at: packet.as_ptr() as u64,
        data_out_at: 0,
        repeat,
        duration: 0,
    };
    bpf(TEST_RUN, &attributes).map(drop).context("running an empty program")
}

fn bpf<T>(command: c_long, attributes: &T) -> Result<c_long> {
    // SAFETY: the attributes, and the memory that they point to, outlive the call, and the kernel reads no more than their size.
    let result = unsafe { syscall(SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    Ok(Errno::result(result)?)
}
