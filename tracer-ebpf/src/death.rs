//! How processes ended: a unix socket's own end is seen by nobody.

use aya_ebpf::helpers::bpf_ktime_get_ns;

use crate::{
    kernel::{layout, read},
    maps::{DEATHS, Death},
    unix_end,
};

/// The process `tgid`, whose first thread is `task`, ends.
#[inline(always)]
pub fn of(tgid: u32, task: u64) {
    let death = Death {
        // SAFETY: the helper takes nothing.
        ns: unsafe { bpf_ktime_get_ns() },
        exit_code: read(task, layout!(task_exit_code)),
        reserved: 0,
    };
    let _evicts = DEATHS.insert(tgid, &death, 0);
    unix_end::holder_dies();
}
