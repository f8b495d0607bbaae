//! Accept queues.

use std::cmp::Reverse;

use ratatui::{Frame, layout::Rect, style::Style};

use super::{
    super::{
        accepting::{Accepted, Accepting},
        choice::Choice,
        state::{Queue, State},
    },
    bad, bar, faint, number, strong,
    table::{self, Column},
    warning,
};
use crate::model::{upstream::Upstream, words::span};

/// How wide a bar is.
const BAR: u16 = 12;

pub const COLUMNS: [Column; 11] = [
    Column::text("LISTENER", 17, 60),
    Column::text("QUEUE", BAR, BAR),
    Column::figure("DEPTH", 9),
    Column::figure("DEEPEST", 7),
    Column::figure("FULL", 5).from(112),
    Column::figure("FAILED", 6),
    Column::figure("LATE", 5).from(96),
    Column::figure("UNACCEPTED", 10),
    Column::figure("OVERFLOWS", 9).from(104),
    Column::figure("WAIT P50", 8).from(76),
    Column::figure("P99", 8).from(88),
];

/// One listener, from all that is known of it.
struct Row<'a> {
    listener: &'a Upstream,
    /// What exchanges and looks show; none where none of them did.
    queue: Option<&'a Queue>,
    /// What the hooks see.
    accepted: Option<&'a Accepted>,
}

impl Row<'_> {
    /// Connections that wait, and how many may.
    fn depth(&self) -> Option<(u32, u32)> {
        let looked = || self.queue.and_then(|queue| Some((queue.depth?, queue.limit)));
        self.accepted.map(|accepted| (accepted.depth, accepted.limit)).or_else(looked)
    }

    fn deepest(&self) -> u32 {
        let accepted = self.accepted.map_or(0, |accepted| accepted.deepest);
        self.queue.map_or(0, |queue| queue.deepest).max(accepted)
    }

    /// How full it is, from 0 to 1.
    fn share(&self) -> f64 {
        self.depth().map_or(0.0, |(depth, limit)| f64::from(depth) / f64::from(limit.max(1)))
    }

    fn count(&self, of: impl Fn(&Queue) -> u64) -> u64 {
        self.queue.map_or(0, of)
    }
}

fn rows(state: &State) -> Vec<Row<'_>> {
    let seen = |listener| state.accepting.at(listener);
    let known = state.queues.iter();
    let known = known.map(|(listener, queue)| Row { listener, queue: Some(queue), accepted: seen(listener) });
    // Of a unix socket only the hooks know the queue: without them, it has a row once something was wrong there.
    let others = state.exchanges.keys().filter(|listener| !state.queues.contains_key(listener));
    let others =
        others.filter_map(|listener| Some(Row { listener, queue: None, accepted: Some(seen(listener)?) }));
    let mut rows: Vec<_> = known.chain(others).collect();
    rows.sort_by_key(|row| row.listener);
    rows
}

pub fn draw(frame: &mut Frame, area: Rect, state: &State, choice: &mut Choice) {
    let mut rows = rows(state);
    if rows.is_empty() {
        let text = "no listener of an upstream is known yet: one is once an exchange with it has ended";
        super::lines(frame, area, &[(text.to_owned(), faint())], 0);
        return;
    }
    match choice.order() {
        "LISTENER" => {}
        "FAILED" => rows.sort_by_key(|row| Reverse(row.count(|queue| queue.failed))),
        "DEEPEST" => rows.sort_by_key(|row| Reverse(row.deepest())),
        _ => rows.sort_by(|a, b| b.share().total_cmp(&a.share())),
    }
    if choice.is_backwards() {
        rows.reverse();
    }
    let (at, offset) = choice.select_of(rows.len(), area.height);
    let rows = rows.iter().skip(offset).map(|row| cells(row, &state.accepting));
    table::draw(frame, area, &COLUMNS, choice.order(), rows, Some(at - offset));
}

fn cells(row: &Row, accepting: &Accepting) -> Vec<table::Cell> {
    let figure = |count: u64, style: Style| match count {
        0 => ("-".to_owned(), faint()),
        count => (number(count), style),
    };
    let is_full = row.depth().is_some_and(|(depth, limit)| depth > limit);
    let style = if is_full { bad() } else { Style::new() };
    let (depth, filled) = match row.depth() {
        Some((depth, limit)) => (format!("{depth}/{limit}"), (bar(row.share(), usize::from(BAR)), style)),
        None => ("-".to_owned(), ("not looked at".to_owned(), faint())),
    };
    let waits = match accepting {
        // Those of failed exchanges alone are for a file, and for where the hooks cannot be.
        Accepting::Watched(_) => {
            row.accepted.and_then(Accepted::waits).map(|waits| (waits.p50_us, waits.p99_us))
        }
        Accepting::Unwatched | Accepting::Refused => row.queue.and_then(Queue::waits),
    };
    let wait = |us: Option<u64>| match us {
        Some(us) => (span(us * 1_000), Style::new()),
        None => ("-".to_owned(), faint()),
    };
    vec![
        (row.listener.to_string(), strong()),
        filled,
        (depth, style),
        figure(row.deepest().into(), Style::new()),
        figure(row.count(|queue| queue.full), warning()),
        figure(row.count(|queue| queue.failed), bad()),
        figure(row.count(|queue| queue.late), warning()),
        figure(row.count(|queue| queue.unaccepted), bad()),
        figure(row.accepted.map_or(0, |accepted| accepted.overflows), bad()),
        wait(waits.map(|(median, _)| median)),
        wait(waits.map(|(_, most)| most)),
    ]
}
