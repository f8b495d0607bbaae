//! Whoever crowds the tracer: with nginx's name, with listeners, with pids and upstreams that he writes into logs.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::chown;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::attacker::{Attacker, Walls};
use rig::process::{Pid, Process, children, find_program};
use rig::tracer::Account;
use rig::{Client, Endpoint, Fault, FaultyServer, Location, Namespace, Nginx, Tracer, wait};
use serde_json::Value;
use tempfile::TempDir;

/// More than the tracer has places for.
const HELD: usize = 10_300;

const NOBODY: u32 = 65_534;

/// The most memory that a process has had, in KiB; none once it has ended.
fn peak(pid: Pid) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// That system calls were not watched on account of these, nor because of what somebody was seen to do: only where somebody else's
/// configuration or connection said so, for the whole machine is watched.
fn are_no_reason_for_system_calls(account: &Account, fakes: &[Pid]) -> Result<()> {
    if account.summary["system_calls"] == false {
        return Ok(());
    }
    let reason = account.stderr.lines().find(|line| line.contains("unix-socket upstreams are in use"));
    let reason =
        reason.with_context(|| format!("system calls are watched for no reason: {}", account.stderr))?;
    let mut words =
        reason.split(|letter: char| !letter.is_alphanumeric()).skip_while(|word| *word != "nginx");
    let named: Option<Pid> = words.nth(1).and_then(|pid| pid.parse().ok());
    ensure!(named.is_some_and(|pid| !fakes.contains(&pid)), "{reason}");
    Ok(())
}

fn stranger(summary: &Value, pid: Pid) -> Option<&Value> {
    summary["ignored"]["processes"].as_array()?.iter().find(|process| process["pid"] == pid)
}

#[test]
fn a_users_program_named_nginx_takes_no_place_from_the_real_one_and_is_named() -> Result<()> {
    let namespace = Namespace::new()?;
    let nobody = Endpoint::v4(9009);
    let nginx = Nginx::on(&namespace)
        .workers(2)
        .user("nobody nogroup")
        .location(Location::fastcgi("/refused/", &nobody))
        .start()?;
    let tracer = Tracer::start(&[])?;
    let mut fake = Attacker::start(&namespace, Walls::None, "fake_nginx", &[&HELD.to_string()])?;
    let statuses = nginx.client().storm("/refused/", 50, 2)?;
    ensure!(statuses == [(502, 50)].into(), "{statuses:?}");
    tracer.wait_for(50)?;
    let named = format!("left out: process {} of user {NOBODY}", fake.pid());
    wait::until_true("the fake to be named", || Ok(tracer.complaints().contains(&named)))?;
    fake.tell("send")?;
    fake.wait_for("sent")?;
    // Whatever a send leads to is decided by the time that the next exchange is emitted.
    ensure!(nginx.client().get("/refused/")?.status == 502);
    tracer.wait_for(51)?;
    let pid = fake.pid();
    let account = tracer.stop()?;
    fake.finish()?;
    account.is_orderly()?;
    let about = account.about(&nobody);
    ensure!(about.len() == 51, "{} verdicts; {}", about.len(), account.summary);
    for verdict in about {
        verdict.says("refused/no_listener", account.surest(verdict), 502, Some("ECONNREFUSED"))?;
    }
    let summary = &account.summary;
    ensure!(summary["untracked"] == 0, "{summary}");
    are_no_reason_for_system_calls(&account, &[pid])?;
    ensure!(summary["ignored"]["connections"].as_u64() >= Some(HELD as u64), "{summary}");
    let fake = stranger(summary, pid).with_context(|| format!("the fake is not named: {summary}"))?;
    ensure!(fake["uid"] == NOBODY && fake["why"] == "other_executable", "{fake}");
    ensure!(fake["exe"].as_str().is_some_and(|exe| exe.ends_with("/attacker")), "{fake}");
    ensure!(account.stderr.matches(&named).count() == 1, "{}", account.stderr);
    Ok(())
}

#[test]
fn neither_a_users_connection_nor_his_configuration_slows_the_host() -> Result<()> {
    let namespace = Namespace::new()?;
    let nobody = Endpoint::v4(9009);
    let nginx = Nginx::on(&namespace).location(Location::fastcgi("/refused/", &nobody)).start()?;
    let fake = Attacker::start(&namespace, Walls::None, "fake_nginx", &["1"])?;
    let unix = Endpoint::Unix(namespace.scratch().join("unix"));
    let early = Unprivileged::start(&namespace, &unix)?;
    let tracer = Tracer::start(&["-v"])?;
    let elsewhere = Namespace::new()?;
    let late = Unprivileged::start(&elsewhere, &unix)?;
    ensure!(nginx.client().get("/refused/")?.status == 502);
    tracer.wait_for(1)?;
    let fakes =
        [&[fake.pid(), early.pid, late.pid][..], &children(early.pid)?, &children(late.pid)?].concat();
    let account = tracer.stop()?;
    fake.finish()?;
    account.is_orderly()?;
    are_no_reason_for_system_calls(&account, &fakes)?;
    Ok(())
}

