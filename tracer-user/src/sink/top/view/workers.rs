//! Workers: how many are busy, with what, and which of them died.

use std::collections::BTreeMap;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
};

use super::{
    super::{choice::Choice, state::State},
    bad, clock, faint, number, strong,
    table::{self, Column},
    warning,
};

pub const COLUMNS: [Column; 6] = [
    Column::text("POOL", 15, 48),
    Column::figure("WORKERS", 7),
    Column::figure("BUSY", 4),
    Column::figure("IDLE", 4),
    Column::figure("FAILED", 6),
    Column::text("WHAT THE BUSY ONES DO", 30, 120),
];

pub const DEATHS: [Column; 5] = [
    Column::text("DIED", 8, 8),
    Column::text("WORKER", 16, 24),
    Column::text("POOL", 15, 48),
    Column::text("OF", 8, 12),
    Column::text("SENT BY", 16, 40),
];

/// One pool, from all that is known of it.
#[derive(Default)]
struct Pool {
    workers: Option<usize>,
    busy: Option<usize>,
    idle: Option<usize>,
    failed: u64,
    /// What they do, and how many of them.
    doing: BTreeMap<String, usize>,
}

pub fn draw(frame: &mut Frame, area: Rect, state: &State, choice: &mut Choice) {
    let pools = pools(state);
    let deaths = u16::try_from(state.deaths.len()).unwrap_or(u16::MAX).saturating_add(2);
    let below = if state.deaths.is_empty() { 2 } else { deaths.min(area.height / 2) };
    let [above, below] = Layout::vertical([Constraint::Min(0), Constraint::Length(below)]).areas(area);
    if pools.is_empty() {
        let text = "no worker is known yet: one is once an exchange that it had has failed, or is slow";
        super::lines(frame, above, &[(text.to_owned(), faint())], 0);
    } else {
        let mut pools: Vec<_> = pools.into_iter().collect();
        match choice.order() {
            "BUSY" => pools.sort_by_key(|(_, pool)| std::cmp::Reverse(pool.busy)),
            "WORKERS" => pools.sort_by_key(|(_, pool)| std::cmp::Reverse(pool.workers)),
            "FAILED" => pools.sort_by_key(|(_, pool)| std::cmp::Reverse(pool.failed)),
            _ => {}
        }
        if choice.is_backwards() {
            pools.reverse();
        }
        let (at, offset) = choice.select_of(pools.len(), above.height);
        let rows = pools.iter().skip(offset).map(|(name, pool)| cells(name, pool));
        table::draw(frame, above, &COLUMNS, choice.order(), rows, Some(at - offset));
    }
    died(frame, below, state);
}

fn died(frame: &mut Frame, area: Rect, state: &State) {
    let mut lines = area;
    lines.y += 1;
    lines.height = lines.height.saturating_sub(1);
    if state.deaths.is_empty() {
        super::lines(frame, lines, &[("no worker has died with a request".to_owned(), faint())], 0);
        return;
    }
    let rows = state.deaths.iter().rev().map(|death| {
        let killer = match &death.killer {
            Some(killer) => (format!("{} {}", killer.comm, killer.pid), warning()),
            None => ("-".to_owned(), faint()),
        };
        vec![
            (clock(death.unix_ns), Style::new()),
            (format!("{} {}", death.worker.comm, death.worker.pid), strong()),
            (death.upstream.to_string(), Style::new()),
            (death.signal.clone().unwrap_or_else(|| "its exit".to_owned()), bad()),
            killer,
        ]
    });
    table::draw(frame, lines, &DEATHS, "", rows, None);
}

fn pools(state: &State) -> BTreeMap<String, Pool> {
    let mut pools = BTreeMap::<String, Pool>::new();
    for (upstream, seen) in &state.pools {
        let pool = pools.entry(upstream.to_string()).or_default();
        pool.failed = seen.failures;
    }
    for crew in &state.crews {
        let name = state.served_by(crew).unwrap_or_else(|| format!("{} of {}", crew.name, crew.master));
        let pool = pools.entry(name).or_default();
        *pool.workers.get_or_insert(0) += crew.workers.len();
        *pool.idle.get_or_insert(0) += crew.idle();
        *pool.busy.get_or_insert(0) += crew.busy().count();
        for (_, doing) in crew.busy() {
            *pool.doing.entry(doing.in_words()).or_default() += 1;
        }
    }
    // Of those that nobody looks at otherwise: in a file, or none of php-fpm's.
    for (_, upstream, doing) in state.slow() {
        let name = upstream.map_or_else(|| "not known yet".to_owned(), ToString::to_string);
        if state.crews.is_empty() || pools.get(&name).is_none_or(|pool| pool.workers.is_none()) {
            let pool = pools.entry(name).or_default();
            *pool.busy.get_or_insert(0) += 1;
            *pool.doing.entry(doing.to_owned()).or_default() += 1;
        }
    }
    for master in state.masters.iter().filter(|master| master.comm != "nginx") {
        if let Some([one]) = master.listeners.as_deref() {
            let pool = pools.entry(one.clone()).or_default();
            pool.workers.get_or_insert(master.workers);
        }
    }
    pools
}

fn cells(name: &str, pool: &Pool) -> Vec<table::Cell> {
    let figure = |count: Option<usize>| match count {
        Some(count) => (number(count as u64), Style::new()),
        None => ("-".to_owned(), faint()),
    };
    let mut doing: Vec<_> = pool.doing.iter().collect();
    doing.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let words = |(doing, count): &(&String, &usize)| match **count {
        1 => (*doing).clone(),
        count => format!("{count}: {doing}"),
    };
    let doing: Vec<_> = doing.iter().map(words).collect();
    let is_full = pool.idle == Some(0);
    vec![
        (name.to_owned(), strong()),
        figure(pool.workers),
        figure(pool.busy),
        (figure(pool.idle).0, if is_full { bad() } else { Style::new() }),
        (number(pool.failed), Style::new()),
        (doing.join("; "), Style::new()),
    ]
}
