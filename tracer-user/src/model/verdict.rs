//! What the program says of one failed exchange: the model that every output renders.

use std::net::SocketAddr;

use crate::model::{
    answers::Answers,
    audit::{Listed, Unexplained},
    cause::Cause,
    cgroup::Places,
    pressure::Pressure,
    stranger::Stranger,
    upstream::Upstream,
};

/// How sure a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Confidence {
    /// Both ends were seen.
    Proven,
    /// One end was seen, and the rule says how the other follows.
    Inferred,
    /// Records were lost, or a hook that this verdict needs is missing on this kernel.
    Incomplete,
}

impl Confidence {
    /// The word of the JSON contract.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Proven => "proven",
            Self::Inferred => "inferred",
            Self::Incomplete => "incomplete",
        }
    }
}

/// A process as it was named when it acted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its pid.
    pub pid: u32,
    /// Its name, at most 15 bytes.
    pub comm: String,
}

/// What nginx said of an upstream: one line of its error log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// How important it is to nginx: `error`, `crit`, `alert` or `emerg`.
    pub level: &'static str,
    /// The errno in it, if there is one.
    pub errno: Option<u32>,
    /// The message, without the errno.
    pub message: String,
    /// What nginx was doing: what stands behind "while".
    pub doing: Option<String>,
    /// The number of the client's connection, behind the asterisk.
    pub connection: u64,
}

/// When nginx leaves a server of a group alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// After so many failures; zero for never (`max_fails`).
    pub max_fails: u32,
    /// Within this time, and then for as long, in seconds (`fail_timeout`).
    pub fail_timeout_s: u32,
}

/// The last failure of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its verdict.
    pub cause: Cause,
    /// How long ago, in nanoseconds.
    pub ago_ns: u64,
}

/// A server of a group that nginx left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfUse {
    /// Where it is.
    pub upstream: Upstream,
    /// What took it out; none where `down` or `max_conns` did.
    pub failed: Option<Failed>,
    /// What the configuration says of it; none where that is not known.
    pub limits: Option<Limits>,
    /// Whether the configuration marks it `down`.
    pub is_down: bool,
}

/// Something that nginx logs of an upstream and that is no failure: a FastCGI application wrote to its standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// When, in nanoseconds since 1970.
    pub unix_ns: i64,
    /// The nginx worker.
    pub nginx: Process,
    /// Where the application runs; none where nginx was not seen to read from it.
    pub upstream: Option<Upstream>,
    /// What nginx said, without what the application wrote.
    pub word: Word,
    /// The control group of nginx, if it is known.
    pub places: Places,
    /// In one sentence.
    pub explanation: String,
}

/// The process that served, or should have served, the exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Who it is.
    pub process: Process,
    /// The signal it died of (`SIGKILL`), if it died of one while it had the exchange, or that told it to stop (`worker_stopped`).
    pub signal: Option<String>,
    /// What it was found doing, if the exchange was slow enough to be looked at.
    pub doing: Option<Doing>,
}

/// What a worker was found doing, in samples taken about once a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doing {
    /// How many samples there are.
    pub samples: u32,
    /// What it waited on, and in how many samples: the most frequent first.
    pub waits: Vec<(String, u32)>,
    /// In how many it ran on a CPU.
    pub running: u32,
}

/// Moments of an exchange, in microseconds since connect was called; `None` for what did not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moments {
    /// The handshake was over.
    pub connected: Option<i64>,
    /// A worker took it up.
    pub accepted: Option<i64>,
    /// nginx first sent of the request.
    pub first_sent: Option<i64>,
    /// nginx first read of the response.
    pub first_received: Option<i64>,
    /// nginx's end ended.
    pub ended: Option<i64>,
    /// The worker's end ended.
    pub worker_ended: Option<i64>,
}

/// Bytes of an exchange, as nginx's end saw them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Sent by nginx.
    pub sent: u64,
    /// Read by nginx.
    pub received: u64,
    /// Sent by nginx and never read by the worker; unknown where the worker's end was not seen.
    pub unread: Option<u64>,
}

/// A listener's accept queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Connections waiting.
    pub depth: u32,
    /// The effective backlog; one more than this fits.
    pub limit: u32,
}

/// An exchange of another nginx, or of the same one, whose request led to this one: nginx before nginx. Its own verdict, if it has one,
/// says the same of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outer {
    /// The nginx worker that asked.
    pub nginx: Process,
    /// Its own address; none on a unix socket.
    pub local: Option<SocketAddr>,
    /// Where it asked.
    pub upstream: Upstream,
}

/// One fact under a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// When, in microseconds since connect was called; negative before it.
    pub us: i64,
    /// The hook that saw it, as in `raw_tp/signal_generate`.
    pub source: String,
    /// The fact in words.
    pub fact: String,
}

