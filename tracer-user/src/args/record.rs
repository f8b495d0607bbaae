//! The options of `why502 record`.

use std::{fmt, num::NonZeroU64, path::PathBuf, str::FromStr, time::Duration};

use super::{Trace, UpstreamFilter, duration};
use crate::model::cause::Cause;

const EXAMPLES: &str = "\
Examples:
  why502 record -o incident.zst                    Until Ctrl-C
  why502 record -o evidence.zst --rotate-size 100M --rotate-keep 9
                                                   For days, in at most ten files of 100 MB
  why502 record -o incident.zst --last 10m --trigger 'failures>=20/10s'
                                                   Keep ten minutes in memory; write them once it happens
  why502 record -o fpm.zst --listener 10.0.0.5:9000
                                                   On the host of php-fpm, while nginx is elsewhere
  why502 report incident.zst                       Read it: no root needed";

/// The options of `why502 record`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Record {
    /// Write to this file, which must not exist yet; nor may one by a name that --rotate-keep or --max-files may take.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,

    /// What to trace, and for how long.
    #[command(flatten)]
    pub trace: Trace,

    /// Also record what becomes of the connections that this listener takes up (IP:PORT, [IPV6]:PORT or :PORT), though nginx is on
    /// another host; or these if repeated.
    #[arg(long = "listener", value_name = "ADDR", value_parser = listener)]
    pub listeners: Vec<UpstreamFilter>,

    /// Replace addresses and paths by invented ones, each always by the same.
    #[arg(long)]
    pub anonymize: bool,

    /// Begin a new file when this one has this many bytes, as in 500K, 100M or 1G (powers of ten; 10K at least). Without it: one file.
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "last")]
    pub rotate_size: Option<u64>,

    /// Keep this many older files, as FILE.1, FILE.2 and so on; older ones are removed.
    #[arg(long, value_name = "COUNT", default_value = "9", requires = "rotate_size", value_parser = files(0))]
    pub rotate_keep: u32,

    /// Keep this much time in memory, as in 30s or 10m, 24 MiB at most, and write it only at a --trigger, SIGUSR1 or the end.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub last: Option<Duration>,

    /// Write when this happens (failures>=COUNT/DURATION, or cause=CAUSE or cause=CAUSE/DETAIL), or any of these if repeated. Without it:
    /// at SIGUSR1 and the end only.
    #[arg(long = "trigger", value_name = "EVENT", requires = "last")]
    pub triggers: Vec<Trigger>,

    /// Let --trigger and SIGUSR1 write this many files at most, as FILE, FILE.1 and so on; the end writes one more.
    #[arg(long, value_name = "COUNT", default_value = "20", requires = "last", value_parser = files(1))]
    pub max_files: u32,
}

/// Numbers of files: each of their names is looked at before the recording begins.
fn files(least: i64) -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(least..=10_000)
}

/// What makes a flight recorder write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// So many failures within this time.
    Failures {
        /// How many.
        count: NonZeroU64,
        /// Within what time.
        within: Duration,
    },
    /// A failure with one of these causes.
    Cause(Vec<Cause>),
}

impl FromStr for Trigger {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        if let Some(name) = word.strip_prefix("cause=") {
            let is_meant =
                |cause: &&Cause| cause.cause() == name || cause.to_string() == name || cause.detail() == name;
            let causes: Vec<_> = Cause::ALL.iter().filter(is_meant).copied().collect();
            return match causes.is_empty() {
                true => Err(format!("no cause is called {name}")),
                false => Ok(Self::Cause(causes)),
            };
        }
        let figures = word.strip_prefix("failures>=").and_then(|figures| figures.split_once('/'));
        let (count, within) =
            figures.ok_or("a trigger looks like failures>=20/10s or cause=reset/worker_killed")?;
        let count = count.parse().map_err(|_| "a count is a whole number, 1 or more")?;
        Ok(Self::Failures { count, within: duration(within)? })
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures { count, within } => {
                write!(f, "{count} failures within {} s", within.as_secs_f64())
            }
            Self::Cause(causes) => {
                let names: Vec<_> = causes.iter().map(ToString::to_string).collect();
                f.write_str(&names.join(" or "))
            }
        }
    }
}

fn listener(word: &str) -> Result<UpstreamFilter, String> {
    match word.parse::<UpstreamFilter>() {
        Ok(UpstreamFilter::Unix(_)) => {
            Err("the other end of a unix socket is always on this host".to_owned())
        }
        Ok(listener) => Ok(listener),
        Err(error) => Err(error.to_string()),
    }
}

/// `500K`, `100M`, `1G`: powers of ten.
pub(super) fn size(word: &str) -> Result<u64, &'static str> {
    let split = word.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(word.len());
    let (digits, unit) = word.split_at(split);
    let unit = match unit {
        "" => 1,
        "K" | "k" | "KB" | "kB" => 1_000,
        "M" | "MB" => 1_000_000,
        "G" | "GB" => 1_000_000_000,
        _ => return Err("a size looks like 500K, 100M or 1G"),
    };
    let size = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    match size {
        Some(size @ 10_000..) => Ok(size),
        Some(_) => Err("a file holds 10K at least"),
        None => Err("a size looks like 500K, 100M or 1G"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_are_read() {
        let count = NonZeroU64::new(20).unwrap();
        let within = Duration::from_secs(10);
        assert_eq!("failures>=20/10s".parse(), Ok(Trigger::Failures { count, within }));
        assert_eq!("cause=reset/worker_killed".parse(), Ok(Trigger::Cause(vec![Cause::ResetWorkerKilled])));
        let Ok(Trigger::Cause(causes)) = "cause=accept_queue_overflow".parse() else { panic!("no cause") };
        assert_eq!(causes.len(), 4);
        for word in ["", "failures", "failures>=0/1s", "failures>=2", "failures>=2/0s", "cause=", "cause=sun"]
        {
            assert!(word.parse::<Trigger>().is_err(), "{word}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(
            (size("500K"), size("100M"), size("1G")),
            (Ok(500_000), Ok(100_000_000), Ok(1_000_000_000))
        );
        for word in ["", "M", "1", "1T", "-1M", "99999999999999999999G"] {
            assert!(size(word).is_err(), "{word}");
        }
    }
}
