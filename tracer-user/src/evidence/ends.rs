//! The two ends of an exchange, as evidence has them.

use serde::{Deserialize, Serialize};

use super::{
    address::Address,
    codec::{Bad, Base, Codec, Context, Handshake, Id, Moment, Number, Truth},
    flags::{Flag, Flags},
    origin::{Origin, Origins},
    tcp_state::State,
    texts::Name,
};

/// Defines what stands in evidence for one type of the kernel side's: each field with how it is written. What comes after the
/// semicolon has no meaning there.
macro_rules! mirror {
    ($($(#[$meta:meta])* $name:ident = $wire:ident {
        $($(#[$doc:meta])* $field:ident: $json:ty = $codec:ty,)* $(; $($unused:ident = $zero:expr),+)?
    })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$doc])* pub $field: $json,)*
        }

        impl Codec<wire::$wire> for $name {
            type Json = Self;

            fn encode(wire: &wire::$wire, context: Context<'_>) -> Self {
                let wire::$wire { $($field,)* $($($unused: _,)+)? } = wire;
                Self { $($field: <$codec>::encode($field, context),)* }
            }

            fn decode(json: Self, base: Base) -> Result<wire::$wire, Bad> {
                let Self { $($field,)* } = json;
                Ok(wire::$wire {
                    $($field: <$codec>::decode($field, base)?,)*
                    $($($unused: $zero,)+)?
                })
            }
        }
    )*};
}

