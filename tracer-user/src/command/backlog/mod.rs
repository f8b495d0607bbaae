//! `why502 backlog`: accept queues and what is claimed about them, from the kernel's side.
//!
//! The modules stand in the order in which data flows: listeners become queues with names and owners, what their masters are configured
//! with is read, some of them are chosen, the sums are held against the kernel's own, and all of it goes out.

mod netns;
mod queue;

mod masters;

mod choice;

mod closed;

mod reconcile;

mod verify;

mod output;

mod watch;

mod experiment;

use std::process::ExitCode;

pub use experiment::Finding;
pub use queue::{Asked, Queue};
pub use reconcile::Balance;
pub use verify::Check;

pub use crate::queues::{Outcome, Overflow, Stage};
use crate::{args::Backlog, load::take_types, model::failure::Failure};

/// Runs until the duration is over, or SIGINT or SIGTERM comes.
///
/// # Errors
/// Where this host cannot be traced, or something fails on the way. A closed standard output is no error.
pub fn run(args: &Backlog) -> Result<ExitCode, Failure> {
    take_types(args.btf.as_deref())?;
    if args.experiment {
        return experiment::run(args.output).map(|()| ExitCode::SUCCESS);
    }
    watch::run(args).map(|()| ExitCode::SUCCESS)
}
