//! JSON Lines: a contract with the programs that read it.
//!
//! The types here stand apart from the model, so that a rename inside never reaches a reader. Fields are written in the order
//! in which they stand; what is unknown is null and never left out. The model is taken apart in full, so that whoever adds a field
//! to it must decide what readers get to see.

use std::io::{self, Write};

use serde::Serialize;

use super::Sink;
use crate::model::{self, answers::Answered, audit};
use after::After;
use delayed::Delayed;
use note::Note;
use run::{Audit, Summary};
use verdict::Verdict;

mod after;
mod answers;
mod delayed;
mod home;
mod listeners;
mod note;
mod pressure;
mod process;
mod queue;
mod run;
mod upstream;
mod verdict;
mod word;

/// The version of the contract.
const VERSION: u32 = 1;

/// Writes one JSON object per line.
#[derive(Debug)]
pub struct Json<W> {
    out: W,
    line: Vec<u8>,
}

impl<W: Write> Json<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, line: Vec::new() }
    }

    fn line(&mut self, object: &impl Serialize) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, object)?;
        self.line.push(b'\n');
        self.out.write_all(&self.line)
    }
}

impl<W: Write> Sink for Json<W> {
    fn verdict(&mut self, verdict: &model::verdict::Verdict) -> io::Result<()> {
        self.line(&Verdict::from(verdict))
    }

    fn delayed(&mut self, delayed: &model::verdict::Delayed) -> io::Result<()> {
        self.line(&Delayed::from(delayed))
    }

    fn worker_outlived(&mut self, after: &model::verdict::WorkerOutlived) -> io::Result<()> {
        self.line(&After::from(after))
    }

    fn note(&mut self, note: &model::verdict::Note) -> io::Result<()> {
        self.line(&Note::from(note))
    }

    fn answer(&mut self, answered: &Answered) -> io::Result<()> {
        self.line(&answers::Answer::from(answered))
    }

    fn audit(&mut self, report: &audit::Report) -> io::Result<()> {
        self.line(&Audit::from(report))
    }

    fn summary(&mut self, summary: &model::verdict::Summary) -> io::Result<()> {
        self.line(&Summary::from(summary))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod schema;
#[cfg(test)]
mod tests;
