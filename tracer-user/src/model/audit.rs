//! What an audit comes to: the model that every output renders.

use crate::model::{cause::Cause, upstream::Upstream};

/// What is listed of each kind; what is beyond is only counted.
const LISTED: usize = 1_000;

/// What nginx's error log says of a run, held against the verdicts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Failures that nginx logged.
    pub logged: u64,
    /// Those that have a verdict of their own.
    pub explained: u64,
    /// Those that have none.
    pub unexplained: Listed<Unexplained>,
    /// Verdicts about which nginx should have written a line and wrote none.
    pub unlogged: Listed<Unlogged>,
    /// Lines without a verdict that name several upstreams, for the client wrote into them what nginx writes: whether they report a
    /// failure that was to have a verdict, nobody knows; counted nowhere else.
    pub ambiguous: Listed<Unexplained>,
    /// Failures that nginx logged on connections that were open before the tracing began; counted nowhere else.
    pub early: u64,
    /// Verdicts about clients that went away, or about nobody knows what, which a log above level info may not show;
    /// counted nowhere else.
    pub unaudited: u64,
    /// Lines and verdicts that were too many or too long to be kept until they found their match; counted nowhere else.
    pub given_up: u64,
}

/// A list that is cut at some length, and the count of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// The first ones.
    pub shown: Vec<T>,
    /// How many there are.
    pub count: u64,
}

/// A line, or a word, without a verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unexplained {
    /// When, in nanoseconds since 1970; a whole second where a log says so.
    pub unix_ns: i64,
    /// The nginx worker, as it writes its own pid.
    pub pid: u32,
    /// The upstream, where it is known.
    pub upstream: Option<String>,
    /// The whole line, or what was heard of it.
    pub line: String,
}

/// A verdict without a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unlogged {
    /// When nginx's end ended, in nanoseconds since 1970.
    pub unix_ns: i64,
    /// The cause.
    pub cause: Cause,
    /// The nginx worker.
    pub pid: u32,
    /// Where the exchange went.
    pub upstream: Upstream,
}

impl<T> Listed<T> {
    /// Adds one: to the list, if there is room, and to the count.
    pub fn push(&mut self, one: T) {
        if self.shown.len() < LISTED {
            self.shown.push(one);
        }
        self.count += 1;
    }

    /// Adds what another lists and counts.
    pub fn add(&mut self, other: Self) {
        let Self { shown, count } = other;
        let room = LISTED.saturating_sub(self.shown.len());
        self.shown.extend(shown.into_iter().take(room));
        self.count += count;
    }

    /// Whether some are only counted.
    pub fn is_cut(&self) -> bool {
        self.count > self.shown.len() as u64
    }
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { shown: Vec::new(), count: 0 }
    }
}

impl<T> FromIterator<T> for Listed<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        let mut listed = Self::default();
        all.into_iter().for_each(|one| listed.push(one));
        listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut_and_its_count_is_not() {
        let listed: Listed<usize> = (0..LISTED + 5).collect();
        assert_eq!((listed.shown.len(), listed.count, listed.is_cut()), (LISTED, LISTED as u64 + 5, true));
        let listed: Listed<usize> = (0..LISTED).collect();
        assert!(!listed.is_cut());
    }
}
