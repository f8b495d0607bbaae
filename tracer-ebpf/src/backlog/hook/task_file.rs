//! The kernel's iterator over open files (kernel/bpf/task_iter.c, since 5.8).

use crate::{
    backlog::listener,
    kernel::open_files::{self, TaskFile},
};

/// Called for each descriptor of each process while userspace reads: makes the listeners known, and emits who holds them.
#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
pub extern "C" fn listeners(ctx: *const TaskFile) -> i32 {
    if let Some(socket) = open_files::socket(ctx)
        && open_files::is_listener(socket.sk)
    {
        open_files::emit(ctx, &socket);
        listener::shown(socket.sk);
    }
    0
}
