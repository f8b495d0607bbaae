//! How long the kernel ran this process's BPF programs.

use std::fs;

use crate::load::fdinfo;

/// The setting by which the kernel measures that (`kernel.bpf_stats_enabled`).
pub(super) const SETTING: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Nanoseconds that the programs of this process ran so far; none where the kernel does not measure it.
pub(super) fn run_ns() -> Option<u64> {
    if fs::read_to_string(SETTING).ok()?.trim() != "1" {
        return None;
    }
    let descriptors = fs::read_dir("/proc/self/fd").ok()?.flatten();
    let programs = descriptors.filter(|descriptor| {
        fs::read_link(descriptor.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:bpf-prog")
    });
    let infos = programs.filter_map(|descriptor| {
        fs::read_to_string(format!("/proc/self/fdinfo/{}", descriptor.file_name().to_str()?)).ok()
    });
    Some(infos.map(|info| ran_ns(&info)).sum())
}

fn ran_ns(fdinfo: &str) -> u64 {
    fdinfo::number(fdinfo, "run_time_ns:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_times_are_read_where_the_kernel_shows_them() {
        assert_eq!(ran_ns("pos:\t0\nprog_type:\t17\nrun_time_ns:\t1234\nrun_cnt:\t9\n"), 1_234);
        assert_eq!(ran_ns("pos:\t0\nprog_type:\t17\n"), 0);
    }
}
