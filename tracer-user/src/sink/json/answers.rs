//! What clients were answered, as the summary has it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    VERSION,
    upstream::{Upstream, group},
};
use crate::model::{
    answers::{self, Answered, Kind, STATUSES, Try},
    words::time,
};

/// What a client was answered whose request is shown.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Answer<'a> {
    #[cfg_attr(test, schemars(extend("const" = VERSION)))]
    v: u32,
    #[cfg_attr(test, schemars(extend("const" = "answer")))]
    r#type: &'static str,
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    time: String,
    status: u16,
    kind: &'static str,
    upstream: Option<Upstream>,
    group: Option<&'a str>,
    upstream_status: Option<u16>,
    request: &'a str,
}

impl<'a> From<&'a Answered> for Answer<'a> {
    fn from(Answered { unix_ns, status, kind, last, request }: &'a Answered) -> Self {
        let upstream = last.as_ref().and_then(|Try { upstream, status: _ }| upstream.as_ref());
        Self {
            v: VERSION,
            r#type: "answer",
            time: time(*unix_ns),
            status: *status,
            kind: kind.name(),
            upstream: upstream.and_then(Upstream::of),
            group: upstream.and_then(group),
            upstream_status: last.as_ref().and_then(|last| last.status),
            request,
        }
    }
}

/// How many answers there were, by status and kind.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Answers {
    statuses: BTreeMap<u16, BTreeMap<&'static str, u64>>,
    left_out: u64,
}

impl From<&answers::Answers> for Answers {
    fn from(answers::Answers { counts, left_out }: &answers::Answers) -> Self {
        let of = |status: u16| {
            let count = |kind: Kind| counts.get(&(status, kind)).copied().unwrap_or_default();
            Kind::ALL.iter().map(|(kind, name, _)| (*name, count(*kind))).collect()
        };
        Self { statuses: STATUSES.map(|status| (status, of(status))).into(), left_out: *left_out }
    }
}
