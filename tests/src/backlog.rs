//! `why502 backlog`, watching from outside the namespaces.

use std::process::ExitStatus;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::process::Pid;
use crate::tracer::{Run, Tracer};
use crate::{Endpoint, wait};

/// A running `why502 backlog -o json`, killed when dropped.
#[derive(Debug)]
pub struct Backlog(Tracer);

/// What it has said when it has ended.
#[derive(Debug)]
pub struct Account {
    /// Its lines, in order.
    pub lines: Vec<Value>,
    /// Its standard error.
    pub stderr: String,
    /// How it ended.
    pub status: ExitStatus,
}

impl Backlog {
    /// Starts it with further arguments, and waits until every hook is attached.
    pub fn start(arguments: &[&str]) -> Result<Backlog> {
        Tracer::run_as("backlog", &[&["-o", "json"], arguments].concat(), None, |_| {}).map(Backlog)
    }

    /// Watches one listener.
    pub fn of(listener: &Endpoint) -> Result<Backlog> {
        Backlog::start(&[&listener.to_string()])
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        self.0.pid()
    }

    /// The lines of one type so far.
    pub fn lines(&self, kind: &str) -> Vec<Value> {
        self.0
            .lines()
            .so_far()
            .iter()
            .filter_map(|line| parse(line).ok())
            .filter(|line| line["type"] == kind)
            .collect()
    }

    /// Waits until it emits a listener for which `holds` does.
    pub fn wait_for_listener(&self, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Result<()> {
        wait::until_true(what, || Ok(self.lines("listener").iter().any(&mut holds)))
            .with_context(|| format!("{:#?}; {}", self.lines("listener").last(), self.0.complaints()))
    }

    /// Waits until it has emitted `count` victims.
    pub fn wait_for_victims(&self, count: usize) -> Result<()> {
        wait::until_true(&format!("{count} victims"), || Ok(self.lines("overflow").len() >= count))
            .with_context(|| format!("{:#?}; {}", self.lines("overflow"), self.0.complaints()))
    }

    /// Ends it as Ctrl-C does, and reads all that it has said.
    pub fn stop(self) -> Result<Account> {
        self.0.signal(Signal::SIGINT)?;
        self.finish()
    }

    /// Waits for its own end, and reads all that it has said.
    pub fn finish(self) -> Result<Account> {
        let Run { stdout, stderr, status } = self.0.end()?;
        let lines = stdout.iter().map(|line| parse(line)).collect::<Result<_>>()?;
        let account = Account { lines, stderr, status };
        account.is_orderly()?;
        Ok(account)
    }
}

impl Account {
    /// The lines of one type.
    pub fn all(&self, kind: &str) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["type"] == kind).collect()
    }

    /// What became of the only claim that contains some words.
    pub fn check(&self, words: &[&str]) -> Result<&Value> {
        let all = self.all("check");
        let has = |check: &&&Value| {
            words.iter().all(|word| check["claim"].as_str().is_some_and(|claim| claim.contains(word)))
        };
        let found: Vec<_> = all.iter().filter(has).collect();
        ensure!(found.len() == 1, "{} checks of {words:?}: {all:#?}", found.len());
        Ok(found[0])
    }

    /// The last word on a listener.
    pub fn last(&self, listener: &Endpoint) -> Result<&Value> {
        let addr = listener.to_string();
        let is_it =
            |line: &&Value| line["type"] == "listener" && line["final"] == true && line["addr"] == addr;
        let last: Vec<&Value> = self.lines.iter().filter(is_it).collect();
        ensure!(last.len() == 1, "{} last words on {addr}: {:#?}", last.len(), self.lines);
        last.first().copied().context("no last word")
    }

    /// What the kernel counted in a listener's namespace, held against what was seen.
    pub fn reconciled(&self, listener: &Endpoint) -> Result<&Value> {
        let addr = listener.to_string();
        let is_it =
            |line: &&Value| line["type"] == "listener" && line["final"] == true && line["addr"] == addr;
        let netns = &self.lines.iter().find(is_it).context("no last word on the listener")?["netns"];
        let found = self.lines.iter().find(|line| line["type"] == "reconciled" && line["netns"] == *netns);
        found.with_context(|| format!("the namespace is not reconciled: {:#?}", self.lines))
    }

    /// The names of the victims, sorted.
    pub fn victims(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .all("overflow")
            .iter()
            .filter_map(|line| Some(line["client"].as_str()?.to_owned()))
            .collect();
        names.sort_unstable();
        names
    }

    /// Checks what holds for every orderly end: exit status 0, no panic, nothing lost, a version on each line, and a summary that
    /// adds up.
    fn is_orderly(&self) -> Result<()> {
        let Account { lines, stderr, status } = self;
        ensure!(status.success(), "why502 ended with {status}: {stderr}");
        ensure!(!stderr.contains("panicked"), "{stderr}");
        ensure!(lines.iter().all(|line| line["v"] == 1), "{lines:#?}");
        let summary = lines.last().context("it has said nothing")?;
        ensure!(summary["type"] == "summary" && summary["lost"] == 0, "{summary}");
        ensure!(summary["victims"] == self.all("overflow").len(), "{summary}");
        for listener in self.all("listener") {
            for field in ["addr", "netns", "limit", "depth", "max_depth", "accepted", "overflows"] {
                ensure!(!listener[field].is_null(), "no {field}: {listener}");
            }
            ensure!(listener["wait_us"].get("p99").is_some() && listener.get("pid").is_some(), "{listener}");
        }
        Ok(())
    }
}

fn parse(line: &str) -> Result<Value> {
    serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))
}
