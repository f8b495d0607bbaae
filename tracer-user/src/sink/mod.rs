//! From what a run learns and says to whoever takes it: one file per sink, behind one small trait.

use std::io;

use crate::{
    model::{
        answers::Answered,
        audit::Report,
        failure::Failure,
        stream::Entry,
        verdict::{Delayed, Note, Summary, Verdict, WorkerOutlived},
    },
    pipeline::Emitted,
};

mod courier;
mod drops;
pub mod evidence;
mod journal;
mod json;
pub mod lines;
pub mod metrics;
mod otlp;
mod record;
mod sinks;
mod syslog;
mod text;
pub mod top;

pub use journal::to_journal;
pub use json::Json;
pub use otlp::{Otlp, to_collector};
pub use record::ATTRIBUTES;
pub use sinks::Sinks;
pub use syslog::to_syslog;
pub use text::{Above, Look, Status, Text};
pub(crate) use text::{INDENT, answered, paragraph, said};

/// Where what a run learns and says goes. A sink takes what it has a use for, and decides nothing.
///
/// Each call of one that writes lines writes whole ones, in one piece. They may stay in a buffer until `flush`. An error ends the run, a
/// broken pipe included, which ends it well; a sink that can do without says so itself, and goes on.
pub trait Sink {
    /// Takes in an entry of the stream, before what is emitted because of it: all that verdicts rest on.
    fn entry(&mut self, _: &Entry) -> io::Result<()> {
        Ok(())
    }

    /// Takes in a failed exchange.
    fn verdict(&mut self, _: &Verdict) -> io::Result<()> {
        Ok(())
    }

    /// Takes in an exchange that succeeded late.
    fn delayed(&mut self, _: &Delayed) -> io::Result<()> {
        Ok(())
    }

    /// Takes in what a worker did after nginx gave its exchange up.
    fn worker_outlived(&mut self, _: &WorkerOutlived) -> io::Result<()> {
        Ok(())
    }

    /// Takes in what nginx logs of an upstream and what is no failure.
    fn note(&mut self, _: &Note) -> io::Result<()> {
        Ok(())
    }

    /// Takes in what a client was answered.
    fn answer(&mut self, _: &Answered) -> io::Result<()> {
        Ok(())
    }

    /// Takes in what nginx's error log says of the verdicts.
    fn audit(&mut self, _: &Report) -> io::Result<()> {
        Ok(())
    }

    /// Takes in what the whole run amounts to; nothing follows it.
    fn summary(&mut self, _: &Summary) -> io::Result<()> {
        Ok(())
    }

    /// Hands on what was taken in so far: called whenever a batch ends, and at `wake_ns`.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// When `flush` is to be called at the latest (ns, monotonic).
    fn wake_ns(&self) -> Option<u64> {
        None
    }

    /// When it is to be given what the run amounts to so far (ns, monotonic); never, if none.
    fn sums_ns(&self) -> Option<u64> {
        None
    }

    /// Takes in what the run amounts to so far.
    fn so_far(&mut self, _: &Summary) -> io::Result<()> {
        Ok(())
    }

    /// Whether SIGUSR1 is a demand to it.
    fn takes_demands(&self) -> bool {
        false
    }

    /// The user demands something by SIGUSR1.
    fn demand(&mut self) {}

    /// Whether SIGHUP asks it to read its configuration again.
    fn takes_reloads(&self) -> bool {
        false
    }

    /// The user has changed its configuration.
    fn reload(&mut self) {}

    /// Ends what outlives each call: the run, of which this is the summary, is over.
    ///
    /// # Errors
    /// If not all is where it was to be.
    fn end(self: Box<Self>, _: &Summary) -> Result<(), Failure> {
        Ok(())
    }

    /// Takes in what is emitted.
    fn emitted(&mut self, emitted: &Emitted) -> io::Result<()> {
        match emitted {
            Emitted::Verdict(verdict) => self.verdict(verdict),
            Emitted::Delayed(delayed) => self.delayed(delayed),
            Emitted::WorkerOutlived(outlived) => self.worker_outlived(outlived),
            Emitted::Note(note) => self.note(note),
            Emitted::Answer(answered) => self.answer(answered),
            Emitted::Withheld(_) => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod samples;
