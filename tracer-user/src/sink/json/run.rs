//! The last lines: what a whole run amounts to, and what nginx's error log says of it.

use serde::{Serialize, Serializer};

use super::{VERSION, answers::Answers};
use crate::model::{audit, cause, stranger, verdict, words::time};

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Audit<'a> {
    #[cfg_attr(test, schemars(extend("const" = VERSION)))]
    v: u32,
    #[cfg_attr(test, schemars(extend("const" = "audit")))]
    r#type: &'static str,
    logged: u64,
    explained: u64,
    unexplained: Vec<Unexplained<'a>>,
    unlogged: Vec<Unlogged>,
    truncated: bool,
    ambiguous: Vec<Unexplained<'a>>,
    early: u64,
    unaudited: u64,
    given_up: u64,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Unexplained<'a> {
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    time: String,
    pid: u32,
    upstream: Option<&'a str>,
    line: &'a str,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Unlogged {
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    time: String,
    cause: &'static str,
    detail: &'static str,
    pid: u32,
    upstream: String,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Summary<'a> {
    #[cfg_attr(test, schemars(extend("const" = VERSION)))]
    v: u32,
    #[cfg_attr(test, schemars(extend("const" = "summary")))]
    r#type: &'static str,
    elapsed_us: u64,
    exchanges: u64,
    failures: u64,
    #[serde(serialize_with = "by_cause")]
    #[cfg_attr(test, schemars(with = "std::collections::BTreeMap<String, u64>"))]
    causes: &'a [(cause::Cause, u64)],
    delayed: u64,
    ended_early: u64,
    lost: u64,
    untracked: u64,
    forgotten: u64,
    ignored: Ignored<'a>,
    stepped_back: u64,
    system_calls: bool,
    words: Option<Words<'a>>,
    answers: Option<Answers>,
}

/// What nginx said of upstreams.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Words<'a> {
    said: u64,
    explained: u64,
    unexplained: Vec<Unexplained<'a>>,
    truncated: bool,
    notes: u64,
    left_out: u64,
}

/// Those who only have nginx's name.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Ignored<'a> {
    connections: u64,
    processes: Vec<Stranger<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Stranger<'a> {
    pid: u32,
    uid: Option<u32>,
    exe: Option<&'a str>,
    why: &'static str,
}

impl<'a> From<&'a audit::Report> for Audit<'a> {
    fn from(report: &'a audit::Report) -> Self {
        let audit::Report { logged, explained, unexplained, unlogged, ambiguous, early, unaudited, given_up } =
            report;
        Self {
            v: VERSION,
            r#type: "audit",
            logged: *logged,
            explained: *explained,
            truncated: unexplained.is_cut() || unlogged.is_cut() || ambiguous.is_cut(),
            unexplained: unexplained.shown.iter().map(Unexplained::from).collect(),
            unlogged: unlogged.shown.iter().map(Unlogged::from).collect(),
            ambiguous: ambiguous.shown.iter().map(Unexplained::from).collect(),
            early: *early,
            unaudited: *unaudited,
            given_up: *given_up,
        }
    }
}

impl<'a> From<&'a audit::Unexplained> for Unexplained<'a> {
    fn from(audit::Unexplained { unix_ns, pid, upstream, line }: &'a audit::Unexplained) -> Self {
        Self { time: time(*unix_ns), pid: *pid, upstream: upstream.as_deref(), line }
    }
}

impl From<&audit::Unlogged> for Unlogged {
    fn from(audit::Unlogged { unix_ns, cause, pid, upstream }: &audit::Unlogged) -> Self {
        let (cause, detail) = (cause.cause(), cause.detail());
        Self { time: time(*unix_ns), cause, detail, pid: *pid, upstream: upstream.to_string() }
    }
}

impl<'a> From<&'a verdict::Summary> for Summary<'a> {
    fn from(summary: &'a verdict::Summary) -> Self {
        let verdict::Summary {
            elapsed_ns,
            exchanges,
            failures,
            delayed,
            ended_early,
            lost,
            forgotten,
            untracked,
            strangers,
            named_strangers,
            stepped_back,
            system_calls,
            words,
            answers,
        } = summary;
        Self {
            v: VERSION,
            r#type: "summary",
            elapsed_us: elapsed_ns / 1_000,
            exchanges: *exchanges,
            failures: failures.iter().map(|(_, count)| count).sum(),
            causes: failures,
            delayed: *delayed,
            ended_early: *ended_early,
            lost: *lost,
            untracked: *untracked,
            forgotten: *forgotten,
            ignored: Ignored {
                connections: *strangers,
                processes: named_strangers.iter().map(Stranger::from).collect(),
            },
            stepped_back: *stepped_back,
            system_calls: *system_calls,
            words: words.as_ref().map(Words::from),
            answers: answers.as_ref().map(Answers::from),
        }
    }
}

impl<'a> From<&'a verdict::Words> for Words<'a> {
    fn from(verdict::Words { said, explained, unexplained, notes, left_out }: &'a verdict::Words) -> Self {
        Self {
            said: *said,
            explained: *explained,
            truncated: unexplained.is_cut(),
            unexplained: unexplained.shown.iter().map(Unexplained::from).collect(),
            notes: *notes,
            left_out: *left_out,
        }
    }
}

impl<'a> From<&'a stranger::Stranger> for Stranger<'a> {
    fn from(stranger::Stranger { pid, uid, exe, why }: &'a stranger::Stranger) -> Self {
        Self { pid: *pid, uid: *uid, exe: exe.as_deref(), why: why.name() }
    }
}

/// An object of `cause/detail` to its count, in the order given.
fn by_cause<S: Serializer>(counts: &&[(cause::Cause, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counts.iter().map(|(cause, count)| (cause.to_string(), count)))
}
