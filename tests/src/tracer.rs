//! `why502` itself, watching from outside the namespaces.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::lines::Lines;
use crate::process::{self, Pid, Process};
use crate::terminal::Terminal;
use crate::{Endpoint, Verdict, replay, wait};

/// A running `why502 live`, killed when dropped.
#[derive(Debug)]
pub struct Tracer {
    process: Process,
    stdout: Lines,
    stderr: Lines,
    /// Where it writes its evidence, too.
    scratch: TempDir,
}

/// What a tracer has said when it has ended.
#[derive(Debug)]
pub struct Account {
    /// Its verdicts, in order, each held against the contract.
    pub verdicts: Vec<Verdict>,
    /// Its last line.
    pub summary: Value,
    /// The other lines: `delayed`, `audit`.
    pub others: Vec<Value>,
    /// Its standard error.
    pub stderr: String,
    /// How it ended.
    pub status: ExitStatus,
}

/// What a run of `why502` to its own end has left.
#[derive(Debug)]
pub struct Run {
    /// Its standard output, line by line.
    pub stdout: Vec<String>,
    /// Its standard error.
    pub stderr: String,
    /// How it ended.
    pub status: ExitStatus,
}

impl Tracer {
    /// Watches one nginx, master and workers, and waits until every hook is attached.
    pub fn of(nginx: Pid) -> Result<Tracer> {
        Tracer::start(&["-p", &nginx.to_string()])
    }

    /// Starts `why502 live -o json` with further arguments, and waits until every hook is attached.
    pub fn start(arguments: &[&str]) -> Result<Tracer> {
        Tracer::spawn(&[&["-o", "json"], arguments].concat(), None, |_| {})
    }

    /// Starts `why502 live` with other arguments, on a terminal or else on a pipe, and waits until every hook
    /// is attached. Each line of its standard output is also handed to `on_line`.
    pub fn spawn(
        arguments: &[&str],
        terminal: Option<Terminal>,
        on_line: impl FnMut(&str) + Send + 'static,
    ) -> Result<Tracer> {
        Tracer::run_as("live", arguments, terminal, on_line)
    }

    /// As [`Tracer::start`], once the command has been prepared, for example to see other mounts than everybody.
    pub fn start_prepared(
        arguments: &[&str],
        prepare: impl FnOnce(&mut Command) -> Result<()>,
    ) -> Result<Tracer> {
        let arguments = [&["-o", "json"], arguments].concat();
        Tracer::run_prepared("live", &usual("live", &arguments), &arguments, None, prepare, |_| {})
    }

    /// As [`Tracer::start`], as anybody starts it: with the best hooks that there are, and no standby instances.
    pub fn start_plain(arguments: &[&str]) -> Result<Tracer> {
        let arguments = [&["-o", "json"], arguments].concat();
        Tracer::run_prepared("live", &[], &arguments, None, |_| Ok(()), |_| {})
    }

    /// The same for any of its commands that has `--ready-file`.
    pub fn run_as(
        command: &str,
        arguments: &[&str],
        terminal: Option<Terminal>,
        on_line: impl FnMut(&str) + Send + 'static,
    ) -> Result<Tracer> {
        Tracer::run_prepared(command, &usual(command, arguments), arguments, terminal, |_| Ok(()), on_line)
    }