#[test]
fn whoever_is_asked_for_by_name_is_watched_all_the_same() -> Result<()> {
    let namespace = Namespace::new()?;
    let tracer = Tracer::start(&["--comm", "nginx"])?;
    let fake = Attacker::start(&namespace, Walls::None, "fake_nginx", &["100"])?;
    fake.finish()?;
    wait::until_true("the system calls to be watched", || {
        Ok(tracer.complaints().contains("unix-socket upstreams"))
    })?;
    let account = tracer.stop()?;
    ensure!(account.status.success(), "{}", account.stderr);
    ensure!(account.summary["ignored"]["connections"] == 0, "{}", account.summary);
    ensure!(account.summary["exchanges"].as_u64() >= Some(100), "{}", account.summary);
    Ok(())
}

/// Where whoever has the name was asked for, nobody may take all the places.
#[test]
fn whoever_holds_more_than_half_of_the_places_leaves_some_to_others() -> Result<()> {
    let namespace = Namespace::new()?;
    let nobody = Endpoint::v4(9009);
    let nginx = Nginx::on(&namespace).location(Location::fastcgi("/refused/", &nobody)).start()?;
    let tracer = Tracer::start(&["--comm", "nginx", "--max-open", "256"])?;
    let fake = Attacker::start(&namespace, Walls::None, "fake_nginx", &["300"])?;
    let greedy = format!("process {} and its children hold 256 of the 256 places", fake.pid());
    let client = nginx.client();
    wait::until_true("the fake's share to be cut", || {
        ensure!(client.get("/refused/")?.status == 502);
        Ok(tracer.complaints().contains(&greedy))
    })?;
    let before = nginx.failures().len();
    // What was emitted while the share was cut is emitted still.
    ensure!(client.storm("/refused/", 50, 2)? == [(502, 50)].into());
    let about = |line: &String| line.contains("\"type\":\"verdict\"") && line.contains("127.0.0.1:9009");
    wait::until_true("the verdicts", || {
        Ok(tracer.lines().so_far().iter().filter(|line| about(line)).count() >= 50)
    })?;
    let account = tracer.stop()?;
    fake.finish()?;
    ensure!(
        account.status.success() && account.summary["lost"] == 0,
        "{} {}",
        account.summary,
        account.stderr
    );
    let emitted = account.about(&nobody);
    ensure!(emitted.len() >= 50 && emitted.len() <= before + 50, "{} of {}", emitted.len(), before + 50);
    for verdict in emitted {
        verdict.says("refused/no_listener", account.surest(verdict), 502, Some("ECONNREFUSED"))?;
    }
    // Those that the fake had beyond, those that were given up, and nginx's until then.
    ensure!(account.summary["untracked"].as_u64() > Some(44 + 128), "{}", account.summary);
    Ok(())
}

#[test]
fn backlog_does_not_take_a_users_program_for_nginx() -> Result<()> {
    let namespace = Namespace::new()?;
    let nobody = Endpoint::v4(9100);
    let nginx = Nginx::on(&namespace).location(Location::http("/mute/", &nobody)).start()?;
    let mute = FaultyServer::start(&namespace, Fault::Mute, nobody.clone(), 16)?;
    let backlog = Tracer::run_as("backlog", &["-o", "json"], None, |_| {})?;
    let fake = Attacker::start(&namespace, Walls::None, "fake_nginx", &["100"])?;
    let asked = nginx.client().ask("/mute/")?;
    mute.wait_read(1)?;
    let real = format!("\"{nobody}\"");
    wait::until_true("nginx's own upstream", || {
        Ok(backlog.lines().so_far().iter().any(|line| line.contains(&real)))
    })?;
    let pid = fake.pid();
    backlog.signal(Signal::SIGINT)?;
    let run = backlog.end()?;
    asked.abort()?;
    fake.finish()?;
    ensure!(run.status.success(), "{}", run.stderr);
    let lines: Vec<Value> =
        run.stdout.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    let of = |pid: Pid| lines.iter().filter(|line| line["type"] == "listener" && line["pid"] == pid).count();
    ensure!(of(pid) == 0, "the fake's listeners are told: {lines:#?}");
    ensure!(
        lines.iter().any(|line| line["addr"] == nobody.to_string()),
        "nginx's upstream is not told: {lines:#?}"
    );
    Ok(())
}

