//! Servers that misbehave on purpose, each a process of its own (`faulty-server`), since why502 attributes to
//! pids.

use std::fmt;
use std::io::Write;
use std::process::Stdio;
use std::str::FromStr;

use anyhow::{Context, Error, Result};

use crate::lines::Lines;
use crate::process::{self, Pid, Process};
use crate::{Endpoint, Location, Namespace};

/// How a server misbehaves. It speaks HTTP, as far as it speaks, unless its name says otherwise. Having misbehaved, it closes.
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
    /// Answers, and closes the kept connection when the next request has come, which it leaves unread.
    CloseKept,
    /// None: it answers, and keeps the connection open for more. What is no HTTP is answered by a 400.
    Answer,
    /// Answers when [`FaultyServer::answer`] says so.
    AnswerWhenTold,
    /// Promises 100,000 bytes, sends 4,000 and closes properly.
    CutLength,
    /// Closes properly in the middle of a chunk.
    CutChunk,
    /// Sends what is no HTTP, and closes.
    NoHttp,
    /// `Content-Length: foo`.
    BadLength,
    /// Two `Content-Length`.
    TwoLengths,
    /// `Content-Length` and `Transfer-Encoding`.
    LengthAndCoding,
    /// `Transfer-Encoding: rot13`.
    UnknownCoding,
    /// A header line with a control character in its name.
    BadHeader,
    /// A chunk whose size is no number.
    BadChunk,
    /// A header of 20,000 bytes.
    BigHeader,
    /// Reads a request's header, and says that it will send nothing, but does not close.
    ShutDownUnanswered,
    /// Sends half of the answer, and says that nothing more will come, but does not close.
    ShutDownMidway,
    /// A WebSocket's server: what it is sent is sent back, unless it is to `leave`, to `reset`, to `exit` or to `abort`.
    WebSocket,
    /// Speaks FastCGI, and answers.
    FastcgiAnswer,
    /// Speaks FastCGI, writes to stderr, and answers.
    FastcgiStderr,
    /// Closes properly in the middle of a record of the body.
    FastcgiCutRecord,
    /// Sends all of the answer, and closes properly without END_REQUEST.
    FastcgiNoEnd,
    /// Ends stdout short of its `Content-Length`.
    FastcgiCutStdout,
    /// Ends the request short of its `Content-Length`, stdout being open.
    FastcgiCutRequest,
    /// Ends the request with nothing said.
    FastcgiEndAtOnce,
    /// Sends a record of an unknown type.
    FastcgiUnknownRecord,
    /// A header of 20,000 bytes.
    FastcgiBigHeader,
    /// A header line with a control character in its name.
    FastcgiBadHeader,
    /// Speaks HTTP/2, and answers.
    Http2Answer,
    /// RST_STREAM instead of an answer: INTERNAL_ERROR.
    Http2Reset,
    /// RST_STREAM in the middle of the answer: INTERNAL_ERROR.
    Http2ResetMidway,
    /// GOAWAY instead of an answer: ENHANCE_YOUR_CALM.
    Http2Goaway,
    /// Ends the stream short of its `content-length`.
    Http2CutStream,
    /// Closes properly in the middle of the answer.
    Http2CutConnection,
    /// A RST_STREAM frame of 5 bytes.
    Http2BadLength,
    /// A header that names no entry of the table.
    Http2BadIndex,
    /// A PUSH_PROMISE, which nobody allowed.
    Http2Push,
    /// A frame larger than nginx allows.
    Http2BigFrame,
    /// Exits in the middle of its stream, as a gRPC service.
    Http2ExitMidway,
}