    fn run_prepared(
        command: &str,
        usual: &[String],
        arguments: &[&str],
        terminal: Option<Terminal>,
        prepare: impl FnOnce(&mut Command) -> Result<()>,
        on_line: impl FnMut(&str) + Send + 'static,
    ) -> Result<Tracer> {
        let verb = command;
        let scratch = TempDir::with_prefix("why502-tracer-")?;
        let ready = scratch.path().join("ready");
        let mut command = process::command(binary()?);
        command.arg(verb).args(arguments).arg("--ready-file").arg(&ready);
        if verb == "live" && is_replayed() {
            command.arg("--evidence").arg(evidence_in(&scratch));
        }
        command.args(usual);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        prepare(&mut command)?;
        let screen = terminal.map(|terminal| terminal.attach(&mut command)).transpose()?;
        let mut process = Process::start(command)?;
        let stdout = match screen {
            Some(screen) => Lines::collect(screen, on_line),
            None => stdout_of(&mut process, on_line)?,
        };
        let stderr = stderr_of(&mut process)?;
        let mut tracer = Tracer { process, stdout, stderr, scratch };
        tracer.process.wait_ready("why502", &ready, &tracer.stderr)?;
        Ok(tracer)
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// What it has written to standard error so far.
    pub fn complaints(&self) -> String {
        self.stderr.so_far().join("\n")
    }

    /// Waits until it has given `count` verdicts. That there are no more shows in [`Tracer::stop`]'s account.
    pub fn wait_for(&self, count: usize) -> Result<()> {
        // Parse each line once, however many come.
        let (mut parsed, mut seen) = (0, 0);
        let waited = self.stdout.wait(&format!("{count} verdicts"), |lines| {
            seen += lines[parsed..].iter().filter(|line| is(line, "verdict")).count();
            parsed = lines.len();
            seen >= count
        });
        waited.with_context(|| {
            let lines = self.stdout.so_far();
            format!("{} lines so far, the last {:#?}; {}", lines.len(), lines.last(), self.complaints())
        })
    }

    /// The same where verdicts may be missing, because kprobes may lose events and say so: that long it waits for another one.
    pub fn wait_for_nearly(&self, count: usize) -> Result<()> {
        if !only().concat().contains("kprobe") {
            return self.wait_for(count);
        }
        let seen = || self.stdout.so_far().iter().filter(|line| is(line, "verdict")).count();
        let mut before = None;
        while seen() < count && before != Some(seen()) {
            before = Some(seen());
            thread::sleep(wait::bound() / 10);
        }
        Ok(())
    }

    /// Ends it as Ctrl-C does, and reads all that it has said.
    pub fn stop(self) -> Result<Account> {
        self.process.signal(Signal::SIGINT)?;
        self.finish()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Its standard output, line by line.
    pub fn lines(&self) -> &Lines {
        &self.stdout
    }

    /// The evidence that it writes.
    pub fn evidence(&self) -> PathBuf {
        evidence_in(&self.scratch)
    }

    /// Waits for its end and takes what it has written as it is.
    pub fn end(self) -> Result<Run> {
        collect(self.process, self.stdout, self.stderr)
    }

    /// Waits for its end and reads all that it has said. Its evidence must say the same.
    pub fn finish(self) -> Result<Account> {
        let Tracer { process, stdout, stderr, scratch } = self;
        let Run { stdout, stderr, status } = collect(process, stdout, stderr)?;
        if is_replayed() {
            replay::emits_the_same(&evidence_in(&scratch), &stdout).with_context(|| stderr.clone())?;
        }
        let parse = |line: &String| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"));
        let mut lines: Vec<Value> = stdout.iter().map(parse).collect::<Result<_>>()?;
        let summary = lines.pop().unwrap_or_default();
        ensure!(summary["type"] == "summary", "the last line is no summary but {summary}; {stderr}");
        let (verdicts, others): (Vec<Value>, _) =
            lines.into_iter().partition(|line| line["type"] == "verdict");
        let verdicts = verdicts.iter().map(Verdict::read).collect::<Result<_>>()?;
        Ok(Account { verdicts, summary, others, stderr, status })
    }
}

impl Account {
    /// The verdicts on exchanges with one upstream, in order.
    pub fn about(&self, upstream: &Endpoint) -> Vec<&Verdict> {
        let address = upstream.to_string();
        self.verdicts.iter().filter(|verdict| verdict.address() == Some(&address)).collect()
    }

    /// The only verdict on an exchange with an upstream.
    pub fn only(&self, upstream: &Endpoint) -> Result<&Verdict> {
        let about = self.about(upstream);
        ensure!(about.len() == 1, "{} verdicts about {upstream}: {about:#?}", about.len());
        about.first().copied().context("no verdict")
    }

    /// Checks that all verdicts about an upstream have this name; returns how many of so many failures have none.
    pub fn without_verdict(&self, upstream: &Endpoint, name: &str, count: usize) -> Result<usize> {
        let about = self.about(upstream);
        let others: Vec<_> = about.iter().filter(|verdict| !is_named(verdict, name)).collect();
        ensure!(others.is_empty(), "{upstream} should have {name} only: {others:#?}");
        count
            .checked_sub(about.len())
            .with_context(|| format!("{upstream}: {} verdicts on {count}", about.len()))
    }

    /// How many events it says that it lost. More than none is in order only where kprobes do ([`Account::is_orderly`]); so many
    /// failures may then have no verdict.
    pub fn lost(&self) -> Result<usize> {
        Ok(self.summary["lost"].as_u64().context("a count of losses")?.try_into()?)
    }

    /// How sure a verdict is to be whose facts were all seen: `proven`. It may say `incomplete` if an event was lost, which
    /// [`Account::is_orderly`] lets pass only where kprobes do.
    pub fn surest(&self, verdict: &Verdict) -> &'static str {
        let is_touched = self.summary["lost"] != 0 && verdict.confidence == "incomplete";
        if is_touched { "incomplete" } else { "proven" }
    }

    /// Checks what holds for every orderly end: exit status 0, no panic, nothing lost, and a summary that
    /// adds up.
    pub fn is_orderly(&self) -> Result<()> {
        let Account { verdicts, summary, stderr, status, .. } = self;
        ensure!(status.success(), "why502 ended with {status}: {stderr}");
        ensure!(!stderr.contains("panicked"), "{stderr}");
        ensure!(
            summary["lost"] == 0 || is_reported_by_kprobes(stderr),
            "something was lost: {summary}; {stderr}"
        );
        ensure!(summary["failures"] == verdicts.len(), "{} verdicts, but {summary}", verdicts.len());
        let mut causes = BTreeMap::<String, usize>::new();
        for verdict in verdicts {
            *causes.entry(verdict.name()).or_default() += 1;
        }
        ensure!(summary["causes"] == serde_json::to_value(&causes)?, "{causes:?}, but {summary}");
        Ok(())
    }

    /// How many words of nginx's it lists as without a verdict. More than none is in order only where it has missed events, which it counts.
    pub fn unexplained(&self) -> Result<usize> {
        let Account { summary, stderr, .. } = self;
        let unexplained = summary["words"]["unexplained"].as_array().map_or(0, Vec::len);
        ensure!(unexplained == 0 || summary["lost"] != 0, "{summary}; {stderr}");
        Ok(unexplained)
    }
}

/// Whether what was lost are events that a kprobe missed, and it says so. That happens to kprobes, and to nothing else: a kernel calls none
/// while another's program runs on the same CPU, and has room for few of the calls whose returns are hooked.
pub(crate) fn is_reported_by_kprobes(stderr: &str) -> bool {
    only().concat().contains("kprobe")
        && stderr.lines().any(|line| {
            line.contains(" not seen to return")
                || line.contains(" not seen because") && line.contains("kprobe_")
        })
}

/// What the rig adds to the arguments of a command.
fn usual(command: &str, arguments: &[&str]) -> Vec<String> {
    let standby = if command == "live" { standby(arguments) } else { None };
    only().into_iter().chain(standby.map(str::to_owned)).collect()
}

/// `--standby`, unless that is among the arguments: whatever else this machine does may interrupt a program of the tracer's, and what is
/// lost then is not what is tested.
pub(crate) fn standby(arguments: &[&str]) -> Option<&'static str> {
    (!arguments.contains(&"--standby")).then_some("--standby")
}

