//! Who watches: why502, or what a user would otherwise run.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use rig::lines::Lines;
use rig::process::{self, Pid, Process, find_program};
use rig::{Namespace, Nginx, tracer, wait};
use serde_json::Value;

use crate::process::begin_peak;

/// Prints the state changes of every TCP socket of the host.
const STATES: &str = "BEGIN { printf(\"ready\\n\"); } tracepoint:sock:inet_sock_set_state \
    { printf(\"%llu %d %s %d > %d: state %d -> %d\\n\", nsecs, pid, comm, args->sport, args->dport, args->oldstate, args->newstate); }";
/// bpftrace wants tracefs where not every host has mounted it: in a mount namespace of its own.
const WITH_TRACEFS: &str = "mount -t tracefs nodev /sys/kernel/tracing 2>/dev/null; \
    mount -t debugfs nodev /sys/kernel/debug 2>/dev/null; exec \"$@\"";

/// A program that watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// `why502 live`.
    Why502,
    /// `why502 live --no-uprobe`.
    Why502Unheard,
    /// `tcpdump -w` on the upstream's port.
    Tcpdump,
    /// `strace -f -e trace=network` on nginx's workers.
    Strace,
    /// bpftrace following every socket's states.
    Bpftrace,
}

/// What it is to watch.
pub(crate) struct Watched {
    /// The network of all of it.
    pub(crate) namespace: Namespace,
    /// nginx's workers.
    pub(crate) workers: Vec<Pid>,
    /// The upstreams' ports, as tcpdump's filter names them.
    pub(crate) ports: &'static str,
    /// The only upstream to be reported, if not all: a unix socket has to be asked for.
    pub(crate) upstream: Option<String>,
    /// One that runs only for this.
    pub(crate) _nginx: Option<Nginx>,
}

/// One that runs, killed when dropped.
pub(crate) struct Running {
    tool: Tool,
    process: Process,
    folder: PathBuf,
    stderr: Lines,
    /// From its start until it watched.
    pub(crate) attached_in: Duration,
    /// The most that was resident meanwhile, in MiB.
    pub(crate) start_peak: f64,
}

impl Tool {
    /// All of them.
    pub(crate) const ALL: [Tool; 4] = [Tool::Why502, Tool::Tcpdump, Tool::Strace, Tool::Bpftrace];

    /// Its name among the figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Tool::Why502 => "why502",
            Tool::Why502Unheard => "why502_unheard",
            Tool::Tcpdump => "tcpdump",
            Tool::Strace => "strace",
            Tool::Bpftrace => "bpftrace",
        }
    }

    /// Starts it and waits until it watches. Its output goes to files.
    pub(crate) fn start(self, watched: &Watched) -> Result<Running> {
        let folder = watched.namespace.folder(self.name())?;
        let (output, ready) = (folder.join("output"), folder.join("ready"));
        let mut command = match self {
            Tool::Why502 | Tool::Why502Unheard => {
                let mut command = process::command(tracer::binary()?);
                if self == Tool::Why502Unheard {
                    command.args(["live", "--no-uprobe"]);
                } else {
                    command.arg("live");
                }
                command.args(["-o", "json", "--ready-file"]).arg(&ready);
                command.args(watched.upstream.iter().flat_map(|upstream| ["-u", upstream]));
                command
            }
            Tool::Tcpdump => {
                let mut command = watched.namespace.command(find_program(&["tcpdump"])?);
                // It would give up root, and then could not write where only root may.
                command.args(["-Z", "root", "-i", "lo", "-w"]).arg(folder.join("packets"));
                command.arg(watched.ports);
                command
            }
            Tool::Strace => {
                let mut command = process::command(find_program(&["strace"])?);
                command.args(["-f", "-e", "trace=network", "-o"]).arg(folder.join("calls"));
                command.args(watched.workers.iter().flat_map(|pid| ["-p".to_owned(), pid.to_string()]));
                command
            }
            Tool::Bpftrace => {
                let mut command = process::command(find_program(&["unshare"])?);
                command.args(["--mount", "sh", "-c", WITH_TRACEFS, "sh"]);
                command.arg(find_program(&["bpftrace"])?).args(["-e", STATES]);
                command
            }
        };
        command.stdin(Stdio::null()).stdout(File::create(&output)?).stderr(Stdio::piped());
        let started = Instant::now();
        let mut process = Process::start(command)?;
        let stderr = process.pipes().stderr.take().context("a pipe for standard error")?;
        let stderr = Lines::collect(stderr, |_| {});
        let mut running =
            Running { tool: self, process, folder, stderr, attached_in: Duration::ZERO, start_peak: 0.0 };
        wait::until_true(&format!("{} to watch", self.name()), || {
            if let Some(status) = running.process.ended()? {
                bail!("{} ended ({status}): {}", self.name(), running.complaints());
            }
            let said = |words| running.complaints().contains(words);
            Ok(match self {
                Tool::Why502 | Tool::Why502Unheard => ready.exists(),
                Tool::Tcpdump => said("listening on"),
                Tool::Strace => running.complaints().matches("attached").count() >= watched.workers.len(),
                Tool::Bpftrace => fs::read_to_string(&output)?.contains("ready"),
            })
        })
        .with_context(|| running.complaints())?;
        running.attached_in = started.elapsed();
        running.start_peak = begin_peak(running.pid())?;
        Ok(running)
    }
}

impl Running {
    /// The tool's name.
    pub(crate) fn name(&self) -> &'static str {
        self.tool.name()
    }

    /// Its pid.
    pub(crate) fn pid(&self) -> Pid {
        self.process.pid()
    }

    fn complaints(&self) -> String {
        self.stderr.so_far().join("; ")
    }

    /// Ends it as Ctrl-C does, waits until it has, and removes what it has written.
    pub(crate) fn stop(self) -> Result<Ended> {
        let Running { tool, mut process, folder, stderr, .. } = self;
        process.signal(Signal::SIGINT)?;
        // strace ends by the signal itself, and bpftrace says 1 or 2 on some versions.
        let status = process.wait()?;
        let stderr = stderr.finish()?.join("; ");
        if matches!(tool, Tool::Why502 | Tool::Why502Unheard) && !status.success() {
            bail!("why502 ended with {status}: {stderr}");
        }
        Ok(Ended { tool, folder })
    }
}

/// What one that ended has left, removed when dropped.
pub(crate) struct Ended {
    tool: Tool,
    folder: PathBuf,
}

impl Ended {
    /// All that it says, as text.
    pub(crate) fn said(&self) -> Result<String> {
        let read = |name| Ok(String::from_utf8_lossy(&fs::read(self.folder.join(name))?).into_owned());
        match self.tool {
            Tool::Why502 | Tool::Why502Unheard | Tool::Bpftrace => read("output"),
            Tool::Strace => read("calls"),
            Tool::Tcpdump => {
                let mut command: Command = process::command(find_program(&["tcpdump"])?);
                command.args(["-nn", "-r"]).arg(self.folder.join("packets"));
                process::output(command)
            }
        }
    }

    /// The last line of why502's JSON.
    pub(crate) fn summary(&self) -> Result<Value> {
        let said = self.said()?;
        let last = said.lines().last().context("why502 has said nothing")?;
        let summary: Value = serde_json::from_str(last).with_context(|| format!("no JSON: {last}"))?;
        if summary["type"] != "summary" {
            bail!("why502's last line is no summary: {last}");
        }
        Ok(summary)
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        // The namespace's scratch folder goes in the end, anyway.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
