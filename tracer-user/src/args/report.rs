//! The options of `why502 report`.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::model::cgroup::Wanted;

const EXAMPLES: &str = "\
Examples:
  why502 report incident.zst                       What failed, how often, since when, and why
  why502 report incident.zst --html incident.html  One page that needs no network
  why502 report -o json incident.zst | jq .cause   The lines that live tracing wrote
  why502 report web.zst fpm.zst                    Both ends, from two hosts
  ssh web cat incident.zst | why502 report -       From elsewhere
  why502 report -o evidence --anonymize incident.zst > shared.zst
                                                   Evidence without addresses and paths, to be handed over";

/// The options of `why502 report`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Report {
    /// Files of evidence, in any order; - for standard input.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// Write a summary for a person, the verdicts as JSON Lines, or evidence again.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: ReportFormat,

    /// Also write a page that shows it all and needs no network to this file. It replaces a file of yours, and nothing else.
    #[arg(long, value_name = "OUT")]
    pub html: Option<PathBuf>,

    /// With -o evidence: replace addresses and paths by invented ones, each always by the same.
    #[arg(long)]
    pub anonymize: bool,

    /// Whose failures to tell; without it, those that were asked for when it was recorded.
    #[command(flatten)]
    pub wanted: Wanted,

    /// Print under the first and the worst failure the facts that they rest on.
    #[arg(short, long)]
    pub verbose: bool,
}

/// What a report is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// A summary for a person.
    Text,
    /// JSON Lines, as live tracing writes them.
    Json,
    /// Evidence, compressed.
    Evidence,
}
