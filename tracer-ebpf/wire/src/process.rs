//! Threads, the signals that they are sent, and how they end.

use crate::COMM_LEN;

/// One thread of one process.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// What userspace calls the pid.
    pub tgid: u32,
    /// What userspace calls the thread id.
    pub tid: u32,
    /// The thread's name, closed by a zero.
    pub comm: [u8; COMM_LEN],
}

/// Where a signal came from.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Not known: so in evidence of before there was this.
    Untold = 0,
    /// A process sent it, by a system call.
    Process = 1,
    /// A POSIX timer (`timer_create`).
    Timer = 2,
    /// The kernel, of its own accord or for a terminal, an alarm, a limit.
    Kernel = 3,
    /// A fault of the process's own.
    Fault = 4,
    /// Its parent's death, at which it had asked for this signal (`PR_SET_PDEATHSIG`).
    ParentDeath = 5,
    /// An event on a file or a message queue at which somebody had asked for this signal, or a process that forged such a code.
    Event = 6,
    /// It was pushed out or found no room.
    Lost = 7,
}

impl Origin {
    /// The origin with this number, if there is one.
    pub const fn from_u16(number: u16) -> Option<Self> {
        match number {
            0 => Some(Self::Untold),
            1 => Some(Self::Process),
            2 => Some(Self::Timer),
            3 => Some(Self::Kernel),
            4 => Some(Self::Fault),
            5 => Some(Self::ParentDeath),
            6 => Some(Self::Event),
            7 => Some(Self::Lost),
            _ => None,
        }
    }
}

/// A fatal signal, as `signal_generate` saw it: the last one that was not the process's own, or its own where nobody had sent it before.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Signal {
    /// When it was sent; zero where none is known.
    pub ns: u64,
    /// The signal's number.
    pub number: u32,
    /// `si_code`: 0 (`SI_USER`) for kill(2), 0x80 (`SI_KERNEL`), or a fault's own code; a sender may forge it.
    pub code: i32,
    /// Who sent it, or whose death it was sent at; all zero for another [`Origin`].
    pub sender: Task,
    /// One where that is the victim's parent process.
    pub from_parent: u16,
    /// An [`Origin`].
    pub origin: u16,
    /// One where the kernel sent it because memory ran out (`mark_victim`).
    pub out_of_memory: u32,
}

/// Which signals that tell a program to stop had been sent to a worker that handled them, and to its parent, before the worker's end
/// ended: SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGUSR1, SIGUSR2 and SIGTERM. Of each the last; SIGUSR1, at which many only open their logs
/// anew, gives way to any other.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Stops {
    /// To the process that closed the worker's end, before it did so; none where it died of one ([`crate::WorkerEnd::signal`]).
    pub worker: Signal,
    /// To its parent, since the worker began and before the worker was sent its own, or if it was sent none, before its end ended.
    pub parent: Signal,
    /// The parent when the process became a worker; all zero where it is not known.
    pub parent_task: Task,
    /// The end of the process that had read the request, where the connection outlived it.
    pub gone: Gone,
}

/// The end of a worker that did not end its connection: another process, which had inherited it, held it on. Then [`Stops::parent`] is about
/// this one's parent.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Gone {
    /// When it ended; zero for not.
    pub ns: u64,
    /// `task_struct.exit_code`: the signal in the low seven bits.
    pub exit_code: u32,
    /// Always zero.
    pub reserved: u32,
    /// The signal that it died of.
    pub signal: Signal,
}
