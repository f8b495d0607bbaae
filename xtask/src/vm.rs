//! `cargo xtask vm`: the end-to-end tests on other kernels, Debian's, in an emulated machine.

use std::{
    env, fs, io,
    num::NonZero,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use self::{
    kernels::{ARM64, Image, KERNELS, Kernel, TRACEPOINTS},
    suite::{Report, Tally, Tests},
    tools::Tools,
    userland::Userland,
};
use crate::{
    arch::Arch,
    demo::{build, built},
    dist, interrupt,
    rig::{self, Program},
    step::Steps,
};

// What is fetched.
pub(crate) mod debian;
mod kernels;
mod tools;

// What is put into the machine.
mod cpio;
mod initramfs;
mod userland;

// What it does.
mod qemu;
mod suite;

/// What to run, and on what.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Options {
    /// Kernels: 5.10, 6.1, 6.12, 7.2; all if none is named, and of arm64's 6.1 and 6.12. Fetched once, into target/vm.
    #[arg(value_name = "KERNEL", value_parser = kernels::parse)]
    kernels: Vec<Kernel>,
    /// What the machine is: its programs for arm64 are Debian's and our static ones, its tests a chosen part unless some are named.
    #[arg(long, value_enum, default_value_t)]
    arch: Arch,
    /// Only the tests with this in their name, such as `reset::`, or with one of these if repeated.
    #[arg(long, value_name = "TEST")]
    only: Vec<String>,
    /// Lets why502 use only these sources of facts, as its own option of this name.
    #[arg(long, value_name = "SOURCE,...")]
    hooks_only: Option<String>,
    /// Only with each kernel's own best hooks, not with what stands in for them.
    #[arg(long, conflicts_with = "hooks_only")]
    best_only: bool,
    /// How many machines run at a time; by default two for each processor, for each keeps one busy and often waits.
    #[arg(long, value_name = "COUNT")]
    at_once: Option<NonZero<usize>>,
}

impl Options {
    /// What `cargo xtask test` has time for: on each kernel, with its best hooks, the tests in which every hook has a part; and on the newest,
    /// with tracepoints alone, one in which a hook is attached late, when most privileges have been given up.
    pub(crate) fn in_short() -> [Self; 2] {
        // One for each processor: what is checked each time has time to spare, and finds no fault with a crowded machine.
        let at_once = thread::available_parallelism().ok();
        let only = SHORT.iter().chain([&COUNTED]).map(|&test| test.to_owned()).collect();
        let best = Self { only, best_only: true, at_once, ..Self::default() };
        let late = Self {
            kernels: vec![KERNELS[KERNELS.len() - 1]],
            only: vec![LATE.to_owned()],
            hooks_only: Some(TRACEPOINTS.to_owned()),
            at_once,
            ..Self::default()
        };
        [best, late]
    }

    /// The kernels to boot.
    fn kernels(&self) -> Result<Vec<Kernel>> {
        let all = match self.arch {
            Arch::X86_64 => &KERNELS[..],
            Arch::Arm64 => &ARM64,
        };
        if self.kernels.is_empty() {
            return Ok(all.to_vec());
        }
        let of_arch = |named: &Kernel| {
            all.iter().find(|kernel| kernel.name == named.name).copied().with_context(|| {
                let names: Vec<_> = all.iter().map(|kernel| kernel.name).collect();
                format!("no kernel {} for {}: name {}", named.name, self.arch.debian(), names.join(" or "))
            })
        };
        self.kernels.iter().map(of_arch).collect()
    }

    /// The tests to run: each whose name has one of these in it, or all if there is none.
    fn tests(&self) -> Vec<String> {
        if self.only.is_empty() && self.arch == Arch::Arm64 {
            return SHORT.iter().chain(&MORE_ON_ARM64).map(|&test| test.to_owned()).collect();
        }
        self.only.clone()
    }
}

