//! `cargo xtask setup`: installs what is missing to build why502, to run its rig and to check it.

use std::{env, path::Path, process::Command};

use anyhow::{Result, bail};
use bpf_objects::record::Record;
use nix::unistd::Uid;

use crate::{
    bpf_toolchain, packages, python,
    step::{Steps, shown},
};

/// Sets up what is missing. Every verb begins with it; when all is there it takes a moment.
pub(crate) fn run(verb: &str, workspace: &Path, steps: &mut Steps) -> Result<()> {
    let root = Uid::effective().is_root();
    if root {
        packages::clear_leftovers()?;
    }
    let Missing { packages, toolchain, python, components } = Missing::probe(verb, workspace);
    let nothing = packages.is_empty() && !toolchain && python.is_empty() && components.is_empty();
    if !root {
        let why = format!("`cargo xtask {verb}` must run as root");
        if nothing {
            bail!("{why}: nothing is left to install");
        }
        bail!(
            "{why}; it then installs what is missing, which by hand is:\n{}",
            by_hand(verb, workspace).join("\n")
        );
    }
    if nothing {
        eprintln!("step: set-up: everything is there");
        return Ok(());
    }
    if !packages.is_empty() {
        if !packages::apt() {
            bail!(
                "this system has no apt: install by hand and run this again:\n{}",
                by_hand(verb, workspace).join("\n")
            );
        }
        packages::install(steps, &packages)?;
    }
    if !components.is_empty() {
        if packages::find("rustup").is_some() {
            steps.run(
                &format!("installing {} by rustup", components.join(", ")),
                &mut components_command(&components),
            )?;
        } else if packages::apt() {
            packages::install(steps, &DEBIAN_COMPONENTS)?;
        } else {
            bail!("install {} for this cargo and run this again", components.join(" and "));
        }
    }
    if toolchain {
        bpf_toolchain::install(steps, workspace)?;
    }
    for package in python {
        package.install(steps, workspace)?;
    }
    let Missing { packages, toolchain: _, python: _, components } = Missing::probe(verb, workspace);
    if !packages.is_empty() || !components.is_empty() {
        bail!("still missing after the set-up: {}", [packages, components].concat().join(", "));
    }
    Ok(())
}

/// The checkers that come with cargo, as components of rustup, and Debian's packages of them for the cargo that it packages.
const COMPONENTS: [(&str, &str); 2] = [("fmt", "rustfmt"), ("clippy", "clippy")];
const DEBIAN_COMPONENTS: [&str; 2] = ["rustfmt-web", "rust-web-clippy"];

/// What is not there.
struct Missing {
    /// Packages of the system.
    packages: Vec<&'static str>,
    /// The BPF toolchain, or its linker.
    toolchain: bool,
    /// Packages of Python's index.
    python: Vec<&'static python::Package>,
    /// Components of the toolchain that runs this.
    components: Vec<&'static str>,
}

impl Missing {
    fn probe(verb: &str, workspace: &Path) -> Self {
        // Who only looks at what it does need not wait for a compiler.
        let are_prebuilt = || {
            Record::read(workspace).and_then(|record| record.is_of_these_sources(workspace)).unwrap_or(false)
        };
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let runs = |verb| {
            let output = Command::new(&cargo).args([verb, "--version"]).output();
            output.is_ok_and(|output| output.status.success())
        };
        Self {
            packages: packages::missing(),
            toolchain: !(bpf_toolchain::ready(workspace) || verb == "demo" && are_prebuilt()),
            python: python::missing(workspace),
            components: COMPONENTS
                .iter()
                .filter(|(verb, _)| !runs(verb))
                .map(|(_, component)| *component)
                .collect(),
        }
    }
}

fn components_command(components: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["component", "add"]).args(components);
    command
}

/// What is missing, as what to run or to install by hand.
fn by_hand(verb: &str, workspace: &Path) -> Vec<String> {
    let Missing { packages, toolchain, python, components } = Missing::probe(verb, workspace);
    let mut lines = Vec::new();
    if !packages.is_empty() {
        if packages::apt() {
            lines.push(shown(&packages::update_command()));
            lines.push(shown(&packages::install_command(&packages)));
        } else {
            lines.push(format!("the packages that Debian calls: {}", packages.join(" ")));
        }
    }
    if !components.is_empty() {
        lines.push(shown(&components_command(&components)));
    }
    if toolchain {
        lines.extend(bpf_toolchain::by_hand(workspace));
    }
    lines.extend(python.iter().map(|package| shown(&package.install_command(workspace))));
    lines.into_iter().map(|line| format!("  {line}")).collect()
}
