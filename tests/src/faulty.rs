//! Servers that misbehave on purpose, each a process of its own (`faulty-server`), since why502 attributes to
//! pids.

use std::fmt;
use std::io::Write;
use std::process::Stdio;
use std::str::FromStr;

use anyhow::{Context, Error, Result};

use crate::lines::Lines;
use crate::process::{self, Pid, Process};
use crate::{Endpoint, Namespace};

/// How a server misbehaves. All but the last speak HTTP, as far as they speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Accepts and never reads.
    NeverRead,
    /// Reads the request and closes with linger 0: a RST.
    Reset,
    /// Reads the request and closes properly, without an answer.
    CloseUnanswered,
    /// Closes without reading.
    CloseUnread,
    /// Reads the request and exits.
    Exit,
    /// Exits without reading.
    ExitUnread,
    /// Reads the request and sends nothing.
    Mute,
    /// Reads the request, and a timer of its own sends it SIGTERM a moment later.
    Timer,
    /// Reads the request, and its own alarm ends it a moment later.
    Alarm,
    /// Answers, and exits without closing.
    AnswerAndExit,
    /// Answers, and closes with linger 0.
    AnswerAndReset,
    /// Sends half of the answer, then nothing more.
    StallMidway,
    /// Sends half of the answer, then closes with linger 0.
    ResetMidway,
    /// Listens and never accepts.
    NeverAccept,
    /// Answers, and closes what has been idle for a while.
    CloseIdle,
    /// None: it answers, and keeps the connection open for more.
    Answer,
}

const NAMES: [(Fault, &str); 16] = [
    (Fault::NeverRead, "never-read"),
    (Fault::Reset, "reset"),
    (Fault::CloseUnanswered, "close-unanswered"),
    (Fault::CloseUnread, "close-unread"),
    (Fault::Exit, "exit"),
    (Fault::ExitUnread, "exit-unread"),
    (Fault::Mute, "mute"),
    (Fault::Timer, "timer"),
    (Fault::Alarm, "alarm"),
    (Fault::AnswerAndExit, "answer-and-exit"),
    (Fault::AnswerAndReset, "answer-and-reset"),
    (Fault::StallMidway, "stall-midway"),
    (Fault::ResetMidway, "reset-midway"),
    (Fault::NeverAccept, "never-accept"),
    (Fault::CloseIdle, "close-idle"),
    (Fault::Answer, "answer"),
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(fault, _)| fault == self).map_or("?", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Fault, Error> {
        let fault = NAMES.iter().find(|(_, name)| *name == text).map(|(fault, _)| *fault);
        fault.with_context(|| format!("no fault is called {text}"))
    }
}

/// A running faulty server, killed when dropped.
#[derive(Debug)]
pub struct FaultyServer {
    process: Process,
    endpoint: Endpoint,
    lines: Lines,
}

impl FaultyServer {
    /// Starts one and waits until it listens. `backlog` is listen(2)'s: one connection more than that fits.
    pub fn start(
        namespace: &Namespace,
        fault: Fault,
        endpoint: Endpoint,
        backlog: i32,
    ) -> Result<FaultyServer> {
        let mut command = namespace.command(process::of_the_rig("faulty-server")?);
        command.args([fault.to_string(), endpoint.to_string(), backlog.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = namespace.start(command)?;
        let stdout = process.pipes().stdout.take().context("a pipe from faulty-server")?;
        let lines = Lines::collect(stdout, |_| {});
        lines.wait("listener of the faulty server", |lines| lines.iter().any(|line| line == "ready"))?;
        Ok(FaultyServer { process, endpoint, lines })
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Waits until it has accepted `count` connections.
    pub fn wait_accepted(&self, count: usize) -> Result<()> {
        self.lines.wait(&format!("connection {count} accepted"), |lines| {
            lines.iter().filter(|line| *line == "accepted").count() >= count
        })
    }

    /// Waits until it has read `count` requests.
    pub fn wait_read(&self, count: usize) -> Result<()> {
        self.lines.wait(&format!("request {count} read"), |lines| {
            lines.iter().filter(|line| *line == "read").count() >= count
        })
    }

    /// Lets it close its listener, and live on.
    pub fn close_listener(&mut self) -> Result<()> {
        let stdin = self.process.pipes().stdin.as_mut().context("a pipe to faulty-server")?;
        writeln!(stdin, "close").context("telling the faulty server to close its listener")?;
        self.lines.wait("closed listener", |lines| lines.iter().any(|line| line == "closed"))
    }
}
