//! `why502 backlog --experiment`: what a full accept queue does, measured on this very kernel.
//!
//! Each trial runs in a thread with a network namespace of its own, which goes with it: nothing outside is touched. They run side by
//! side, so that all of them take no longer than the slowest.

mod arena;
mod final_ack;
mod fit;
mod limit;
mod syn;
mod unix;

mod json;
mod text;

use std::{io::Write as _, sync::mpsc, thread, time::Duration};

use anyhow::{Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{args::Format, model::failure::Failure, sink::Look, terminal};

/// A claim that goes around, and what became of it here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The claim, as people put it.
    pub claim: &'static str,
    /// Whether it holds on this kernel.
    pub holds: bool,
    /// What was measured.
    pub measured: String,
}

/// One trial: it may look into several claims.
type Trial = fn() -> Result<Vec<Finding>>;

/// In the order in which the table shows them.
const TRIALS: [Trial; 12] = [
    fit::backlog_and_one,
    limit::somaxconn_caps,
    limit::raised_later,
    syn::refused,
    syn::random,
    fit::cookies,
    syn::schedule,
    syn::gives_up,
    syn::lost,
    final_ack::trial,
    fit::grows,
    unix::trial,
];

/// No trial may take longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(50);

/// Runs every trial and prints the table.
///
/// # Errors
/// If this process may not make a network namespace, or a trial cannot be held.
pub(super) fn run(format: Format) -> Result<(), Failure> {
    // As each trial will.
    let may = thread::spawn(arena::enter).join().map_err(|_| anyhow!("a thread panicked"))?;
    may.map_err(|error| Failure::CannotTrace(format!("{error:#}")))?;
    let findings = measure()?;
    match format {
        Format::Json => {
            let mut stdout = terminal::json();
            terminal::written(json::write(&mut stdout, &findings).and_then(|()| stdout.flush()))
        }
        Format::Text => {
            let text = text::render(&findings, &Look::of_stdout(false));
            terminal::print(terminal::text(), text.as_bytes())
        }
    }
}

fn measure() -> Result<Vec<Finding>> {
    // Drawn on standard error, and on a terminal only.
    let style = ProgressStyle::with_template("{spinner} {msg} {wide_bar} {pos}/{len} trials, {elapsed}")?;
    let bar = ProgressBar::new(TRIALS.len() as u64).with_style(style).with_message("measuring");
    bar.enable_steady_tick(Duration::from_millis(100));
    let (results, inbox) = mpsc::channel();
    let threads: Vec<_> = TRIALS
        .iter()
        .enumerate()
        .map(|(number, trial)| {
            let results = results.clone();
            thread::spawn(move || {
                let result = arena::enter().and_then(|()| trial());
                // Whoever asked has given up if nobody takes it.
                let _ = results.send((number, result));
            })
        })
        .collect();
    drop(results);
    let mut findings: Vec<Vec<Finding>> = vec![Vec::new(); TRIALS.len()];
    for _ in &threads {
        let (number, result) = inbox
            .recv_timeout(PATIENCE + Duration::from_secs(5))
            .map_err(|_| anyhow!("a trial does not end"))?;
        findings[number] = result?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(findings.concat())
}
