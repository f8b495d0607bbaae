//! Accept queues and who met them full: what `why502 backlog` shares between its kernel side and userspace.

use crate::{COMM_LEN, Endpoint, Header, PATH_LEN, Task};

/// The thread of a client that has nginx's name, and is not the process that was asked for or not believed to be nginx.
pub const STRANGER: u32 = 0;

/// The ring buffer's size in bytes: one [`VictimEnded`] for each connection that met a full queue.
pub const RING_BYTES: u32 = 4 << 20;

/// Listeners that are watched at a time.
pub const MAX_LISTENERS: u32 = 4_096;

/// Open victims that are watched at a time.
pub const MAX_VICTIMS: u32 = 32_768;

/// Counts in a histogram of waits.
pub const BUCKETS: usize = 256;

/// Steps between one power of two and the next: a bucket's bounds differ by at most an eighth.
const STEPS_LOG2: u32 = 3;

/// The bucket that counts a wait of `us` microseconds: exact below 8 us, then eight to each power of two; the last one takes what
/// is longer than an hour.
#[inline(always)]
pub const fn bucket(us: u64) -> usize {
    let us = if us > u32::MAX as u64 { u32::MAX } else { us as u32 };
    if us < 1 << STEPS_LOG2 {
        return us as usize;
    }
    let power = 31 - us.leading_zeros();
    let step = us >> (power - STEPS_LOG2) & ((1 << STEPS_LOG2) - 1);
    let bucket = ((power - STEPS_LOG2 + 1) << STEPS_LOG2) + step;
    bucket as usize & (BUCKETS - 1)
}

/// The longest wait, in microseconds, that a bucket counts.
pub const fn longest_in(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 1 << STEPS_LOG2 {
        return bucket;
    }
    let shift = (bucket >> STEPS_LOG2) - 1;
    let step = bucket & ((1 << STEPS_LOG2) - 1);
    (((1 << STEPS_LOG2) + step + 1) << shift) - 1
}

/// Names a connection attempt, seen from either end. A unix socket has [`Key::UNIX`] and its inode's number instead.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key {
    /// The client's address in network order, IPv4 mapped into IPv6. In one that means another host in each network namespace the
    /// first word is the namespace's inode number.
    pub addr: [u32; 4],
    /// The client's port.
    pub port: u32,
    /// The listener's port.
    pub listener_port: u32,
}

impl Key {
    /// Stands in `port`, which no TCP client can have.
    pub const UNIX: u32 = u32::MAX;
}

/// One listener and its accept queue.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    /// The listener.
    pub sock: u64,
    /// Its `struct net`.
    pub net: u64,
    /// When it was seen first. Written last: while it is zero, the rest is not there yet.
    pub since_ns: u64,
    /// The number of its inode; zero while unknown.
    pub inode: u64,
    /// When the queue became full; zero while it is not.
    pub full_since_ns: u64,
    /// How long it was full before that.
    pub full_ns: u64,
    /// Connections that entered the queue.
    pub arrivals: u64,
    /// SYNs that were dropped because the queue was full.
    pub syn_drops: u64,
    /// Ends of handshakes that met the full queue.
    pub ack_drops: u64,
    /// Unix connects that were refused because the queue was full.
    pub unix_refused: u64,
    /// Unix connects that had to wait because the queue was full.
    pub unix_waited: u64,
    /// The longest wait in the queue.
    pub longest_wait_ns: u64,
    /// All waits together that [`Self::waits`] counts.
    pub waited_ns: u64,
    /// Of `sk_drops`, what has been counted.
    pub drops_counted: u64,
    /// Network namespace's inode number.
    pub netns: u32,
    /// `sk_ack_backlog`, or the length of a unix listener's queue, at the last event.
    pub depth: u32,
    /// `sk_max_ack_backlog` then.
    pub limit: u32,
    /// The largest depth.
    pub max_depth: u32,
    /// The depth when it was seen first.
    pub first_depth: u32,
    /// The process that called listen, if that was seen.
    pub tgid: u32,
    /// One once an nginx has connected to it.
    pub by_nginx: u32,
    /// Always zero.
    pub reserved: u32,
    /// That process's name.
    pub comm: [u8; COMM_LEN],
    /// Where it listens; family `FAMILY_UNIX` for a unix socket.
    pub local: Endpoint,
    /// A unix socket's path, closed by a zero.
    pub path: [u8; PATH_LEN],
    /// Waits in the queue, see [`bucket`].
    pub waits: [u64; BUCKETS],
}

