//! The contract of a verdict in JSON, as scripts rely on it. Kept apart from the program's own types on
//! purpose: a rename in there must not pass unnoticed here.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::process::Pid;

/// One line with `"type":"verdict"`.
#[derive(Debug, Clone, Deserialize)]
pub struct Verdict {
    /// The contract's version.
    pub v: u32,
    /// When the exchange ended, UTC, RFC 3339 with microseconds.
    pub time: String,
    /// The cause: `refused`.
    pub cause: String,
    /// And which kind of it: `no_listener`.
    pub detail: String,
    /// `proven`, `inferred` or `incomplete`.
    pub confidence: String,
    /// nginx's end.
    pub nginx: NginxEnd,
    /// Whom nginx connected to, if it came to that.
    pub upstream: Option<Upstream>,
    /// The name in `proxy_pass`, where nothing was attempted.
    pub group: Option<String>,
    /// Names the downstream request, where nginx tried several upstreams for it.
    pub request: Option<u64>,
    /// What nginx answers.
    pub status: Option<u16>,
    /// The errno that nginx got, by name.
    pub errno: Option<String>,
    /// What nginx writes to its error log.
    pub error_log: Option<String>,
    /// What nginx said of it, if that was heard.
    pub word: Option<Word>,
    /// The servers that nginx left alone, where it found none of a group alive.
    pub servers: Vec<Server>,
    /// The exchange of another nginx's that this one was for.
    pub outer: Option<Outer>,
    /// Who accepted the connection.
    pub worker: Option<Worker>,
    /// Who sent the worker its fatal signal.
    pub killer: Option<Task>,
    /// What was short while nginx waited, where that matters and was measured.
    pub pressure: Option<Value>,
    /// Microseconds from connect.
    pub us: Moments,
    /// Bytes as nginx's end counts them.
    pub bytes: Option<Bytes>,
    /// The accept queue that the exchange met.
    pub queue: Option<Queue>,
    /// What its connection had served before, if it was kept.
    pub kept: Option<Kept>,
    /// Who listens near an upstream at which nobody does; null where that was not looked for.
    pub near: Option<Vec<Neighbour>>,
    /// The listener that was closed there within the last minute; null where none was seen to be.
    pub closed: Option<Closed>,
    /// Who holds the listener in whose queue nginx waited; null where that was not looked for.
    pub holders: Option<Vec<Holder>>,
    /// When an upstream that nothing answers for was last reached; null where that is not known.
    pub reached: Option<Reached>,
    /// What the verdict rests on.
    pub evidence: Vec<Evidence>,
    /// The sentence for people.
    pub explanation: String,
    /// The setting to look at.
    pub advice: Option<String>,
}

/// Where a process runs, by its control group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Home {
    /// The systemd unit.
    pub unit: Option<String>,
    /// The container's id.
    pub container: Option<String>,
    /// The pod's uid.
    pub pod: Option<String>,
}

/// nginx's end of an exchange.
#[derive(Debug, Clone, Deserialize)]
pub struct NginxEnd {
    /// The nginx worker.
    pub pid: Pid,
    /// Its name.
    pub comm: String,
    /// Where it runs.
    #[serde(flatten)]
    pub home: Home,
    /// Its address and port.
    pub local: Option<String>,
}

/// An exchange whose request led to another one.
#[derive(Debug, Clone, Deserialize)]
pub struct Outer {
    /// nginx's end.
    pub nginx: NginxEnd,
    /// Whom nginx connected to.
    pub upstream: Upstream,
}

/// The address nginx connected to.
#[derive(Debug, Clone, Deserialize)]
pub struct Upstream {
    /// `inet`, `inet6` or `unix`.
    pub family: String,
    /// As [`Endpoint`](crate::Endpoint) displays it.
    pub addr: String,
}

