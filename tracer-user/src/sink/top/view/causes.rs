//! Failures by upstream and cause, and what lies behind many of them.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
};

use super::{
    super::{
        choice::{Choice, Kind},
        state::State,
    },
    ago, bad, faint, number, sparks, strong, sure,
    table::{self, Column},
    warning, wrapped,
};
use crate::roots;

pub const COLUMNS: [Column; 9] = [
    Column::text("CAUSE", 24, 36),
    Column::text("UPSTREAM", 15, 60),
    Column::text("SURE", 6, 10),
    Column::figure("NOW", 5),
    Column::figure("1 MIN", 5),
    Column::figure("10 MIN", 6).from(88),
    Column::figure("TOTAL", 7),
    Column::figure("SHARE", 5).from(94),
    Column::figure("LAST", 4),
];

/// The sparkline, beside the others on a wide screen: a bar for each second.
const SPARKS: u16 = 60;

/// From so many columns on there is room for it.
const WIDE: u16 = 150;

/// A failure's share in the last seconds, as a rate.
const NOW_SECONDS: i64 = 5;

pub fn draw(frame: &mut Frame, area: Rect, state: &State, choice: &mut Choice) {
    let behind = roots::of(&state.kinds);
    let behind = behind.first().map(|root| wrapped(&format!("Behind many: {}", root.sentence), area.width));
    let behind = behind.unwrap_or_default();
    let lines = u16::try_from(behind.len().min(3)).unwrap_or(0);
    let [above, body] = Layout::vertical([Constraint::Length(lines), Constraint::Min(0)]).areas(area);
    let behind: Vec<_> = behind.into_iter().map(|line| (line, strong())).collect();
    super::lines(frame, above, &behind, 0);

    let kinds = choice.kinds(state);
    if kinds.is_empty() {
        let text = match (state.rows.is_empty(), state.is_live) {
            (false, _) => "nothing that the filters let through",
            (true, true) => "no exchange has failed yet",
            (true, false) => "no exchange failed in what was recorded",
        };
        super::lines(frame, body, &[(text.to_owned(), faint())], 0);
        return;
    }
    let (at, offset) = choice.select_of(kinds.len(), body.height);
    let mut columns = COLUMNS.to_vec();
    if body.width >= WIDE {
        columns.push(Column::text("LAST MINUTE", SPARKS, SPARKS));
    }
    let rows = kinds.iter().skip(offset).map(|kind| cells(kind, state));
    table::draw(frame, body, &columns, choice.order(), rows, Some(at - offset));
}

fn cells(((upstream, cause, confidence), row): &Kind, state: &State) -> Vec<table::Cell> {
    let now = state.now();
    let plain = |count: u64| (if count == 0 { "-".to_owned() } else { number(count) }, Style::new());
    let rate = row.rate.within(now, NOW_SECONDS);
    let rate = match rate {
        0 => ("-".to_owned(), faint()),
        rate => (per_second(rate as f64 / NOW_SECONDS as f64), bad()),
    };
    let exchanges = state.exchanges.get(upstream).copied().filter(|all| *all >= row.total);
    let share = exchanges.map(|all| row.total as f64 / all as f64 * 100.0);
    vec![
        (cause.to_string(), strong()),
        (upstream.to_string(), Style::new()),
        (confidence.name().to_owned(), sure(*confidence)),
        rate,
        plain(row.rate.within(now, 60)),
        plain(row.rate.within(now, 600)),
        (number(row.total), Style::new()),
        share.map_or_else(|| ("-".to_owned(), faint()), |share| (percent(share), Style::new())),
        (ago(now - row.last_ns), Style::new()),
        (sparks(&row.rate.bars(now, usize::from(SPARKS), 1)), warning()),
    ]
}

fn per_second(rate: f64) -> String {
    if rate < 9.95 { format!("{rate:.1}") } else { number(rate.round() as u64) }
}

fn percent(share: f64) -> String {
    if share < 9.95 { format!("{share:.1}%") } else { format!("{share:.0}%") }
}