mirror! {
    /// A thread of a process.
    #[derive(Default)]
    Task = Task {
        /// The process.
        tgid: u32 = Number,
        /// The thread.
        tid: u32 = Number,
        /// Its name.
        comm: String = Name,
    }

    /// One look at a listener.
    Listener = ListenerView {
        /// Its name in this recording.
        sock: Option<u64> = Id,
        /// When.
        ns: Option<i64> = Moment,
        /// Connections that waited to be accepted.
        depth: u32 = Number,
        /// The effective backlog; one more than this fits.
        limit: u32 = Number,
        /// What it has dropped since it was made.
        drops: u32 = Number,
        /// How many listeners share the address.
        shared: u32 = Number,
        /// Handshakes that were not over.
        syn_queue: u32 = Number,
        /// Whether it is in another network namespace, or behind address translation.
        elsewhere: bool = Truth,
    }

    /// A reset that this host sent.
    Reset = Reset {
        /// When.
        ns: Option<i64> = Moment,
        /// The running kernel's number for its reason; 4294967295 for none.
        reason: u32 = Number,
        /// Whether no socket answered to the address.
        without_socket: bool = Truth,
        /// Whether a listener sent it.
        by_listener: bool = Truth,
        ; reserved = 0
    }

    /// Packets that this host dropped.
    #[derive(Default)]
    Drops = PacketDrop {
        /// When the last one was dropped.
        ns: Option<i64> = Moment,
        /// Why: 1 netfilter, 2 reverse path, 3 and 4 a full accept queue at the handshake's end and at the SYN, 5 a neighbour that
        /// did not answer; from 6 on other reasons of the kernel's, in the order of `DropReason`.
        reason: u32 = Number,
        /// How many.
        packets: u32 = Number,
    }

    /// An ICMP message.
    Icmp = Icmp {
        /// When.
        ns: Option<i64> = Moment,
        /// The errno that the kernel makes of it.
        errno: u32 = Number,
        /// Whether it is ICMPv6.
        is_v6: bool = Truth,
        /// Its type.
        kind: u8 = Number,
        /// Its code.
        code: u8 = Number,
    }

    /// A signal.
    #[derive(Default)]
    Signal = Signal {
        /// When it was sent.
        ns: Option<i64> = Moment,
        /// Its number.
        number: u32 = Number,
        /// Its `si_code`.
        code: i32 = Number,
        /// Who sent it, or whose death it was sent at.
        sender: Task = Task,
        /// Whether that is the victim's parent.
        from_parent: bool = Truth,
        /// Where it came from; null in recordings from before this was told.
        #[serde(default)]
        origin: Option<Origin> = Origins,
        /// Whether the kernel sent it because memory ran out.
        out_of_memory: bool = Truth,
    }

    /// Which signals that tell a program to stop had been sent by the time that a worker's end ended.
    Stops = Stops {
        /// To the process that closed it, which handled it.
        worker: Signal = Signal,
        /// To its parent, before that.
        parent: Signal = Signal,
        /// The parent.
        parent_task: Task = Task,
        /// The end of the process that had read the request, where its connection outlived it.
        #[serde(default)]
        gone: Gone = Gone,
    }

    /// The end of a worker whose connection another process held on.
    #[derive(Default)]
    Gone = Gone {
        /// When it ended; null for not.
        ns: Option<i64> = Moment,
        /// Its exit code: the signal in the low seven bits.
        exit_code: u32 = Number,
        /// The signal that it died of.
        signal: Signal = Signal,
        ; reserved = 0
    }

    /// The client of an exchange, as nginx's socket to it was when the exchange ended.
    #[derive(Default)]
    Client = Client {
        /// That socket's name in this recording.
        sock: Option<u64> = Id,
        /// Its address; null for one on a unix socket.
        peer: Option<String> = Address,
        /// That socket's state; null where it was gone.
        state: Option<String> = State,
        ; reserved = [0; 3]
    }

    /// nginx's end of an exchange. Moments are nanoseconds since the recording began.
    NginxEnd = NginxEnd {
        /// The socket's name in this recording; with `connect_ns` it names the connection.
        sock: Option<u64> = Id,
        /// The worker's socket.
        worker_sock: Option<u64> = Id,
        /// The network namespace's name in this recording.
        net: Option<u64> = Id,
        /// The first data bytes' sequence numbers, nginx's and the worker's: both hosts know both.
        handshake: Option<[u32; 2]> = Handshake,
        /// connect was called.
        connect_ns: Option<i64> = Moment,
        /// The handshake was over.
        established_ns: Option<i64> = Moment,
        /// The request was first sent from.
        first_sent_ns: Option<i64> = Moment,
        /// It was last sent from.
        last_sent_ns: Option<i64> = Moment,
        /// The response was first read from.
        first_received_ns: Option<i64> = Moment,
        /// It was last read from.
        last_received_ns: Option<i64> = Moment,
        /// This end ended.
        ended_ns: Option<i64> = Moment,
        /// Bytes sent in this exchange.
        sent: u64 = Number,
        /// Bytes read in this exchange.
        received: u64 = Number,
        /// Bytes that arrived over the whole connection; a FIN counts as one.
        arrived: u64 = Number,
        /// Bytes that arrived and were never read.
        unread: u32 = Number,
        /// Bytes that were never acknowledged.
        unacked: u32 = Number,
        /// Which exchange on this connection it is.
        exchange: u32 = Number,
        /// Retransmissions of the SYN.
        syn_retransmits: u32 = Number,
        /// Retransmissions in total.
        retransmits: u32 = Number,
        /// The error that ended it; zero where nginx closed of its own accord.
        error: u32 = Number,
        /// The closer's exit code, if it was exiting.
        exit_code: u32 = Number,
        /// What else is known.
        flags: Vec<Flag> = Flags,
        /// The state that it left.
        old_state: Option<String> = State,
        /// The state that it entered.
        new_state: Option<String> = State,
        /// The last errno that a call on this socket returned.
        errno: u16 = Number,
        /// The network namespace's inode number.
        netns: u32 = Number,
        /// nginx's own address.
        local: Option<String> = Address,
        /// Where nginx connected to.
        upstream: Option<String> = Address,
        /// The thread that connected.
        nginx: Task = Task,
        /// The listener when connect was called.
        listener_first: Listener = Listener,
        /// The listener at the last look.
        listener_last: Listener = Listener,
        /// The reset that this host sent to its handshake.
        reset: Reset = Reset,
        /// Packets of its handshake that this host dropped.
        dropped: Drops = Drops,
        /// The ICMP message that answered its SYN.
        icmp: Icmp = Icmp,
        /// nginx's word on this exchange was said: then it names a line of type `word`.
        word_ns: Option<i64> = Moment,
        /// The response before on the same connection was last read from; null of its first, and in recordings from before this was told.
        #[serde(default)]
        idle_since_ns: Option<i64> = Moment,
        /// The client whose request it served; unknown in recordings from before this was told.
        #[serde(default)]
        client: Client = Client,
        /// This host answered the upstream's next packet with a reset, for no socket took it; null for not, and in recordings from before this
        /// was told, as what follows is nothing.
        #[serde(default)]
        refused_ns: Option<i64> = Moment,
        /// This host dropped the upstream's next packet.
        #[serde(default)]
        lost_in: Drops = Drops,
        /// This host dropped nginx's first packet that was never acknowledged.
        #[serde(default)]
        lost_out: Drops = Drops,
        /// How far it is from the first byte that did not come to the end of those that came after it; zero where none is missing.
        #[serde(default)]
        gap: u32 = Number,
        /// Retransmissions of the worker's end, if that was open.
        #[serde(default)]
        worker_retransmits: u32 = Number,
    }

    /// The worker's end of an exchange. Moments are nanoseconds since the recording began.
    WorkerEnd = WorkerEnd {
        /// The socket's name in this recording.
        sock: Option<u64> = Id,
        /// nginx's socket, where nginx is on this host; with `connect_ns` it names the connection.
        nginx_sock: Option<u64> = Id,
        /// connect was called.
        connect_ns: Option<i64> = Moment,
        /// The kernel made this socket.
        created_ns: Option<i64> = Moment,
        /// A process took it up.
        accepted_ns: Option<i64> = Moment,
        /// nginx's end ended while this one was open.
        abandoned_ns: Option<i64> = Moment,
        /// This end ended.
        ended_ns: Option<i64> = Moment,
        /// Bytes that arrived; a FIN counts as one.
        arrived: u64 = Number,
        /// Bytes sent.
        sent: u64 = Number,
        /// Bytes that arrived and were never read; a FIN counts as one.
        unread: u32 = Number,
        /// The error that ended it; zero where a process closed it.
        error: u32 = Number,
        /// The closer's exit code, if it was exiting.
        exit_code: u32 = Number,
        /// Whether the closer was exiting.
        exiting: bool = Truth,
        /// Whether the socket had been handed to a process.
        has_socket: bool = Truth,
        /// The state that it left.
        old_state: Option<String> = State,
        /// The state that it entered.
        new_state: Option<String> = State,
        /// Its own address.
        local: Option<String> = Address,
        /// Who took it up.
        worker: Task = Task,
        /// Who closed it.
        closer: Task = Task,
        /// The signal that the closer died of.
        signal: Signal = Signal,
        ; reserved = 0, reserved2 = 0
    }
}
