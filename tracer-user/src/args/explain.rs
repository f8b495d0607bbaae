//! The options of `why502 explain`.

use crate::model::topic::Topic;

const EXAMPLES: &str = "\
Examples:
  why502 explain                        Every cause, in one line each
  why502 explain reset                  All that a reset can mean
  why502 explain reset/worker_killed    What nginx logs of it, how sure it is, how to make it happen, and what to do";

/// The options of `why502 explain`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Explain {
    /// What to explain: a cause as verdicts name it (reset/worker_killed), or all that begin alike (reset). Without it, list them all.
    #[arg(value_name = "CAUSE")]
    pub topic: Option<Topic>,
}
