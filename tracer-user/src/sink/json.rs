//! JSON Lines: a contract with the programs that read it.
//!
//! The types here stand apart from the model, so that a rename inside never reaches a reader. Fields are written in the order
//! in which they stand; what is unknown is null and never left out.

use std::io::{self, Write};

use serde::Serialize;

use super::Sink;
use crate::model::{audit, cgroup::Places, upstream, verdict, words::time};
use home::Home;
use pressure::Pressure;
use run::{Audit, Summary};

mod answers;
mod home;
mod pressure;
mod run;

/// The version of the contract.
const VERSION: u32 = 1;

/// Writes one JSON object per line.
#[derive(Debug)]
pub struct Json<W> {
    out: W,
    line: Vec<u8>,
}

impl<W: Write> Json<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, line: Vec::new() }
    }

    fn line(&mut self, object: &impl Serialize) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, object)?;
        self.line.push(b'\n');
        self.out.write_all(&self.line)
    }
}

impl<W: Write> Sink for Json<W> {
    fn verdict(&mut self, verdict: &verdict::Verdict) -> io::Result<()> {
        self.line(&Verdict::from(verdict))
    }

    fn delayed(&mut self, delayed: &verdict::Delayed) -> io::Result<()> {
        self.line(&Delayed::from(delayed))
    }

    fn worker_outlived(&mut self, after: &verdict::WorkerOutlived) -> io::Result<()> {
        self.line(&After::from(after))
    }

    fn note(&mut self, note: &verdict::Note) -> io::Result<()> {
        self.line(&Note::from(note))
    }

    fn answer(&mut self, answered: &crate::model::answers::Answered) -> io::Result<()> {
        self.line(&answers::Answer::from(answered))
    }

    fn audit(&mut self, report: &audit::Report) -> io::Result<()> {
        self.line(&Audit::from(report))
    }

