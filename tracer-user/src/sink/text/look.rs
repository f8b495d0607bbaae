//! How much is shown, how wide, and whether in colour.

use std::{
    env,
    io::{self, IsTerminal},
};

use anstyle::Style;

use super::paragraph::width;

/// The width of lines where there is no terminal to say it.
const WIDTH: usize = 110;

/// How text looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Write the explanation and the advice under each line.
    pub details: bool,
    /// Write the facts as well.
    pub evidence: bool,
    /// Write in colour.
    pub colour: bool,
    /// Wrap what is under a line at this many columns.
    pub width: usize,
}

impl Look {
    /// One line for each failure, without colour.
    pub const PLAIN: Self = Self { details: false, evidence: false, colour: false, width: WIDTH };

    /// What suits standard output: details and colour on a terminal, no colour with `NO_COLOR`, everything if `verbose`.
    pub fn of_stdout(verbose: bool) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        // https://no-color.org: set and not empty.
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|value| value == "dumb");
        let columns = terminal_size::terminal_size_of(stdout).map(|(columns, _)| columns.0.into());
        Self {
            details: terminal || verbose,
            evidence: verbose,
            colour: terminal && !unwanted,
            // A terminal that does not know its size, a serial line for one, says 0.
            width: columns.filter(|columns| *columns > 0).unwrap_or(WIDTH),
        }
    }

    /// The text in the style, if colour is on, and then blanks up to `columns`.
    pub(crate) fn paint(&self, style: Style, text: &str, columns: usize) -> String {
        let style = if self.colour { style } else { Style::new() };
        let blanks = columns.saturating_sub(width(text));
        format!("{style}{text}{style:#}{:blanks$}", "")
    }
}
