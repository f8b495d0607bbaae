//! Runs of the programs that the kernel left out.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::Ebpf;

use super::fdinfo;

/// How often the kernel did not call a program because the same program was running on that CPU already, in what the event
/// interrupted (`bpf_prog_inc_misses_counter`; shown in fdinfo since 5.12, zero before): those events are lost. By the program's
/// name, only those that missed any.
///
/// # Errors
/// If /proc does not show this process's own descriptors.
pub(super) fn count(object: &Ebpf) -> io::Result<Vec<(&str, u64)>> {
    let mut all = Vec::new();
    // The kernel writes it in one piece, and this is asked once a second: no call more than it takes.
    let mut shown = [0; 1_024];
    for (name, program) in object.programs() {
        let Ok(descriptor) = program.fd() else { continue };
        let path = format!("/proc/self/fdinfo/{}", descriptor.as_fd().as_raw_fd());
        let length = File::open(path)?.read(&mut shown)?;
        let count = misses(&String::from_utf8_lossy(&shown[..length]));
        if count > 0 {
            all.push((name, count));
        }
    }
    Ok(all)
}

fn misses(fdinfo: &str) -> u64 {
    fdinfo::number(fdinfo, "recursion_misses:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_are_read_where_the_kernel_shows_them() {
        let fdinfo = "pos:\t0\nprog_type:\t17\nrun_cnt:\t9\nrecursion_misses:\t12\nverified_insns:\t83\n";
        assert_eq!(misses(fdinfo), 12);
        assert_eq!(misses("pos:\t0\nprog_type:\t17\n"), 0);
    }
}
