//! `why502 serve`, watching from outside the namespaces, and a Prometheus that scrapes it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::lines::Lines;
use crate::process::{self, Pid, Process};
use crate::tracer::{binary, only};
use crate::{Verdict, wait};

/// A running `why502 serve`, killed when dropped; its folder goes with it.
#[derive(Debug)]
pub struct Service {
    process: Process,
    stderr: Lines,
    folder: TempDir,
}

/// What a service has said when it has ended.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard error.
    pub stderr: String,
    /// Its folder.
    pub folder: TempDir,
}

impl Service {
    /// A folder for what a service reads and writes.
    pub fn folder() -> Result<TempDir> {
        Ok(TempDir::with_prefix("why502-service-")?)
    }

    /// Starts it in a folder with further arguments, with metrics at a port that is free, and waits until every hook is attached.
    pub fn start(folder: TempDir, arguments: &[&str]) -> Result<Service> {
        Service::in_surroundings(folder, arguments, |_| {})
    }

    /// The same, in surroundings that `prepare` makes for the command.
    pub fn in_surroundings(
        folder: TempDir,
        arguments: &[&str],
        prepare: impl FnOnce(&mut Command),
    ) -> Result<Service> {
        let ready = folder.path().join("ready");
        let mut command = process::command(binary()?);
        command.args(["serve", "--metrics", "127.0.0.1:0"]).args(arguments).args(only());
        command.arg("--ready-file").arg(&ready);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        prepare(&mut command);
        let mut process = Process::start(command)?;
        let stderr = process.pipes().stderr.take().context("a pipe for standard error")?;
        let mut service = Service { process, stderr: Lines::collect(stderr, |_| {}), folder };
        service.process.wait_ready("why502 serve", &ready, &service.stderr)?;
        Ok(service)
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// A file in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What it has written to standard error so far.
    pub fn complaints(&self) -> String {
        self.stderr.so_far().join("\n")
    }

    /// Waits until it has said something with these words, so often.
    pub fn wait_to_say(&self, words: &str, times: usize) -> Result<()> {
        let have = |lines: &[String]| lines.iter().filter(|line| line.contains(words)).count() >= times;
        self.stderr.wait(words, have).with_context(|| self.complaints())
    }

    /// Where it last said that its metrics are.
    pub fn metrics(&self) -> Result<SocketAddr> {
        let lines = self.stderr.so_far();
        let said = lines.iter().rev().find_map(|line| line.split_once("metrics are at http://"));
        let (_, rest) = said.with_context(|| format!("no metrics: {}", self.complaints()))?;
        Ok(rest.trim_end_matches("/metrics").parse()?)
    }

    /// Its page, in Prometheus's text format.
    pub fn page(&self) -> Result<String> {
        let (status, page) = get(self.metrics()?, "/metrics")?;
        ensure!(status == 200, "{status}: {page}");
        Ok(page)
    }

    /// The sum of all series of a metric whose labels have all of these.
    pub fn sum(&self, metric: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let series = series(&self.page()?, metric)?;
        let has = |of: &BTreeMap<String, String>| {
            labels.iter().all(|(name, value)| of.get(*name).is_some_and(|own| own == value))
        };
        Ok(series.iter().filter(|(of, _)| has(of)).map(|(_, value)| value).sum())
    }

    /// Waits until that sum is this.
    pub fn wait_for(&self, metric: &str, labels: &[(&str, &str)], sum: f64) -> Result<()> {
        wait::until_true(
            &format!("{metric} {labels:?} to be {sum}"),
            || Ok(self.sum(metric, labels)? >= sum),
        )
        .with_context(|| format!("{}\n{}", self.page().unwrap_or_default(), self.complaints()))?;
        let now = self.sum(metric, labels)?;
        ensure!(now == sum, "{metric} {labels:?}: {now}, not {sum}");
        Ok(())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Ends it as systemd does.
    pub fn stop(mut self) -> Result<Ended> {
        self.process.signal(Signal::SIGTERM)?;
        let status = self.process.wait().context("why502 serve does not end")?;
        let ended = Ended { status, stderr: self.stderr.finish()?.join("\n"), folder: self.folder };
        ensure!(ended.status.success() && !ended.stderr.contains("panicked"), "{status}: {}", ended.stderr);
        Ok(ended)
    }
}

/// The verdicts in a file of JSON Lines, each held against the contract.
pub fn verdicts(file: &Path) -> Result<Vec<Verdict>> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let lines =
        text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")));
    let lines = lines.collect::<Result<Vec<Value>>>()?;
    lines.iter().filter(|line| line["type"] == "verdict").map(Verdict::read).collect()
}

/// Labels and their values.
pub type Labels = BTreeMap<String, String>;

/// The series of a metric on a page: their labels and values.
pub fn series(page: &str, metric: &str) -> Result<Vec<(Labels, f64)>> {
    let mut all = Vec::new();
    for line in page.lines().filter_map(|line| line.strip_prefix(metric)) {
        let Some((labels, value)) = line.rsplit_once(' ') else { continue };
        if !labels.is_empty() && !labels.starts_with('{') {
            continue;
        }
        let mut of = Labels::new();
        // No value in the rig has a comma or a quote.
        for label in labels.trim_matches(['{', '}']).split(',').filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once('=').with_context(|| line.to_owned())?;
            of.insert(name.to_owned(), value.trim_matches('"').to_owned());
        }
        all.push((of, value.parse().with_context(|| line.to_owned())?));
    }
    Ok(all)
}

