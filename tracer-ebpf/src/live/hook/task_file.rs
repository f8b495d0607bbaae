//! The kernel's iterator over open files (kernel/bpf/task_iter.c, since 5.8).

use crate::{
    kernel::{
        open_files::{self, TaskFile},
        sock,
    },
    live::{
        explain::{listener, unix_listener},
        transport::unwatched,
    },
};

/// Called for each descriptor of each process while userspace reads: makes the listeners known, and emits who holds them; and who of ours
/// is connected to a unix socket's path, where those are not watched.
#[unsafe(link_section = "iter/task_file")]
#[unsafe(no_mangle)]
pub extern "C" fn listeners(ctx: *const TaskFile) -> i32 {
    let Some(socket) = open_files::socket(ctx) else { return 0 };
    let listens = open_files::is_listener(socket.sk);
    if listens || unwatched::may_be_upstream(&open_files::holder(&socket), socket.sk) {
        open_files::emit(ctx, &socket);
    }
    if listens && sock::is_inet(socket.sk) {
        listener::add(socket.sk);
    } else if listens {
        unix_listener::listens(socket.sk);
    }
    0
}
