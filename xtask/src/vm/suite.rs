//! The end-to-end tests inside the guest: which there are, and what became of each.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{cpio::Archive, tools::Tools};
use crate::{
    arch::Arch,
    rig::{Kind, Program},
    step::output,
};

/// Tests of what is not taken into the guest, and that say nothing of a kernel: of what this machine's browser and databases make of a report,
/// of the application servers that people run, of its Prometheus, of those whom verdicts are sent to, and of Kubernetes's schemas.
const NOT_OF_KERNELS: [&str; 8] =
    ["report", "stops_servers", "stale_keepalive", "fleet", "dashboard", "kubernetes", "logs", "otlp"];
/// The same of single tests in programs whose others do say something of one.
const NONE_OF_KERNELS: [(&str, &str); 2] = [
    ("serve", "counters_equal_the_verdicts_and_a_real_prometheus_answers_a_query"),
    ("serve", "the_rules_and_the_unit_are_sound"),
];
/// How long one test may take before it is killed: more than it may wait for one thing in vain (`rig::wait::bound`), so that it says what.
const TEST_BOUND: Duration = Duration::from_secs(480);
/// How many times slower than real hardware the rig takes the guest to be.
const PATIENCE: u32 = 8;
/// What the kernel says of its own errors; a lockup on an emulated processor is none.
const COMPLAINTS: [&str; 4] = ["[ cut here ]", "BUG: ", "Oops", "Kernel panic"];
const NO_COMPLAINT: &str = "soft lockup";

/// The end-to-end tests, and which of them are to run.
pub(crate) struct Tests<'a> {
    programs: &'a [Program],
    /// The target and the name of each test.
    names: Vec<(String, String)>,
}

impl<'a> Tests<'a> {
    /// Asks each program for its tests. Those are to run whose name has one of `only` in it, or all.
    pub(crate) fn of(programs: &'a [Program], tools: &Tools, only: &[String]) -> Result<Self> {
        let mut names = Vec::new();
        for Program { name, path, .. } in programs.iter().filter(|program| program.kind == Kind::Tests) {
            let listed =
                |more: &[&str]| output(tools.program(path).args(["--list", "--format", "terse"]).args(more));
            // What only this machine has.
            let left_out = listed(&["--ignored"])?;
            for line in listed(&[])?.lines() {
                let Some(test) = line.strip_suffix(": test") else { continue };
                if left_out.lines().any(|other| other == line) {
                    eprintln!("step: left out of the guests: {}", full(&(name.clone(), test.to_owned())));
                } else {
                    names.push((name.clone(), test.to_owned()));
                }
            }
        }
        names.retain(|(target, test)| {
            !NOT_OF_KERNELS.contains(&target.as_str())
                && !NONE_OF_KERNELS.contains(&(target.as_str(), test.as_str()))
        });
        names.retain(|name| only.is_empty() || only.iter().any(|only| full(name).contains(only)));
        if names.is_empty() {
            bail!("no test is called {}", only.join(" or "));
        }
        Ok(Self { programs, names })
    }

    /// The programs that a guest needs, by name.
    pub(crate) fn programs(&self) -> impl Iterator<Item = (&'a str, &'a Path)> + Clone {
        let needed = self.programs.iter().filter(|program| program.kind != Kind::UnitTests);
        needed.map(|program| (program.name.as_str(), program.path.as_path()))
    }

    /// After how long a guest has surely stopped: most tests take seconds, on a crowded machine half a minute, and there on arm64, which is
    /// slower to emulate, up to four.
    pub(crate) fn limit(&self, arch: Arch) -> Duration {
        let each = match arch {
            Arch::X86_64 => 45,
            Arch::Arm64 => 300,
        };
        TEST_BOUND + Duration::from_secs(each * self.names.len() as u64)
    }

    /// Writes what the guest's first process reads: the tests, and the environment that they run in.
    pub(crate) fn order(&self, to: &Path, hooks_only: Option<&str>) -> Result<()> {
        let tests: String = self.names.iter().map(|(target, test)| format!("{target} {test}\n")).collect();
        let mut environment = format!(
            "export WHY502_BIN=/tests/why502 RIG_PATIENCE={PATIENCE} RIG_GOLDEN=/golden RIG_RENEWED=/renewed\nTEST_BOUND={}\n",
            TEST_BOUND.as_secs()
        );
        if let Some(sources) = hooks_only {
            environment += &format!("export WHY502_HOOKS_ONLY={sources}\n");
        }
        for passed_on in ["WHY502_VERIFIER_LOG", "RENEW", "RIG_FULL_LOAD"] {
            if std::env::var_os(passed_on).is_some() {
                environment += &format!("export {passed_on}=1\n");
            }
        }
        let mut archive = Archive::create(to)?;
        archive.content(Path::new("/suite"), tests.as_bytes(), 0o644)?;
        archive.content(Path::new("/environment"), environment.as_bytes(), 0o644)?;
        archive.finish()
    }
}

/// `reset::a_kill_from_outside_names_the_killer`
fn full((target, test): &(String, String)) -> String {
    format!("{target}::{test}")
}

/// What became of the tests on one kernel.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How many tests passed.
    pub(crate) passed: usize,
    /// The names of those that did not.
    pub(crate) failed: Vec<String>,
}

/// Listens to one run of the guest.
pub(crate) struct Report<'a> {
    tests: &'a Tests<'a>,
    /// Stands before each line.
    label: String,
    log: fs::File,
    ended: usize,
    /// The test that runs, and since when.
    running: Option<(String, Instant)>,
    /// The output of the test that runs.
    said: Vec<String>,
    /// A golden text that the guest renews, by its name.
    golden: Option<(String, String)>,
    /// Where golden texts are kept.
    folder: PathBuf,
    tally: Tally,
}