    fn summary(&mut self, summary: &verdict::Summary) -> io::Result<()> {
        self.line(&Summary::from(summary))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Verdict<'a> {
    #[cfg_attr(test, schemars(extend("const" = VERSION)))]
    v: u32,
    #[cfg_attr(test, schemars(extend("const" = "verdict")))]
    r#type: &'static str,
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    time: String,
    cause: &'static str,
    detail: &'static str,
    #[cfg_attr(test, schemars(extend("enum" = ["proven", "inferred", "incomplete"])))]
    confidence: &'static str,
    nginx: Nginx<'a>,
    upstream: Option<Upstream>,
    group: Option<&'a str>,
    request: Option<u64>,
    status: Option<u16>,
    errno: Option<&'a str>,
    error_log: Option<&'a str>,
    word: Option<Word<'a>>,
    servers: Vec<OutOfUse>,
    outer: Option<Outer<'a>>,
    worker: Option<Worker<'a>>,
    killer: Option<Process<'a>>,
    pressure: Option<Pressure<'a>>,
    us: Moments,
    bytes: Bytes,
    queue: Option<Queue>,
    kept: Option<Kept>,
    near: Option<Vec<Neighbour<'a>>>,
    closed: Option<Closed<'a>>,
    holders: Option<Vec<Holder<'a>>>,
    reached: Option<Reached>,
    evidence: Vec<Evidence<'a>>,
    explanation: &'a str,
    advice: &'a str,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Outer<'a> {
    nginx: Nginx<'a>,
    upstream: Upstream,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Delayed<'a> {
    #[cfg_attr(test, schemars(extend("const" = VERSION)))]
    v: u32,
    #[cfg_attr(test, schemars(extend("const" = "delayed")))]
    r#type: &'static str,
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    time: String,
    nginx: Process<'a>,
    upstream: Upstream,
    delay_us: u64,
    syn_retransmits: u32,
    queue: Option<Queue>,
    pressure: Option<Pressure<'a>>,
    explanation: &'a str,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct After<'a> {
    #[cfg_attr(test, schemars(extend("const" = VERSION)))]
    v: u32,
    #[cfg_attr(test, schemars(extend("const" = "after")))]
    r#type: &'static str,
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    time: String,
    nginx: AfterNginx,
    upstream: Upstream,
    worker: Option<Process<'a>>,
    went_on_us: u64,
    accepted_late: bool,
    explanation: &'a str,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Note<'a> {
    #[cfg_attr(test, schemars(extend("const" = VERSION)))]
    v: u32,
    #[cfg_attr(test, schemars(extend("const" = "note")))]
    r#type: &'static str,
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    time: String,
    nginx: Process<'a>,
    upstream: Option<Upstream>,
    word: Word<'a>,
    explanation: &'a str,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct AfterNginx {
    pid: u32,
    local: Option<String>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Nginx<'a> {
    pid: u32,
    comm: &'a str,
    #[serde(flatten)]
    home: Home<'a>,
    local: Option<String>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Process<'a> {
    pid: u32,
    comm: &'a str,
    #[serde(flatten)]
    home: Home<'a>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Worker<'a> {
    pid: u32,
    comm: &'a str,
    #[serde(flatten)]
    home: Home<'a>,
    signal: Option<&'a str>,
    doing: Option<Doing<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Word<'a> {
    level: &'a str,
    errno: Option<u32>,
    message: &'a str,
    r#while: Option<&'a str>,
    connection: u64,
}

/// A server that nginx left alone.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct OutOfUse {
    upstream: Upstream,
    cause: Option<&'static str>,
    detail: Option<&'static str>,
    ago_us: Option<u64>,
    down: bool,
    max_fails: Option<u32>,
    fail_timeout_us: Option<u64>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Doing<'a> {
    samples: u32,
    waits: Vec<Wait<'a>>,
    running: u32,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Wait<'a> {
    on: &'a str,
    samples: u32,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Upstream {
    #[cfg_attr(test, schemars(extend("enum" = ["inet", "inet6", "unix"])))]
    family: &'static str,
    addr: String,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Moments {
    connected: Option<i64>,
    accepted: Option<i64>,
    first_sent: Option<i64>,
    first_received: Option<i64>,
    ended: Option<i64>,
    worker_ended: Option<i64>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Bytes {
    sent: u64,
    received: u64,
    unread: Option<u64>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Queue {
    depth: u32,
    limit: u32,
}

/// A listener near an upstream at which nobody listens.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Neighbour<'a> {
    pid: u32,
    comm: &'a str,
    addr: String,
    elsewhere: bool,
}

/// A listener that was closed before nginx asked.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Closed<'a> {
    pid: u32,
    comm: &'a str,
    us: i64,
    again_us: Option<i64>,
    signal: Option<&'a str>,
    namesakes: Vec<Neighbour<'a>>,
}

/// A process that holds a listener.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Holder<'a> {
    pid: u32,
    comm: &'a str,
    doing: Option<&'a str>,
}

/// When an upstream was last reached.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Reached {
    us: i64,
    by: &'static str,
}

/// A connection that was kept from an earlier exchange.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Kept {
    exchange: u32,
    idle_us: Option<u64>,
    closed_after_us: Option<u64>,
    closes: Option<u32>,
    alike: Option<u32>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Evidence<'a> {
    us: i64,
    source: &'a str,
    fact: &'a str,
}

// The model is taken apart in full below, so that whoever adds a field to it must decide what readers get to see.

impl<'a> From<&'a verdict::Verdict> for Verdict<'a> {
    fn from(verdict: &'a verdict::Verdict) -> Self {
        let verdict::Verdict {
            unix_ns,
            cause,
            confidence,
            nginx: verdict::Process { pid, comm },
            local,
            upstream,
            request,
            status,
            errno,
            error_log,
            word,
            servers,
            outer,
            worker,
            killer,
            places,
            pressure,
            moments,
            bytes,
            queue,
            kept,
            near,
            closed,
            holders,
            reached,
            evidence,
            explanation,
            advice,
        } = verdict;
        Self {
            v: VERSION,
            r#type: "verdict",
            time: time(*unix_ns),
            cause: cause.cause(),
            detail: cause.detail(),
            confidence: confidence.name(),
            nginx: Nginx {
                pid: *pid,
                comm,
                home: Home::of(*pid, places),
                local: local.map(|local| local.to_string()),
            },
            upstream: Upstream::of(upstream),
            group: group(upstream),
            request: *request,
            status: *status,
            errno: errno.as_deref(),
            error_log: error_log.as_deref(),
            word: word.as_ref().map(Word::from),
            servers: servers.iter().map(OutOfUse::from).collect(),
            outer: outer.as_ref().map(|outer| Outer::of(outer, places)),
            worker: worker.as_ref().map(|worker| Worker::of(worker, places)),
            killer: killer.as_ref().map(|killer| Process::of(killer, places)),
            pressure: pressure.as_ref().map(Pressure::from),
            us: moments.into(),
            bytes: bytes.into(),
            queue: queue.as_ref().map(Queue::from),
            kept: kept.as_ref().map(Kept::from),
            near: near.as_ref().map(|near| near.iter().map(Neighbour::from).collect()),
            closed: closed.as_ref().map(Closed::from),
            holders: holders.as_ref().map(|holders| holders.iter().map(Holder::from).collect()),
            reached: reached.map(|verdict::Reached { us, by }| Reached { us, by: by.name() }),
            evidence: evidence.iter().map(Evidence::from).collect(),
            explanation,
            advice,
        }
    }
}

impl<'a> From<&'a verdict::Neighbour> for Neighbour<'a> {
    fn from(neighbour: &'a verdict::Neighbour) -> Self {
        let verdict::Neighbour { process: verdict::Process { pid, comm }, listens, is_elsewhere } = neighbour;
        Self { pid: *pid, comm, addr: listens.to_string(), elsewhere: *is_elsewhere }
    }
}

impl<'a> From<&'a verdict::Closed> for Closed<'a> {
    fn from(closed: &'a verdict::Closed) -> Self {
        let verdict::Closed { process: verdict::Process { pid, comm }, us, again_us, signal, namesakes } =
            closed;
        let namesakes = namesakes.iter().map(Neighbour::from).collect();
        Self { pid: *pid, comm, us: *us, again_us: *again_us, signal: signal.as_deref(), namesakes }
    }
}

