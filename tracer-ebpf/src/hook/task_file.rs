//! The kernel's iterator over open files (kernel/bpf/task_iter.c, since 5.8).

use crate::{
    kernel, listener,
    open_files::{self, TaskFile},
    unix_listener,
};

/// Called for each descriptor of each process while userspace reads: makes the listeners known, and tells who holds them.
#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
pub extern "C" fn listeners(ctx: *const TaskFile) -> i32 {
    if let Some(socket) = open_files::socket(ctx)
        && open_files::is_listener(socket.sk)
    {
        open_files::emit(ctx, &socket);
        if kernel::is_inet(socket.sk) {
            listener::add(socket.sk);
        } else {
            unix_listener::listens(socket.sk);
        }
    }
    0
}
