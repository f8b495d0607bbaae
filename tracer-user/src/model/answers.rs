//! What clients were answered.

use std::collections::BTreeMap;

use super::upstream::Upstream;

/// The statuses that are accounted for.
pub const STATUSES: [u16; 4] = [499, 502, 503, 504];

/// One answer that a client got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When it was logged, at the earliest (ns, monotonic).
    pub ns: u64,
    /// How much later that may have been (ns).
    pub within_ns: u64,
    /// Its status.
    pub status: u16,
    /// Each server that was tried for it; none where the log does not say.
    pub tries: Option<Vec<Try>>,
    /// The only rule that nginx's configuration has for this status; none where that is not known.
    pub rule: Option<Kind>,
    /// The request line; none unless the user wants to see these. It is never recorded.
    pub request: Option<String>,
}

/// An answer to a request that the user wants to see, and what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// When it was logged, at the earliest (ns since 1970).
    pub unix_ns: i64,
    /// Its status.
    pub status: u16,
    /// What it was.
    pub kind: Kind,
    /// The server that was tried last; none where there was none, or it is not known.
    pub last: Option<Try>,
    /// The request line, as nginx logs it.
    pub request: String,
}

/// A server that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// Which one (`$upstream_addr`); none where the log does not say.
    pub upstream: Option<Upstream>,
    /// What it answered, or what nginx made of its failure (`$upstream_status`); none where there was none, or the log does not say.
    pub status: Option<u16>,
}

/// Whether access logs are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// How many.
    pub logs: u64,
    /// Lines with such a status that were left out since the tracing began, or whole stretches of a log.
    pub left_out: u64,
}

/// What such an answer was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A failed exchange, which has its verdict.
    Explained,
    /// The upstream's own answer, passed on.
    Upstream,
    /// nginx's own, by a rule of its configuration: no upstream was asked. Which rule is not known.
    Rule,
    /// The same by `limit_req`, which alone gives this status.
    LimitReq,
    /// By `limit_conn`.
    LimitConn,
    /// By `return`.
    Return,
    /// Made of another answer of the upstream's, which had not failed: an `error_page`, say.
    Rewritten,
    /// None of these is known: the log does not say what the upstream answered, or the exchange was not watched.
    Unknown,
}

impl Kind {
    /// Every kind with its name in JSON, and in words.
    pub const ALL: [(Self, &'static str, &'static str); 8] = [
        (Self::Explained, "explained", "as its verdict says"),
        (Self::Upstream, "upstream", "by the upstream itself, whose answer nginx passed on"),
        (
            Self::Rule,
            "rule",
            "by a rule of nginx's own, with no upstream asked (limit_req, limit_conn, return)",
        ),
        (Self::LimitReq, "limit_req", "by limit_req, with no upstream asked"),
        (Self::LimitConn, "limit_conn", "by limit_conn, with no upstream asked"),
        (Self::Return, "return", "by return, with no upstream asked"),
        (Self::Rewritten, "rewritten", "in place of another answer of the upstream's (error_page)"),
        (
            Self::Unknown,
            "unknown",
            "without a verdict, and it is not known why (a log_format with $upstream_addr and $upstream_status tells)",
        ),
    ];
}

impl Kind {
    /// Those that are a certain rule of nginx's.
    pub const RULES: [Self; 3] = [Self::LimitReq, Self::LimitConn, Self::Return];

    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, ..)| *kind == self).map_or("unknown", |(_, name, _)| name)
    }
}

/// How many answers of each status and kind there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// By status and kind.
    pub counts: BTreeMap<(u16, Kind), u64>,
    /// Lines that were left out, or whole stretches of a log.
    pub left_out: u64,
}

impl Answers {
    /// Adds those of another recording.
    pub fn add(&mut self, other: Self) {
        let Self { counts, left_out } = other;
        for (what, count) in counts {
            *self.counts.entry(what).or_default() += count;
        }
        self.left_out += left_out;
    }

    /// How many there were of a kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.counts.iter().filter(|((_, of), _)| *of == kind).map(|(_, count)| count).sum()
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}
