//! The contract between the kernel side and userspace, compiled for both.
//!
//! Every type here is `repr(C)`, made of integers only and without implicit padding; the sizes are asserted
//! below. Times are `CLOCK_MONOTONIC` nanoseconds (`bpf_ktime_get_ns`), zero meaning "did not happen".
//! A `u64` called `sock` is the kernel address of a `struct sock`: an identity, never followed by userspace.

#![cfg_attr(target_arch = "bpf", no_std)]

pub mod accept_queue;
pub mod bodies;
mod closed;
mod endpoint;
mod exchange;
mod held;
mod kernel_function;
mod layout;
mod member;
mod packet;
mod process;
mod record;
mod saying;
mod stats;

pub use closed::{ClosedListener, ListenPlace};
pub use endpoint::{Endpoint, FAMILY_INET, FAMILY_INET6, FAMILY_UNIX, ListenerView, PATH_LEN};
pub use exchange::{Client, NginxEnd, OpenExchange, WorkerEnd, nginx_flag};
pub use held::HeldSocket;
pub use kernel_function::{
    IRQ_RESTORE, IRQ_SAVE, KERNEL_FUNCTIONS, KernelFunction, PREEMPT_DISABLE, PREEMPT_ENABLE, READ_ONLY_CAST,
    SHARED_STACK_BEGIN, SHARED_STACK_END,
};
pub use layout::{Attached, COMMON_LEN, Filters, Layout, MISSING, SEEN_LEN, gate, register_at, shown};
pub use member::Member;
pub use packet::{DropReason, Icmp, PacketDrop, Reset};
pub use process::{Gone, Origin, Signal, Stops, Task};
pub use record::{
    ACTION_LEN, Action, ExchangeRecord, Header, Hop, Kind, MESSAGE_LEN, NextAction, NginxOnly, PORTS_LEN,
    RING_BYTES, SUBJECT_LEN, Served, Started, Word, WordOf, WorkerGone,
};
pub use saying::{Beginning, characters};
pub use stats::Stats;

/// `TASK_COMM_LEN`: a task's name with its closing zero, in bytes.
pub const COMM_LEN: usize = 16;

/// TCP states as `include/net/tcp_states.h` numbers them; they are part of the kernel's user interface.
pub mod tcp_state {
    /// Both ends agreed.
    pub const ESTABLISHED: u8 = 1;
    /// A SYN was sent.
    pub const SYN_SENT: u8 = 2;
    /// A SYN was received and answered.
    pub const SYN_RECV: u8 = 3;
    /// This end closed first; its FIN is not acknowledged yet.
    pub const FIN_WAIT1: u8 = 4;
    /// This end closed first; its FIN was acknowledged.
    pub const FIN_WAIT2: u8 = 5;
    /// Nothing is left.
    pub const CLOSE: u8 = 7;
    /// The peer closed first; this end has not closed yet.
    pub const CLOSE_WAIT: u8 = 8;
    /// The peer closed first, then this end.
    pub const LAST_ACK: u8 = 9;
    /// Waiting for connections.
    pub const LISTEN: u8 = 10;
}

const _: () = {
    assert!(size_of::<Endpoint>() == 20);
    assert!(size_of::<Task>() == 24);
    assert!(size_of::<Client>() == 32);
    assert!(size_of::<ListenPlace>() == 24 && size_of::<ClosedListener>() == 48);
    assert!(size_of::<HeldSocket>() == 216);
    assert!(size_of::<ListenerView>() == 40);
    assert!(size_of::<Signal>() == 48);
    assert!(size_of::<WorkerEnd>().is_multiple_of(8));
    assert!(size_of::<NginxEnd>().is_multiple_of(8));
    assert!(size_of::<accept_queue::Key>() == 24);
    assert!(size_of::<accept_queue::Listener>().is_multiple_of(8));
    assert!(size_of::<accept_queue::Victim>().is_multiple_of(8));
    assert!(core::mem::offset_of!(NginxEnd, refused_ns).is_multiple_of(8) && align_of::<NginxEnd>() == 8);
    assert!(size_of::<Gone>() == 64 && size_of::<Stops>() == 184);
    assert!(size_of::<Attached>() == size_of::<u64>() && align_of::<Attached>() == 1);
    assert!(
        size_of::<ExchangeRecord>()
            == 8 + size_of::<NginxEnd>() + size_of::<WorkerEnd>() + size_of::<Stops>() + PATH_LEN + 4
    );
};

#[cfg(feature = "user")]
mod pod {
    // SAFETY: each is repr(C), made of integers only, and without padding, as IntoBytes proves.
    unsafe impl aya::Pod for crate::Endpoint {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::accept_queue::Attached {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::accept_queue::Places {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::accept_queue::Key {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::accept_queue::Listener {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::accept_queue::Stats {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::accept_queue::Victim {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::Attached {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::ClosedListener {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::ListenPlace {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::Filters {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::Layout {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::Member {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::OpenExchange {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::Stats {}
    // SAFETY: as above.
    unsafe impl aya::Pod for crate::WorkerEnd {}
}
