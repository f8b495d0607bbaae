//! Each failure, and what is known of the one that is unfolded.

use ratatui::{Frame, layout::Rect, style::Style};

use super::{
    super::{
        choice::Choice,
        copy::{Form, written},
        state::{Kept, State},
    },
    bad, clock, faint, strong, sure,
    table::{self, Column},
    warning,
};
use crate::{
    model::{verdict::Verdict, words::span},
    sink::INDENT,
};

pub const COLUMNS: [Column; 7] = [
    Column::text("TIME", 8, 8),
    Column::figure("STATUS", 6),
    Column::text("CAUSE", 24, 36),
    Column::text("UPSTREAM", 15, 48),
    Column::figure("TOOK", 8),
    Column::text("SURE", 6, 10),
    Column::text("WHAT HAPPENED", 20, 200).from(120),
];

pub fn draw(frame: &mut Frame, area: Rect, state: &State, choice: &mut Choice) {
    let failures = choice.failures(state);
    if failures.is_empty() {
        let text = match state.failures.is_empty() {
            true => "no exchange has failed",
            false => "nothing that the filters let through",
        };
        super::lines(frame, area, &[(text.to_owned(), faint())], 0);
        return;
    }
    let at = choice.selected(&failures);
    if let Some(from) = choice.unfolded {
        let lines = unfolded(&failures[at].verdict, area.width);
        choice.page = usize::from(area.height);
        choice.unfolded = Some(super::lines(frame, area, &lines, from));
        return;
    }
    let offset = choice.scroll(at, area.height);
    let failures = choice.failures(state);
    let rows = failures.iter().skip(offset).map(|kept| cells(kept));
    table::draw(frame, area, &COLUMNS, choice.order(), rows, Some(at - offset));
}

/// All that is known of a failure: what is left of its line, which may be too long, and what stands under it.
fn unfolded(verdict: &Verdict, width: u16) -> Vec<(String, Style)> {
    let status = verdict.status.map_or_else(|| "---".to_owned(), |status| status.to_string());
    let took = verdict
        .moments
        .ended
        .map_or_else(String::new, |us| format!(" after {}", span(us.unsigned_abs() * 1_000)));
    let first =
        format!("{}  {status}  {}, {}", clock(verdict.unix_ns), verdict.cause, verdict.confidence.name());
    let second = format!("nginx {} asked {}{took}", verdict.nginx.pid, verdict.upstream);
    let mut lines = vec![(first, strong()), (second, Style::new())];
    let text = written(verdict, Form::Text, usize::from(width) + INDENT);
    for line in text.lines().skip(1) {
        let line = line.strip_prefix(&" ".repeat(INDENT)).unwrap_or(line);
        let style = if line.starts_with("Look at:") { warning() } else { Style::new() };
        lines.push((line.to_owned(), style));
    }
    lines
}

fn cells(kept: &Kept) -> Vec<table::Cell> {
    let verdict = &kept.verdict;
    let status = match verdict.status {
        Some(status @ 500..) => (status.to_string(), bad()),
        Some(status) => (status.to_string(), warning()),
        None => ("---".to_owned(), faint()),
    };
    let took = verdict.moments.ended.map(|us| span(us.unsigned_abs() * 1_000));
    vec![
        (clock(verdict.unix_ns), Style::new()),
        status,
        (verdict.cause.to_string(), strong()),
        (verdict.upstream.to_string(), Style::new()),
        (took.unwrap_or_default(), Style::new()),
        (verdict.confidence.name().to_owned(), sure(verdict.confidence)),
        (verdict.explanation.clone(), Style::new()),
    ]
}
