//! The command line.

use std::{num::NonZeroU64, path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, ValueEnum, builder::NonEmptyStringValueParser, builder::TypedValueParser};
use jiff::SignedDuration;

use crate::{
    model::{cgroup::Wanted, hook_kind::HookKind, upstream::UpstreamFilter},
    version,
};

mod backlog;
pub mod configuration;
mod explain;
mod packaging;
mod record;
mod report;
mod serve;
mod top;

pub use backlog::Backlog;
pub use explain::Explain;
pub use packaging::{Completions, Man, Shell};
pub use record::{Record, Trigger};
pub use report::{Report, ReportFormat};
pub use serve::{Listen, Serve};
pub use top::Top;

/// What the kernel keeps of a process's name (`TASK_COMM_LEN`, less the closing NUL).
const COMM_MAX: usize = 15;

/// Lines of no upstream that nginx may log in a second before hearing it is given up for a while: 0.2 % of one of its workers.
const WORD_RATE: u32 = 2_000;

/// Open exchanges that are watched at a time unless the user says otherwise; the kernel side's maps take about 1.1 KiB for each.
pub const MAX_OPEN: u32 = 10_240;

const EXAMPLES: &str = "\
Examples:
  why502 live                            Explain each failure of nginx until Ctrl-C
  why502 live -u 127.0.0.1:9000 -d 10m   One upstream, for ten minutes
  why502 live -c 1 -v                    The next failure, with every fact under it
  why502 live -o json | jq .cause        One JSON object per line
  why502 live --error-log /var/log/nginx/error.log
                                         And list at the end what nginx logged and nothing explains
  why502 backlog                         The accept queues of nginx's upstreams, as the kernel has them
  why502 record -o incident.zst          Write the evidence to a file, to be read later or elsewhere
  why502 report incident.zst             Read it: no root needed
  why502 top                             The incident on one screen
  why502 doctor                          What this kernel lets it see
  why502 explain reset/worker_killed     What a verdict means, and what to do";

const STATUSES: &str = "\
Exit status: 0 every cause that a kernel can prove is proven here, from the start; 1 some are not;
3 tracing is impossible here, and the report names what is missing.";

/// Explains, with proof from the kernel, why nginx answered 502, 504 or 499.
#[derive(Debug, Parser)]
#[command(name = "why502", version, long_version = version::LONG, after_help = EXAMPLES)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Trace this host and explain each failure as it happens.
    Live(Live),
    /// Watch accept queues from the kernel's side, name who meets a full one, and check what is claimed about backlogs.
    Backlog(Backlog),
    /// Trace this host and write the evidence to a file, to be read later or elsewhere.
    Record(Record),
    /// Read evidence, without root, and explain each failure in it.
    Report(Report),
    /// Trace this host always, as a service: metrics for Prometheus, JSON Lines, a flight recorder.
    Serve(Box<Serve>),
    /// Show failures, accept queues and workers on one screen, as they are now or as they were recorded.
    Top(Top),
    /// Say what this kernel lets why502 see, and what that costs in confidence.
    Doctor(Doctor),
    /// Say of a cause what nginx logs, how sure it is, how to make it happen, and what to do; or list all causes. No root needed.
    Explain(Explain),
    /// Print what bash, zsh or fish completes why502's commands and options by.
    Completions(Completions),
    /// Write the manual pages into a folder.
    Man(Man),
}

/// The options of `why502 doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = STATUSES)]
pub struct Doctor {
    /// Write tables for a person (text), or one JSON object for a program (json).
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,

    /// Leave nginx's memory alone: no uprobe is tried.
    #[arg(long)]
    pub no_uprobe: bool,

    /// Use only these kinds of hooks.
    #[arg(long, value_name = "KIND", value_delimiter = ',', hide = true, value_parser = hook_kind)]
    pub hooks_only: Vec<HookKind>,
}

/// The options of `why502 live`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Live {
    /// What to trace, and for how long.
    #[command(flatten)]
    pub trace: Trace,

    /// Write lines for a person, or JSON Lines for a program.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,

    /// Compare the verdicts at the end with this error log of nginx's, or these if repeated; and read it where nginx's word cannot be heard.
    #[arg(long = "error-log", value_name = "PATH")]
    pub error_logs: Vec<PathBuf>,

    /// Print each 499, 502, 503 and 504 of nginx's access logs, what it was, and its request line, which is never recorded.
    #[arg(long, conflicts_with = "no_access_log")]
    pub show_requests: bool,

    /// Print under each verdict the facts that it rests on.
    #[arg(short, long)]
    pub verbose: bool,

    /// Draw no line at the bottom of a terminal that says how many exchanges there were and how many of them failed.
    #[arg(long)]
    pub no_status: bool,

    /// Also write the evidence to this file, which must be new, as record does: why502 report reads it.
    #[arg(long, value_name = "PATH")]
    pub evidence: Option<PathBuf>,
}

