//! Failures: the newest as they are, and all of them counted by row.

use std::sync::Arc;

use super::State;
use crate::{model::verdict::Verdict, sink::top::rate::Rate};

/// Room for the texts of the failures that are kept, in bytes.
pub(super) const MOST_TEXT: usize = 16 << 20;

/// Failures of one cause, with one upstream, of which is equally sure.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// How many.
    pub total: u64,
    /// The last one, in ns since 1970.
    pub last_ns: i64,
    /// When they were.
    pub rate: Rate,
}

/// A failure that is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Counts from the first one.
    pub number: u64,
    /// What it is.
    pub verdict: Verdict,
    /// What is searched when one types, in small letters.
    search: String,
}

impl Kept {
    /// Whether it has this text anywhere, in small letters.
    pub fn has(&self, text: &str) -> bool {
        text.is_empty() || self.search.contains(text)
    }
}

impl State {
    pub(super) fn keep(&mut self, verdict: &Verdict) {
        let Verdict { cause, confidence, nginx, upstream, worker, explanation, .. } = verdict;
        let worker = worker.as_ref().map(|worker| &worker.process);
        let worker = worker.map_or_else(String::new, |worker| format!("{} {}", worker.comm, worker.pid));
        let mut search =
            format!("{cause} {upstream} {} {} {worker} {explanation}", confidence.name(), nginx.pid);
        search.make_ascii_lowercase();
        self.bytes += verdict.text_bytes();
        self.failures.push_back(Arc::new(Kept { number: self.next, verdict: verdict.clone(), search }));
        self.next += 1;
        while self.failures.len() > self.most || (self.bytes > MOST_TEXT && self.failures.len() > 1) {
            if let Some(oldest) = self.failures.pop_front() {
                self.bytes -= oldest.verdict.text_bytes();
            }
        }
    }
}