impl<'a> From<&'a verdict::Holder> for Holder<'a> {
    fn from(holder: &'a verdict::Holder) -> Self {
        let verdict::Holder { process: verdict::Process { pid, comm }, doing } = holder;
        Self { pid: *pid, comm, doing: doing.as_deref() }
    }
}

impl From<&verdict::Kept> for Kept {
    fn from(kept: &verdict::Kept) -> Self {
        let verdict::Kept { exchange, idle_us, closed_after_us, alike } = *kept;
        Self {
            exchange,
            idle_us,
            closed_after_us,
            closes: alike.map(|alike| alike.closes),
            alike: alike.map(|alike| alike.alike),
        }
    }
}

impl<'a> Outer<'a> {
    fn of(outer: &'a verdict::Outer, places: &'a Places) -> Self {
        let verdict::Outer { nginx: verdict::Process { pid, comm }, local, upstream } = outer;
        Self {
            nginx: Nginx {
                pid: *pid,
                comm,
                home: Home::of(*pid, places),
                local: local.map(|local| local.to_string()),
            },
            upstream: upstream.into(),
        }
    }
}

impl<'a> From<&'a verdict::Delayed> for Delayed<'a> {
    fn from(delayed: &'a verdict::Delayed) -> Self {
        let verdict::Delayed {
            unix_ns,
            nginx,
            upstream,
            delay_us,
            syn_retransmits,
            queue,
            places,
            pressure,
            explanation,
        } = delayed;
        Self {
            v: VERSION,
            r#type: "delayed",
            time: time(*unix_ns),
            nginx: Process::of(nginx, places),
            upstream: upstream.into(),
            delay_us: *delay_us,
            syn_retransmits: *syn_retransmits,
            queue: queue.as_ref().map(Queue::from),
            pressure: pressure.as_ref().map(Pressure::from),
            explanation,
        }
    }
}

impl<'a> From<&'a verdict::WorkerOutlived> for After<'a> {
    fn from(after: &'a verdict::WorkerOutlived) -> Self {
        let verdict::WorkerOutlived {
            unix_ns,
            nginx,
            local,
            upstream,
            worker,
            went_on_us,
            accepted_late,
            places,
            explanation,
        } = after;
        Self {
            v: VERSION,
            r#type: "after",
            time: time(*unix_ns),
            nginx: AfterNginx { pid: *nginx, local: local.map(|local| local.to_string()) },
            upstream: upstream.into(),
            worker: worker.as_ref().map(|worker| Process::of(worker, places)),
            went_on_us: *went_on_us,
            accepted_late: *accepted_late,
            explanation,
        }
    }
}