/// One call of nginx's error log.
#[derive(Debug, Clone, Deserialize)]
pub struct Word {
    /// `error`, `crit`, ...
    pub level: String,
    /// The errno, if it came with one.
    pub errno: Option<i32>,
    /// The text, without the errno.
    pub message: String,
    /// What nginx was doing: `connecting to upstream`.
    #[serde(rename = "while")]
    pub doing: Option<String>,
    /// nginx's number of the client's connection.
    pub connection: u64,
}

/// A server that nginx left alone.
#[derive(Debug, Clone, Deserialize)]
pub struct Server {
    /// Where it is.
    pub upstream: Upstream,
    /// The cause of its last failure, if that was seen.
    pub cause: Option<String>,
    /// And which kind of it.
    pub detail: Option<String>,
    /// How long ago that was.
    pub ago_us: Option<u64>,
    /// Whether it is marked `down`.
    pub down: bool,
    /// After how many failures nginx leaves it alone, if that is known.
    pub max_fails: Option<u32>,
    /// And for how long.
    pub fail_timeout_us: Option<u64>,
}

/// A process and its name.
#[derive(Debug, Clone, Deserialize)]
pub struct Task {
    /// The pid.
    pub pid: Option<Pid>,
    /// The name.
    pub comm: Option<String>,
    /// Where it runs.
    #[serde(flatten)]
    pub home: Home,
}

/// The process that served the exchange.
#[derive(Debug, Clone, Deserialize)]
pub struct Worker {
    /// The pid.
    pub pid: Option<Pid>,
    /// The name.
    pub comm: Option<String>,
    /// Where it runs.
    #[serde(flatten)]
    pub home: Home,
    /// The signal it died of: `SIGTERM`.
    pub signal: Option<String>,
    /// What it was found doing, if the exchange was slow.
    pub doing: Option<Doing>,
}

/// What a worker was found doing, in samples.
#[derive(Debug, Clone, Deserialize)]
pub struct Doing {
    /// How many samples were taken.
    pub samples: u32,
    /// What it waited on, the most frequent first.
    pub waits: Vec<Wait>,
    /// In how many samples it ran on a CPU.
    pub running: u32,
}

/// Something that a worker waited on.
#[derive(Debug, Clone, Deserialize)]
pub struct Wait {
    /// What: an address, a path, or words.
    pub on: String,
    /// In how many samples.
    pub samples: u32,
}

/// When what happened.
#[derive(Debug, Clone, Deserialize)]
pub struct Moments {
    /// The handshake was done, as nginx's end saw it.
    pub connected: Option<u64>,
    /// A worker accepted.
    pub accepted: Option<u64>,
    /// nginx sent its first byte.
    pub first_sent: Option<u64>,
    /// nginx received its first byte.
    pub first_received: Option<u64>,
    /// nginx's end was over.
    pub ended: Option<u64>,
    /// The worker's end was over.
    pub worker_ended: Option<u64>,
}

/// How many bytes went which way.
#[derive(Debug, Clone, Deserialize)]
pub struct Bytes {
    /// From nginx.
    pub sent: Option<u64>,
    /// To nginx.
    pub received: Option<u64>,
    /// Left unread by the worker.
    pub unread: Option<u64>,
}

/// An accept queue.
#[derive(Debug, Clone, Deserialize)]
pub struct Queue {
    /// How many were in it.
    pub depth: Option<u32>,
    /// Its backlog.
    pub limit: Option<u32>,
}

/// A listener near an upstream at which nobody listens.
#[derive(Debug, Clone, Deserialize)]
pub struct Neighbour {
    /// The oldest process that holds it.
    pub pid: Pid,
    /// Its name.
    pub comm: String,
    /// Where it listens.
    pub addr: String,
    /// Whether that is in another namespace than nginx's.
    pub elsewhere: bool,
}

/// A listener that was closed before nginx asked.
#[derive(Debug, Clone, Deserialize)]
pub struct Closed {
    /// The process that closed it.
    pub pid: Pid,
    /// Its name.
    pub comm: String,
    /// When, in microseconds from connect.
    pub us: i64,
    /// Since when somebody listens there again.
    pub again_us: Option<i64>,
    /// The signal that the process died of.
    pub signal: Option<String>,
    /// Where else processes of that name listen.
    pub namesakes: Vec<Neighbour>,
}

