//! Local users who mean harm: a program of `nobody`'s (`attacker`), outside or inside of namespaces of its own.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::Namespace;
use crate::lines::Lines;
use crate::process::{self, Pid, Process};

/// What the attacker has to himself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walls {
    /// Nothing: he runs as any local user does.
    None,
    /// A user namespace, in which he is root, with a network and mounts of its own, as `unshare -Urnm` makes them.
    Own,
}

/// A running attack, killed when dropped.
#[derive(Debug)]
pub struct Attacker {
    process: Process,
    lines: Lines,
}

impl Attacker {
    /// Starts an attack (a module of `tests/src/bin/attacker`) as user and group 65534, in the namespace's network unless he has
    /// walls of his own, and waits until it says `ready`.
    pub fn start(namespace: &Namespace, walls: Walls, attack: &str, arguments: &[&str]) -> Result<Attacker> {
        let mut command = namespace.command(process::of_the_rig("attacker")?);
        let walls = match walls {
            Walls::None => "none",
            Walls::Own => "own",
        };
        command.arg(walls).arg(attack).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = namespace.start(command)?;
        let stdout = process.pipes().stdout.take().context("a pipe from the attacker")?;
        let attacker = Attacker { process, lines: Lines::collect(stdout, |_| {}) };
        attacker.wait_for("ready")?;
        Ok(attacker)
    }

    /// His pid.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Waits until he says this line.
    pub fn wait_for(&self, line: &str) -> Result<()> {
        self.lines.wait(&format!("`{line}` of the attacker"), |lines| lines.iter().any(|said| said == line))
    }

    /// All that he has said so far.
    pub fn said(&self) -> Vec<String> {
        self.lines.so_far()
    }

    /// Tells him something, by a line on his standard input.
    pub fn tell(&mut self, line: &str) -> Result<()> {
        let stdin = self.process.pipes().stdin.as_mut().context("a pipe to the attacker")?;
        writeln!(stdin, "{line}").context("telling the attacker something")
    }

    /// Closes his standard input, by which an attack ends in order, and returns what he has said.
    pub fn finish(mut self) -> Result<Vec<String>> {
        drop(self.process.pipes().stdin.take());
        let status = self.process.wait()?;
        ensure!(status.success(), "the attack ended with {status}");
        self.lines.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Each `attack_TOPIC` and `attack_TOPIC::TEST` between backticks.
    fn named(text: &str) -> BTreeSet<&str> {
        text.split('`').skip(1).step_by(2).filter(|words| words.starts_with("attack_")).collect()
    }

    #[test]
    fn each_test_that_security_md_names_is_there_and_each_topic_is_named() -> Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let security = fs::read_to_string(folder.join("../SECURITY.md"))?;
        let targets = fs::read_to_string(folder.join("Cargo.toml"))?;
        let named = named(&security);
        for name in &named {
            let (target, test) = name.split_once("::").unwrap_or((name, ""));
            ensure!(
                targets.contains(&format!("name = \"{target}\"")),
                "SECURITY.md names {name}: no such target"
            );
            let topic = target.trim_start_matches("attack_");
            let source = fs::read_to_string(folder.join(format!("attacks/{topic}.rs")))?;
            let is_there = test.is_empty() || source.contains(&format!("#[test]\nfn {test}("));
            ensure!(is_there, "SECURITY.md names {name}: no such test");
        }
        for target in targets.split('"').filter(|word| word.starts_with("attack_")) {
            let is_named = named.iter().any(|name| name.split("::").next() == Some(target));
            ensure!(is_named, "SECURITY.md does not name {target}");
        }
        Ok(())
    }
}