impl<'a> From<&'a verdict::Note> for Note<'a> {
    fn from(note: &'a verdict::Note) -> Self {
        let verdict::Note { unix_ns, nginx, upstream, word, places, explanation } = note;
        Self {
            v: VERSION,
            r#type: "note",
            time: time(*unix_ns),
            nginx: Process::of(nginx, places),
            upstream: upstream.as_ref().and_then(Upstream::of),
            word: word.into(),
            explanation,
        }
    }
}

impl From<&verdict::OutOfUse> for OutOfUse {
    fn from(verdict::OutOfUse { upstream, failed, limits, is_down }: &verdict::OutOfUse) -> Self {
        Self {
            upstream: upstream.into(),
            cause: failed.map(|failed| failed.cause.cause()),
            detail: failed.map(|failed| failed.cause.detail()),
            ago_us: failed.map(|failed| failed.ago_ns / 1_000),
            down: *is_down,
            max_fails: limits.map(|limits| limits.max_fails),
            fail_timeout_us: limits.map(|limits| u64::from(limits.fail_timeout_s) * 1_000_000),
        }
    }
}

impl<'a> Process<'a> {
    fn of(verdict::Process { pid, comm }: &'a verdict::Process, places: &'a Places) -> Self {
        Self { pid: *pid, comm, home: Home::of(*pid, places) }
    }
}

impl<'a> Worker<'a> {
    fn of(worker: &'a verdict::Worker, places: &'a Places) -> Self {
        let verdict::Worker { process: verdict::Process { pid, comm }, signal, doing } = worker;
        Self {
            pid: *pid,
            comm,
            home: Home::of(*pid, places),
            signal: signal.as_deref(),
            doing: doing.as_ref().map(Doing::from),
        }
    }
}

impl<'a> From<&'a verdict::Word> for Word<'a> {
    fn from(verdict::Word { level, errno, message, doing, connection }: &'a verdict::Word) -> Self {
        Self { level, errno: *errno, message, r#while: doing.as_deref(), connection: *connection }
    }
}

impl<'a> From<&'a verdict::Doing> for Doing<'a> {
    fn from(verdict::Doing { samples, waits, running }: &'a verdict::Doing) -> Self {
        let waits = waits.iter().map(|(on, samples)| Wait { on, samples: *samples });
        Self { samples: *samples, waits: waits.collect(), running: *running }
    }
}

/// The name that nothing was attempted for.
fn group(upstream: &upstream::Upstream) -> Option<&str> {
    match upstream {
        upstream::Upstream::Named(name) if !name.is_empty() => Some(name),
        _ => None,
    }
}

impl Upstream {
    /// Where an exchange went; none where nothing was attempted.
    fn of(upstream: &upstream::Upstream) -> Option<Self> {
        (!matches!(upstream, upstream::Upstream::Named(_))).then(|| upstream.into())
    }
}

impl From<&upstream::Upstream> for Upstream {
    fn from(upstream: &upstream::Upstream) -> Self {
        let family = match upstream {
            upstream::Upstream::Inet(address) if address.is_ipv4() => "inet",
            upstream::Upstream::Inet(_) => "inet6",
            upstream::Upstream::Unix(_) => "unix",
            upstream::Upstream::Named(_) => "none",
        };
        Self { family, addr: upstream.to_string() }
    }
}

impl From<&verdict::Moments> for Moments {
    fn from(moments: &verdict::Moments) -> Self {
        let verdict::Moments { connected, accepted, first_sent, first_received, ended, worker_ended } =
            *moments;
        Self { connected, accepted, first_sent, first_received, ended, worker_ended }
    }
}

impl From<&verdict::Bytes> for Bytes {
    fn from(&verdict::Bytes { sent, received, unread }: &verdict::Bytes) -> Self {
        Self { sent, received, unread }
    }
}

impl From<&verdict::Queue> for Queue {
    fn from(&verdict::Queue { depth, limit }: &verdict::Queue) -> Self {
        Self { depth, limit }
    }
}

impl<'a> From<&'a verdict::Evidence> for Evidence<'a> {
    fn from(verdict::Evidence { us, source, fact }: &'a verdict::Evidence) -> Self {
        Self { us: *us, source, fact }
    }
}

#[cfg(test)]
mod schema;
#[cfg(test)]
mod tests;