const NAMES: [(Fault, &str); 52] = [
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
    (Fault::CloseKept, "close-kept"),
    (Fault::Answer, "answer"),
    (Fault::AnswerWhenTold, "answer-when-told"),
    (Fault::CutLength, "cut-length"),
    (Fault::CutChunk, "cut-chunk"),
    (Fault::NoHttp, "no-http"),
    (Fault::BadLength, "bad-length"),
    (Fault::TwoLengths, "two-lengths"),
    (Fault::LengthAndCoding, "length-and-coding"),
    (Fault::UnknownCoding, "unknown-coding"),
    (Fault::BadHeader, "bad-header"),
    (Fault::BadChunk, "bad-chunk"),
    (Fault::BigHeader, "big-header"),
    (Fault::ShutDownUnanswered, "shut-down-unanswered"),
    (Fault::ShutDownMidway, "shut-down-midway"),
    (Fault::WebSocket, "web-socket"),
    (Fault::FastcgiAnswer, "fastcgi-answer"),
    (Fault::FastcgiStderr, "fastcgi-stderr"),
    (Fault::FastcgiCutRecord, "fastcgi-cut-record"),
    (Fault::FastcgiNoEnd, "fastcgi-no-end"),
    (Fault::FastcgiCutStdout, "fastcgi-cut-stdout"),
    (Fault::FastcgiCutRequest, "fastcgi-cut-request"),
    (Fault::FastcgiEndAtOnce, "fastcgi-end-at-once"),
    (Fault::FastcgiUnknownRecord, "fastcgi-unknown-record"),
    (Fault::FastcgiBigHeader, "fastcgi-big-header"),
    (Fault::FastcgiBadHeader, "fastcgi-bad-header"),
    (Fault::Http2Answer, "http2-answer"),
    (Fault::Http2Reset, "http2-reset"),
    (Fault::Http2ResetMidway, "http2-reset-midway"),
    (Fault::Http2Goaway, "http2-goaway"),
    (Fault::Http2CutStream, "http2-cut-stream"),
    (Fault::Http2CutConnection, "http2-cut-connection"),
    (Fault::Http2BadLength, "http2-bad-length"),
    (Fault::Http2BadIndex, "http2-bad-index"),
    (Fault::Http2Push, "http2-push"),
    (Fault::Http2BigFrame, "http2-big-frame"),
    (Fault::Http2ExitMidway, "http2-exit-midway"),
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
    fault: Fault,
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
        FaultyServer::start_with(namespace, fault, endpoint, backlog, false)
    }

    /// The same beside others at the same address (`SO_REUSEPORT`).
    pub fn start_beside(
        namespace: &Namespace,
        fault: Fault,
        endpoint: Endpoint,
        backlog: i32,
    ) -> Result<FaultyServer> {
        FaultyServer::start_with(namespace, fault, endpoint, backlog, true)
    }

    fn start_with(
        namespace: &Namespace,
        fault: Fault,
        endpoint: Endpoint,
        backlog: i32,
        is_beside: bool,
    ) -> Result<FaultyServer> {
        let mut command = namespace.command(process::of_the_rig("faulty-server")?);
        if is_beside {
            command.env("RIG_REUSEPORT", "1");
        }
        command.args([fault.to_string(), endpoint.to_string(), backlog.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = namespace.start(command)?;
        let stdout = process.pipes().stdout.take().context("a pipe from faulty-server")?;
        let lines = Lines::collect(stdout, |_| {});
        lines.wait("listener of the faulty server", |lines| lines.iter().any(|line| line == "ready"))?;
        Ok(FaultyServer { process, fault, endpoint, lines })
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The `location` `/FAULT/` that passes on to it.
    pub fn location(&self) -> Location {
        let (name, prefix) = (self.fault.to_string(), format!("/{}/", self.fault));
        match name.split('-').next() {
            Some("fastcgi") => Location::fastcgi(&prefix, &self.endpoint),
            Some("http2") => Location::grpc(&prefix, &self.endpoint),
            _ => Location::http(&prefix, &self.endpoint),
        }
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
        self.tell("close")?;
        self.lines.wait("closed listener", |lines| lines.iter().any(|line| line == "closed"))
    }

    /// Lets it answer what it has read ([`Fault::AnswerWhenTold`]), and waits until the answers are on their way.
    pub fn answer(&mut self) -> Result<()> {
        self.tell("answer")?;
        self.lines.wait("answers", |lines| {
            let count = |what| lines.iter().filter(|line| *line == what).count();
            count("answered") >= count("read")
        })
    }

    fn tell(&mut self, command: &str) -> Result<()> {
        let stdin = self.process.pipes().stdin.as_mut().context("a pipe to faulty-server")?;
        writeln!(stdin, "{command}").with_context(|| format!("telling the faulty server to {command}"))
    }
}
