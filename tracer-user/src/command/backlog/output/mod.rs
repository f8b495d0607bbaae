//! From queues and victims to what the user reads: one file per output, behind one small trait.

mod json;
mod text;

use std::io;

use super::{Balance, Check, Overflow, Queue};

pub(super) use json::Json;
pub(super) use text::Text;

/// What the whole run amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// How long it watched, in ns.
    pub elapsed_ns: u64,
    /// How many listeners were emitted.
    pub listeners: usize,
    /// How many closed listeners were forgotten before the end, because there were too many.
    pub forgotten: u64,
    /// How many connections met a full queue.
    pub victims: u64,
    /// Those that found no room in the kernel side's table, and so have no name.
    pub unnamed: u64,
    /// Records that were lost.
    pub lost: u64,
    /// Drops whose listener is not known.
    pub unattributed: u64,
    /// Listeners that could not be watched for want of room.
    pub unwatched: u64,
    /// How often a network namespace was not looked into, or a packet left out of its sum, because there were too many.
    pub uncompared: u64,
}

/// Where all of it goes. Each call writes whole lines in one piece.
pub(super) trait Output {
    /// Writes the listeners as they are now.
    fn queues(&mut self, queues: &[Queue], moment: Moment) -> io::Result<()>;

    /// Writes a closed listener that is forgotten now and has no place in the last list, where that can be done.
    fn forgotten(&mut self, queue: &Queue) -> io::Result<()>;

    /// Writes a connection that met a full queue and whose fate is known.
    fn overflow(&mut self, overflow: &Overflow) -> io::Result<()>;

    /// Writes what the kernel itself counted.
    fn balance(&mut self, balances: &[Balance]) -> io::Result<()>;

    /// Writes what became of the claims.
    fn checks(&mut self, checks: &[Check]) -> io::Result<()>;

    /// Writes what the whole run amounts to.
    fn summary(&mut self, summary: &Summary) -> io::Result<()>;

    /// Hands on what was written so far.
    fn flush(&mut self) -> io::Result<()>;
}

/// When listeners are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// A second after the last time.
    Running,
    /// At the end.
    Last,
}
