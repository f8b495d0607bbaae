//! What the user has chosen to see.

use std::sync::Arc;

use super::state::{Kept, Row, State};
use crate::model::{cause::Cause, upstream::Upstream, verdict::Confidence};

/// What fills the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Failures by upstream and cause.
    Causes,
    /// Each failure.
    Failures,
    /// Accept queues.
    Queues,
    /// Workers.
    Workers,
    /// nginx.
    Nginx,
}

impl View {
    /// In the order of their keys, from 1, with their names.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Causes, "causes"),
        (Self::Failures, "failures"),
        (Self::Queues, "queues"),
        (Self::Workers, "workers"),
        (Self::Nginx, "nginx"),
    ];

    /// Its place among them.
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|(view, _)| *view == self).unwrap_or(0)
    }

    /// What it can be sorted by, the usual first.
    pub fn orders(self) -> &'static [&'static str] {
        match self {
            Self::Causes => &["TOTAL", "NOW", "1 MIN", "10 MIN", "LAST", "CAUSE", "UPSTREAM"],
            Self::Failures => &["TIME", "UPSTREAM", "CAUSE", "TOOK"],
            Self::Queues => &["QUEUE", "LISTENER", "FAILED", "DEEPEST"],
            Self::Workers => &["POOL", "BUSY", "WORKERS", "FAILED"],
            Self::Nginx => &["FAILED", "PID"],
        }
    }
}

/// Failures of one kind.
pub type Kind<'a> = (&'a (Upstream, Cause, Confidence), &'a Row);

/// What the user has chosen to see.
#[derive(Debug)]
pub struct Choice {
    /// What fills the screen.
    pub view: View,
    /// How far the explanations of it are scrolled, while these are shown instead.
    pub help: Option<usize>,
    /// What was there when it was paused.
    pub paused: Option<Box<State>>,
    orders: [usize; View::ALL.len()],
    backwards: [bool; View::ALL.len()],
    /// Only what has this text, in small letters.
    pub text: String,
    /// Whether it is being typed.
    pub is_typing: bool,
    /// Only this upstream's.
    pub upstream: Option<Upstream>,
    /// Only of this cause.
    pub cause: Option<Cause>,
    /// Only so sure.
    pub confidence: Option<Confidence>,
    at: [usize; View::ALL.len()],
    /// The failure that stays selected while others come.
    pub failure: Option<u64>,
    /// How far the selected failure is scrolled, if it is unfolded.
    pub unfolded: Option<usize>,
    /// Where the list begins that is shown.
    pub offset: usize,
    /// How many of its lines are shown.
    pub page: usize,
    /// What became of the last key.
    pub message: Option<String>,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            view: View::Causes,
            help: None,
            paused: None,
            orders: [0; View::ALL.len()],
            backwards: [false; View::ALL.len()],
            text: String::new(),
            is_typing: false,
            upstream: None,
            cause: None,
            confidence: None,
            at: [0; View::ALL.len()],
            failure: None,
            unfolded: None,
            offset: 0,
            page: 1,
            message: None,
        }
    }
}