/// The tests of [`Options::in_short`], which each say something of a hook of their own.
const SHORT: [&str; 21] = [
    "accept_queue_overflow::a_full_queue",
    "backlog::a_listener_that_is_older",
    "backlog::a_unix_listener",
    "client_abort::a_client",
    "doctor::what_this_kernel_shows",
    "keepalive::idle",
    "packets::a_firewall_that_drops",
    "packets::a_full_syn_queue",
    "packets::a_handshake_that_ends",
    "read_timeout::slow_workers",
    "read_timeout::waiting",
    "refused::a_port",
    "reset::a_kill_from_outside",
    "reset::request_terminate_timeout",
    "silence::what_nginx_ends",
    "storm::standby",
    "unix::a_full_backlog",
    "unix::closing",
    "unix::deaths",
    "words_groups::a_group",
    "words_http::each_wrong_response_has_its_cause_over_tcp",
];

/// What is counted of each kernel of x86-64's, and recorded of these only.
const COUNTED: &str = "hook_runs::each_hook";

/// A test of [`Options::in_short`] in which unix sockets are watched only once one is used.
const LATE: &str = "words_unix::a_timeout";

/// What is run on arm64 as well, where tests of its own would say nothing new: what is written and read again, and words over FastCGI.
const MORE_ON_ARM64: [&str; 2] =
    ["record::an_incident_is_on_disk", "words_fastcgi::each_wrong_response_has_its_cause_over_tcp"];

/// What became of the tests on all kernels.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// How many tests passed.
    pub(crate) passed: usize,
    /// The names of those that did not, each after its kernel.
    pub(crate) failed: Vec<String>,
    /// How many kernels could not be had.
    skipped: usize,
    /// A sentence about each kernel: how long it took, or why it was skipped.
    closing: Vec<String>,
}

impl Outcome {
    /// Says what failed and what was skipped.
    pub(crate) fn close(&self) {
        for line in self.failed.iter().map(|name| format!("failed: {name}")).chain(self.closing.clone()) {
            println!("{line}");
        }
    }
}

