//! What is looked up on this host about a failure, right after it: on failures only, so many a second at most, and recorded, so that a replay
//! says the same.

use crate::model::{
    doing::{Doing, Name},
    verdict::Process,
};

/// What was found about one failure. It comes before the record that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inquiry {
    /// Which failure.
    pub about: About,
    /// What was found.
    pub found: Found,
}

/// What was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum About {
    /// The exchange on this connection.
    Exchange(Name),
    /// What this thread of nginx's said at this moment (ns, monotonic).
    Word {
        /// The thread.
        thread: u32,
        /// The moment.
        ns: u64,
    },
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// connect failed with EACCES: what would have allowed it.
    Denial(Denial),
    /// Netfilter dropped packets of the handshake: how full the table of connections was.
    Conntrack(Conntrack),
    /// connect to a unix socket was refused: what the path leads to.
    Place(Place),
    /// connect to a unix socket found nothing there (ENOENT): whether the folder that it should be in is there.
    Missing {
        /// Whether it is.
        has_folder: bool,
    },
    /// Nothing answered nginx's connect over TCP, or an answer said that there is no way: when a connection with the upstream's address,
    /// whatever the port, was last known to work, as the kernel remembers it (`tcp_metrics`; ns, monotonic).
    Reached(u64),
    /// nginx stopped waiting on a connection in the queue of one of several listeners that share an address: those.
    Sharers(Vec<Sharer>),
    /// nginx stopped waiting on a connection in a listener's queue, or found that full: who should work it off.
    Queue(Queue),
    /// nginx stopped waiting on a connection that had outlived its worker: who had it then.
    Holders(Vec<Process>),
    /// php-fpm's master killed the worker: the `request_terminate_timeout` of its pool (s), zero for none, by its files; none where it could
    /// not be looked up.
    TerminateAfter(Option<u64>),
}

/// What stands between a process whose connect failed with EACCES and its upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// What the kernel's ordinary rules say: owner, group, mode and access list of a unix socket and of the folders above it; routes, over
    /// TCP.
    pub ordinary: Ordinary,
    /// Whether SELinux is on, and enforces (`/sys/fs/selinux/enforce`).
    pub selinux: bool,
    /// The process's label (`/proc/PID/attr/current`): an SELinux context or an AppArmor profile; none where there is none.
    pub label: Option<String>,
    /// Whether a seccomp filter is on (`Seccomp: 2` in `/proc/PID/status`).
    pub seccomp: bool,
}

/// What the kernel's ordinary rules say to a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordinary {
    /// They allow it.
    Allow,
    /// They forbid it.
    Forbid,
    /// It could not be looked up.
    Unknown,
    /// There were too many failures at a time for it to be looked up.
    LeftOut,
}

impl Ordinary {
    /// Each with its name in evidence.
    pub const ALL: [(&'static str, Self); 4] = [
        ("allow", Self::Allow),
        ("forbid", Self::Forbid),
        ("unknown", Self::Unknown),
        ("left_out", Self::LeftOut),
    ];
}

/// What a unix upstream's path leads to, in nginx's own root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What kind of file is there.
    pub kind: Kind,
    /// Who has a socket that was bound to it, whether it listens or not; none where that could not be looked up.
    pub bound: Option<Vec<Process>>,
}

/// A kind of file, as far as it matters to a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A socket.
    Socket,
    /// A regular file.
    Regular,
    /// A folder.
    Folder,
    /// Anything else.
    Other,
    /// It could not be looked up, or there was nothing any more.
    Unknown,
}

impl Kind {
    /// Each with its name in evidence.
    pub const ALL: [(&'static str, Self); 5] = [
        ("socket", Self::Socket),
        ("regular", Self::Regular),
        ("folder", Self::Folder),
        ("other", Self::Other),
        ("unknown", Self::Unknown),
    ];
}

/// The table of connections of nginx's network namespace (`/proc/net/stat/nf_conntrack`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// Connections in it.
    pub entries: u64,
    /// As many as it may have (`net.netfilter.nf_conntrack_max`).
    pub max: u64,
    /// Packets that were dropped because it was full, since the namespace exists.
    pub drops: u64,
    /// The same since it was looked at before; none where it was not.
    pub risen: Option<u64>,
}

impl Conntrack {
    /// Whether it was full and packets were dropped for it. Entries go while others wait for their place: a twentieth may be free again.
    pub fn is_full(&self) -> bool {
        self.max > 0
            && self.entries.saturating_add(self.max / 20) >= self.max
            && self.risen.unwrap_or(self.drops) > 0
    }
}

/// One of several listeners that share an address (`SO_REUSEPORT`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sharer {
    /// Who has it; of several the one with the lowest pid.
    pub process: Process,
    /// Connections that waited in its accept queue.
    pub waiting: u32,
    /// Whether that process stood still: stopped, or frozen with its cgroup.
    pub stands_still: bool,
}

/// Who holds a listener, and whether anybody works its queue off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// The processes that have the listener open, by pid; at most [`crate::model::budget::HOLDERS`].
    pub holders: Vec<Holder>,
    /// How many more have.
    pub others: u32,
    /// Whether some process that does not stand still has, or may have, a connection that came from it.
    pub is_served: bool,
    /// Since when (ns, monotonic) nobody has accepted from it, as far as its queue shows; none where it does not.
    pub since_ns: Option<u64>,
    /// Whether one of them is known to have taken up an exchange before.
    pub has_accepted: bool,
}

/// A process that holds a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub process: Process,
    /// What its first thread did; none where that could not be found out.
    pub doing: Option<Doing>,
}