impl Choice {
    /// By what the view is sorted.
    pub fn order(&self) -> &'static str {
        self.view.orders()[self.orders[self.view.number()]]
    }

    /// Whether it is sorted the other way round.
    pub fn is_backwards(&self) -> bool {
        self.backwards[self.view.number()]
    }

    /// Sorts by the next column.
    pub fn next_order(&mut self) {
        let order = &mut self.orders[self.view.number()];
        *order = (*order + 1) % self.view.orders().len();
    }

    /// Sorts the other way round.
    pub fn turn_round(&mut self) {
        let backwards = &mut self.backwards[self.view.number()];
        *backwards = !*backwards;
    }

    /// The line that is selected.
    pub fn at(&self) -> usize {
        self.at[self.view.number()]
    }

    /// Selects a line.
    pub fn select(&mut self, line: usize) {
        self.at[self.view.number()] = line;
    }

    /// Shows another view.
    pub fn show(&mut self, view: View) {
        self.view = view;
        (self.help, self.unfolded, self.offset) = (None, None, 0);
    }

    /// Whether the filters let it through, but for the text.
    fn lets(&self, upstream: &Upstream, cause: Cause, confidence: Confidence) -> bool {
        self.upstream.as_ref().is_none_or(|only| only == upstream)
            && self.cause.is_none_or(|only| only == cause)
            && self.confidence.is_none_or(|only| only == confidence)
    }

    /// The filters in words; empty if there are none.
    pub fn filters(&self) -> String {
        let text = (!self.text.is_empty() || self.is_typing).then(|| format!("/{}", self.text));
        let upstream = self.upstream.as_ref().map(|upstream| format!("upstream {upstream}"));
        let cause = self.cause.map(|cause| format!("cause {cause}"));
        let confidence = self.confidence.map(|confidence| confidence.name().to_owned());
        let all: Vec<_> = [text, upstream, cause, confidence].into_iter().flatten().collect();
        all.join(", ")
    }

    /// Shows all again.
    pub fn clear(&mut self) {
        self.text.clear();
        (self.upstream, self.cause, self.confidence) = (None, None, None);
    }

    /// The kinds of failures to be shown, in order.
    pub fn kinds<'a>(&self, state: &'a State) -> Vec<Kind<'a>> {
        let has = |upstream: &Upstream, cause: &Cause, confidence: &Confidence| {
            let all = || format!("{cause} {upstream} {}", confidence.name()).to_ascii_lowercase();
            self.text.is_empty() || all().contains(&self.text)
        };
        let mut kinds: Vec<Kind> = state
            .rows
            .iter()
            .filter(|((upstream, cause, confidence), _)| {
                self.lets(upstream, *cause, *confidence) && has(upstream, cause, confidence)
            })
            .collect();
        let now = state.now();
        let most = |figure: u64| std::cmp::Reverse(figure);
        match self.order() {
            "NOW" => kinds.sort_by_cached_key(|(_, row)| most(row.rate.within(now, 5))),
            "1 MIN" => kinds.sort_by_cached_key(|(_, row)| most(row.rate.within(now, 60))),
            "10 MIN" => kinds.sort_by_cached_key(|(_, row)| most(row.rate.within(now, 600))),
            "LAST" => kinds.sort_by_key(|(_, row)| std::cmp::Reverse(row.last_ns)),
            "CAUSE" => kinds.sort_by_cached_key(|((_, cause, _), _)| cause.to_string()),
            "UPSTREAM" => {}
            _ => kinds.sort_by_key(|(_, row)| most(row.total)),
        }
        if self.is_backwards() {
            kinds.reverse();
        }
        kinds
    }

    /// The failures to be shown, in order: the newest first, unless another order was chosen.
    pub fn failures<'a>(&self, state: &'a State) -> Vec<&'a Arc<Kept>> {
        let lets = |kept: &&Arc<Kept>| {
            let verdict = &kept.verdict;
            self.lets(&verdict.upstream, verdict.cause, verdict.confidence) && kept.has(&self.text)
        };
        let mut failures: Vec<_> = state.failures.iter().rev().filter(lets).collect();
        match self.order() {
            "UPSTREAM" => failures.sort_by(|a, b| a.verdict.upstream.cmp(&b.verdict.upstream)),
            "CAUSE" => failures.sort_by_cached_key(|kept| kept.verdict.cause.to_string()),
            "TOOK" => failures.sort_by_key(|kept| std::cmp::Reverse(kept.verdict.moments.ended)),
            _ => {}
        }
        if self.is_backwards() {
            failures.reverse();
        }
        failures
    }

    /// Where the selected failure is among these: the one that was selected, wherever it is by now; else the first.
    pub fn selected(&self, failures: &[&Arc<Kept>]) -> usize {
        let number = self.failure.and_then(|number| failures.iter().position(|kept| kept.number == number));
        number.unwrap_or(0)
    }

    /// Selects one of so many lines, the nearest there is; returns which, and where their list has to begin so that it is shown.
    pub fn select_of(&mut self, lines: usize, height: u16) -> (usize, usize) {
        let at = self.at().min(lines.saturating_sub(1));
        self.select(at);
        (at, self.scroll(at, height))
    }

    /// Where a list has to begin so that its line `at` is shown within so many lines, of which the first names the columns.
    pub fn scroll(&mut self, at: usize, height: u16) -> usize {
        self.page = usize::from(height).saturating_sub(1).max(1);
        self.offset = self.offset.clamp((at + 1).saturating_sub(self.page), at);
        self.offset
    }
}
