//! What can be asked for.

use std::str::FromStr;

use crate::model::cause::Cause;

/// As many names are offered to who asks for none that there is.
const OFFERED: usize = 3;

/// Names less alike than this are not offered.
const ALIKE: f64 = 0.5;

/// What is to be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// All causes whose name begins so.
    Kind(&'static str),
    /// One cause.
    One(Cause),
}

/// No cause has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownTopic {
    /// Some have one that is nearly so, the nearest first.
    #[error("no cause has this name; the nearest: {}", .0.join(", "))]
    Near(Vec<String>),
    /// None has.
    #[error("no cause has this name, or one like it; `why502 explain` lists them all")]
    Far,
}

impl FromStr for Topic {
    type Err = UnknownTopic;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let word = word.trim_end_matches('/');
        let one = Cause::ALL.iter().find(|cause| cause.to_string() == word);
        let kind = Cause::ALL.iter().find(|cause| cause.cause() == word);
        match (one, kind) {
            (Some(cause), _) => Ok(Self::One(*cause)),
            (None, Some(cause)) => Ok(Self::Kind(cause.cause())),
            (None, None) => Err(match nearest(word) {
                names if names.is_empty() => UnknownTopic::Far,
                names => UnknownTopic::Near(names),
            }),
        }
    }
}

fn nearest(word: &str) -> Vec<String> {
    let likeness = |name: &str, part: &str| {
        let is_part = word.len() > 2 && name.contains(word);
        let whole = strsim::normalized_damerau_levenshtein(word, name);
        let of_part = strsim::normalized_damerau_levenshtein(word, part);
        if part == word { 2.0 } else { whole.max(of_part) + f64::from(u8::from(is_part)) }
    };
    let mut kinds: Vec<_> = Cause::ALL.iter().map(|cause| cause.cause()).collect();
    kinds.dedup();
    let kinds = kinds.into_iter().map(|kind| (likeness(kind, kind), kind.to_owned()));
    let ones =
        Cause::ALL.iter().map(|cause| (likeness(&cause.to_string(), cause.detail()), cause.to_string()));
    let mut names: Vec<_> = kinds.chain(ones).filter(|(likeness, _)| *likeness >= ALIKE).collect();
    names.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    names.into_iter().take(OFFERED).map(|(_, name)| name).collect()
}
