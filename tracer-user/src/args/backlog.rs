//! The options of `why502 backlog`.

use std::{path::PathBuf, time::Duration};

use clap::builder::{NonEmptyStringValueParser, TypedValueParser};

use super::{Format, UpstreamFilter, comm, duration, hook_kind};
use crate::model::hook_kind::HookKind;

const EXAMPLES: &str = "\
Examples:
  why502 backlog                         nginx's upstreams and php-fpm's pools, in a table that is kept up to date
  why502 backlog :9000 -d 1m             Whoever listens on port 9000, for a minute
  why502 backlog --all -o json           Every listener of this host, as JSON Lines
  why502 backlog --verify --fpm-pool /etc/php/8.2/fpm/pool.d/www.conf
                                         Whether what is configured is what the kernel enforces
  why502 backlog --experiment            What a full accept queue does, measured on this kernel

Exit status: 0 ended as asked; 1 failed at run time; 2 wrong usage; 3 this host or these privileges cannot trace.";

/// The options of `why502 backlog`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Backlog {
    /// Watch only these listeners: IP:PORT, [IPV6]:PORT, :PORT or a unix socket's path. Without any: nginx's upstreams and php-fpm's pools.
    #[arg(value_name = "LISTENER", conflicts_with_all = ["all", "experiment"])]
    pub listeners: Vec<UpstreamFilter>,

    /// Watch every listener of this host, not only those that nginx passes requests on to and php-fpm's pools.
    #[arg(long, conflicts_with = "experiment")]
    pub all: bool,

    /// Watch the upstreams of the processes of this name, whoever runs them. Without it: of every nginx that root or a service runs.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new().try_map(comm))]
    pub comm: Option<String>,

    /// Stop after this long, as in 30s, 10m or 1h30m; a plain number is in seconds. Without it: at Ctrl-C, or with --verify after 10 s.
    #[arg(short, long, value_name = "DURATION", allow_hyphen_values = true, value_parser = duration)]
    pub duration: Option<Duration>,

    /// Write a table and lines for a person, or JSON Lines for a program.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: Format,

    /// Check while watching whether what is configured and claimed about this host's backlogs is true; for 10 s, if -d does not say otherwise.
    #[arg(long, conflicts_with = "experiment")]
    pub verify: bool,

    /// With --verify, also check this pool file of php-fpm's, or these if repeated.
    #[arg(long = "fpm-pool", value_name = "PATH", requires = "verify")]
    pub fpm_pools: Vec<PathBuf>,

    /// Measure, in network namespaces of its own, what a full accept queue does on this kernel; a minute at most.
    #[arg(long, conflicts_with = "duration")]
    pub experiment: bool,

    /// Take the kernel's types from this file, its BTF or an ELF file with that, where it shows none in /sys/kernel/btf: it must be of this very
    /// kernel, from BTFHub or the vendor's debug symbols.
    #[arg(long, value_name = "FILE")]
    pub btf: Option<PathBuf>,

    /// Use only these kinds of hooks.
    #[arg(long, value_name = "KIND", value_delimiter = ',', hide = true, value_parser = hook_kind)]
    pub hooks_only: Vec<HookKind>,

    /// Create this file once every hook is attached.
    #[arg(long, value_name = "PATH", hide = true)]
    pub ready_file: Option<PathBuf>,
}

impl Backlog {
    /// The name of the processes whose upstreams are watched.
    pub fn comm(&self) -> &str {
        self.comm.as_deref().unwrap_or("nginx")
    }
}
