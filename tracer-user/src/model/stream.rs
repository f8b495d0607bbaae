//! The stream of what was learnt, in the order in which it was: everything that verdicts rest on. Live tracing, recording and
//! replaying take in the same stream, and it needs nothing from the machine to be taken in again.

use wire::WordOf;

use crate::model::{
    answers::{Answer, Followed},
    cgroup::{Member, Wanted},
    clock::ClockOffset,
    doing::Look,
    facts::Sources,
    groups::Configured,
    inquiry::Inquiry,
    near::Near,
    pressure::Reading,
    record::Record,
    stranger::Stranger,
    upstream::Upstream,
};

/// One thing that was learnt.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The stream's own time (ns, monotonic), which never goes back: at that moment nothing was left to be read, so
    /// whatever was not learnt by then was not there by then.
    pub at_ns: u64,
    /// What it is.
    pub what: What,
}

/// Something that was learnt.
#[derive(Clone, Debug)]
pub enum What {
    /// The kernel side's record.
    Record(Record),
    /// What slow workers were found doing.
    Look(Look),
    /// A line of nginx's error log, where its word itself is not heard.
    Logged(Box<Logged>),
    /// Whether such lines are read from now on.
    Following(Following),
    /// Something that would have been learnt was lost.
    Loss(Loss),
    /// What the kernel side only counts.
    Counts(Counts),
    /// How many exchanges with one upstream have ended.
    Upstream(UpstreamCounts),
    /// How full a listener's accept queue was.
    Depth(Depth),
    /// Facts have these sources from now on.
    Sources(Sources),
    /// The offset between the two clocks has changed.
    Clock(ClockOffset),
    /// A process that has nginx's name and is not believed to be nginx.
    Stranger(Stranger),
    /// What was looked up about the failure that comes next.
    Inquiry(Inquiry),
    /// What nginx's configuration says of its groups of upstreams.
    Groups(Configured),
    /// What the kernel counts of shortages, while nginx waits for somebody.
    Pressure(Reading),
    /// Who a process is that a record names, which comes after it.
    Member(Member),
    /// A status that a client got, and that is accounted for.
    Answer(Box<Answer>),
    /// Whether the access logs are followed that have these.
    AccessLogs(Followed),
    /// Who listens near an upstream at which nobody does.
    Near(Near),
    /// The tracing is over: what still waits for something to follow waits no longer.
    End,
}

/// Whether nginx's error log is read in place of its word, from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Following {
    /// Whether it is.
    pub is_followed: bool,
    /// How often it has come to that, since the tracing began, because hearing nginx's word had become too dear.
    pub stepped_back: u64,
}

/// nginx's word as its error log has it.
#[derive(Clone, Debug)]
pub struct Logged {
    /// The word. It was said before its moment, which is the one at which the log was read.
    pub word: WordOf,
    /// The upstream that the line names, if it names one.
    pub upstream: Option<Upstream>,
}

/// Where a stream begins.
#[derive(Clone, Debug)]
pub struct Start {
    /// When the recording or the tracing began (ns, monotonic).
    pub started_ns: u64,
    /// When the part of it began that is known.
    pub begins_ns: u64,
    /// What was counted until then.
    pub counts: Counts,
    /// The clocks' offset.
    pub clock_offset: ClockOffset,
    /// The hook that sees each fact.
    pub sources: Sources,
    /// After how many failures nothing more is emitted.
    pub limit: Option<u64>,
    /// Whether only some upstreams were asked for: what nginx says of connections to others is none of it.
    pub is_narrowed: bool,
    /// Whose verdicts are emitted.
    pub wanted: Wanted,
}

/// What was lost, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// When it was noticed (ns, monotonic): exchanges that began before may lack facts.
    pub ns: u64,
    /// Why.
    pub reason: LossReason,
    /// How much, since the loss before for this reason.
    pub count: u64,
}

/// Why something was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LossReason {
    /// Records that the full ring buffer refused.
    RingFull,
    /// Worker ends that were not watched because too many were open at once.
    WorkersUntracked,
    /// Events that interrupted the very program that was to see them.
    Missed,
    /// Records that could not be decoded.
    Undecoded,
    /// Lines of evidence that could not be written.
    Unwritten,
    /// Lines of evidence that could not be read.
    Unread,
    /// Workers whose deaths and signals found no room in the kernel side's table.
    ProcessesUnkept,
    /// Signals that a worker died of and that found no room there, or were pushed out.
    SignalsUnkept,
    /// Resets and dropped packets that others may have pushed out.
    PacketsUnkept,
    /// Acts of nginx that could not be awaited.
    ActsUnkept,
}

impl LossReason {
    /// Every reason with its name in evidence.
    pub const ALL: [(&'static str, Self); 10] = [
        ("ring_full", Self::RingFull),
        ("workers_untracked", Self::WorkersUntracked),
        ("missed", Self::Missed),
        ("undecoded", Self::Undecoded),
        ("unwritten", Self::Unwritten),
        ("unread", Self::Unread),
        ("processes_unkept", Self::ProcessesUnkept),
        ("signals_unkept", Self::SignalsUnkept),
        ("packets_unkept", Self::PacketsUnkept),
        ("acts_unkept", Self::ActsUnkept),
    ];

    /// Whether the exchanges that it touches bear a mark of their own ([`wire::nginx_flag::FACTS_LOST`],
    /// [`wire::Origin::Lost`]): the others have all of their facts.
    pub fn is_marked(self) -> bool {
        matches!(self, Self::ProcessesUnkept | Self::SignalsUnkept | Self::PacketsUnkept | Self::ActsUnkept)
    }

    /// Its name in evidence.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, reason)| *reason == self).map_or("unread", |(name, _)| name)
    }
}

/// The kernel side's counters that no verdict rests on, since the tracing began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Exchanges that passed the filters and have ended.
    pub exchanges: u64,
    /// Connections that passed the filters.
    pub connections: u64,
    /// Connections that were not watched because too many were open at once.
    pub untracked: u64,
    /// Connections that were not watched because their process has nginx's name and is not believed to be nginx.
    pub strangers: u64,
    /// Upstreams whose exchanges are not counted one by one any more, because there were too many.
    pub upstreams_left_out: u64,
    /// Words that name no upstream, where only some were asked for (`-u`).
    pub words_left_out: u64,
}

/// Exchanges with one upstream that have ended, since the tracing began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamCounts {
    /// When they were read (ns, monotonic).
    pub ns: u64,
    /// The upstream.
    pub upstream: Upstream,
    /// Well or not.
    pub exchanges: u64,
}

/// One look at a listener's accept queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Depth {
    /// When it was (ns, monotonic).
    pub ns: u64,
    /// Where it listens.
    pub listener: Upstream,
    /// Connections that wait to be accepted.
    pub depth: u32,
    /// The effective backlog; one connection more than this fits.
    pub limit: u32,
}
