//! What hooks see, and which hook sees it on the running kernel.

use std::collections::BTreeMap;

macro_rules! facts {
    ($($(#[$doc:meta])* $fact:ident = $name:literal, $meaning:literal;)*) => {
        /// Something that a hook sees.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Fact {
            $($(#[$doc])* $fact,)*
        }

        impl Fact {
            /// Every fact.
            pub const ALL: &'static [Self] = &[$(Self::$fact,)*];

            /// The fact's name in evidence.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$fact => $name,)*
                }
            }

            /// The fact in words, as in "who sent a signal to whom".
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$fact => $meaning,)*
                }
            }
        }
    };
}

// Each with its name in evidence, and in words; the hooks that see it are in `load/hooks.rs` (`plan`).
facts! {
    /// Connections come and go.
    States = "states", "connections come and go";
    /// nginx's SYN is about to be sent.
    Connects = "connects", "nginx's SYN is made";
    /// Bytes go out, and what nginx does after it closed.
    Sends = "sends", "bytes sent, and what nginx does next";
    /// Bytes are read.
    Receives = "receives", "bytes read";
    /// Who accepts a connection.
    Accepts = "accepts", "who accepts a connection";
    /// A SYN meets a full accept queue.
    SynDrops = "syn_drops", "a SYN meets a full accept queue";
    /// The end of a handshake meets a full accept queue.
    HandshakeDrops = "handshake_drops", "the end of a handshake meets a full accept queue";
    /// A reset was sent, and whether a socket was there.
    ResetsSent = "resets_sent", "a reset is sent, and whether a socket was there";
    /// A reset arrived.
    ResetsReceived = "resets_received", "a reset arrives";
    /// An ICMP message answers a SYN.
    Icmp = "icmp", "an ICMP message answers a SYN";
    /// A SYN went out again.
    Retransmits = "retransmits", "a SYN goes out again";
    /// A socket that was reset earlier is closed.
    Destroys = "destroys", "a socket that was reset is closed";
    /// Who sent a signal to whom.
    Signals = "signals", "who sent a signal to whom";
    /// How a process ended.
    Deaths = "deaths", "how a process ended";
    /// The kernel chose a victim because memory ran out.
    OomVictims = "oom_victims", "whom the kernel kills because memory ran out";
    /// A packet was dropped, and why.
    PacketDrops = "packet_drops", "a packet is dropped, and why";
    /// Unix sockets connect and end.
    UnixSockets = "unix_sockets", "unix sockets connect and end";
    /// A connect that failed before a packet was sent.
    ConnectErrors = "connect_errors", "a connect fails before a packet is sent";
    /// What nginx says of its upstreams.
    Words = "words", "what nginx logs about its upstreams";
}

/// Begins the name of a source that is a system call.
const SYSTEM_CALLS: &str = "tracepoint/syscalls/";

/// The source of each fact that is seen, as in `raw_tp/signal_generate`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(BTreeMap<Fact, String>);

impl Sources {
    /// Notes that a fact has this source from now on.
    pub fn set(&mut self, fact: Fact, source: String) {
        self.0.insert(fact, source);
    }

    /// Whether the fact is seen at all.
    pub fn has(&self, fact: Fact) -> bool {
        self.0.contains_key(&fact)
    }

    /// The fact's source.
    pub fn name(&self, fact: Fact) -> &str {
        self.0.get(&fact).map_or("kernel", String::as_str)
    }

    /// Whether a fact is seen by watching every system call of some kind, which slows all of the host's a little.
    pub fn are_system_calls(&self) -> bool {
        self.0.values().any(|source| source.starts_with(SYSTEM_CALLS))
    }

    /// Each fact that is seen, with its source.
    pub fn iter(&self) -> impl Iterator<Item = (Fact, &str)> {
        self.0.iter().map(|(fact, source)| (*fact, source.as_str()))
    }
}
