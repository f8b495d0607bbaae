//! `cargo xtask setup`: installs what is missing to build why502, to run its rig and to check it.

use std::{env, path::Path, process::Command};

use anyhow::{Result, bail};
use bpf_objects::record::Record;
use nix::unistd::Uid;

use crate::{
    bpf_toolchain, packages, python,
    step::{Steps, shown},
};

/// What a set-up is for.
#[derive(Clone, Copy)]
pub(crate) enum For {
    /// All that can be built, run and checked.
    All,
    /// The demo: its servers, and what the BPF side is built with only where the objects that come with the source are of an earlier one.
    Demo {
        /// Whether a Prometheus is among them.
        serve: bool,
    },
}

/// Sets up what is missing. Every verb begins with it; when all is there it takes a moment.
pub(crate) fn run(verb: &str, workspace: &Path, steps: &mut Steps) -> Result<()> {
    begin(verb, workspace, For::All)?.map_or(Ok(()), |missing| missing.install(workspace, steps))
}

/// Looks at what is missing, if anything is. Who is not root is shown what to do by hand.
pub(crate) fn begin(verb: &str, workspace: &Path, what_for: For) -> Result<Option<Missing>> {
    let root = Uid::effective().is_root();
    if root {
        packages::clear_leftovers()?;
    }
    let missing = Missing::probe(workspace, what_for);
    let nothing = missing.is_nothing();
    if !root {
        let why = format!("`cargo xtask {verb}` must run as root");
        if nothing {
            bail!("{why}: nothing is left to install");
        }
        bail!(
            "{why}; it then installs what is missing, which by hand is:\n{}",
            missing.by_hand(workspace).join("\n")
        );
    }
    if nothing {
        eprintln!("step: set-up: everything is there");
    }
    Ok((!nothing).then_some(missing))
}

/// The checkers that come with cargo, as components of rustup, and Debian's packages of them for the cargo that it packages.
const COMPONENTS: [(&str, &str); 2] = [("fmt", "rustfmt"), ("clippy", "clippy")];
const DEBIAN_COMPONENTS: [&str; 2] = ["rustfmt-web", "rust-web-clippy"];

/// What is not there.
pub(crate) struct Missing {
    what_for: For,
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
    fn probe(workspace: &Path, what_for: For) -> Self {
        if let For::Demo { serve } = what_for {
            let packages = packages::missing_for_demo(serve);
            let are_prebuilt = || Record::read(workspace)?.is_of_these_sources(workspace);
            let toolchain = !(bpf_toolchain::ready(workspace) || are_prebuilt().unwrap_or(false));
            return Self { what_for, packages, toolchain, python: Vec::new(), components: Vec::new() };
        }
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let runs = |verb| {
            let output = Command::new(&cargo).args([verb, "--version"]).output();
            output.is_ok_and(|output| output.status.success())
        };
        Self {
            what_for,
            packages: packages::missing(),
            toolchain: !bpf_toolchain::ready(workspace),
            python: python::missing(workspace),
            components: COMPONENTS
                .iter()
                .filter(|(verb, _)| !runs(verb))
                .map(|(_, component)| *component)
                .collect(),
        }
    }

    fn is_nothing(&self) -> bool {
        let Self { what_for: _, packages, toolchain, python, components } = self;
        packages.is_empty() && !toolchain && python.is_empty() && components.is_empty()
    }

    /// Whether nothing can be built before it is there.
    pub(crate) fn is_built_with(&self) -> bool {
        self.toolchain
    }

    /// Installs it.
    pub(crate) fn install(self, workspace: &Path, steps: &mut Steps) -> Result<()> {
        let Self { what_for, packages, toolchain, python, components } = &self;
        if !packages.is_empty() {
            if !packages::apt() {
                bail!(
                    "this system has no apt: install by hand and run this again:\n{}",
                    self.by_hand(workspace).join("\n")
                );
            }
            packages::install(steps, packages)?;
        }
        if !components.is_empty() {
            if packages::find("rustup").is_some() {
                steps.run(
                    &format!("installing {} by rustup", components.join(", ")),
                    &mut components_command(components),
                )?;
            } else if packages::apt() {
                packages::install(steps, &DEBIAN_COMPONENTS)?;
            } else {
                bail!("install {} for this cargo and run this again", components.join(" and "));
            }
        }
        if *toolchain {
            bpf_toolchain::install(steps, workspace)?;
        }
        for package in python {
            package.install(steps, workspace)?;
        }
        let left = Self::probe(workspace, *what_for);
        if !left.packages.is_empty() || !left.components.is_empty() {
            bail!("still missing after the set-up: {}", [left.packages, left.components].concat().join(", "));
        }
        Ok(())
    }

    /// It as what to run or to install by hand.
    fn by_hand(&self, workspace: &Path) -> Vec<String> {
        let Self { what_for: _, packages, toolchain, python, components } = self;
        let mut lines = Vec::new();
        if !packages.is_empty() {
            if packages::apt() {
                lines.push(shown(&packages::update_command()));
                lines.push(shown(&packages::install_command(packages)));
            } else {
                lines.push(format!("the packages that Debian calls: {}", packages.join(" ")));
            }
        }
        if !components.is_empty() {
            lines.push(shown(&components_command(components)));
        }
        if *toolchain {
            lines.extend(bpf_toolchain::by_hand(workspace));
        }
        lines.extend(python.iter().map(|package| shown(&package.install_command(workspace))));
        lines.into_iter().map(|line| format!("  {line}")).collect()
    }
}

fn components_command(components: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["component", "add"]).args(components);
    command
}
