//! `cargo xtask demo`: builds, then lets the rig break exchanges in every way while why502 explains them.

use std::{
    env,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;

use crate::{
    interrupt,
    setup::{self, For},
    step::Steps,
};

/// What `cargo xtask demo` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Then draw each view of `why502 top` into this folder, as the documents show them.
    #[arg(long, value_name = "FOLDER")]
    top: Option<PathBuf>,
    /// Have `why502 serve` count them instead, and a Prometheus answer which causes there were.
    #[arg(long, conflicts_with = "top")]
    serve: bool,
    /// Then leave both running until Ctrl-C, for a browser.
    #[arg(long, requires = "serve")]
    hold: bool,
}

/// Builds why502 and the rig while what they run is installed, and becomes the rig's demo; or draws what that has recorded.
pub(crate) fn run(steps: &mut Steps, workspace: &Path, options: &Options) -> Result<()> {
    let mut missing = setup::begin("demo", workspace, For::Demo { serve: options.serve })?;
    if let Some(first) = missing.take_if(|missing| missing.is_built_with()) {
        first.install(workspace, steps)?;
    }
    thread::scope(|scope| {
        let installed = missing.map(|missing| {
            let mut beside = steps.beside();
            scope.spawn(move || missing.install(workspace, &mut beside))
        });
        let built = steps.run("building why502 and the rig", &mut build_all());
        let installed = installed.map_or(Ok(()), |installing| {
            installing.join().map_err(|_| anyhow!("the set-up's thread panicked"))?
        });
        built.and(installed)
    })?;
    if let Some(signal) = interrupt::noted() {
        bail!("interrupted by {signal}");
    }
    let demo = program(PROFILE, "demo")?;
    let why502 = program(PROFILE, "why502")?;
    if let Some(folder) = &options.top {
        return draw(steps, &demo, &why502, folder);
    }
    // The demo takes this process's place: Ctrl-C and every other signal reach it, and its exit status is ours.
    let words = [("--serve", options.serve), ("--hold", options.hold)];
    let mut command = Command::new(&demo);
    command.args(words.iter().filter(|(_, wanted)| *wanted).map(|(word, _)| *word));
    let error = command.env("WHY502_BIN", why502).exec();
    Err(error).with_context(|| format!("{} cannot be run", demo.display()))
}

/// How the demo's programs are built: soon.
const PROFILE: &str = "demo";

fn build_all() -> Command {
    let mut command = cargo();
    command.args(["build", "--profile", PROFILE, "--package", "tracer-user", "--package", "rig"]);
    command.args(["--bin", "why502", "--bin", "demo", "--bin", "faulty-server"]);
    command
}

/// Lets the demo record itself, and draws the end of that.
fn draw(steps: &mut Steps, demo: &Path, why502: &Path, folder: &Path) -> Result<()> {
    let evidence = env::temp_dir().join(format!("why502-demo-{}.zst", std::process::id()));
    let mut command = Command::new(demo);
    command.env("WHY502_BIN", why502).env("WHY502_DEMO_EVIDENCE", &evidence);
    let shown = steps.run("recording the demo", &mut command).and_then(|()| {
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
        let mut command = Command::new(why502);
        // Bars, whatever the locale of this machine is; the pictures have colours of their own.
        command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC").env_remove("NO_COLOR");
        command.arg("top").arg("--screens").arg(folder).arg(&evidence);
        steps.run("drawing the screens of why502 top", &mut command)
    });
    let removed = std::fs::remove_file(&evidence);
    shown?;
    removed.with_context(|| format!("{} cannot be removed", evidence.display()))
}

/// The command that builds a program for release.
pub(crate) fn build(package: &str, program: &str) -> Command {
    let mut command = cargo();
    command.args(["build", "--release", "--package", package, "--bin", program]);
    command
}

/// Where cargo put a program that was built for release.
pub(crate) fn built(name: &str) -> Result<PathBuf> {
    program("release", name)
}

/// Where cargo put a program that was built in a profile: beside the folder this one was built into.
fn program(profile: &str, name: &str) -> Result<PathBuf> {
    let this = env::current_exe().context("this program's own path cannot be read")?;
    let target = this.parent().and_then(Path::parent).context("this program is in no target folder")?;
    let path = target.join(profile).join(name);
    if !path.is_file() {
        bail!("{} is not there: run this by `cargo xtask`", path.display());
    }
    Ok(path)
}

/// The cargo that runs this.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::step::output;

    /// The features that each dependency has with these packages, on this machine.
    fn features(packages: &[&str]) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let mut command = cargo();
        command.args(["tree", "--locked", "--edges=normal,build", "--prefix=none", "--format={p};{f}"]);
        command.args(packages.iter().map(|package| format!("--package={package}")));
        let mut features = BTreeMap::<String, BTreeSet<String>>::new();
        for line in output(&mut command)?.lines() {
            let Some((package, its)) = line.trim_end_matches(" (*)").split_once(';') else { continue };
            features.entry(package.to_owned()).or_default().insert(its.to_owned());
        }
        Ok(features)
    }

    /// The demo begins with compiling xtask, and what that takes must not be compiled again: half a minute of a processor was.
    #[test]
    fn what_xtask_and_the_demo_share_is_compiled_once() -> Result<()> {
        let (own, demo) = (features(&["xtask"])?, features(&["tracer-user", "rig"])?);
        // A second of a processor, and the parts that make objects are no part of xtask.
        let is_ours = |package: &str| package.starts_with("bpf-objects ");
        let again: Vec<_> = own
            .iter()
            .filter(|(package, _)| !is_ours(package))
            .filter_map(|(package, its)| Some((package, its, demo.get(package)?)))
            .filter(|(_, its, theirs)| !its.is_subset(theirs))
            .collect();
        anyhow::ensure!(
            own.len() > 50 && again.is_empty(),
            "{again:#?}: see `compiled-once` in xtask/Cargo.toml"
        );
        Ok(())
    }
}
