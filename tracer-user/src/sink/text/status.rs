//! The line at the bottom of a terminal, below the verdicts: what the run amounts to so far.

use std::{
    env,
    io::{self, IsTerminal as _, Write},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::units::grouped;
use crate::{
    model::{
        clock::{monotonic_ns, nanoseconds},
        failure::Failure,
        verdict::Summary,
    },
    sink::Sink,
    terminal::{self, Diversion},
};

/// The time between two looks at the figures.
const PERIOD: Duration = Duration::from_secs(1);

/// Text that waits to be written is written at the latest when there is so much of it, in bytes.
const MOST_WAITING: usize = 64 << 10;

/// The line. It is gone when this is.
pub struct Status {
    bar: ProgressBar,
    due_ns: u64,
    _notices: Diversion,
}

/// Writes above the line.
pub struct Above<W> {
    bar: ProgressBar,
    out: W,
    waiting: Vec<u8>,
}

impl Status {
    /// One on standard output, if that is a terminal on which a line can be taken back.
    pub fn on_terminal() -> Option<Self> {
        let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        if is_dumb || !io::stdout().is_terminal() {
            return None;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
        // As wide as the terminal, and cut there.
        bar.set_style(ProgressStyle::with_template("{wide_msg}").ok()?);
        let beside = bar.clone();
        let notices = terminal::divert(move |lines| beside.suspend(|| terminal::complain_here(lines)));
        Some(Self { bar, due_ns: monotonic_ns(), _notices: notices })
    }

    /// What is written to `out` through this stays above the line.
    pub fn above<W: Write>(&self, out: W) -> Above<W> {
        Above { bar: self.bar.clone(), out, waiting: Vec::new() }
    }
}

impl Sink for Status {
    fn sums_ns(&self) -> Option<u64> {
        Some(self.due_ns)
    }

    fn so_far(&mut self, sums: &Summary) -> io::Result<()> {
        self.due_ns = monotonic_ns().saturating_add(nanoseconds(PERIOD));
        self.bar.set_message(line(sums));
        Ok(())
    }

    fn end(self: Box<Self>, _: &Summary) -> Result<(), Failure> {
        self.bar.finish_and_clear();
        Ok(())
    }
}

/// As in `1,204 exchanges, 3 failed (2 refused/no_listener, 1 reset/worker_killed), nothing lost`.
fn line(sums: &Summary) -> String {
    let Summary { exchanges, failures, lost, untracked, .. } = sums;
    let mut causes: Vec<_> = failures.iter().collect();
    causes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let causes: Vec<_> = causes.iter().map(|(cause, count)| format!("{} {cause}", grouped(*count))).collect();
    let failed: u64 = failures.iter().map(|(_, count)| count).sum();
    let failed = match failed {
        0 => "none failed".to_owned(),
        failed => format!("{} failed ({})", grouped(failed), causes.join(", ")),
    };
    let lost = match lost + untracked {
        0 => "nothing lost".to_owned(),
        lost => format!("{} lost", grouped(lost)),
    };
    let exchanges = super::units::counted(*exchanges, "exchange");
    format!("{exchanges}, {lost}, {failed}")
}

impl<W: Write> Write for Above<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= MOST_WAITING {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let Self { bar, out, waiting } = self;
        let written = bar.suspend(|| out.write_all(waiting).and_then(|()| out.flush()));
        waiting.clear();
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cause::Cause;

    #[test]
    fn the_line_says_what_was_lost_before_what_may_be_cut_off() {
        assert_eq!(line(&Summary::default()), "0 exchanges, nothing lost, none failed");
        let sums = Summary {
            exchanges: 1_204,
            failures: vec![(Cause::RefusedNoListener, 1), (Cause::ResetWorkerKilled, 2)],
            lost: 3,
            ..Summary::default()
        };
        let said = "1,204 exchanges, 3 lost, 3 failed (2 reset/worker_killed, 1 refused/no_listener)";
        assert_eq!(line(&sums), said);
    }

    #[test]
    fn what_is_written_above_comes_whole_and_once() {
        let mut out = Vec::new();
        let mut above = Above { bar: ProgressBar::hidden(), out: &mut out, waiting: Vec::new() };
        above.write_all(b"one\n").unwrap();
        above.write_all(b"two\n").unwrap();
        above.flush().unwrap();
        above.flush().unwrap();
        assert_eq!(out, b"one\ntwo\n");
    }
}
