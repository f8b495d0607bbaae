//! The options of `why502 top`.

use std::{path::PathBuf, time::Duration};

use super::{Trace, duration};

const EXAMPLES: &str = "\
Examples:
  why502 top                                       Watch this host, as root
  why502 top -u 127.0.0.1:9000                     One upstream
  why502 top incident.zst                          Look at what was recorded: no root needed
  why502 top --speed 10 incident.zst               Play it, ten times as fast as it happened
Keys: 1 to 5 or Tab for the views, ? for what every column, word and key means, q to leave.";

/// The options of `why502 top`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Top {
    /// Files of evidence to be looked at, in any order; - for standard input. Without any: this host, live.
    #[arg(value_name = "FILE", conflicts_with = "Trace")]
    pub files: Vec<PathBuf>,

    /// What to trace, and for how long.
    #[command(flatten)]
    pub trace: Trace,

    /// Play the files so many times as fast as it happened: 1 as it was. Without it, they are taken in at once, and the screen shows their
    /// end.
    #[arg(long, value_name = "FACTOR", value_parser = speed, requires = "files")]
    pub speed: Option<f64>,

    /// Keep the newest failures, this many, to be looked at each; those before are only counted.
    #[arg(long, value_name = "COUNT", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub keep: u32,

    /// Keep the evidence of this much time in memory, as in 30s or 10m, 24 MiB at most: the key s writes it to a file.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    pub last: Duration,

    /// Where the key s writes: FILE, then FILE.1 and so on.
    #[arg(short, long, value_name = "FILE", default_value = "why502-top.zst")]
    pub output: PathBuf,

    /// Draw each view of the files into this folder, as pictures (SVG), and end.
    #[arg(long, value_name = "FOLDER", requires = "files", hide = true)]
    pub screens: Option<PathBuf>,

    /// Fail as a fault of its own would make it fail, once the key ! is pressed: for the tests.
    #[arg(long, hide = true)]
    pub fault_key: bool,
}

fn speed(word: &str) -> Result<f64, &'static str> {
    let factor = word.parse::<f64>().ok().filter(|factor| (0.001..=100_000.0).contains(factor));
    factor.ok_or("a speed is a number from 0.001 to 100000: 1 is as it happened")
}
