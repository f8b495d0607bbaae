//! What clients were answered, as the summary has it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::answers::{self, Kind, STATUSES};

/// How many answers there were, by status and kind.
#[derive(Serialize)]
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