/// Asks a server of this host for a page; returns the status and the body.
pub fn get(server: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(server).with_context(|| format!("connecting to {server}"))?;
    stream.set_read_timeout(Some(wait::bound()))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no answer: {answer}"))?;
    let status = head.split(' ').nth(1).context("a status")?.parse()?;
    Ok((status, body.to_owned()))
}

/// A Prometheus of this machine's, killed when dropped; its data go with it.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    address: SocketAddr,
    stderr: Lines,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes an address once a second and goes by the rules in a file, and waits until it answers.
    pub fn scraping(target: SocketAddr, rules: &Path) -> Result<Prometheus> {
        let folder = TempDir::with_prefix("why502-prometheus-")?;
        let configuration = folder.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n- job_name: why502\n  \
             static_configs: [{{targets: ['{target}']}}]\n",
            rules.display()
        );
        fs::write(&configuration, text)?;
        // It takes no port 0. Between this and its start nobody else takes what was free.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = process::command(process::find_program(&["prometheus"])?);
        command.arg(format!("--config.file={}", configuration.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::start(command)?;
        let stderr =
            Lines::collect(process.pipes().stderr.take().context("a pipe for standard error")?, |_| {});
        let mut prometheus = Prometheus { process, address, stderr, _folder: folder };
        wait::until_true("Prometheus to be ready", || {
            if let Some(status) = prometheus.process.ended()? {
                bail!("Prometheus ended ({status}): {}", prometheus.stderr.so_far().join("\n"));
            }
            Ok(get(address, "/-/ready").is_ok_and(|(status, _)| status == 200))
        })?;
        Ok(prometheus)
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A page on which a browser shows what a query gives.
    pub fn page_of(&self, query: &str) -> String {
        // Readable where it can be: only what a link must not have is escaped.
        let escaped: String = query
            .bytes()
            .map(|byte| match byte {
                b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'(' | b')' | b',' | b'.' => {
                    char::from(byte).to_string()
                }
                b' ' => "+".to_owned(),
                _ => format!("%{byte:02X}"),
            })
            .collect();
        format!("http://{}/graph?g0.expr={escaped}&g0.tab=1", self.address)
    }

    /// What a query gives at this moment: for each set of labels a value.
    pub fn query(&self, query: &str) -> Result<Vec<(Labels, f64)>> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let (status, body) = get(self.address, &format!("/api/v1/query?query={escaped}"))?;
        ensure!(status == 200, "{query}: {body}");
        let answer: Value = serde_json::from_str(&body)?;
        let rows = answer["data"]["result"].as_array().with_context(|| body.clone())?;
        let row = |row: &Value| {
            let labels = row["metric"].as_object().context("labels")?;
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let labels = labels.iter().map(|(name, value)| (name.clone(), text(value))).collect();
            Ok((labels, text(&row["value"][1]).parse()?))
        };
        rows.iter().map(row).collect()
    }

    /// Waits until a query gives what is `wanted` of it.
    pub fn wait_for(&self, query: &str, mut wanted: impl FnMut(&[(Labels, f64)]) -> bool) -> Result<()> {
        let mut last = Vec::new();
        wait::until_true(query, || {
            std::thread::sleep(Duration::from_millis(100));
            last = self.query(query)?;
            Ok(wanted(&last))
        })
        .with_context(|| format!("{last:#?}"))
    }
}
