//! nginx: its processes, and what it was heard to say.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
};

use super::{
    super::{choice::Choice, state::State},
    faint, number, strong,
    table::{self, Column},
    warning,
};
use crate::{model::words::count, sink::top::state::Nginx};

pub const COLUMNS: [Column; 5] = [
    Column::figure("PID", 8),
    Column::text("WHAT", 8, 24),
    Column::figure("FAILED", 8),
    Column::figure("WORDS", 8),
    Column::text("BINARY", 20, 120),
];

pub const WORDS: [Column; 3] =
    [Column::figure("HEARD", 7), Column::text("LEVEL", 6, 6), Column::text("WORD", 40, 160)];

pub fn draw(frame: &mut Frame, area: Rect, state: &State, choice: &mut Choice) {
    let said = said(state);
    let mut processes: Vec<(u32, String, Nginx)> = Vec::new();
    for master in state.masters.iter().filter(|master| master.comm == "nginx") {
        let pid = master.pid.cast_unsigned();
        let what = format!("master of {}", count(master.workers as u64, "worker"));
        processes.push((pid, what, state.nginx.get(&pid).cloned().unwrap_or_default()));
    }
    for (pid, nginx) in &state.nginx {
        if !processes.iter().any(|(known, ..)| known == pid) {
            processes.push((*pid, "worker".to_owned(), nginx.clone()));
        }
    }
    match choice.order() {
        "PID" => processes.sort_by_key(|(pid, ..)| *pid),
        _ => processes.sort_by_key(|(.., nginx)| std::cmp::Reverse(nginx.failures)),
    }
    if choice.is_backwards() {
        processes.reverse();
    }
    let height = u16::try_from(processes.len() + 1).unwrap_or(u16::MAX).min(area.height / 2);
    let said: Vec<_> = said.iter().flat_map(|line| super::wrapped(line, area.width)).collect();
    let [top, middle, _, below] = Layout::vertical([
        Constraint::Length(u16::try_from(said.len()).unwrap_or(0)),
        Constraint::Length(height),
        Constraint::Length(1),
        Constraint::Min(0),
    ])
    .areas(area);
    let said: Vec<_> = said.into_iter().map(|line| (line, Style::new())).collect();
    super::lines(frame, top, &said, 0);
    let (at, offset) = choice.select_of(processes.len(), middle.height);
    let rows = processes.iter().skip(offset).map(|(pid, what, nginx)| {
        vec![
            (pid.to_string(), strong()),
            (what.clone(), Style::new()),
            (number(nginx.failures), Style::new()),
            (number(nginx.words), Style::new()),
            (state.binaries.get(pid).cloned().unwrap_or_else(|| "-".to_owned()), Style::new()),
        ]
    });
    let selected = (!processes.is_empty()).then(|| at - offset);
    table::draw(frame, middle, &COLUMNS, choice.order(), rows, selected);
    heard(frame, below, state);
}

/// Which words were heard, the most frequent first; those that nothing explains come before them.
fn heard(frame: &mut Frame, area: Rect, state: &State) {
    let mut words: Vec<_> = state.words.iter().collect();
    words.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let unexplained = state.sums.words.iter().flat_map(|words| words.unexplained.shown.iter().rev());
    let unexplained = unexplained.map(|word| {
        let upstream = word.upstream.as_deref().map_or_else(String::new, |upstream| format!(" ({upstream})"));
        vec![
            ("1".to_owned(), warning()),
            ("?".to_owned(), warning()),
            (format!("nothing explains: {}{upstream}", word.line), warning()),
        ]
    });
    let said = words.iter().map(|((level, message), count)| {
        vec![
            (number(**count), Style::new()),
            ((*level).to_owned(), Style::new()),
            (message.clone(), Style::new()),
        ]
    });
    if state.words.is_empty() && state.sums.words.as_ref().is_none_or(|words| words.unexplained.count == 0) {
        super::lines(frame, area, &[("nginx has said nothing of its upstreams".to_owned(), faint())], 0);
        return;
    }
    table::draw(frame, area, &WORDS, "", unexplained.chain(said), None);
}

fn said(state: &State) -> Vec<String> {
    let how = match (&state.hears_by, state.reads_log) {
        (_, true) => "nginx's error log is read for the moment, in place of its word.".to_owned(),
        (Some(hook), false) => format!("What nginx says of its upstreams is heard in its process ({hook})."),
        (None, false) => "What nginx says of its upstreams is not heard here.".to_owned(),
    };
    let mut lines = vec![how];
    if let Some(words) = &state.sums.words {
        lines.push(format!(
            "{} of failures: {} explained, {} not; {} of no failure.",
            count(words.said, "word"),
            words.explained,
            words.unexplained.count,
            count(words.notes, "word")
        ));
    }
    if state.sums.strangers > 0 {
        lines.push(format!(
            "{} of processes that only have nginx's name left out.",
            count(state.sums.strangers, "connection")
        ));
    }
    for notice in state.notices.iter().rev().take(3) {
        lines.push(notice.clone());
    }
    lines
}
