//! The running task (`struct task_struct`), and its open files.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task, generated::bpf_get_current_comm};
use wire::{COMM_LEN, Task};

use crate::kernel::read::{self, filter, layout, read};

/// `PF_EXITING`, include/linux/sched.h.
const PF_EXITING: u32 = 4;

/// Whether a task has this name, word by word for the same reason.
#[inline(always)]
pub fn is_named(task: &Task, name: &[u8; COMM_LEN]) -> bool {
    let word = |name: &[u8; COMM_LEN], number: usize| {
        // SAFETY: within; both names lie where a u32 may: behind others, or at the start of a struct that has some.
        unsafe { name.as_ptr().cast::<u32>().add(number).read_volatile() }
    };
    word(&task.comm, 0) == word(name, 0)
        && word(&task.comm, 1) == word(name, 1)
        && word(&task.comm, 2) == word(name, 2)
        && word(&task.comm, 3) == word(name, 3)
}

/// Whether the running task, which is `task`, is what the user asked for: by its name, and by its process or that one's parent. The tracer
/// itself never is.
#[inline(always)]
pub fn is_asked_for(task: &Task) -> bool {
    let pid = filter!(pid);
    has_wanted_name(task)
        && task.tgid != filter!(own_pid)
        && (pid == 0 || pid == task.tgid || pid == current_parent())
}

/// Whether a task is called what the user asked for.
#[inline(always)]
pub fn has_wanted_name(task: &Task) -> bool {
    let name = &read::FILTERS.comm;
    // SAFETY: a reference; volatile as in `filter!`.
    let is_any = unsafe { name.as_ptr().read_volatile() } == 0;
    is_any || is_named(task, name)
}

/// The running task. Only meaningful in process context.
#[inline(always)]
pub fn current() -> Task {
    let pid_tgid = bpf_get_current_pid_tgid();
    Task { tgid: (pid_tgid >> 32) as u32, tid: pid_tgid as u32, comm: current_comm() }
}

/// The running thread's name.
#[inline(always)]
fn current_comm() -> [u8; COMM_LEN] {
    const WORDS: usize = COMM_LEN / size_of::<u64>();
    let mut name = MaybeUninit::<[u64; WORDS]>::uninit();
    let words = name.as_mut_ptr().cast::<u64>();
    // SAFETY: all of the array is written here. Cleared word by word, for the compiler's loop takes a byte at a time; and cleared
    // first, for from 5.19 to 6.1 the helper leaves what follows a short name as it was (strscpy).
    let name = unsafe {
        for word in 0..WORDS {
            words.add(word).write_volatile(0);
        }
        bpf_get_current_comm(words.cast(), COMM_LEN as u32);
        name.assume_init()
    };
    // SAFETY: as many bytes, and any are a name.
    unsafe { core::mem::transmute::<[u64; WORDS], [u8; COMM_LEN]>(name) }
}

/// The address of the running task.
#[inline(always)]
pub fn current_task() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_get_current_task() }
}

/// The exit code of the running task, if it is exiting (`do_exit` sets both before it closes files).
#[inline(always)]
pub fn current_exit() -> Option<u32> {
    let task = current_task();
    let flags: u32 = read(task, layout!(task_flags));
    (flags & PF_EXITING != 0).then(|| read(task, layout!(task_exit_code)))
}

/// When the process that `task` is a thread of began.
#[inline(always)]
pub fn began(task: u64) -> u64 {
    read(read(task, layout!(task_leader)), layout!(task_start_time))
}

/// Whether an address lies on the running task's own stack in the kernel: a system call of that task has put there what it points to, or a
/// fault has. Interrupts have stacks of their own.
#[inline(always)]
pub fn is_on_stack(address: u64) -> bool {
    let task = current_task();
    let stack: u64 = read(task, layout!(task_stack));
    stack != 0 && address.wrapping_sub(stack) < u64::from(filter!(stack_bytes))
}

/// The running thread, as userspace numbers it.
#[inline(always)]
pub fn thread() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

/// The running task's process.
#[inline(always)]
pub fn process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// The process id of the running task's parent.
#[inline(always)]
pub fn current_parent() -> u32 {
    let task = current_task();
    read(read(task, layout!(task_parent)), layout!(task_tgid))
}

/// The sock behind a descriptor of the running process; zero, or an address that no map knows, for anything else.
#[inline(always)]
pub fn sock_of(fd: u64) -> u64 {
    let task = current_task();
    let files: u64 = read(task, layout!(task_files));
    let table: u64 = read(files, layout!(files_fdt));
    let entries: u64 = read(table, layout!(fdtable_fd));
    let file: u64 = read(entries.wrapping_add(u64::from(fd as u32) * 8), 0);
    let socket: u64 = read(file, layout!(file_private));
    read(socket, layout!(socket_sk))
}