/// Runs the tests on each kernel, also after one has failed, and says what failed and what was skipped.
pub(crate) fn run(steps: &mut Steps, workspace: &Path, options: &Options) -> Result<ExitCode> {
    let (programs, why502) = match options.arch {
        Arch::X86_64 => {
            steps.run("building why502", &mut build("tracer-user", "why502"))?;
            (rig::build(steps)?, built("why502")?)
        }
        Arch::Arm64 => {
            let why502 = dist::program(steps, workspace, options.arch)?;
            (programs_for_arm64(steps, workspace, options)?, why502)
        }
    };
    let outcome = check(steps, workspace, options, &programs, &why502)?;
    outcome.close();
    let Outcome { passed, failed, skipped, .. } = outcome;
    println!("{passed} passed, {} failed, {skipped} kernels skipped", failed.len());
    // Nothing at all is no success.
    Ok(if failed.is_empty() && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the tests that are to run there.
pub(crate) fn programs_for_arm64(
    steps: &mut Steps,
    workspace: &Path,
    options: &Options,
) -> Result<Vec<Program>> {
    let tests = options.tests();
    let targets = tests.iter().map(|test| match test.split_once("::") {
        Some((target, _)) => Ok(target),
        None => bail!("--only {test}: for arm64 only the named programs are built: name one, as in reset::"),
    });
    rig::build_for(steps, workspace, Arch::Arm64, &targets.collect::<Result<_>>()?)
}

/// Runs the tests on each kernel, also after one has failed.
pub(crate) fn check(
    steps: &mut Steps,
    workspace: &Path,
    options: &Options,
    programs: &[Program],
    why502: &Path,
) -> Result<Outcome> {
    let vm = Vm { folder: workspace.join("target/vm"), golden: workspace.join("tests/golden") };
    fs::create_dir_all(vm.folder.join("logs"))?;
    let mut closing = Vec::new();
    let (machine, images) = vm.fetch(steps, options.arch, &options.kernels()?, &mut closing)?;
    let mut outcome = Outcome { skipped: closing.len(), closing, ..Outcome::default() };
    if let Some(Machine { tools, userland }) = machine.filter(|_| !images.is_empty()) {
        let tests = Tests::of(programs, &tools, &options.tests())?;
        let base = vm.folder.join("base.cpio");
        initramfs::build(&base, &tools, userland.as_ref(), &tests, why502, &vm.golden)?;
        let runs: Vec<Run> = images.iter().flat_map(|image| runs(image, options)).collect();
        for (run, (mut tally, took)) in
            runs.iter().zip(vm.test_all(&tools, &runs, &tests, options.at_once)?)
        {
            let (count, seconds) = (tally.failed.len(), took.as_secs());
            let line = format!("{}: {} passed, {count} failed in {seconds} s", run.label(), tally.passed);
            outcome.closing.push(line);
            outcome.passed += tally.passed;
            outcome.failed.append(&mut tally.failed);
        }
    }
    if !outcome.failed.is_empty() {
        println!("what the guests said is in {}", vm.folder.join("logs").display());
    }
    Ok(outcome)
}

/// One boot of one kernel.
struct Run<'a> {
    image: &'a Image,
    /// The only kinds of hooks that why502 may use, or all.
    hooks_only: Option<&'a str>,
}

impl Run<'_> {
    fn label(&self) -> String {
        let arch = (self.image.arch != Arch::X86_64).then(|| self.image.arch.debian());
        [Some(self.image.name), arch, self.hooks_only].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// What to do with a kernel: the tests with its own best hooks, then with what stands in for them; or with the given hooks only.
fn runs<'a>(image: &'a Image, options: &'a Options) -> Vec<Run<'a>> {
    let run = |hooks_only| Run { image, hooks_only };
    match options.hooks_only.as_deref() {
        Some(kinds) => vec![run(Some(kinds))],
        None if options.best_only => vec![run(None)],
        None => std::iter::once(None).chain(image.fallbacks.iter().copied().map(Some)).map(run).collect(),
    }
}

/// What makes a machine, beside a kernel.
struct Machine {
    tools: Tools,
    /// Its programs, where this machine's do not run on it.
    userland: Option<Userland>,
}

impl Machine {
    fn get(steps: &mut Steps, folder: &Path, arch: Arch) -> Result<Self> {
        if env::consts::ARCH != "x86_64" {
            bail!("only on x86-64 is a machine emulated");
        }
        let userland = match arch {
            Arch::X86_64 => None,
            Arch::Arm64 => Some(Userland::get(steps, folder)?),
        };
        Ok(Self { tools: Tools::get(steps, folder, arch)?, userland })
    }
}

/// The project's folder for machines.
struct Vm {
    folder: PathBuf,
    /// The golden texts, by kernel.
    golden: PathBuf,
}

impl Vm {
    /// Fetches what is not there yet. What cannot be had is named in `skipped`.
    fn fetch(
        &self,
        steps: &mut Steps,
        arch: Arch,
        kernels: &[Kernel],
        skipped: &mut Vec<String>,
    ) -> Result<(Option<Machine>, Vec<Image>)> {
        let mut skip = |kernel: &Kernel, error: &anyhow::Error| match interrupt::noted() {
            Some(signal) => bail!("interrupted by {signal}"),
            None => {
                skipped.push(format!("{}: skipped: {error:#}", kernel.name));
                Ok(())
            }
        };
        let machine = match Machine::get(steps, &self.folder, arch) {
            Ok(machine) => machine,
            Err(error) => {
                kernels.iter().try_for_each(|kernel| skip(kernel, &error))?;
                return Ok((None, Vec::new()));
            }
        };
        let mut images = Vec::new();
        for kernel in kernels {
            match kernel.get(steps, &self.folder, &machine.tools) {
                Ok(image) => images.push(image),
                Err(error) => skip(kernel, &error)?,
            }
        }
        // Hundreds of megabytes, of which the next to be fetched would need new ones anyway.
        let lists = self.folder.join("apt");
        if lists.exists() {
            fs::remove_dir_all(&lists).with_context(|| format!("removing {}", lists.display()))?;
        }
        Ok((Some(machine), images))
    }

    /// Makes all runs, so many at a time. Returns what became of each, and how long it took.
    fn test_all(
        &self,
        tools: &Tools,
        runs: &[Run<'_>],
        tests: &Tests<'_>,
        at_once: Option<NonZero<usize>>,
    ) -> Result<Vec<(Tally, Duration)>> {
        let next = AtomicUsize::new(0);
        let lane = || -> Result<Vec<(usize, (Tally, Duration))>> {
            let mut done = Vec::new();
            // The newest kernels take longest, so they begin.
            while let Some((number, run)) =
                runs.iter().enumerate().rev().nth(next.fetch_add(1, Ordering::Relaxed))
            {
                let started = Instant::now();
                done.push((number, (self.test(tools, run, tests)?, started.elapsed())));
            }
            Ok(done)
        };
        let lanes =
            at_once.map_or_else(|| 2 * thread::available_parallelism().map_or(1, NonZero::get), NonZero::get);
        let lanes = lanes.min(runs.len());
        let mut done = thread::scope(|scope| -> Result<Vec<_>> {
            let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
            let mut done = Vec::new();
            for lane in lanes {
                done.append(&mut lane.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??);
            }
            Ok(done)
        })?;
        done.sort_by_key(|(number, _)| *number);
        Ok(done.into_iter().map(|(_, what)| what).collect())
    }

    /// Makes one run.
    fn test(&self, tools: &Tools, run: &Run<'_>, tests: &Tests<'_>) -> Result<Tally> {
        let (label, Run { image, hooks_only }) = (run.label(), run);
        let log = self.folder.join("logs").join(label.replace([' ', ','], "-"));
        let (said, console) = (log.with_added_extension("tests"), log.with_added_extension("console"));
        let order = log.with_added_extension("order");
        tests.order(&order, *hooks_only)?;
        let initramfs = log.with_added_extension("initramfs");
        concatenate(&[&self.folder.join("base.cpio"), &image.modules, &order], &initramfs)?;
        let mut report = Report::begin(tests, &label, &said, &self.golden)?;
        let booted = qemu::boot(tools, image, &initramfs, &console, tests.limit(tools.arch()), |line| {
            report.line(line)
        });
        for large in [order, initramfs] {
            fs::remove_file(&large).with_context(|| format!("removing {}", large.display()))?;
        }
        Ok(report.end(booted?, &console))
    }
}

/// Writes files one after the other.
fn concatenate(files: &[&Path], to: &Path) -> Result<()> {
    let mut whole = fs::File::create(to).with_context(|| format!("{} cannot be written", to.display()))?;
    for file in files {
        let mut part = fs::File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
        io::copy(&mut part, &mut whole)?;
    }
    Ok(())
}

/// All files under a folder.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.append(&mut self::files(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_an_architecture_lacks_is_refused() -> Result<()> {
        let named = |name: &str, arch| -> Result<Vec<Kernel>> {
            let kernels = vec![kernels::parse(name).map_err(anyhow::Error::msg)?];
            Options { kernels, arch, ..Options::default() }.kernels()
        };
        assert_eq!(named("6.1", Arch::Arm64)?, ARM64[..1]);
        assert_eq!(named("7.2", Arch::X86_64)?, KERNELS[3..]);
        let refused = named("7.2", Arch::Arm64).map_err(|error| error.to_string());
        assert_eq!(refused, Err("no kernel 7.2 for arm64: name 6.1 or 6.12".to_owned()));
        Ok(())
    }
}
