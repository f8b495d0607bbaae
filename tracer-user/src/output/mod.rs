//! From verdicts to what the user reads: one file per output, behind one small trait.

use std::io;

use crate::{
    answers::Answered,
    audit::Report,
    verdict::{After, Delayed, Note, Summary, Verdict},
};

pub mod file;
mod json;
pub mod terminal;
mod text;

pub use json::Json;
pub(crate) use terminal::printable;
pub use text::{Look, Text};
pub(crate) use text::{answered, paragraph, said};

/// Where verdicts go.
///
/// Each call writes whole lines in one piece. They may stay in a buffer of the writer until `flush`, to be called whenever
/// a batch ends. An error of the writer, a broken pipe included, comes back as it is.
pub trait Output {
    /// Writes a failed exchange.
    fn verdict(&mut self, verdict: &Verdict) -> io::Result<()>;

    /// Writes an exchange that succeeded late.
    fn delayed(&mut self, delayed: &Delayed) -> io::Result<()>;

    /// Writes what a worker did after nginx gave its exchange up.
    fn after(&mut self, after: &After) -> io::Result<()>;

    /// Writes what nginx logs of an upstream and what is no failure.
    fn note(&mut self, note: &Note) -> io::Result<()>;

    /// Writes what a client was answered.
    fn answer(&mut self, answered: &Answered) -> io::Result<()>;

    /// Writes what nginx's error log says of the verdicts.
    fn audit(&mut self, report: &Report) -> io::Result<()>;

    /// Writes what the whole run amounts to; nothing follows it.
    fn summary(&mut self, summary: &Summary) -> io::Result<()>;

    /// Hands on what was written so far.
    fn flush(&mut self) -> io::Result<()>;
}

#[cfg(test)]
pub(crate) mod samples;
