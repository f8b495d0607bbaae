//! Every command under strace, on a real nginx with a slow worker: what it does as root, it does to nobody.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rig::conduct::{Licence, faults};
use rig::strace::{Strace, Traced};
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, tracer, wait};
use tempfile::TempDir;

/// Long enough for a look at the worker.
const READ: Duration = Duration::from_secs(3);

/// A web server whose every request fails.
struct Site {
    fpm: Fpm,
    nginx: Nginx,
    _namespace: Namespace,
}

impl Site {
    fn start() -> Result<Site> {
        let namespace = Namespace::new()?;
        let fpm = Fpm::on(&namespace).pool("pm.status_path = /status").start()?;
        let nginx =
            Nginx::on(&namespace).location(Location::fpm("/php/", &fpm).read_timeout(READ)).start()?;
        Ok(Site { fpm, nginx, _namespace: namespace })
    }

    fn fail(&self) -> Result<()> {
        ensure!(self.nginx.client().get("/php/sleep.php?s=30&tag=slow")?.status == 504);
        Ok(())
    }

    fn address(&self) -> String {
        self.fpm.endpoint().to_string()
    }
}

/// Checks that a run did nothing that it may not do, and that it was watched at all.
fn is_harmless(traced: &Traced, licence: &Licence) -> Result<()> {
    let faults = faults(traced, &tracer::binary()?, licence);
    ensure!(faults.is_empty(), "{} calls that may not be:\n{}", faults.len(), faults.join("\n"));
    ensure!(!traced.stderr.contains("panicked"), "{}", traced.stderr);
    ensure!(traced.calls.iter().filter(|call| call.name == "execve").count() == 1, "its start was not seen");
    Ok(())
}

/// Whether a line is the verdict on the slow worker.
fn is_slow(line: &str) -> bool {
    line.contains(r#""type":"verdict""#) && line.contains("slow_worker")
}

/// Whether a path was opened, so that the run did what it is here for.
fn opened(traced: &Traced, holds: impl Fn(&Path) -> bool) -> bool {
    let openings = traced.calls.iter().filter(|call| call.name.starts_with("openat"));
    openings.filter_map(|call| call.path(1)).any(|path| holds(&path))
}

#[test]
fn live_touches_nobody() -> Result<()> {
    let site = Site::start()?;
    let (master, log) = (site.nginx.master().to_string(), site.nginx.error_log());
    let log = log.to_str().context("a path that is no text")?;
    let strace = Strace::start(&["live", "-o", "json", "-p", &master, "--error-log", log])?;
    let looks_into = site.fpm.workers()?;
    let licence = Licence { writes: vec![strace.ready()], looks_into, ..Licence::default() };
    site.fail()?;
    strace.lines().wait("a verdict", |lines| lines.iter().any(|line| is_slow(line)))?;
    let traced = strace.stop()?;
    ensure!(
        opened(&traced, |path| path.ends_with("syscall") || path.ends_with("stat")),
        "no worker was looked at"
    );
    ensure!(opened(&traced, |path| path.ends_with("nginx.conf")), "what nginx says was not read");
    is_harmless(&traced, &licence)
}

#[test]
fn record_writes_its_file_and_nothing_else_and_report_reads_it() -> Result<()> {
    let site = Site::start()?;
    let folder = TempDir::with_prefix("why502-syscalls-")?;
    let file = folder.path().join("evidence.zst");
    let file = file.to_str().context("a path that is no text")?;
    let strace = Strace::start(&["record", "-o", file, "-p", &site.nginx.master().to_string()])?;
    let looks_into = site.fpm.workers()?;
    let writes = vec![strace.ready(), folder.path().to_owned()];
    // The depths of accept queues are asked for in the network that they are in.
    let licence = Licence { writes, looks_into, enters: true, ..Licence::default() };
    site.fail()?;
    let before = fs::metadata(file)?.len();
    wait::until_true("the failure to be on disk", || Ok(fs::metadata(file)?.len() > before))?;
    is_harmless(&strace.stop()?, &licence)?;

    let read = Strace::run(&["report", "-o", "json", file])?;
    ensure!(read.stdout.iter().any(|line| is_slow(line)), "{read:#?}");
    is_harmless(&read, &Licence::default())?;
    let page = folder.path().join("page.html");
    let read = Strace::run(&["report", "--html", page.to_str().context("no text")?, file])?;
    is_harmless(&read, &Licence { writes: vec![page], ..Licence::default() })
}

#[test]
fn backlog_reads_what_namespaces_count_and_touches_nobody() -> Result<()> {
    let site = Site::start()?;
    let strace = Strace::start(&["backlog", "-o", "json", &site.address(), "-d", "1s"])?;
    let licence = Licence { writes: vec![strace.ready()], enters: true, ..Licence::default() };
    let traced = strace.finish()?;
    ensure!(traced.stdout.iter().any(|line| line.contains(&site.address())), "{:#?}", traced.stdout);
    is_harmless(&traced, &licence)
}

#[test]
fn unix_listeners_that_go_are_not_looked_for_one_by_one() -> Result<()> {
    const LISTENERS: usize = 300;
    let folder = TempDir::with_prefix("why502-gone-")?;
    let path = folder.path().to_str().context("a path that is no text")?;
    let listeners: Vec<UnixListener> = (0..LISTENERS)
        .map(|number| UnixListener::bind(folder.path().join(number.to_string())))
        .collect::<Result<_, _>>()?;
    let strace = Strace::start(&["backlog", "--all", "-o", "json"])?;
    let lines_of = |lines: &[String]| lines.iter().filter(|line| line.contains(path)).count();
    strace.lines().wait("all of them", |lines| lines_of(lines) >= LISTENERS)?;
    drop(listeners);
    let ended = |line: &String| line.contains(path) && line.contains("\"final\":true");
    let traced = strace.stop()?;
    ensure!(traced.stdout.iter().filter(|line| ended(line)).count() == LISTENERS, "{:#?}", traced.stdout);
    let openings = traced.calls.iter().filter(|call| call.name.starts_with("openat"));
    let walks = openings.filter(|call| call.path(1).is_some_and(|path| path == Path::new("/proc"))).count();
    ensure!(walks < LISTENERS / 10, "/proc was walked {walks} times");
    Ok(())
}

#[test]
fn verify_reads_configurations_as_text_and_asks_only_the_pool_that_was_meant() -> Result<()> {
    let site = Site::start()?;
    let file = site.fpm.pool_file();
    let file = file.to_str().context("a path that is no text")?;
    let strace = Strace::start(&[
        "backlog",
        "-o",
        "json",
        &site.address(),
        "--verify",
        "--fpm-pool",
        file,
        "-d",
        "1s",
    ])?;
    let Endpoint::Tcp(address) = site.fpm.endpoint() else { anyhow::bail!("the pool has no port") };
    let pool = format!("sin_port=htons({})", address.port());
    let licence =
        Licence { writes: vec![strace.ready()], enters: true, connects: vec![pool], ..Licence::default() };
    let traced = strace.finish()?;
    ensure!(traced.stdout.iter().any(|line| line.contains("check")), "{:#?}", traced.stdout);
    ensure!(opened(&traced, |path| path.ends_with("nginx.conf")), "no configuration was read");
    ensure!(traced.calls.iter().any(|call| call.name == "connect"), "no status page was asked");
    is_harmless(&traced, &licence)
}

#[test]
fn doctor_touches_nobody() -> Result<()> {
    let site = Site::start()?;
    let traced = Strace::run(&["doctor", "-o", "json"])?;
    drop(site);
    is_harmless(&traced, &Licence::default())
}
