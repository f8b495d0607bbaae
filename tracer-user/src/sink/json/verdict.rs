//! A failure, with all that is known of it.

use serde::Serialize;

use super::{
    VERSION,
    listeners::{Closed, Holder, Neighbour},
    pressure::Pressure,
    process::{Nginx, Process, Worker},
    queue::Queue,
    upstream::{Upstream, group},
    word::Word,
};
use crate::model::{cgroup::Places, verdict, words::time};

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Verdict<'a> {
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

/// When an upstream was last reached.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Reached {
    us: i64,
    by: &'static str,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Evidence<'a> {
    us: i64,
    source: &'a str,
    fact: &'a str,
}

impl<'a> From<&'a verdict::Verdict> for Verdict<'a> {
    fn from(verdict: &'a verdict::Verdict) -> Self {
        let verdict::Verdict {
            unix_ns,
            cause,
            confidence,
            nginx,
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
            nginx: Nginx::of(nginx, *local, places),
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

impl<'a> Outer<'a> {
    fn of(outer: &'a verdict::Outer, places: &'a Places) -> Self {
        let verdict::Outer { nginx, local, upstream } = outer;
        Self { nginx: Nginx::of(nginx, *local, places), upstream: upstream.into() }
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

impl<'a> From<&'a verdict::Evidence> for Evidence<'a> {
    fn from(verdict::Evidence { us, source, fact }: &'a verdict::Evidence) -> Self {
        Self { us: *us, source, fact }
    }
}
