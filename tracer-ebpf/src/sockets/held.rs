//! The kernel's iterator over open files (kernel/bpf/task_iter.c, since 5.8).

use aya_ebpf::{bindings::BPF_F_NO_PREALLOC, macros::map, maps::HashMap};

use crate::kernel::open_files::{self, TaskFile};

/// The processes whose sockets are asked for. Userspace alone changes it, and seldom asks for many: no room is held for them.
#[map]
static PIDS: HashMap<u32, u32> = HashMap::with_max_entries(4_096, BPF_F_NO_PREALLOC);

/// Called for each descriptor of each process while userspace reads.
#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
pub extern "C" fn sockets(ctx: *const TaskFile) -> i32 {
    // SAFETY: only tested for presence.
    if unsafe { PIDS.get(open_files::process(ctx)) }.is_some()
        && let Some(socket) = open_files::socket(ctx)
    {
        open_files::emit(ctx, &socket);
    }
    0
}
