//! How a run can fail, and what the shell gets.

use std::process::ExitCode;

use thiserror::Error;

/// Why why502 ended other than as asked.
#[derive(Debug, Error)]
pub enum Failure {
    /// This host or these privileges cannot trace; the sentence names what is missing.
    #[error("{0}")]
    CannotTrace(String),
    /// Nobody reads standard output any more: `| head` has what it wanted.
    #[error("nobody reads standard output any more")]
    Closed,
    /// Something failed while running.
    #[error("{0:#}")]
    Run(#[from] anyhow::Error),
}

impl Failure {
    /// 0 the reader had what it wanted; 1 failed at run time; 3 this host or these privileges cannot trace. (2, wrong usage, is clap's.)
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Closed => ExitCode::SUCCESS,
            Self::Run(_) => ExitCode::from(1),
            Self::CannotTrace(_) => ExitCode::from(3),
        }
    }
}
