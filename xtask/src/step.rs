//! Steps of the set-up: each is reported as it goes, what its programs print goes to a log.

use std::{
    fs::{self, File},
    io::{self, IsTerminal as _, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::interrupt::{self, End, Group, OnSignal};

/// How much of the log is shown when a step fails.
const TAIL_LINES: usize = 20;
/// How often a long step gives a sign of life where there is no terminal.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// The steps of one run, and their log.
pub(crate) struct Steps {
    path: PathBuf,
    /// Made by the first step: a run that has nothing to do leaves the last one's log as it is.
    log: Option<File>,
    /// Reported in lines, also on a terminal: others are reported at the same time.
    in_lines: bool,
}

/// What became of a step that may fail.
pub(crate) enum Outcome {
    /// It did what it is for.
    Done,
    /// It did not; in a few words, how that showed.
    Failed(String),
}

impl Steps {
    /// No steps yet; their log will be in the workspace's `target` folder.
    pub(crate) fn new(workspace: &Path) -> Self {
        Self { path: workspace.join("target/xtask.log"), log: None, in_lines: false }
    }

    /// Steps that are run beside these, with a log of their own.
    pub(crate) fn beside(&mut self) -> Self {
        self.in_lines = true;
        Self { path: self.path.with_extension("beside.log"), log: None, in_lines: true }
    }

    fn log(&mut self) -> Result<File> {
        let make = || {
            if let Some(folder) = self.path.parent() {
                fs::create_dir_all(folder)?;
            }
            File::create(&self.path)
        };
        let log = match self.log.take() {
            Some(log) => log,
            None => make().with_context(|| format!("{} cannot be written", self.path.display()))?,
        };
        Ok(self.log.insert(log).try_clone()?)
    }

    /// Runs a step that must succeed.
    pub(crate) fn run(&mut self, what: &str, command: &mut Command) -> Result<()> {
        self.must(what, command, OnSignal::Pass)
    }

    /// Runs a step that must succeed, and that must not be interrupted: Ctrl-C then ends this run after the step.
    pub(crate) fn run_through(&mut self, what: &str, command: &mut Command) -> Result<()> {
        self.must(what, command, OnSignal::Finish)
    }

    fn must(&mut self, what: &str, command: &mut Command, on_signal: OnSignal) -> Result<()> {
        let begin = self.log()?.metadata()?.len();
        if let Outcome::Failed(how) = self.step(what, command, on_signal, None)? {
            eprintln!("--- the last lines of {}:", self.path.display());
            for line in tail(&self.path, begin, TAIL_LINES)? {
                eprintln!("{line}");
            }
            eprintln!("---");
            bail!("{what} failed ({how}): its output is in {}", self.path.display());
        }
        Ok(())
    }

    /// Runs a step that may fail, for at most `limit`: then there is another way.
    pub(crate) fn attempt(&mut self, what: &str, command: &mut Command, limit: Duration) -> Result<Outcome> {
        self.step(what, command, OnSignal::Pass, Some(limit))
    }

    fn step(
        &mut self,
        what: &str,
        command: &mut Command,
        on_signal: OnSignal,
        limit: Option<Duration>,
    ) -> Result<Outcome> {
        let mut log = self.log()?;
        writeln!(log, "\n=== {what}: {}", shown(command))?;
        let begin = log.metadata()?.len();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .env("RUST_BACKTRACE", "0")
            .env("CARGO_TERM_COLOR", "never");

        let progress = Progress::begin(what, self.in_lines);
        let mut looked = Duration::ZERO;
        let mut asked = false;
        let end = Group::spawn(command)?.wait(on_signal, limit, |elapsed| {
            if interrupt::noted().is_some() && !asked {
                asked = true;
                progress.say("must finish first, then this run ends");
            }
            if elapsed >= looked + progress.interval() {
                looked = elapsed;
                let line = tail(&self.path, begin, 1).unwrap_or_default().pop().unwrap_or_default();
                progress.still_going(elapsed, &line);
            }
        })?;
        match end {
            End::Exited(status) if status.success() => {
                progress.end("done");
                Ok(Outcome::Done)
            }
            End::Exited(status) => {
                progress.end("failed");
                Ok(Outcome::Failed(status.to_string()))
            }
            End::TimedOut => {
                progress.end("gave up");
                let seconds = limit.unwrap_or_default().as_secs();
                Ok(Outcome::Failed(format!("no end after {seconds} s")))
            }
            End::Interrupted(signal) => {
                progress.end("interrupted");
                bail!("{what} was interrupted by {signal}")
            }
        }
    }
}

/// A command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let mut words: Vec<String> = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.display(), value?.display())))
        .collect();
    words.push(command.get_program().display().to_string());
    words.extend(command.get_args().map(|word| word.display().to_string()));
    words.join(" ")
}

/// How a step is reported: a spinner on a terminal, plain lines elsewhere. Both go to standard error.
struct Progress {
    what: String,
    spinner: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    fn begin(what: &str, in_lines: bool) -> Self {
        let spinner = (!in_lines && io::stderr().is_terminal()).then(|| {
            let spinner = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}") {
                spinner.set_style(style);
            }
            spinner.set_prefix(what.to_owned());
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        if spinner.is_none() {
            eprintln!("step: {what}");
        }
        Self { what: what.to_owned(), spinner, started: Instant::now() }
    }

    fn interval(&self) -> Duration {
        if self.spinner.is_some() { Duration::from_millis(200) } else { SIGN_OF_LIFE }
    }

    fn still_going(&self, elapsed: Duration, line: &str) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(line.to_owned()),
            None => eprintln!("step: {}: {} s: {line}", self.what, elapsed.as_secs()),
        }
    }

    fn say(&self, words: &str) {
        let line = format!("step: {}: {words}", self.what);
        match &self.spinner {
            Some(spinner) => spinner.println(line),
            None => eprintln!("{line}"),
        }
    }

    fn end(self, how: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        eprintln!("step: {}: {how} in {:.1} s", self.what, self.started.elapsed().as_secs_f64());
    }
}