/// Why one exchange failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// When nginx's end ended, in nanoseconds since 1970.
    pub unix_ns: i64,
    /// The cause and its finer kind.
    pub cause: Cause,
    /// How sure this is.
    pub confidence: Confidence,
    /// The nginx worker.
    pub nginx: Process,
    /// nginx's own address, where there is one.
    pub local: Option<SocketAddr>,
    /// Where the exchange went.
    pub upstream: Upstream,
    /// Equal for the exchanges that nginx is known to have tried one after the other for one request; `None` where no
    /// other try was seen.
    pub request: Option<u64>,
    /// What nginx answers, or logs as `$upstream_status`; `None` where it answers nothing.
    pub status: Option<u16>,
    /// The name of the error nginx met (`ECONNRESET`), or of the one it logs for its own timers (`ETIMEDOUT`).
    pub errno: Option<String>,
    /// What nginx writes to its error log, in its words.
    pub error_log: Option<String>,
    /// What nginx said of it, if that was heard.
    pub word: Option<Word>,
    /// The servers that nginx left alone, where it found none of a group alive; cut at [`crate::model::budget::SERVERS_TOLD`].
    pub servers: Vec<OutOfUse>,
    /// The exchange of another nginx's that this one was for, where that is sure.
    pub outer: Option<Outer>,
    /// Who served it.
    pub worker: Option<Worker>,
    /// Who sent the signal that the worker died of, or that told it to stop.
    pub killer: Option<Process>,
    /// The control groups of these processes, as far as they are known.
    pub places: Places,
    /// What was short while nginx waited; none where that was not measured, or does not matter.
    pub pressure: Option<Pressure>,
    /// When what happened.
    pub moments: Moments,
    /// How much went where.
    pub bytes: Bytes,
    /// The listener's accept queue at the moment that matters.
    pub queue: Option<Queue>,
    /// What its connection had served before, if it was kept.
    pub kept: Option<Kept>,
    /// Who listens near an upstream at which nobody does: on its port or under its name; at most [`crate::model::budget::NEIGHBOURS`]. None where
    /// that was not looked for.
    pub near: Option<Vec<Neighbour>>,
    /// The listener that was closed there within the last minute; none where none was seen to be.
    pub closed: Option<Closed>,
    /// Who holds the listener in whose queue nginx waited, or which it found full; at most [`crate::model::budget::HOLDERS`]. None where that was not
    /// looked for.
    pub holders: Option<Vec<Holder>>,
    /// When an upstream that nothing answers for was last reached; none where that is not known, or no matter.
    pub reached: Option<Reached>,
    /// The facts, in the order of time.
    pub evidence: Vec<Evidence>,
    /// What happened, in one sentence that can be read aloud.
    pub explanation: String,
    /// Which setting to look at.
    pub advice: String,
}

/// A listener that is near an upstream at which nobody listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The oldest process that holds it.
    pub process: Process,
    /// Where it listens.
    pub listens: Upstream,
    /// Whether that is in another network namespace than nginx's, or for a unix socket another mount namespace.
    pub is_elsewhere: bool,
}

/// A listener that was closed before nginx asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The process that closed it, as the last one that held it.
    pub process: Process,
    /// When, in microseconds from connect: less than zero, mostly.
    pub us: i64,
    /// Since when somebody listens there again; none where nobody did yet.
    pub again_us: Option<i64>,
    /// The signal that the process died of, if it closed it by that.
    pub signal: Option<String>,
    /// Where else processes of that name listen.
    pub namesakes: Vec<Neighbour>,
}

/// When an upstream was last reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// When, in microseconds from the moment at which nginx asked: less than zero, mostly.
    pub us: i64,
    /// Who knows it.
    pub by: ReachedBy,
}

/// Who knows when an upstream was last reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReachedBy {
    /// An exchange of nginx's that had a connection to it, and that was recorded, since it failed or was late.
    Exchange,
    /// The kernel (`tcp_metrics`): a TCP connection with its address, of whatever port and process.
    TcpMetrics,
}

impl ReachedBy {
    /// As JSON has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::TcpMetrics => "tcp_metrics",
        }
    }
}

/// A process that holds a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub process: Process,
    /// What it did: `slept (nanosleep)`; none where that could not be found out.
    pub doing: Option<String>,
}

/// How many of the connections that an upstream closed under a request had been idle for about the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alike {
    /// The last such closes, this one included; at most [`crate::model::budget::IDLE_CLOSES`] and one.
    pub closes: u32,
    /// Those whose idle time is about this one's.
    pub alike: u32,
    /// Whether those came at different moments: what closes all connections at once is no timer of each.
    pub are_spread: bool,
}

