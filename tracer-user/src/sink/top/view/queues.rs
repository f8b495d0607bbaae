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

pub fn draw(frame: &mut Frame, area: Rect, state: &State, choice: &mut Choice) {
    // Of a unix socket only the hooks know the queue: without them, it has a row once something was wrong there.
    let mut rows = state.queues.clone();
    for listener in state.exchanges.keys() {
        if state.accepting.at(listener).is_some() {
            rows.entry(listener.clone()).or_default();
        }
    }
    for (listener, queue) in &mut rows {
        if let Some(Accepted { depth, limit, deepest, .. }) = state.accepting.at(listener) {
            (queue.depth, queue.limit) = (Some(*depth), *limit);
            queue.deepest = queue.deepest.max(*deepest);
        }
    }
    let mut queues: Vec<(&Upstream, &Queue)> = rows.iter().collect();
    if queues.is_empty() {
        let text = "no listener of an upstream is known yet: one is once an exchange with it has ended";
        super::lines(frame, area, &[(text.to_owned(), faint())], 0);
        return;
    }
    match choice.order() {
        "LISTENER" => {}
        "FAILED" => queues.sort_by_key(|(_, queue)| Reverse(queue.failed)),
        "DEEPEST" => queues.sort_by_key(|(_, queue)| Reverse(queue.deepest)),
        _ => queues.sort_by(|(_, a), (_, b)| b.share().total_cmp(&a.share())),
    }
    if choice.is_backwards() {
        queues.reverse();
    }
    let at = choice.at().min(queues.len() - 1);
    choice.select(at);
    let offset = choice.scroll(at, usize::from(area.height.saturating_sub(1)));
    let rows = queues.iter().skip(offset).map(|(listener, queue)| cells(state, listener, queue));
    table::draw(frame, area, &COLUMNS, choice.order(), rows, Some(at - offset));
}

fn cells(state: &State, listener: &Upstream, queue: &Queue) -> Vec<table::Cell> {
    let figure = |count: u64, style: Style| match count {
        0 => ("-".to_owned(), faint()),
        count => (number(count), style),
    };
    let is_full = queue.depth.is_some_and(|depth| depth > queue.limit);
    let style = if is_full { bad() } else { Style::new() };
    let (depth, filled) = match queue.depth {
        Some(depth) => (format!("{depth}/{}", queue.limit), bar(queue.share(), usize::from(BAR))),
        None => ("-".to_owned(), "not looked at".to_owned()),
    };
    let accepted = state.accepting.at(listener);
    let waits = match (&state.accepting, accepted) {
        // Those of failed exchanges alone are for a file, and for where the hooks cannot be.
        (Accepting::Watched(_), accepted) => {
            accepted.and_then(Accepted::waits).map(|waits| (waits.p50_us, waits.p99_us))
        }
        _ => queue.waits(),
    };
    let wait = |us: Option<u64>| match us {
        Some(us) => (span(us * 1_000), Style::new()),
        None => ("-".to_owned(), faint()),
    };
    vec![
        (listener.to_string(), strong()),
        (filled, if queue.depth.is_none() { faint() } else { style }),
        (depth, style),
        figure(queue.deepest.into(), Style::new()),
        figure(queue.full, warning()),
        figure(queue.failed, bad()),
        figure(queue.late, warning()),
        figure(queue.unaccepted, bad()),
        figure(accepted.map_or(0, |accepted| accepted.overflows), bad()),
        wait(waits.map(|(median, _)| median)),
        wait(waits.map(|(_, most)| most)),
    ]
}
