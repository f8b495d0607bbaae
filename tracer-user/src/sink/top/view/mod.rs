//! How it looks. Views only draw. Colours are the terminal's own sixteen, so that they suit light and dark ones, and none is used where
//! `NO_COLOR` is set.

mod causes;
mod failures;
pub mod help;
mod nginx;
mod queues;
mod table;
mod workers;

use std::{env, sync::LazyLock};

use jiff::{Timestamp, tz::TimeZone};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::{
    choice::{Choice, View},
    state::State,
};
use crate::{
    model::verdict::{Confidence, Summary},
    sink::paragraph,
    terminal::printable,
};

/// How much room it needs at least, in columns and lines.
const LEAST: (u16, u16) = (40, 8);

static HAS_COLOUR: LazyLock<bool> =
    LazyLock::new(|| env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()));

/// Whether the terminal shows more than ASCII, by the locale: `LC_ALL`, `LC_CTYPE` or `LANG`, the first that is set.
static HAS_BLOCKS: LazyLock<bool> = LazyLock::new(|| {
    let set =
        ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(env::var_os).find(|value| !value.is_empty());
    let set = set.map(|value| value.to_string_lossy().to_ascii_lowercase());
    set.is_some_and(|locale| locale.contains("utf-8") || locale.contains("utf8"))
});

fn coloured(colour: Color) -> Style {
    if *HAS_COLOUR { Style::new().fg(colour) } else { Style::new() }
}

fn bad() -> Style {
    coloured(Color::Red).add_modifier(Modifier::BOLD)
}

fn warning() -> Style {
    coloured(Color::Yellow)
}

fn good() -> Style {
    coloured(Color::Green)
}

fn faint() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn strong() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// The style of how sure it is.
fn sure(confidence: Confidence) -> Style {
    match confidence {
        Confidence::Proven => good(),
        Confidence::Inferred => Style::new(),
        Confidence::Incomplete => warning(),
    }
}

/// Draws everything.
pub fn draw(frame: &mut Frame, state: &State, choice: &mut Choice, is_paused: bool) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("why502 top needs {} columns and {} lines", LEAST.0, LEAST.1);
        frame.render_widget(Line::from(text), area);
        return;
    }
    let [head, tabs, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(of_run(state, is_paused), head);
    frame.render_widget(of_views(choice), tabs);
    if choice.help.is_some() {
        help::draw(frame, body, choice);
    } else {
        match choice.view {
            View::Causes => causes::draw(frame, body, state, choice),
            View::Failures => failures::draw(frame, body, state, choice),
            View::Queues => queues::draw(frame, body, state, choice),
            View::Workers => workers::draw(frame, body, state, choice),
            View::Nginx => nginx::draw(frame, body, state, choice),
        }
    }
    frame.render_widget(of_keys(choice), foot);
}

/// The first line: what it is, and what it amounts to so far.
fn of_run(state: &State, is_paused: bool) -> Line<'static> {
    let Summary { exchanges, failures, lost, untracked, .. } = &state.sums;
    let failed: u64 = failures.iter().map(|(_, count)| count).sum();
    let from = match (is_paused, state.is_live, state.is_over) {
        (true, ..) => "paused",
        (_, true, _) => "live",
        (_, _, true) => "the end of the file",
        (..) => "from a file",
    };
    let lost = lost + untracked;
    let figures = |count: u64, what: &str| format!("  {} {what}", number(count));
    Line::from(vec![
        Span::styled("why502 top", strong()),
        Span::raw(format!("  {}  ", clock(state.now()))),
        Span::styled(from, if is_paused { warning() } else { Style::new() }),
        Span::raw(figures(*exchanges, "exchanges")),
        Span::styled(figures(failed, "failed"), if failed > 0 { bad() } else { Style::new() }),
        Span::styled(figures(lost, "lost"), if lost > 0 { warning() } else { Style::new() }),
    ])
}

/// The second line: the views, by their keys.
fn of_views(choice: &Choice) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, (view, name)) in View::ALL.iter().enumerate() {
        let style = match choice.help.is_none() && *view == choice.view {
            true => Style::new().add_modifier(Modifier::REVERSED),
            false => Style::new(),
        };
        spans.push(Span::styled(format!(" {} {name} ", number + 1), style));
    }
    let style = if choice.help.is_some() { Style::new().add_modifier(Modifier::REVERSED) } else { faint() };
    spans.push(Span::styled(" ? help ", style));
    let order = format!("  by {}{}", choice.order(), if choice.is_backwards() { ", backwards" } else { "" });
    spans.push(Span::styled(order, faint()));
    Line::from(spans)
}