/// What to trace, and for how long: the options of every command that traces.
#[derive(Clone, Debug, clap::Args)]
pub struct Trace {
    /// Trace only this nginx worker, or this nginx master with its workers. Without it: see --comm.
    #[arg(short, long, value_name = "PID", allow_negative_numbers = true, value_parser = pid)]
    pub pid: Option<u32>,

    /// Trace the processes of this name, whoever runs them. Without it, -p and --all: every nginx that root or a service runs.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new().try_map(comm))]
    pub comm: Option<String>,

    /// Trace only this upstream, or these if repeated.
    #[arg(
        short,
        long = "upstream",
        value_name = "UPSTREAM",
        help = "Trace only this upstream (IP:PORT, [IPV6]:PORT, :PORT or a unix socket's path), or these if repeated. Without it: all"
    )]
    pub upstreams: Vec<UpstreamFilter>,

    /// Whose failures to tell.
    #[command(flatten)]
    pub wanted: Wanted,

    /// Stop after this long, as in 30s, 10m or 1h30m; a plain number is in seconds. Without it: at Ctrl-C.
    #[arg(short, long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration)]
    pub duration: Option<Duration>,

    /// Stop after this many failures. Without it, their number does not matter.
    #[arg(short, long, value_name = "COUNT", allow_negative_numbers = true, value_parser = count)]
    pub count: Option<NonZeroU64>,

    /// Trace the exchanges of every process, not only nginx's.
    #[arg(long, conflicts_with = "comm")]
    pub all: bool,

    /// Also watch connects that fail at once (no route, no port); it slows every system call of this host a little.
    #[arg(long)]
    pub connect_errors: bool,

    /// Watch this many open exchanges at a time; the kernel takes 1.1 KiB for each, from the start. Those beyond are counted, not explained.
    #[arg(long, value_name = "COUNT", default_value_t = MAX_OPEN, value_parser = clap::value_parser!(u32).range(64..=1 << 20))]
    pub max_open: u32,

    /// Take the sockets of all network namespaces but this one (its inode number) for those of other hosts.
    #[arg(long, value_name = "INODE", hide = true)]
    pub only_netns: Option<u32>,

    /// Leave nginx's memory alone: no uprobe hears what it says of its upstreams; the error logs that it holds open are read instead.
    #[arg(long)]
    pub no_uprobe: bool,

    /// Read nginx's error log for a while (10 s, then longer each time, 320 s at most), instead of hearing what it says, each time it
    /// logs this many lines in a second that are about no upstream (missing files, limits): each costs it about 1 us.
    #[arg(long, value_name = "COUNT", default_value_t = WORD_RATE, value_parser = clap::value_parser!(u32).range(1..))]
    pub word_rate: u32,

    /// Leave nginx's access logs alone: what clients were answered (499, 502, 503, 504) is not accounted for.
    #[arg(long)]
    pub no_access_log: bool,

    /// Use only these kinds of hooks.
    #[arg(long, value_name = "KIND", value_delimiter = ',', hide = true, value_parser = hook_kind)]
    pub hooks_only: Vec<HookKind>,

    /// Attach the standby instances of programs from the start.
    #[arg(long, hide = true)]
    pub standby: bool,

    /// Create this file once every hook is attached.
    #[arg(long, value_name = "PATH", hide = true)]
    pub ready_file: Option<PathBuf>,
}

impl Trace {
    /// The name a process must have to be traced; `None` with `--all`.
    pub fn comm(&self) -> Option<&str> {
        (!self.all).then_some(self.comm.as_deref().unwrap_or("nginx"))
    }

    /// Whether the user said himself whom to trace: then nobody asks whether it is nginx.
    pub fn trusts_all(&self) -> bool {
        self.all || self.comm.is_some() || self.pid.is_some()
    }
}

/// Parses a kind of hook.
fn hook_kind(word: &str) -> Result<HookKind, String> {
    let found = HookKind::ALL.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind);
    found.ok_or_else(|| format!("the kinds are {}", HookKind::ALL.map(|(name, _)| name).join(", ")))
}

/// How verdicts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for a person.
    Text,
    /// JSON Lines.
    Json,
}

fn comm(word: String) -> Result<String, String> {
    match word.len() {
        ..=COMM_MAX => Ok(word),
        length => Err(format!(
            "the kernel keeps at most {COMM_MAX} bytes of a process's name, and this one has {length}"
        )),
    }
}

fn pid(word: &str) -> Result<u32, &'static str> {
    word.parse().ok().filter(|pid| *pid != 0).ok_or("a pid is a whole number, 1 or more")
}

fn count(word: &str) -> Result<NonZeroU64, &'static str> {
    word.parse().map_err(|_| "a count is a whole number, 1 or more")
}

fn duration(word: &str) -> Result<Duration, &'static str> {
    let plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    let parsed: Result<SignedDuration, _> = if plain { format!("{word}s").parse() } else { word.parse() };
    let duration = parsed.map_err(|_| "a duration looks like 30s, 10m or 1h30m")?;
    match Duration::try_from(duration) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("a duration is longer than zero"),
    }
}

#[cfg(test)]
mod tests;