/// A process that holds a listener.
#[derive(Debug, Clone, Deserialize)]
pub struct Holder {
    /// The pid.
    pub pid: Pid,
    /// The name.
    pub comm: String,
    /// What it did.
    pub doing: Option<String>,
}

/// When an upstream was last reached.
#[derive(Debug, Clone, Deserialize)]
pub struct Reached {
    /// When, in microseconds from connect.
    pub us: i64,
    /// Who knows it: `exchange` or `tcp_metrics`.
    pub by: String,
}

/// A connection that was kept from an earlier exchange.
#[derive(Debug, Clone, Deserialize)]
pub struct Kept {
    /// Which of its exchanges this is.
    pub exchange: u32,
    /// How long it had been idle when the request was sent.
    pub idle_us: Option<u64>,
    /// How long it had been idle when the upstream closed it under the request.
    pub closed_after_us: Option<u64>,
    /// How many were closed so of late, this one included.
    pub closes: Option<u32>,
    /// And how many of them after about the same time.
    pub alike: Option<u32>,
}

/// One fact under a verdict.
#[derive(Debug, Clone, Deserialize)]
pub struct Evidence {
    /// Microseconds from connect.
    pub us: Option<i64>,
    /// The hook that saw it.
    pub source: String,
    /// What it saw.
    pub fact: String,
}

/// Unknown values are null, never left out: all of these are always there.
const FIELDS: [&str; 30] = [
    "/v",
    "/type",
    "/time",
    "/cause",
    "/detail",
    "/confidence",
    "/nginx/local",
    "/upstream",
    "/group",
    "/request",
    "/status",
    "/errno",
    "/error_log",
    "/word",
    "/servers",
    "/outer",
    "/worker",
    "/killer",
    "/pressure",
    "/us",
    "/bytes",
    "/queue",
    "/kept",
    "/near",
    "/closed",
    "/holders",
    "/reached",
    "/evidence",
    "/explanation",
    "/advice",
];

const MOMENTS: [&str; 6] = ["connected", "accepted", "first_sent", "first_received", "ended", "worker_ended"];

impl Verdict {
    /// Reads a verdict and holds it against the contract.
    pub fn read(line: &Value) -> Result<Verdict> {
        for field in FIELDS {
            ensure!(line.pointer(field).is_some(), "a verdict without {field}: {line}");
        }
        for process in ["nginx", "worker", "killer"].into_iter().filter(|process| !line[process].is_null()) {
            for field in ["unit", "container", "pod"] {
                ensure!(line[process].get(field).is_some(), "a verdict without {process}.{field}: {line}");
            }
        }
        for moment in MOMENTS {
            ensure!(line["us"].get(moment).is_some(), "a verdict without us.{moment}: {line}");
        }
        let verdict: Verdict =
            Deserialize::deserialize(line).with_context(|| format!("a verdict: {line}"))?;
        ensure!(verdict.v == 1, "a verdict of version {}: {line}", verdict.v);
        let confidence = verdict.confidence.as_str();
        ensure!(
            matches!(confidence, "proven" | "inferred" | "incomplete"),
            "how sure is {confidence}? {line}"
        );
        ensure!(verdict.cause != "unknown" || confidence != "proven", "proven, and unknown: {line}");
        ensure!(!verdict.evidence.is_empty(), "a verdict without evidence: {line}");
        ensure!(!verdict.explanation.is_empty(), "a verdict without explanation: {line}");
        Ok(verdict)
    }

    /// Checks that a fact under it says so.
    pub fn has_evidence(&self, of: &str) -> Result<()> {
        ensure!(self.evidence.iter().any(|fact| fact.fact.contains(of)), "no {of}: {self:#?}");
        Ok(())
    }