/// A connection that was kept from an earlier exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Which of its exchanges this is, from 2.
    pub exchange: u32,
    /// How long it had been idle when the request was sent, in microseconds; none where that was not emitted yet.
    pub idle_us: Option<u64>,
    /// How long it had been idle when the upstream closed it under the request (`stale_keepalive`), in microseconds.
    pub closed_after_us: Option<u64>,
    /// How the upstream's last such closes compare with this one.
    pub alike: Option<Alike>,
}

impl Verdict {
    /// The bytes of all its texts that may be long.
    pub fn text_bytes(&self) -> usize {
        let evidence = self.evidence.iter().map(|one| one.source.len() + one.fact.len());
        let doing = self.worker.iter().filter_map(|worker| worker.doing.as_ref());
        let waits = doing.flat_map(|doing| &doing.waits).map(|(on, _)| on.len());
        self.explanation.len() + self.advice.len() + evidence.chain(waits).sum::<usize>()
    }
}

/// An exchange that succeeded but was held up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delayed {
    /// When nginx's end ended, in nanoseconds since 1970.
    pub unix_ns: i64,
    /// The nginx worker.
    pub nginx: Process,
    /// Where the exchange went.
    pub upstream: Upstream,
    /// How long the connection took to come about, in microseconds.
    pub delay_us: u64,
    /// How often the SYN was sent again.
    pub syn_retransmits: u32,
    /// The listener's accept queue when the first SYN went out.
    pub queue: Option<Queue>,
    /// The control group of nginx, if it is known.
    pub places: Places,
    /// What was short while nginx connected; none where that was not measured.
    pub pressure: Option<Pressure>,
    /// What happened, in one sentence.
    pub explanation: String,
}

/// What a worker did after nginx gave its exchange up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerOutlived {
    /// When the worker's end ended, in nanoseconds since 1970.
    pub unix_ns: i64,
    /// nginx's pid, as in the exchange's verdict.
    pub nginx: u32,
    /// nginx's own address, as in the exchange's verdict.
    pub local: Option<SocketAddr>,
    /// Where the exchange went.
    pub upstream: Upstream,
    /// Who had it, if anybody.
    pub worker: Option<Process>,
    /// From nginx's giving up to the end of the worker's end, in microseconds.
    pub went_on_us: u64,
    /// Whether a worker took the request up only after nginx had given up.
    pub accepted_late: bool,
    /// The control group of the worker, if it is known.
    pub places: Places,
    /// What happened, in one sentence.
    pub explanation: String,
}

/// What a whole run amounts to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How long the run was, in nanoseconds.
    pub elapsed_ns: u64,
    /// Exchanges that passed the filters and have ended.
    pub exchanges: u64,
    /// Verdicts by cause, in the order of the table of causes.
    pub failures: Vec<(Cause, u64)>,
    /// Exchanges that succeeded late.
    pub delayed: u64,
    /// Exchanges that nginx ended before their response was over and logged nothing about: no failures.
    pub ended_early: u64,
    /// Records that the kernel could not hand over, so that many facts are missing.
    pub lost: u64,
    /// What was learnt of exchanges that nginx had given up and of slow workers, and could not be kept: no verdict is wrong for it, but
    /// says less.
    pub forgotten: u64,
    /// Connections that were not watched because too many were open at once.
    pub untracked: u64,
    /// Connections that were not watched because their process has nginx's name and is not believed to be nginx.
    pub strangers: u64,
    /// Such processes, as far as they are named.
    pub named_strangers: Vec<Stranger>,
    /// How often nginx's log was followed for a while because hearing its word had become too dear.
    pub stepped_back: u64,
    /// Whether the host's system calls were watched, which slows each of them a little.
    pub system_calls: bool,
    /// What nginx said of upstreams; none where that was not heard.
    pub words: Option<Words>,
    /// Each 499, 502, 503 and 504 that a client got; none where no access log was followed.
    pub answers: Option<Answers>,
}

/// What nginx said of upstreams, and what became of each word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Words about failures.
    pub said: u64,
    /// Those that have their verdict.
    pub explained: u64,
    /// Those that have none.
    pub unexplained: Listed<Unexplained>,
    /// Words that are about no failure, each emitted as a note.
    pub notes: u64,
    /// Words that name no upstream and may be about others than those that were asked for: not emitted.
    pub left_out: u64,
}

impl Words {
    /// Adds those of another recording.
    pub fn add(&mut self, other: Self) {
        let Self { said, explained, unexplained, notes, left_out } = other;
        self.said += said;
        self.explained += explained;
        self.unexplained.add(unexplained);
        self.notes += notes;
        self.left_out += left_out;
    }
}