/// The last line: what has just happened, what is typed, or the keys.
fn of_keys(choice: &Choice) -> Line<'static> {
    if let Some(message) = &choice.message {
        return Line::styled(safe(message), strong());
    }
    if choice.is_typing {
        return Line::from(vec![
            Span::styled("only what has: ", faint()),
            Span::raw(safe(&choice.text)),
            Span::styled(" ", Style::new().add_modifier(Modifier::REVERSED)),
            Span::styled("  Enter keeps it, Esc shows all", faint()),
        ]);
    }
    let filters = choice.filters();
    if !filters.is_empty() {
        return Line::from(vec![
            Span::styled("only ", warning()),
            Span::styled(safe(&filters), warning()),
            Span::styled("  Esc shows all", faint()),
        ]);
    }
    let keys = match choice.view {
        _ if choice.help.is_some() => "up, down scroll  Esc back  q leave",
        View::Failures if choice.unfolded.is_some() => {
            "up, down scroll  y copy  Y as JSON  Esc back  q leave"
        }
        View::Failures => {
            "Enter unfold  / type  u upstream  c cause  f sure  y copy  o sort  p pause  q leave"
        }
        View::Causes => "Enter its failures  / type  u c f filter  o r sort  p pause  s save  q leave",
        _ => "o r sort  p pause  s save  ? what it means  q leave",
    };

    Line::styled(keys, faint())
}

/// Text that cannot steer the terminal.
fn safe(text: &str) -> String {
    printable(text).into_owned()
}

/// Lines of text, wrapped at the width, and none of them longer.
fn wrapped(text: &str, width: u16) -> Vec<String> {
    let width = usize::from(width.max(1));
    let lines = paragraph("", text, 0, width);
    lines.lines().map(|line| table::fit(line, width)).collect()
}

/// The lines that fit, from a given one on; returns where it begins after all.
fn lines(frame: &mut Frame, area: Rect, lines: &[(String, Style)], from: usize) -> usize {
    let page = usize::from(area.height);
    let from = from.min(lines.len().saturating_sub(page));
    for (row, (line, style)) in area.rows().zip(&lines[from..]) {
        let fitting = table::fit(line, usize::from(area.width));
        frame.render_widget(Line::styled(fitting, *style), row);
    }
    from
}

/// `12,345`.
fn number(count: u64) -> String {
    super::super::text::grouped(count)
}

/// The time of day.
fn clock(unix_ns: i64) -> String {
    static ZONE: LazyLock<TimeZone> = LazyLock::new(|| TimeZone::try_system().unwrap_or(TimeZone::UTC));
    let time = Timestamp::from_nanosecond(unix_ns.into()).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_zoned(ZONE.clone()).strftime("%H:%M:%S").to_string()
}

/// How long ago: `now`, `12s`, `3m`, `2h`, `5d`.
fn ago(ns: i64) -> String {
    match ns / 1_000_000_000 {
        ..=0 => "now".to_owned(),
        seconds @ 1..100 => format!("{seconds}s"),
        seconds @ 100..6_000 => format!("{}m", seconds / 60),
        seconds @ 6_000..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

/// A bar of `width` columns, full to a share.
fn bar(share: f64, width: usize) -> String {
    let full = (share.clamp(0.0, 1.0) * width as f64).round() as usize;
    let full = if share > 0.0 { full.max(1) } else { full };
    let (on, off) = if *HAS_BLOCKS { ("█", "░") } else { ("#", ".") };
    format!("{}{}", on.repeat(full), off.repeat(width - full))
}

/// Figures as a row of bars, the highest of them full.
fn sparks(figures: &[u64]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const LETTERS: [char; 8] = ['.', ':', '-', '=', '+', '*', '%', '#'];
    let levels = if *HAS_BLOCKS { BLOCKS } else { LETTERS };
    let most = figures.iter().copied().max().unwrap_or(0).max(1);
    let spark = |figure: &u64| match figure {
        0 => ' ',
        figure => levels[usize::try_from((figure * 8).div_ceil(most)).unwrap_or(8).clamp(1, 8) - 1],
    };
    figures.iter().map(spark).collect()
}

/// The titles of all columns.
#[cfg(test)]
pub fn columns() -> impl Iterator<Item = &'static str> {
    let all = [
        &causes::COLUMNS[..],
        &failures::COLUMNS,
        &queues::COLUMNS,
        &workers::COLUMNS,
        &workers::DEATHS,
        &nginx::COLUMNS,
        &nginx::WORDS,
    ];
    all.into_iter().flatten().map(|column| column.title)
}