/// The last lines of the log after `begin`. Programs redraw a line with a carriage return: what counts is what stands there last.
fn tail(path: &Path, begin: u64, lines: usize) -> io::Result<Vec<String>> {
    const ENOUGH: u64 = 16 * 1024;
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(begin.max(size.saturating_sub(ENOUGH))))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let kept: Vec<&str> = text
        .lines()
        .map(|line| line.rsplit('\r').find(|part| !part.trim().is_empty()).unwrap_or_default())
        .filter(|line| !line.trim().is_empty())
        .collect();
    Ok(kept[kept.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect())
}

/// Runs a command to its end and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.output().with_context(|| format!("{} cannot be run", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{}: {}: {}", shown(command), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str, text: &str) -> io::Result<PathBuf> {
        let path = std::env::temp_dir().join(format!("why502-xtask-{name}-{}", std::process::id()));
        fs::write(&path, text)?;
        Ok(path)
    }

    #[test]
    fn tail_keeps_the_last_lines_after_the_beginning() -> io::Result<()> {
        let path = log("tail", "before\none\n\ntwo\nthree\n")?;
        assert_eq!(tail(&path, 7, 2)?, ["two", "three"]);
        assert_eq!(tail(&path, 7, 20)?, ["one", "two", "three"]);
        fs::remove_file(path)
    }

    #[test]
    fn tail_shows_what_a_redrawn_line_shows_last() -> io::Result<()> {
        let path = log("redrawn", "10%\r50%\r100%\r\n")?;
        assert_eq!(tail(&path, 0, 1)?, ["100%"]);
        fs::remove_file(path)
    }

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("cargo");
        command.env("LLVM_PREFIX", "/x").args(["install", "bpf-linker"]);
        assert_eq!(shown(&command), "LLVM_PREFIX=/x cargo install bpf-linker");
    }
}