/// The kinds of hooks that it may use, if not all: `WHY502_HOOKS_ONLY`, by which `cargo xtask vm` tests what stands in for the best.
pub(crate) fn only() -> Vec<String> {
    env::var("WHY502_HOOKS_ONLY").map_or(Vec::new(), |kinds| vec!["--hooks-only".to_owned(), kinds])
}

/// Runs `why502` to its own end.
pub fn run(arguments: &[&str]) -> Result<Run> {
    let mut command = process::command(binary()?);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Process::start(command)?;
    let (stdout, stderr) = (stdout_of(&mut process, |_| {})?, stderr_of(&mut process)?);
    collect(process, stdout, stderr)
}

/// Whether each test's evidence is taken in again. On an emulated processor that takes longer than the test, and it is the same
/// program with the same records.
fn is_replayed() -> bool {
    wait::patience() == 1
}

fn evidence_in(scratch: &TempDir) -> PathBuf {
    scratch.path().join("evidence.zst")
}

/// The program under test: `WHY502_BIN`, or the workspace's release build.
pub fn binary() -> Result<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/why502");
    let path = env::var_os("WHY502_BIN").map_or(built, PathBuf::from);
    ensure!(path.is_file(), "no why502 at {}: build it, or say where it is by WHY502_BIN", path.display());
    Ok(path)
}

fn stdout_of(process: &mut Process, on_line: impl FnMut(&str) + Send + 'static) -> Result<Lines> {
    let stdout = process.pipes().stdout.take().context("a pipe for standard output")?;
    Ok(Lines::collect(stdout, on_line))
}

fn stderr_of(process: &mut Process) -> Result<Lines> {
    let stderr = process.pipes().stderr.take().context("a pipe for standard error")?;
    Ok(Lines::collect(stderr, |_| {}))
}

fn collect(mut process: Process, stdout: Lines, stderr: Lines) -> Result<Run> {
    let status = process.wait().context("why502 does not end")?;
    Ok(Run { stdout: stdout.finish()?, stderr: stderr.finish()?.join("\n"), status })
}

fn is(line: &str, kind: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|value| value["type"] == kind)
}

/// Whether a verdict has a name. That nobody accepts is said where it was looked who holds the listener, which takes a twentieth of the
/// time at most: in a storm on a slow machine, the moment in which a timer goes off may be left out.
fn is_named(verdict: &Verdict, name: &str) -> bool {
    let is_unlooked = name == "read_timeout/nobody_accepts" && verdict.holders.is_none();
    verdict.name() == if is_unlooked { "read_timeout/never_accepted" } else { name }
}

/// A verdict's name, or what it may be called by a tracer that had the time to look.
pub fn as_if_looked_at(verdict: &Verdict) -> String {
    let is_unlooked = verdict.name() == "read_timeout/never_accepted" && verdict.holders.is_none();
    if is_unlooked { "read_timeout/nobody_accepts".to_owned() } else { verdict.name() }
}
