//! What is only counted.

macro_rules! counters {
    ($($(#[$meta:meta])* $field:ident,)*) => {
        /// Counters of the kernel side, for each CPU; each but `stood_in` only grows.
        #[repr(C)]
        #[cfg_attr(
            feature = "user",
            derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
        )]
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Stats {
            $($(#[$meta])* pub $field: u64,)*
        }

        impl Stats {
            /// Both together. One CPU may take back what another has counted.
            #[must_use]
            pub const fn and(self, other: Self) -> Self {
                Self { $($field: self.$field.wrapping_add(other.$field),)* }
            }
        }
    };
}

counters! {
    /// Exchanges that passed the filters and have ended, well or not.
    exchanges,
    /// Connections that passed the filters.
    connections,
    /// Connections that were not watched because the table of open ones was full.
    untracked,
    /// Worker ends that were not watched for the same reason.
    workers_untracked,
    /// Records that the full ring buffer refused.
    lost,
    /// Sends of our processes on unix sockets that are connected to a path and not watched.
    unix_seen,
    /// Events that a program's standby instance took because the first had missed them (`kernel/standby.rs` of the BPF side).
    stood_in,
    /// Returns of functions that kretprobes missed, as far as the same thread called the function again.
    returns_missed,
    /// Workers of which it is not known how they ended or what they were sent, for their table is full.
    processes_unkept,
    /// Signals that a worker died of and whose sender was pushed out, or found no room.
    signals_unkept,
    /// Exchanges whose resets or dropped packets may have been pushed out by others.
    packets_unkept,
    /// Exchanges of which it is not awaited what nginx does next, for too many are.
    acts_unkept,
    /// Connections that nginx gave up and whose later end is not emitted, for too many are open.
    afterwards_unkept,
    /// Exchanges that are not counted by upstream, for there are too many upstreams.
    upstreams_unkept,
    /// Connections whose addresses were translated, for which it is not kept where they ended up, for too many upstreams are.
    translations_unkept,
    /// TCP connections of processes that have the name and are not trusted: not watched.
    strangers,
    /// Their sends on unix sockets, and their connects where those are seen.
    unix_strangers,
    /// Listeners that found no room, each as often as it was left out.
    listeners_untracked,
    /// Addresses that were looked for since, so that the listeners are to be shown again.
    listeners_sought,
    /// Calls of nginx's log that are about no upstream of ours, or below level error: turned away.
    foreign_words,
    /// Processes whose control group found no room, so that it is not known once they have ended.
    members_unkept,
}
