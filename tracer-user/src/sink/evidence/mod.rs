//! Evidence: a file, or the last minutes in memory until something happens.

mod configured;
mod file;
mod naming;
mod window;

use std::io;

pub(in crate::sink) use file::numbered;
pub use file::{Recording, Rotation, are_free};
pub use naming::Naming;
pub use window::{MOST_BYTES, Window, Written};

use super::Sink;
use crate::model::{clock::monotonic_ns, failure::Failure, stream::Entry, verdict::Summary};

impl Sink for Recording {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.add(entry);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pause(monotonic_ns());
        Ok(())
    }

    fn wake_ns(&self) -> Option<u64> {
        self.due_ns()
    }

    fn end(self: Box<Self>, _: &Summary) -> Result<(), Failure> {
        self.finish();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
