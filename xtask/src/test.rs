//! `cargo xtask test`: every check, one after the other; the last line counts the test cases.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    arch::Arch,
    count::Count,
    demo::cargo,
    dist, end_to_end,
    interrupt::{End, Group, OnSignal},
    python, rig,
    step::Steps,
    vm,
};

/// What became of the checks so far.
#[derive(Default)]
struct Checks {
    total: Count,
    /// What failed.
    failed: Vec<String>,
}

impl Checks {
    /// Runs one that is a command.
    fn check(&mut self, what: &str, command: &mut Command) -> Result<()> {
        let (count, passed) = show(what, command)?;
        self.total += count;
        if !passed {
            self.failed.push(what.to_owned());
            // What ended badly without a failed test case counts as one: the closing line must not look like a success.
            self.total.failed += usize::from(count.failed == 0);
        }
        Ok(())
    }

    /// Takes in that one came to no end. Only what interrupts all of them is an error.
    fn note(&mut self, what: &str, ended: Result<()>) -> Result<()> {
        match ended {
            Err(error) if crate::interrupt::noted().is_some() => return Err(error),
            Err(error) => {
                eprintln!("error: {error:#}");
                self.failed.push(what.to_owned());
                self.total.failed += 1;
            }
            Ok(()) => {}
        }
        Ok(())
    }
}

/// Runs every check, also after one has failed, and says what failed.
pub(crate) fn run(steps: &mut Steps, workspace: &Path) -> Result<ExitCode> {
    let mut checks = Checks::default();
    checks.check("rustfmt", cargo().args(["fmt", "--all", "--", "--check"]))?;
    checks.check(
        "clippy",
        cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]),
    )?;
    let mut deny = Command::new(python::deny(workspace));
    deny.current_dir(workspace).args(["--workspace", "check", "bans", "licenses", "sources"]);
    checks.check("what the dependencies are licensed under and where they come from", &mut deny)?;
    let mut book = Command::new(python::book(workspace));
    book.arg("build").arg(workspace).arg("--dest-dir").arg(workspace.join("target/book"));
    checks.check("the documents as a book", &mut book)?;
    // Among them one that feeds reports with anything at all, for as long as it is given.
    let mut unit_tests = cargo();
    unit_tests.args(["test", "--workspace", "--exclude", "rig", "--no-fail-fast"]);
    checks.check("unit tests", unit_tests.env("WHY502_FUZZ_SECONDS", "60"))?;

    let mut whys = String::new();
    let ran = dist::program(steps, workspace, Arch::X86_64).and_then(|why502| {
        let packed = pack(steps, workspace, &why502, &mut checks);
        checks.note("what a release hands out", packed)?;
        // It is that very program that is tested.
        run_end_to_end(steps, workspace, &why502, &mut checks, &mut whys)
    });
    checks.note("end-to-end tests", ran)?;

    let Checks { total, failed } = checks;
    if !failed.is_empty() {
        eprintln!("{whys}failed: {}", failed.join(", "));
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Packs a program as a release does, and looks at what comes of it.
fn pack(steps: &mut Steps, workspace: &Path, why502: &Path, checks: &mut Checks) -> Result<()> {
    dist::set_up(steps, workspace)?;
    let for_arm64 = dist::program(steps, workspace, Arch::Arm64)?;
    dist::run(steps, workspace, &dist::Options::of([why502.to_owned(), for_arm64]))?;
    let mut packages = cargo();
    packages.args(["test", "--package", "xtask", "dist::tests::", "--", "--ignored"]);
    checks.check("what a release hands out", &mut packages)
}

/// Runs the end-to-end tests, on this kernel and then on the others. `whys` is what failed ones said: they ran an hour's output ago.
fn run_end_to_end(
    steps: &mut Steps,
    workspace: &Path,
    why502: &Path,
    checks: &mut Checks,
    whys: &mut String,
) -> Result<()> {
    let programs = rig::build(steps)?;
    eprintln!("step: end-to-end tests");
    let started = Instant::now();
    let outcome = end_to_end::run(workspace, &programs, why502)?;
    checks.total += outcome.count;
    if !outcome.failed.is_empty() {
        let names: Vec<_> = outcome.failed.iter().map(|failed| failed.name.as_str()).collect();
        checks.failed.push(format!("end-to-end tests ({})", names.join(", ")));
        *whys = outcome.failed.iter().map(|failed| format!("{}:\n{}", failed.name, failed.why)).collect();
    }
    eprintln!("step: end-to-end tests: {:.1} s", started.elapsed().as_secs_f64());

    eprintln!("step: end-to-end tests on other kernels");
    for options in vm::Options::in_short() {
        let outcome = vm::check(steps, workspace, &options, &programs, why502)?;
        outcome.close();
        checks.total += Count { passed: outcome.passed, failed: outcome.failed.len() };
        if !outcome.failed.is_empty() {
            checks.failed.push("end-to-end tests on other kernels".to_owned());
        }
    }
    Ok(())
}

/// Runs one check with all of its output shown; says how many test cases it ran and whether it succeeded.
fn show(what: &str, command: &mut Command) -> Result<(Count, bool)> {
    eprintln!("step: {what}");
    let started = Instant::now();
    let mut group = Group::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()))?;
    let output = group.take_stdout().context("the check's output is not piped")?;
    let (send, counted) = mpsc::channel();
    thread::spawn(move || {
        let mut count = Count::default();
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let mut stdout = std::io::stdout().lock();
            // Whoever reads our output may have gone; the checks go on.
            let _ = stdout.write_all(&line).and_then(|()| stdout.write_all(b"\n"));
            count += Count::of_line(&String::from_utf8_lossy(&line));
        }
        send.send(count)
    });
    let end = group.wait(OnSignal::Pass, None, |_| ())?;
    // A process that a test left behind would keep its output open for ever.
    let count = counted.recv_timeout(Duration::from_secs(5));
    let passed = match end {
        End::Exited(status) => status.success(),
        End::TimedOut => false,
        End::Interrupted(signal) => bail!("{what} interrupted by {signal}"),
    };
    let seconds = started.elapsed().as_secs_f64();
    let Ok(count) = count else {
        eprintln!(
            "step: {what}: a process was left behind that still holds its output, after {seconds:.1} s"
        );
        return Ok((Count::default(), false));
    };
    eprintln!("step: {what}: {} in {seconds:.1} s", if passed { "passed" } else { "failed" });
    Ok((count, passed))
}