impl<'a> Report<'a> {
    /// Begins, with a log of every line.
    pub(crate) fn begin(tests: &'a Tests<'a>, label: &str, log: &Path, golden: &Path) -> Result<Self> {
        let log = fs::File::create(log).with_context(|| format!("{} cannot be written", log.display()))?;
        let (running, said, tally) = (None, Vec::new(), Tally::default());
        let (label, folder) = (label.to_owned(), golden.to_owned());
        Ok(Self { tests, label, log, ended: 0, running, said, golden: None, folder, tally })
    }

    /// Takes a line from the guest.
    pub(crate) fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.log, "{line}")?;
        if let (Some((_name, text)), Some(line)) = (&mut self.golden, line.strip_prefix('|')) {
            *text += line;
            *text += "\n";
            return Ok(());
        }
        if let Some((name, text)) = self.golden.take() {
            let path = self.folder.join(name);
            fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
        }
        match line.strip_prefix('@').map(|said| said.split_once(' ').unwrap_or((said, ""))) {
            Some(("golden", name)) => self.golden = Some((name.to_owned(), String::new())),
            Some(("begin", name)) => self.running = Some((name.to_owned(), Instant::now())),
            Some(("end", status)) => {
                if let Some((name, began)) = self.running.take() {
                    self.ended += 1;
                    let how = if status == "137" { "FAILED: it did not end" } else { "FAILED" };
                    self.judge(&name, (status != "0").then_some(how), Some(began.elapsed()));
                }
            }
            Some(("booted", release_and_uptime)) => {
                eprintln!("step: {}: booted {release_and_uptime} s", self.label)
            }
            Some(_) => {}
            None if self.running.is_some() => self.said.push(line.to_owned()),
            None => eprintln!("step: {}: {line}", self.label),
        }
        Ok(())
    }

    /// Ends the report. Tests that have not run are failures, and so is what the kernel complained of.
    pub(crate) fn end(mut self, failed: Option<String>, console: &Path) -> Tally {
        let why = failed.unwrap_or_else(|| "the guest switched itself off too early".to_owned());
        for name in &self.tests.names[self.ended..] {
            self.judge(&full(name), Some(&format!("FAILED: not run to its end, {why}")), None);
        }
        let console = fs::read(console).unwrap_or_default();
        self.said = complaints(&String::from_utf8_lossy(&console));
        if !self.said.is_empty() {
            self.judge("console::the_kernel_complains_of_nothing", Some("FAILED"), None);
        }
        self.tally
    }

    /// Says what became of a test, and how long it took.
    fn judge(&mut self, name: &str, failure: Option<&str>, took: Option<Duration>) {
        let mut stdout = std::io::stdout().lock();
        let took = took.map(|took| format!(" ({} s)", took.as_secs())).unwrap_or_default();
        // Whoever reads our output may have gone; the tests go on.
        let _ = writeln!(stdout, "{}  {name} ... {}{took}", self.label, failure.unwrap_or("ok"));
        for line in self.said.drain(..).filter(|_| failure.is_some()) {
            let _ = writeln!(stdout, "{line}");
        }
        match failure {
            None => self.tally.passed += 1,
            Some(_) => self.tally.failed.push(format!("{}  {name}", self.label)),
        }
    }
}

/// The lines in which the kernel complains of itself, each with a few after it.
fn complaints(console: &str) -> Vec<String> {
    const ENOUGH: usize = 40;
    let complains = |line: &&str| {
        COMPLAINTS.iter().any(|complaint| line.contains(complaint)) && !line.contains(NO_COMPLAINT)
    };
    let lines: Vec<&str> = console.lines().collect();
    let first = lines.iter().position(complains);
    let lines = first.map(|first| &lines[first..]).unwrap_or_default();
    lines.iter().take(ENOUGH).map(|line| format!("    {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_of_the_kernel_is_a_complaint_and_a_lockup_is_none() {
        assert_eq!(complaints("[ 1.0] x\n[ 2.0] watchdog: BUG: soft lockup - CPU#0\n"), Vec::<String>::new());
        assert_eq!(complaints("a\n[ 2.0] ------------[ cut here ]------------\nb\n").len(), 2);
    }

    #[test]
    fn each_test_is_accounted_for() -> Result<()> {
        let folder = std::env::temp_dir();
        let log = folder.join(format!("why502-suite-{}", std::process::id()));
        let name = |test: &str| ("reset".to_owned(), test.to_owned());
        let tests = Tests { programs: &[], names: vec![name("one"), name("two"), name("three")] };
        let mut report = Report::begin(&tests, "6.12", &log, &folder)?;
        let golden = format!("why502-golden-{}", std::process::id());
        let guest = format!(
            "@booted 6.12 4.9\n@begin reset::one\n@end 0\n@begin reset::two\n    why\n@end 101\n@golden {golden}\n|one\n|\n|two\n\
             @begin reset::three\n"
        );
        guest.lines().try_for_each(|line| report.line(line))?;
        let Tally { passed, failed } = report.end(Some("no end".to_owned()), &log);
        fs::remove_file(log)?;
        let golden = folder.join(&golden);
        assert_eq!(fs::read_to_string(&golden)?, "one\n\ntwo\n");
        fs::remove_file(golden)?;
        assert_eq!(
            (passed, failed),
            (1, vec!["6.12  reset::two".to_owned(), "6.12  reset::three".to_owned()])
        );
        Ok(())
    }
}