/// How a victim's attempt ended.
#[repr(u32)]
#[cfg_attr(feature = "user", derive(zerocopy::TryFromBytes))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has not, or nobody saw it.
    Open = 0,
    /// It entered the queue in the end.
    GotIn = 1,
    /// The listener's kernel reset it (tcp_abort_on_overflow).
    Reset = 2,
    /// The client's kernel gave up, or reported another error.
    Failed = 3,
    /// The client's process closed the socket.
    ClosedByClient = 4,
    /// connect was refused (unix, EAGAIN).
    Refused = 5,
}

/// A connection that met a full accept queue.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Victim {
    /// The listener.
    pub listener: u64,
    /// The listener's `since_ns`.
    pub listener_since_ns: u64,
    /// When it met the full queue first.
    pub first_ns: u64,
    /// And last.
    pub last_ns: u64,
    /// When its fate was sealed; zero while it is open.
    pub ended_ns: u64,
    /// SYNs of it that were dropped; of a unix socket, connects that met the full queue.
    pub syn_drops: u32,
    /// Ends of its handshake that met the full queue.
    pub ack_drops: u32,
    /// A [`Fate`].
    pub fate: u32,
    /// The error that the client's process gets, if that was seen.
    pub errno: u32,
    /// The client's process, if it is on this host and was seen.
    pub task: Task,
    /// The client's address; family `FAMILY_UNIX` for a unix socket.
    pub client: Endpoint,
    /// The sequence number of its SYN, as far as it was seen.
    pub isn: u32,
}

/// What a record holds.
#[repr(u32)]
#[cfg_attr(feature = "user", derive(zerocopy::TryFromBytes))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`VictimEnded`].
    VictimEnded = 1,
    /// [`ListenerClosed`].
    ListenerClosed = 2,
}

/// A victim whose fate is known.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug)]
pub struct VictimEnded {
    /// [`Kind::VictimEnded`].
    pub header: Header,
    /// The victim, whole.
    pub victim: Victim,
}

/// A listener that was closed.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug)]
pub struct ListenerClosed {
    /// [`Kind::ListenerClosed`].
    pub header: Header,
    /// The listener as it was last.
    pub listener: Listener,
}

/// Counters of the kernel side; each only grows, but `open`.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Records that the full ring buffer refused.
    pub lost: u64,
    /// Victims that found no room in the table.
    pub victims_untracked: u64,
    /// Listeners that found no room in the table.
    pub listeners_untracked: u64,
    /// Drops at a full queue whose listener is not known.
    pub unattributed: u64,
    /// Victims whose fate is open: while zero, most events need no look.
    pub open: u64,
    /// Returns of functions that kretprobes missed, as far as the same thread called the function again, and calls that found no room.
    pub returns_missed: u64,
    /// Clients that found no room in the table, and drops of who may have been one that was pushed out.
    pub clients_unkept: u64,
    /// Connections that were accepted and whose wait is not known, for others have pushed them out.
    pub waits_unkept: u64,
}

/// What userspace knows only after it has attached the hooks.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Attached {
    /// One where `sk_data_ready` shows that a connection entered a unix socket's queue.
    pub unix_arrivals: u32,
    /// One where the functions that end handshakes are hooked: packet drops of the same reason would count twice.
    pub handshake_drops: u32,
}

/// What no layout of a type says of the running kernel; set before loading. Zero where they are not known.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The first byte of the function that consumes a SYN once a listener has dealt with it.
    pub consumer_start: u64,
    /// What follows its last byte.
    pub consumer_end: u64,
    /// Which of a namespace's counters is ListenOverflows (`LINUX_MIB_LISTENOVERFLOWS`).
    pub listen_overflows: u64,
}

impl Places {
    /// All unknown.
    pub const NONE: Self = Self { consumer_start: 0, consumer_end: 0, listen_overflows: 0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wait_is_in_a_bucket_whose_bounds_hold_it() {
        for us in (0..100_000).chain((17..32).map(|power| (1 << power) - 1)).chain([u64::from(u32::MAX)]) {
            let bucket = bucket(us);
            assert!(bucket < BUCKETS && longest_in(bucket) >= us, "{us}");
            assert!(bucket == 0 || longest_in(bucket - 1) < us, "{us}");
            assert!(longest_in(bucket) <= us + us / 8, "{us}");
        }
    }
}
