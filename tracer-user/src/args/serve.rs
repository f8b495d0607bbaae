//! The options of `why502 serve`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use super::{Trace, Trigger, duration, record::size};
use crate::model::destination::{Collector, Syslog};

const EXAMPLES: &str = "\
Examples:
  why502 serve                                     Metrics at http://127.0.0.1:9502/metrics, until SIGTERM
  why502 serve --config /etc/why502.toml           As this file says
  why502 serve --config /etc/why502.toml --check   Say what is wrong with it, by line, and end
  why502 serve --json-path /var/log/why502/verdicts.json
                                                   Each verdict as a line of JSON, too
  why502 serve --record-last 10m --record-trigger 'failures>=20/10s'
                                                   Keep ten minutes in memory; write them once it happens
  why502 serve --otlp http://127.0.0.1:4318        Send verdicts and metrics to a collector of OpenTelemetry, too

A key of the file is an option without its dashes: `max-open = 4096`, and, in the table [record], `last = \"10m\"` for --record-last.
An option that may be repeated takes a list. What the command line says goes before what the file says.
SIGHUP reads the file again, SIGUSR1 writes the flight recorder, SIGTERM ends.";

/// Where metrics are served unless the user says otherwise.
const METRICS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9_502);

/// The options of `why502 serve`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Serve {
    /// Read options from this file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Say what is wrong with the options and the file, and trace nothing: exit status 0 if nothing is, or 2.
    #[arg(long)]
    pub check: bool,

    /// What to trace, and for how long.
    #[command(flatten)]
    pub trace: Trace,

    /// Serve metrics there (IP:PORT, or :PORT for this host alone), or nowhere (off).
    #[arg(long, alias = "metrics-address", value_name = "ADDR", default_value_t = Listen::At(METRICS))]
    pub metrics: Listen,

    /// Give this many upstreams labels of their own in metrics, the first ones that are seen; the rest are counted as `other`.
    #[arg(long, value_name = "COUNT", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub metrics_upstreams: u32,

    /// Count how long every connection waits in the accept queues of upstreams, by the hooks of why502 backlog: they cost something where
    /// nothing fails, too.
    #[arg(long)]
    pub metrics_queue_waits: bool,

    /// Append each verdict to this file as a line of JSON, as live -o json prints it.
    #[arg(long, value_name = "PATH")]
    pub json_path: Option<PathBuf>,

    /// Begin a new file when it has this many bytes, as in 500K, 100M or 1G (powers of ten; 10K at least).
    #[arg(long, value_name = "SIZE", default_value = "100M", value_parser = size)]
    pub json_rotate_size: u64,

    /// Keep this many older files, as PATH.1, PATH.2 and so on; older ones are removed.
    #[arg(long, value_name = "COUNT", default_value = "4", value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub json_rotate_keep: u32,

    /// Send verdicts and metrics to this collector of OpenTelemetry, by OTLP over HTTP with protobuf (http://HOST:PORT; no TLS).
    #[arg(long, alias = "otlp-url", value_name = "URL")]
    pub otlp: Option<Collector>,

    /// Send the metrics this often, as in 10s or 1m.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
    pub otlp_interval: Duration,

    /// Let this many verdicts wait for a collector that does not take them; those beyond are counted, and lost to it.
    #[arg(long, value_name = "COUNT", default_value = "2048", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub otlp_queue: u32,

    /// Write each verdict to systemd's journal, with fields.
    #[arg(long)]
    pub journal: bool,

    /// Write each verdict to this syslog daemon: /dev/log, or by RFC 5424 udp://HOST:PORT or tcp://HOST:PORT.
    #[arg(long, value_name = "DEST")]
    pub syslog: Option<Syslog>,

    /// Keep this much time in memory, as in 30s or 10m, 24 MiB at most, and write it at a --record-trigger or SIGUSR1.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub record_last: Option<Duration>,

    /// Write when this happens (failures>=COUNT/DURATION, or cause=CAUSE or cause=CAUSE/DETAIL), or any of these if repeated. Without it:
    /// at SIGUSR1 only.
    #[arg(long = "record-trigger", value_name = "EVENT")]
    pub record_triggers: Vec<Trigger>,

    /// Write to this folder, which is made if it is not there.
    #[arg(long, value_name = "PATH", default_value = "/var/lib/why502")]
    pub record_directory: PathBuf,

    /// Keep this many files there, of 24 MiB at most each; the oldest is removed for a new one.
    #[arg(long, value_name = "COUNT", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub record_keep: u32,

    /// Run this program when a file was written, with the file's name as its last argument. Repeated: its arguments. No shell sees it.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    pub record_hook: Vec<String>,
}

/// Where metrics are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// There.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

impl FromStr for Listen {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        if word == "off" {
            return Ok(Self::Off);
        }
        let here = word.strip_prefix(':').and_then(|port| port.parse().ok());
        let here = here.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        here.or_else(|| word.parse().ok())
            .map(Self::At)
            .ok_or("an address is IP:PORT, [IPV6]:PORT, :PORT or off")
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::At(address) => address.fmt(f),
            Self::Off => f.write_str("off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_listens_outside_unless_told() {
        let at = |word: &str| match word.parse() {
            Ok(Listen::At(address)) => address.to_string(),
            other => panic!("{word}: {other:?}"),
        };
        assert!(METRICS.ip().is_loopback());
        assert_eq!(at(":9502"), "127.0.0.1:9502");
        assert_eq!((at("0.0.0.0:80"), at("[::1]:80")), ("0.0.0.0:80".to_owned(), "[::1]:80".to_owned()));
        assert_eq!("off".parse(), Ok(Listen::Off));
        for word in ["", "9502", "localhost:9502", ":", "127.0.0.1"] {
            assert!(word.parse::<Listen>().is_err(), "{word}");
        }
    }
}