    /// Checks the cause, the confidence and what nginx makes of it; the error shows the whole verdict.
    pub fn says(&self, name: &str, confidence: &str, status: u16, errno: Option<&str>) -> Result<()> {
        let said = (self.name(), self.confidence.as_str(), self.status, self.errno.as_deref());
        let right = (name.to_owned(), confidence, Some(status), errno);
        ensure!(said == right, "{said:?} should be {right:?}: {self:#?}");
        Ok(())
    }

    /// Checks who served and who killed; the error shows the whole verdict.
    pub fn blames(&self, worker: Option<Pid>, signal: Option<&str>, killer: Option<Pid>) -> Result<()> {
        let said = (self.worker_pid(), self.signal(), self.killer_pid());
        let right = (worker, signal, killer);
        ensure!(said == right, "worker, signal, killer {said:?} should be {right:?}: {self:#?}");
        Ok(())
    }

    /// `cause/detail`, as the text output writes it.
    pub fn name(&self) -> String {
        format!("{}/{}", self.cause, self.detail)
    }

    /// The upstream's address, if anything was attempted.
    pub fn address(&self) -> Option<&str> {
        Some(self.upstream.as_ref()?.addr.as_str())
    }

    /// What kind of address that is: `inet`, `inet6` or `unix`.
    pub fn family(&self) -> Option<&str> {
        Some(self.upstream.as_ref()?.family.as_str())
    }

    /// The worker's pid, if known.
    pub fn worker_pid(&self) -> Option<Pid> {
        self.worker.as_ref()?.pid
    }

    /// The signal the worker died of, if it did.
    pub fn signal(&self) -> Option<&str> {
        self.worker.as_ref()?.signal.as_deref()
    }

    /// The killer's pid, if there was one.
    pub fn killer_pid(&self) -> Option<Pid> {
        self.killer.as_ref()?.pid
    }
}

/// The contract's own example.
#[cfg(test)]
pub(crate) fn example() -> Result<Value> {
    Ok(serde_json::from_str(
        r#"{"v":1,"type":"verdict","time":"2026-11-20T11:39:26.123456Z","cause":"reset","detail":"worker_killed","confidence":"proven",
 "nginx":{"pid":24945,"comm":"nginx","unit":null,"container":null,"pod":null,"local":"127.0.0.1:52654"},
 "upstream":{"family":"inet","addr":"127.0.0.1:19001"},
 "group":null,"request":null,"status":502,"errno":"ECONNRESET","error_log":"recv() failed (104: Connection reset by peer) while reading response header from upstream",
 "word":{"level":"error","errno":104,"message":"recv() failed","while":"reading response header from upstream","connection":17},"servers":[],"outer":null,
 "worker":{"pid":24940,"comm":"php-fpm8.2","unit":"php8.2-fpm.service","container":null,"pod":null,"signal":"SIGTERM","doing":null},
 "killer":{"pid":24938,"comm":"php-fpm8.2","unit":null,"container":null,"pod":null},
 "pressure":null,
 "us":{"connected":45,"accepted":60,"first_sent":52,"first_received":null,"ended":3259000,"worker_ended":3259010},
 "bytes":{"sent":552,"received":0,"unread":8},
 "queue":{"depth":0,"limit":4},"kept":null,"near":null,"closed":null,"holders":null,"reached":null,
 "evidence":[{"us":3256900,"source":"raw_tp/signal_generate","fact":"php-fpm8.2 24938 sent SIGTERM to 24940"}],
 "explanation":"...","advice":"..."}"#,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_contract_names_must_be_there() -> Result<()> {
        let verdict = Verdict::read(&example()?)?;
        verdict.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
        verdict.blames(Some(24940), Some("SIGTERM"), Some(24938))?;
        for field in
            FIELDS.map(|field| field.trim_start_matches('/')).iter().filter(|field| !field.contains('/'))
        {
            let mut without = example()?;
            without.as_object_mut().context("an object")?.remove(*field);
            assert!(Verdict::read(&without).is_err(), "nobody misses {field}");
        }
        Ok(())
    }
}
