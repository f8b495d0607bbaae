//! `why502 record`, watching from outside the namespaces.

use std::env;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::lines::Lines;
use crate::process::{self, Pid, Process};
use crate::tracer::{Run, binary, is_reported_by_kprobes, only, run, standby};
use crate::{Verdict, wait};

/// A running `why502 record`, killed when dropped; its files go with it.
#[derive(Debug)]
pub struct Recorder {
    process: Process,
    stderr: Lines,
    folder: TempDir,
}

/// What a recorder has left.
#[derive(Debug)]
pub struct Recorded {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard error.
    pub stderr: String,
    folder: TempDir,
}

/// What `why502 report -o json` says.
#[derive(Debug)]
pub struct Report {
    /// The verdicts, each held against the contract.
    pub verdicts: Vec<Verdict>,
    /// The last line.
    pub summary: Value,
    /// Its standard error.
    pub stderr: String,
}

impl Recorder {
    /// Starts `why502 record -o FILE` with further arguments, and waits until every hook is attached.
    pub fn start(arguments: &[&str]) -> Result<Recorder> {
        Recorder::in_surroundings(arguments, |_, _| Ok(()))
    }

    /// The same, in surroundings that `prepare` makes for the command and the folder that it writes to.
    pub fn in_surroundings(
        arguments: &[&str],
        prepare: impl FnOnce(&mut Command, &Path) -> Result<()>,
    ) -> Result<Recorder> {
        let folder = TempDir::with_prefix("why502-recorder-")?;
        let ready_folder = TempDir::with_prefix("why502-recorder-")?;
        let ready = ready_folder.path().join("ready");
        let mut command = process::command(binary()?);
        command.arg("record").arg("-o").arg(folder.path().join(FILE)).args(arguments);
        command.args(only()).args(standby(arguments)).arg("--ready-file").arg(&ready);
        command.args(env::var("WHY502_EXTRA_ARGS").unwrap_or_default().split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        prepare(&mut command, folder.path())?;
        let mut process = Process::start(command)?;
        let stderr = process.pipes().stderr.take().context("a pipe for standard error")?;
        let mut recorder = Recorder { process, stderr: Lines::collect(stderr, |_| {}), folder };
        recorder.process.wait_ready("why502 record", &ready, &recorder.stderr)?;
        Ok(recorder)
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// The folder that it writes to.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The file that it was told to write.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join(FILE)
    }

    /// What it has written to standard error so far.
    pub fn complaints(&self) -> String {
        self.stderr.so_far().join("\n")
    }

    /// Waits until it has said something with these words.
    pub fn wait_to_say(&self, words: &str) -> Result<()> {
        self.stderr.wait(words, |lines| lines.iter().any(|line| line.contains(words)))
    }

    /// Waits until its file has so many failures.
    pub fn wait_for(&self, count: usize) -> Result<()> {
        wait::until_true(&format!("{count} failures on disk"), || {
            Ok(report(&[&self.file()])?.verdicts.len() >= count)
        })
        .with_context(|| self.complaints())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Ends it as Ctrl-C does.
    pub fn stop(self) -> Result<Recorded> {
        self.end(Signal::SIGINT)
    }

    /// Ends it by a signal, or waits for its own end if it has none coming.
    pub fn end(mut self, signal: Signal) -> Result<Recorded> {
        self.process.signal(signal)?;
        let status = self.process.wait().context("why502 record does not end")?;
        Ok(Recorded { status, stderr: self.stderr.finish()?.join("\n"), folder: self.folder })
    }
}

/// The file's name.
const FILE: &str = "evidence.zst";

impl Recorded {
    /// The file that it was told to write.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join(FILE)
    }

    /// The folder that it wrote to.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Every file there is, by name.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = std::fs::read_dir(self.folder.path())?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?;
        files.sort();
        Ok(files)
    }

    /// Checks what holds for every orderly end.
    pub fn is_orderly(&self) -> Result<()> {
        ensure!(self.status.success(), "why502 record ended with {}: {}", self.status, self.stderr);
        ensure!(!self.stderr.contains("panicked"), "{}", self.stderr);
        Ok(())
    }

    /// How many events these lines of it say that its hooks missed. More than none is in order only where kprobes do.
    pub fn missed(&self, lines: &[Value]) -> Result<u64> {
        let missed = lost(lines, "missed");
        ensure!(
            missed == 0 || is_reported_by_kprobes(&self.stderr),
            "{missed} events were missed: {}",
            self.stderr
        );
        Ok(missed)
    }
}

/// What files of evidence amount to.
pub fn report(files: &[&Path]) -> Result<Report> {
    let files = files.iter().map(|file| file.to_str().context("a path that is no UTF-8"));
    let arguments = ["report", "-o", "json"].into_iter().map(Ok).chain(files).collect::<Result<Vec<_>>>()?;
    let Run { stdout, stderr, status } = run(&arguments)?;
    ensure!(status.success() && !stderr.contains("panicked"), "why502 report: {status}: {stderr}");
    let lines = stdout.iter().map(|line| Ok(serde_json::from_str(line)?)).collect::<Result<Vec<Value>>>()?;
    let summary = lines.last().cloned().context("no line")?;
    ensure!(summary["type"] == "summary", "{summary}");
    let verdicts = lines.iter().filter(|line| line["type"] == "verdict").map(Verdict::read);
    Ok(Report { verdicts: verdicts.collect::<Result<_>>()?, summary, stderr })
}

/// How much these lines of evidence say was lost for a reason.
pub fn lost(lines: &[Value], reason: &str) -> u64 {
    let losses = lines.iter().filter(|line| line["type"] == "loss" && line["reason"] == reason);
    losses.filter_map(|line| line["count"].as_u64()).sum()
}

/// The lines of a file as `zstdcat` shows them, each of them JSON.
pub fn lines(file: &Path) -> Result<Vec<Value>> {
    let mut zstdcat = process::command(process::find_program(&["zstdcat"])?);
    zstdcat.stdin(File::open(file)?);
    let text = process::output(zstdcat)?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))).collect()
}
