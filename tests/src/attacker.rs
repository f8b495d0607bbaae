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