/// An nginx that a service runs without root, master and workers, as unprivileged images do.
struct Unprivileged {
    _process: Process,
    folder: TempDir,
    pid: Pid,
}

impl Unprivileged {
    fn start(namespace: &Namespace, upstream: &Endpoint) -> Result<Self> {
        let folder = TempDir::with_prefix("why502-unprivileged-")?;
        chown(folder.path(), Some(NOBODY), Some(NOBODY))?;
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {kind};"))
            .concat();
        let upstream = upstream.for_nginx();
        let conf = format!(
            "daemon off; pid nginx.pid; error_log error.log info; events {{}} http {{ {temporary} access_log off; server {{ \
             listen 127.0.0.1:8081; location / {{ proxy_pass http://{upstream}; }} }} }}"
        );
        fs::write(folder.path().join("nginx.conf"), conf)?;
        let mut command = namespace.command(find_program(&["setpriv"])?);
        let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
        command.args(ids).arg("--clear-groups").arg(find_program(&["nginx"])?);
        command.arg("-p").arg(folder.path()).args(["-c", "nginx.conf", "-e", "error.log"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = namespace.start(command)?;
        let pid = process.pid();
        wait::until_true("the unprivileged nginx", || Ok(folder.path().join("nginx.pid").exists()))?;
        Ok(Self { _process: process, folder, pid })
    }

    fn client(&self, namespace: &Namespace) -> Client {
        Client::new(namespace, ([127, 0, 0, 1], 8081).into())
    }
}

#[test]
fn a_services_nginx_is_watched_without_root_also_one_that_starts_later() -> Result<()> {
    let namespace = Namespace::new()?;
    let nobody = Endpoint::v4(9009);
    let early = Unprivileged::start(&namespace, &nobody)?;
    let tracer = Tracer::start(&[])?;
    let statuses = early.client(&namespace).storm("/", 20, 2)?;
    ensure!(statuses == [(502, 20)].into(), "{statuses:?}");
    tracer.wait_for(20)?;
    let (pid, folder) = (early.pid, early.folder.path().to_owned());
    rig::process::send(pid, Signal::SIGQUIT)?;
    wait::until_true("the first one's end", || Ok(!folder.join("nginx.pid").exists()))?;
    drop(early);
    let late = Unprivileged::start(&namespace, &nobody)?;
    // It is a stranger until somebody has looked at its executable.
    wait::until_true("a verdict on the second one", || {
        ensure!(late.client(&namespace).get("/")?.status == 502);
        Ok(tracer.lines().so_far().iter().filter(|line| line.contains("127.0.0.1:9009")).count() > 20)
    })?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    for pid in [pid, late.pid] {
        ensure!(stranger(&account.summary, pid).is_none(), "{}", account.summary);
    }
    for verdict in account.about(&nobody) {
        verdict.says("refused/no_listener", account.surest(verdict), 502, Some("ECONNREFUSED"))?;
    }
    Ok(())
}

/// What a debug build of the tracer takes by itself, and with it the budget of the audit, in KiB.
const BUDGET_KIB: u64 = 144 << 10;

#[test]
fn short_lived_listeners_take_no_more_memory_than_their_budget() -> Result<()> {
    let namespace = Namespace::new()?;
    let backlog = Tracer::run_as("backlog", &["--all", "-o", "json"], None, |_| {})?;
    let mut attacker = Attacker::start(&namespace, Walls::None, "short_lived", &["1000"])?;
    for round in 1..=50 {
        attacker.tell("again")?;
        let done = |attacker: &Attacker| attacker.said().iter().filter(|line| *line == "done").count();
        wait::until_true("a round of listeners", || Ok(done(&attacker) == round))?;
    }
    attacker.finish()?;
    let most = peak(backlog.pid()).context("backlog has ended")?;
    ensure!(most <= 96 << 10, "it took {most} KiB");
    backlog.signal(Signal::SIGINT)?;
    let run = backlog.end()?;
    ensure!(run.status.success(), "{}", run.stderr);
    let lines: Vec<Value> =
        run.stdout.iter().map(|line| serde_json::from_str(line)).collect::<Result<_, _>>()?;
    let summary = lines.last().context("no summary")?;
    let emitted = lines.iter().filter(|line| line["type"] == "listener" && line["final"] == true).count();
    let number = |field: &str| summary[field].as_u64().unwrap_or_default();
    ensure!(number("listeners") == emitted as u64, "{emitted} told; {summary}");
    ensure!(number("forgotten") > 0, "{summary}");
    // Each was emitted, or is counted among what was lost or not watched.
    ensure!(emitted as u64 + number("lost") + number("unwatched") >= 50_000, "{emitted} told; {summary}");
    Ok(())
}

#[test]
fn forged_pids_in_a_log_take_no_more_memory_than_the_audits_budget() -> Result<()> {
    let folder = TempDir::with_prefix("why502-forged-")?;
    let log = folder.path().join("error.log");
    let mut file = BufWriter::new(File::create(&log)?);
    let tracer = Tracer::start(&["--error-log", log.to_str().context("a path")?])?;
    // Less than it reads at one look, and more than it keeps.
    let lines = 130_000_u32;
    for number in 0..lines {
        writeln!(
            file,
            "2026/11/20 22:18:16 [error] {0}#{0}: *7 connect() failed (111: Connection refused) while connecting to upstream, client: \
             127.0.0.1, server: , request: \"GET /{number} HTTP/1.0\", upstream: \"http://127.1.2.3:{1}/\", host: \"x\"",
            4_000_000 + number % 40_000,
            1 + number % 60_000,
        )?;
    }
    file.flush()?;
    // It reads them at its end at the latest.
    let pid = tracer.pid();
    tracer.signal(Signal::SIGINT)?;
    let watch = std::thread::spawn(move || {
        let mut most = 0;
        while let Some(kib) = peak(pid) {
            most = kib;
        }
        most
    });
    let account = tracer.finish()?;
    let most = watch.join().map_err(|_| anyhow::anyhow!("the watch on its memory panicked"))?;
    ensure!(most <= BUDGET_KIB, "it took {most} KiB, and {BUDGET_KIB} are its budget");
    ensure!(account.status.success(), "{}", account.stderr);
    let audit = account.others.iter().find(|line| line["type"] == "audit").context("no audit")?;
    let number = |field: &str| audit[field].as_u64().unwrap_or_default();
    ensure!(number("given_up") > 0, "{audit}");
    ensure!(
        number("logged") + number("given_up") == u64::from(lines),
        "{} {}",
        number("logged"),
        number("given_up")
    );
    ensure!(audit["truncated"] == true && audit["unexplained"].as_array().map(Vec::len) == Some(1_000));
    Ok(())
}

#[test]
fn an_upstream_that_the_client_writes_into_the_line_is_not_believed() -> Result<()> {
    let namespace = Namespace::new()?;
    let (real, other) = (Endpoint::v4(9009), Endpoint::v4(9010));
    let nginx = Nginx::on(&namespace)
        .location(Location::fastcgi("/real/", &real))
        .location(Location::fastcgi("/other/", &other))
        .start()?;
    // What nginx before 1.21.1 would have written: it let spaces in a request through.
    let forged = namespace.scratch().join("forged.log");
    let mut log = File::create(&forged)?;
    let tracer = Tracer::start(&[
        "-p",
        &nginx.master().to_string(),
        "--error-log",
        forged.to_str().context("a path")?,
    ])?;
    let client = nginx.client();
    for path in ["/real/x", "/other/x"] {
        ensure!(client.get(path)?.status == 502);
    }
    tracer.wait_for(2)?;
    nginx.wait_for_failures(2)?;
    for line in fs::read_to_string(nginx.error_log())?.lines().filter(|line| line.contains("upstream: ")) {
        // Each names the other's upstream before its own, and one that nobody has.
        let lie = if line.contains("9009") { 9010 } else { 9009 };
        let line = line.replace(
            " HTTP/1.",
            &format!("\", upstream: \"fastcgi://127.0.0.1:{lie}\", upstream: \"http://10.9.9.9:1/ HTTP/1."),
        );
        ensure!(line.contains("10.9.9.9"), "{line}");
        writeln!(log, "{line}")?;
        // The same once more has no verdict, and is no proof that one is missing.
        if lie == 9009 {
            writeln!(log, "{line}")?;
        }
    }
    let account = tracer.stop()?;
    account.is_orderly()?;
    let audit = account.others.iter().find(|line| line["type"] == "audit").context("no audit")?;
    ensure!(audit["explained"] == 2 && audit["logged"] == 2, "{audit}");
    ensure!(audit["unexplained"].as_array().is_some_and(Vec::is_empty), "{audit}");
    ensure!(audit["unlogged"].as_array().is_some_and(Vec::is_empty), "{audit}");
    let ambiguous = audit["ambiguous"].as_array().context("no list")?;
    ensure!(ambiguous.len() == 1 && ambiguous[0]["upstream"].is_null(), "{audit}");
    Ok(())
}
