//! The loads, each in slices of about a second.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rig::process::find_program;
use rig::process::output;
use serde::Deserialize;

use crate::stage::{NGINX, REDIS, Stage, UNIX_NGINX};

/// How many connections wrk keeps to nginx.
const CONNECTIONS: &str = "16";
/// How many clients redis-benchmark is.
const CLIENTS: &str = "16";

/// What goes on while it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// FastCGI over TCP, a connection for each exchange.
    Tcp,
    /// FastCGI over a unix socket, a connection for each exchange.
    Unix,
    /// HTTP over TCP, on connections that are kept.
    Kept,
    /// FastCGI to a port where nobody listens.
    Refused,
    /// Somebody else's: Redis, on connections that are kept.
    Unrelated,
    /// The same with a connection for each request.
    UnrelatedConnects,
}

/// What came of one slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slice {
    /// Requests answered.
    pub(crate) requests: f64,
    /// Requests answered per second.
    pub(crate) rate: f64,
    /// Half of the requests took no longer, in microseconds.
    pub(crate) p50_us: f64,
    /// All but one of a hundred took no longer, in microseconds.
    pub(crate) p99_us: f64,
}

impl Load {
    /// Its name among the figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Load::Tcp => "fastcgi_tcp",
            Load::Unix => "fastcgi_unix",
            Load::Kept => "http_keepalive",
            Load::Refused => "refused",
            Load::Unrelated => "unrelated",
            Load::UnrelatedConnects => "unrelated_connects",
        }
    }

    /// Loads for a second. `rate` is how many requests a second are to be expected, where the load must know.
    pub(crate) fn slice(self, stage: &Stage, rate: Option<f64>) -> Result<Slice> {
        match self {
            Load::Tcp => wrk(stage, NGINX, "/tcp/ok.php", true),
            Load::Unix => wrk(stage, UNIX_NGINX, "/unix/ok.php", true),
            Load::Kept => wrk(stage, NGINX, "/kept/", true),
            Load::Refused => wrk(stage, NGINX, "/refused/", false),
            Load::Unrelated => redis(stage, rate, &[]),
            // "-k 0": a connection for each request.
            Load::UnrelatedConnects => redis(stage, rate, &["-k", "0"]),
        }
    }
}

#[derive(Deserialize)]
struct Wrk {
    requests: f64,
    us: f64,
    p50: f64,
    p99: f64,
    unlike_200: f64,
    broken: f64,
}

fn wrk(stage: &Stage, port: u16, path: &str, succeeds: bool) -> Result<Slice> {
    let mut command = stage.namespace.command(find_program(&["wrk"])?);
    command.args(["-t", "1", "-c", CONNECTIONS, "-d", "1s", "-s"]).arg(&stage.script);
    command.arg(format!("http://127.0.0.1:{port}{path}")).stdin(Stdio::null());
    let said = output(command)?;
    let line = said.lines().find(|line| line.starts_with('{'));
    let line = line.with_context(|| format!("wrk has told no figures: {said}"))?;
    let Wrk { requests, us, p50, p99, unlike_200, broken } = serde_json::from_str(line)?;
    let unexpected = if succeeds { unlike_200 } else { requests - unlike_200 } + broken;
    ensure!(
        requests > 0.0 && unexpected <= 0.0,
        "{path}: {unexpected} of {requests} answers are not as expected"
    );
    Ok(Slice { requests, rate: requests * 1e6 / us, p50_us: p50, p99_us: p99 })
}

fn redis(stage: &Stage, rate: Option<f64>, manner: &[&str]) -> Result<Slice> {
    // It takes a number of requests and no time.
    let requests = rate.unwrap_or(10_000.0).ceil();
    let mut command = stage.namespace.command(find_program(&["redis-benchmark"])?);
    command.args(["-h", "127.0.0.1", "-p", &REDIS.to_string(), "-t", "get", "-c", CLIENTS, "--csv"]);
    command.args(["-n", &requests.to_string()]).args(manner).stdin(Stdio::null());
    let said = output(command)?;
    let column = |name: &str| -> Option<f64> {
        let mut lines = said.lines();
        let number = lines.next()?.split(',').position(|word| word.trim_matches('"') == name)?;
        lines.next()?.split(',').nth(number)?.trim_matches('"').parse().ok()
    };
    let figure = |name| column(name).with_context(|| format!("redis-benchmark tells no {name}: {said}"));
    Ok(Slice {
        requests,
        rate: figure("rps")?,
        p50_us: figure("p50_latency_ms")? * 1e3,
        p99_us: figure("p99_latency_ms")? * 1e3,
    })
}
