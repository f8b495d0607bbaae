//! A collector of OpenTelemetry, as somebody who knows nothing of why502 would write one: by OpenTelemetry's own definitions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::lines::Lines;
use crate::process::{self, Process};
use crate::wait;

/// How the collector answers a request that has log records.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// With this status.
    Status(u16),
    /// With this status, and the wish to be left alone for so many seconds.
    After(u16, u32),
    /// Never.
    Never,
}

/// A running collector, killed when dropped.
#[derive(Debug)]
pub struct Collector {
    // Killed before its standard output is waited for.
    _process: Process,
    stdout: Lines,
    stderr: Lines,
    port: u16,
}

/// A log record as it was received.
#[derive(Debug, Clone)]
pub struct LogRecord {
    /// Its attributes, numbers in digits.
    pub attributes: BTreeMap<String, String>,
    /// Its sentence.
    pub body: String,
    /// All of it.
    pub whole: Value,
}

impl Collector {
    /// Starts one at a port of this host, or at one that is free if that is zero; it gives the first requests with log records these
    /// answers, and takes all that follow.
    pub fn start(port: u16, answers: &[Answer]) -> Result<Collector> {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").canonicalize()?;
        let folders = ["protobuf", "opentelemetry-proto"].map(|name| target.join(name));
        for folder in &folders {
            ensure!(folder.is_dir(), "there is no {}: run cargo xtask setup", folder.display());
        }
        let answers: Vec<Value> = answers
            .iter()
            .map(|answer| match answer {
                Answer::Status(status) => json!([status, null]),
                Answer::After(status, seconds) => json!([status, seconds]),
                Answer::Never => json!([null, null]),
            })
            .collect();
        let mut python = process::command(process::find_program(&["python3"])?);
        python.args([
            "-c",
            include_str!("collector/receiver.py"),
            &port.to_string(),
            &json!(answers).to_string(),
        ]);
        python.env("PYTHONPATH", std::env::join_paths(&folders)?).env("PYTHONDONTWRITEBYTECODE", "1");
        python.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::start(python)?;
        let stdout = Lines::collect(process.pipes().stdout.take().context("a pipe")?, |_| {});
        let stderr = Lines::collect(process.pipes().stderr.take().context("a pipe")?, |_| {});
        stdout
            .wait("the collector to listen", |lines| !lines.is_empty())
            .with_context(|| stderr.so_far().join("\n"))?;
        let first: Value = serde_json::from_str(&stdout.so_far()[0])?;
        let port = first["port"].as_u64().context("a port")?.try_into()?;
        Ok(Collector { _process: process, stdout, stderr, port })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", SocketAddr::from(([127, 0, 0, 1], self.port)))
    }

    /// All requests for a path so far.
    pub fn requests(&self, path: &str) -> Result<Vec<Value>> {
        let lines = self.stdout.so_far();
        let requests = lines[1..].iter().map(|line| Ok(serde_json::from_str::<Value>(line)?));
        let requests = requests.collect::<Result<Vec<_>>>()?;
        Ok(requests.into_iter().filter(|request| request["path"] == path).collect())
    }

    /// The log records that it has taken so far.
    pub fn records(&self) -> Result<Vec<LogRecord>> {
        let requests = self.requests("/v1/logs")?;
        let taken = requests.iter().filter(|request| request["status"] == 200);
        let mut records = Vec::new();
        for record in
            taken.flat_map(|request| inner(&request["message"], ["resourceLogs", "scopeLogs", "logRecords"]))
        {
            records.push(LogRecord {
                attributes: attributes(&record["attributes"])?,
                body: record["body"]["stringValue"].as_str().context("a body")?.to_owned(),
                whole: record,
            });
        }
        Ok(records)
    }

    /// Waits until it has been asked to take log records so often, whatever it answered.
    pub fn wait_for_requests(&self, count: usize) -> Result<()> {
        let is_one = |line: &&String| line.contains("\"/v1/logs\"");
        let have = |lines: &[String]| lines.iter().filter(is_one).count() >= count;
        self.stdout.wait(&format!("{count} requests"), have).with_context(|| self.stderr.so_far().join("\n"))
    }

    /// Waits until it has taken so many log records; that there are no more shows later.
    pub fn wait_for(&self, count: usize) -> Result<Vec<LogRecord>> {
        wait::until_true(&format!("{count} log records"), || Ok(self.records()?.len() >= count))
            .with_context(|| {
                format!("{} {:#?}", self.stderr.so_far().join("\n"), self.stdout.so_far().last())
            })?;
        self.records()
    }

    /// The last value of each series of a metric: its labels, and the point.
    pub fn metric(&self, name: &str) -> Result<Vec<(BTreeMap<String, String>, Value)>> {
        let requests = self.requests("/v1/metrics")?;
        let last = requests.last().context("no metrics")?;
        let metrics = inner(&last["message"], ["resourceMetrics", "scopeMetrics", "metrics"]);
        let Some(metric) = metrics.into_iter().find(|metric| metric["name"] == name) else {
            return Ok(Vec::new());
        };
        let data = ["sum", "gauge", "histogram"].map(|kind| &metric[kind]["dataPoints"]);
        let points = data.into_iter().find_map(Value::as_array).with_context(|| metric.to_string())?;
        points.iter().map(|point| Ok((attributes(&point["attributes"])?, point.clone()))).collect()
    }
}

/// What lies three lists deep.
fn inner(message: &Value, names: [&str; 3]) -> Vec<Value> {
    names.iter().fold(vec![message.clone()], |all, name| {
        all.iter().flat_map(|one| one[*name].as_array().cloned().unwrap_or_default()).collect()
    })
}

/// Names and values; numbers in digits. No name may stand there twice.
pub fn attributes(list: &Value) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for attribute in list.as_array().into_iter().flatten() {
        let name = attribute["key"].as_str().context("a name")?;
        let value = &attribute["value"];
        let text = value["stringValue"].as_str().or_else(|| value["intValue"].as_str());
        let text = text.with_context(|| attribute.to_string())?;
        ensure!(all.insert(name.to_owned(), text.to_owned()).is_none(), "{name} twice: {list}");
    }
    Ok(all)
}
