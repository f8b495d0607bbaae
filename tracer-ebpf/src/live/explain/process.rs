//! Workers: processes that have taken up an exchange of ours, and their parents. How they end and what they are sent is kept of them and of
//! nobody else, so that no stranger's processes can push it out.

use aya_ebpf::{macros::map, maps::HashMap};
use wire::COMM_LEN;

/// A process that took up an exchange, or the parent of one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Process {
    /// When its first thread began: with its pid the name of the process.
    pub began_ns: u64,
    /// When it ended, or zero.
    pub ended_ns: u64,
    /// When what it was sent was lost, or may have been; zero for never.
    pub lost_ns: u64,
    /// `task_struct.exit_code`, once it has ended.
    pub exit_code: u32,
    /// The signals that are kept of it, or of who had its pid before: a bit for each.
    pub signals: u32,
    /// Its parent when it became a worker; zero for one that is kept as a worker's parent only.
    pub parent: u32,
    /// Its name then.
    pub comm: [u8; COMM_LEN],
    pub reserved: u32,
}

/// Workers by pid. They stay for as long as they live, and then until the queue of those that have ended is full ([`super::workers`]).
#[map]
pub static PROCESSES: HashMap<u32, Process> = HashMap::with_max_entries(4_096, 0);

/// The worker of this pid, whichever process that is.
#[inline(always)]
pub fn find<'a>(tgid: u32) -> Option<&'a mut Process> {
    // SAFETY: preallocated map memory.
    PROCESSES.get_ptr_mut(tgid).map(|process| unsafe { &mut *process })
}

/// The worker of this pid that began then.
#[inline(always)]
pub fn of<'a>(tgid: u32, began_ns: u64) -> Option<&'a mut Process> {
    find(tgid).filter(|process| process.began_ns == began_ns)
}
