//! A program (`hostile-logger`) that exports nginx's logging function and calls it with wild pointers and with text that is none.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::Namespace;
use crate::lines::Lines;
use crate::process::{self, Pid, Process};

/// Text that clears a terminal's screen, changes its title and its colours, and is no UTF-8.
pub const GARBLED: &[u8] = b"\x1b[2J\x1b]0;owned\x07\x9b31m\xff\xfe\xc3\x28\r\n\x08\x7f\xe2\x80\xaeend";
/// What a text of 4 kB and more is made of.
pub const LONG: &str = "0123456789";
/// What a text that no zero closes is made of.
pub const ENDLESS: &str = "~";
/// The name in the last call, which is as nginx's are.
pub const CLOSING: &str = "closing.test";

/// The running program, killed when dropped.
#[derive(Debug)]
pub struct HostileLogger {
    process: Process,
    lines: Lines,
}

impl HostileLogger {
    /// Starts it; it says nothing yet.
    pub fn start(namespace: &Namespace) -> Result<HostileLogger> {
        let mut command = namespace.command(process::of_the_rig("hostile-logger")?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = namespace.start(command)?;
        let stdout = process.pipes().stdout.take().context("a pipe from hostile-logger")?;
        let logger = HostileLogger { process, lines: Lines::collect(stdout, |_| {}) };
        logger.wait_for("ready")?;
        Ok(logger)
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Lets it make all of its calls, and checks that it lives on.
    pub fn speak(&mut self) -> Result<()> {
        let stdin = self.process.pipes().stdin.as_mut().context("a pipe to hostile-logger")?;
        writeln!(stdin, "speak").context("telling hostile-logger to speak")?;
        self.wait_for("done")
    }

    /// Lets it end, in order.
    pub fn finish(mut self) -> Result<()> {
        drop(self.process.pipes().stdin.take());
        let status = self.process.wait()?;
        ensure!(status.success(), "hostile-logger ended with {status}");
        Ok(())
    }

    fn wait_for(&self, line: &str) -> Result<()> {
        self.lines.wait(&format!("`{line}` of hostile-logger"), |lines| lines.iter().any(|said| said == line))
    }
}
