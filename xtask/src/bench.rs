//! `cargo xtask bench`: what why502 costs, measured beside what a user would otherwise run, and held against its budgets.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail};

use self::{budget::Budget, figures::Figures, machine::Machine};
use crate::{
    arch::Arch,
    demo::{build, built},
    dist,
    interrupt::{End, Group, OnSignal},
    packages,
    step::Steps,
};

// What was measured, and on what.
mod figures;
mod machine;
mod spread;

// What it amounts to.
mod budget;

// How it is shown.
mod page;
mod per_hook;
mod picture;
mod tables;

/// How much to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Pairs of slices, one traced and one not, of a second each, in each case of why502; other tools get a third of it.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..))]
    pairs: u16,
    /// Shows instead which hooks run how often for an exchange and for what is none of nginx's, and how long.
    #[arg(long)]
    per_hook: bool,
    /// Measures so little that nothing can be judged by it: whether all of it works.
    #[arg(long, conflicts_with_all = ["pairs", "renew"])]
    quick: bool,
    /// Measures nothing: shows the last run's figures again.
    #[arg(long, conflicts_with_all = ["pairs", "quick"])]
    last: bool,
    /// Renews the figures and the picture in docs/cost.md.
    #[arg(long, conflicts_with = "per_hook")]
    renew: bool,
}

/// What the rig measures.
const PARTS: &str = "why502,tools,hooks,growth,storm,screen,flood,explain,serve";
/// Where the rig's figures are left, one JSON object per line.
const FIGURES: &str = "target/bench.jsonl";

/// Measures, shows the tables, and fails if a budget does not hold.
pub(crate) fn run(steps: &mut Steps, workspace: &Path, options: &Options) -> Result<ExitCode> {
    let figures = if options.last {
        let path = workspace.join(FIGURES);
        let lines = fs::read_to_string(&path)
            .with_context(|| format!("there are no figures of a last run in {}", path.display()))?;
        Figures::parse(lines.lines())?
    } else {
        let why502 = prepare(steps, workspace)?;
        let pairs = if options.quick { 2 } else { options.pairs };
        let parts = if options.per_hook { "hooks" } else { PARTS };
        measure(workspace, &why502, parts, pairs, (pairs / 3).max(2))?
    };
    if options.per_hook {
        println!("{}", per_hook::table(&figures));
        return Ok(ExitCode::SUCCESS);
    }
    conclude(workspace, options, &figures)
}

/// Installs what only this verb needs, and builds. Returns where the program is that is measured: the one that is handed out.
fn prepare(steps: &mut Steps, workspace: &Path) -> Result<PathBuf> {
    let missing = packages::missing_for_bench();
    if !missing.is_empty() {
        if !packages::apt() {
            bail!("this system has no apt: install {} by hand and run this again", missing.join(", "));
        }
        packages::install(steps, &missing)?;
    }
    let why502 = dist::program(steps, workspace, Arch::X86_64)?;
    steps.run("building the rig", &mut build("rig", "bench"))?;
    Ok(why502)
}

/// Shows the tables, renews what is asked for, and judges.
fn conclude(workspace: &Path, options: &Options, figures: &Figures) -> Result<ExitCode> {
    let machine = Machine::this()?;
    let budgets = budget::check(figures);
    let text = tables::all(figures, &budgets, &machine);
    println!("{text}");
    if options.renew {
        picture::draw(figures, &workspace.join(picture::PATH))?;
        page::renew(workspace, &format!("{}\n\n{text}", picture::link()))?;
        eprintln!("step: {} and {} are renewed", page::PATH, picture::PATH);
    }
    if options.quick {
        eprintln!("step: so few pairs judge no budget");
        return Ok(ExitCode::SUCCESS);
    }
    let failing = budgets.iter().filter(|budget| !budget.holds()).map(Budget::name);
    let failing: Vec<&str> = failing.collect();
    if failing.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("does not hold: {}", failing.join("; "));
    Ok(ExitCode::FAILURE)
}

/// Lets the rig measure, and takes its figures as they come.
fn measure(workspace: &Path, why502: &Path, parts: &str, pairs: u16, tool_pairs: u16) -> Result<Figures> {
    let mut command = Command::new(built("bench")?);
    command.args([parts, &pairs.to_string(), &tool_pairs.to_string()]);
    command.env("WHY502_BIN", why502).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut group = Group::spawn(&mut command)?;
    let output = group.take_stdout().context("the rig's output is not piped")?;
    let reader = thread::spawn(move || BufReader::new(output).lines().collect::<Result<Vec<_>, _>>());
    let end = group.wait(OnSignal::Pass, None, |_| ())?;
    let lines = reader.join().map_err(|_| anyhow::anyhow!("the reader of the rig's figures panicked"))??;
    match end {
        End::Exited(status) if status.success() => {}
        End::Exited(status) => bail!("measuring failed ({status})"),
        End::TimedOut => bail!("measuring took too long"),
        End::Interrupted(signal) => bail!("measuring was interrupted by {signal}"),
    }
    let path = workspace.join(FIGURES);
    fs::write(&path, lines.join("\n") + "\n")
        .with_context(|| format!("{} cannot be written", path.display()))?;
    eprintln!("step: every figure is in {FIGURES}");
    Figures::parse(lines.iter().map(String::as_str))
}
