//! What hooks see, and which hook sees it on the running kernel.

use std::collections::BTreeMap;

/// Something that a hook sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fact {
    /// Connections come and go.
    States,
    /// nginx's SYN is about to be sent.
    Connects,
    /// Bytes go out, and what nginx does after it closed.
    Sends,
    /// Bytes are read.
    Receives,
    /// Who accepts a connection.
    Accepts,
    /// A SYN meets a full accept queue.
    SynDrops,
    /// The end of a handshake meets a full accept queue.
    HandshakeDrops,
    /// A reset was sent, and whether a socket was there.
    ResetsSent,
    /// A reset arrived.
    ResetsReceived,
    /// An ICMP message answers a SYN.
    Icmp,
    /// A SYN went out again.
    Retransmits,
    /// A socket that was reset earlier is closed.
    Destroys,
    /// Who sent a signal to whom.
    Signals,
    /// How a process ended.
    Deaths,
    /// The kernel chose a victim because memory ran out.
    OomVictims,
    /// A packet was dropped, and why.
    PacketDrops,
    /// Unix sockets connect and end.
    UnixSockets,
    /// A connect that failed before a packet was sent.
    ConnectErrors,
    /// What nginx says of its upstreams.
    Words,
}

impl Fact {
    /// Every fact.
    pub const ALL: &'static [Self] = &[
        Self::States,
        Self::Connects,
        Self::Sends,
        Self::Receives,
        Self::Accepts,
        Self::SynDrops,
        Self::HandshakeDrops,
        Self::ResetsSent,
        Self::ResetsReceived,
        Self::Icmp,
        Self::Retransmits,
        Self::Destroys,
        Self::Signals,
        Self::Deaths,
        Self::OomVictims,
        Self::PacketDrops,
        Self::UnixSockets,
        Self::ConnectErrors,
        Self::Words,
    ];

    /// The fact's name in evidence.
    pub const fn name(self) -> &'static str {
        match self {
            Self::States => "states",
            Self::Connects => "connects",
            Self::Sends => "sends",
            Self::Receives => "receives",
            Self::Accepts => "accepts",
            Self::SynDrops => "syn_drops",
            Self::HandshakeDrops => "handshake_drops",
            Self::ResetsSent => "resets_sent",
            Self::ResetsReceived => "resets_received",
            Self::Icmp => "icmp",
            Self::Retransmits => "retransmits",
            Self::Destroys => "destroys",
            Self::Signals => "signals",
            Self::Deaths => "deaths",
            Self::OomVictims => "oom_victims",
            Self::PacketDrops => "packet_drops",
            Self::UnixSockets => "unix_sockets",
            Self::ConnectErrors => "connect_errors",
            Self::Words => "words",
        }
    }

    /// The fact in words, as in "who sent a signal to whom".
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::States => "connections come and go",
            Self::Connects => "nginx's SYN is made",
            Self::Sends => "bytes sent, and what nginx does next",
            Self::Receives => "bytes read",
            Self::Accepts => "who accepts a connection",
            Self::SynDrops => "a SYN meets a full accept queue",
            Self::HandshakeDrops => "the end of a handshake meets a full accept queue",
            Self::ResetsSent => "a reset is sent, and whether a socket was there",
            Self::ResetsReceived => "a reset arrives",
            Self::Icmp => "an ICMP message answers a SYN",
            Self::Retransmits => "a SYN goes out again",
            Self::Destroys => "a socket that was reset is closed",
            Self::Signals => "who sent a signal to whom",
            Self::Deaths => "how a process ended",
            Self::OomVictims => "whom the kernel kills because memory ran out",
            Self::PacketDrops => "a packet is dropped, and why",
            Self::UnixSockets => "unix sockets connect and end",
            Self::ConnectErrors => "a connect fails before a packet is sent",
            Self::Words => "what nginx logs about its upstreams",
        }
    }
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
