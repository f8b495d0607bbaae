//! The rig's programs as cargo built them: the end-to-end tests, and what they run.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{
    arch::Arch,
    demo::cargo,
    dist,
    step::{Steps, output},
};

/// The rig's programs that are no tests.
const PARTS: [&str; 3] = ["faulty-server", "attacker", "hostile-logger"];

/// What a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// End-to-end tests.
    Tests,
    /// The rig's own unit tests.
    UnitTests,
    /// What tests run.
    Part,
}

/// One program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) kind: Kind,
    /// Its target's name.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// Builds them all, with what they are built of optimised: emulated processors are slow enough, and one build serves them and this machine.
pub(crate) fn build(steps: &mut Steps) -> Result<Vec<Program>> {
    let build = || {
        let mut command = cargo();
        command.args(["test", "--profile", "tests", "--package", "rig", "--no-run"]);
        Ok(command)
    };
    programs(steps, "building the end-to-end tests", build)
}

/// Builds some tests for an architecture, and what they run, as a release is built: linked statically, they run beside any C library.
pub(crate) fn build_for(
    steps: &mut Steps,
    workspace: &Path,
    arch: Arch,
    tests: &BTreeSet<&str>,
) -> Result<Vec<Program>> {
    let build = || {
        let mut command = dist::cargo_for("test", workspace, arch, &workspace.join("target"))?;
        command.args(["--package", "rig", "--no-run"]);
        for test in tests {
            command.args(["--test", test]);
        }
        Ok(command)
    };
    programs(steps, &format!("building the end-to-end tests for {}", arch.debian()), build)
}

/// Has cargo build programs, and asks it where they are.
fn programs(steps: &mut Steps, what: &str, build: impl Fn() -> Result<Command>) -> Result<Vec<Program>> {
    steps.run(what, &mut build()?)?;
    let said = output(build()?.args(["--quiet", "--message-format=json"]))?;
    let programs: Vec<_> = said.lines().filter_map(built).collect();
    if let Some(part) = PARTS.iter().find(|part| !programs.iter().any(|program| program.name == **part)) {
        bail!("cargo did not say where {part} is");
    }
    Ok(programs)
}

/// The program that cargo says it has built, if it is one of these.
fn built(message: &str) -> Option<Program> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let (target, path) = (&message["target"], message["executable"].as_str()?);
    let name = target["name"].as_str()?;
    let kind = match target["kind"][0].as_str()? {
        "test" => Kind::Tests,
        "lib" => Kind::UnitTests,
        _ if PARTS.contains(&name) => Kind::Part,
        _ => return None,
    };
    Some(Program { kind, name: name.to_owned(), path: Path::new(path).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_what_cargo_says() {
        let said = |kind: &str, name: &str, executable: &str| {
            built(&format!(
                r#"{{"reason":"compiler-artifact","target":{{"kind":["{kind}"],"name":"{name}"}},"executable":{executable}}}"#
            ))
        };
        let program =
            |kind, name: &str, path: &str| Some(Program { kind, name: name.to_owned(), path: path.into() });
        assert_eq!(said("test", "reset", r#""/t/reset-1""#), program(Kind::Tests, "reset", "/t/reset-1"));
        assert_eq!(said("lib", "rig", r#""/t/rig-1""#), program(Kind::UnitTests, "rig", "/t/rig-1"));
        assert_eq!(
            said("bin", "attacker", r#""/t/attacker""#),
            program(Kind::Part, "attacker", "/t/attacker")
        );
        assert_eq!(said("bin", "bench", r#""/t/bench""#), None);
        assert_eq!(said("lib", "anyhow", "null"), None);
        assert_eq!(built(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
