//! `--error-log`: the verdicts held against nginx's own log, while it is rotated, shared and tampered with.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::error_log::{self, Kind, count};
use rig::tracer::Account;
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, Tracer, process, wait};
use serde_json::Value;

/// Watches one nginx and its log, and any further arguments.
fn auditor(nginx: &Nginx, arguments: &[&str]) -> Result<Tracer> {
    let (master, log) = (nginx.master().to_string(), nginx.error_log());
    let log = log.to_str().context("a path in UTF-8")?;
    Tracer::start(&[&["-p", &master, "--error-log", log], arguments].concat())
}

/// The audit: the last line before the summary.
fn audit(account: &Account) -> Result<&Value> {
    let audit = account.others.last().context("no audit")?;
    ensure!(audit["v"] == 1 && audit["type"] == "audit", "{audit}");
    Ok(audit)
}

/// Checks that `logged` failures were logged, each with its verdict, and nothing else was found.
fn is_clean(account: &Account, logged: usize) -> Result<()> {
    let audit = audit(account)?;
    let expected = serde_json::json!({
        "v": 1, "type": "audit", "logged": logged, "explained": logged, "unexplained": [], "unlogged": [],
        "truncated": false, "ambiguous": [], "early": 0, "unaudited": 0, "given_up": 0,
    });
    ensure!(*audit == expected, "{audit:#}\n{:#?}\n{}", account.verdicts, account.stderr);
    Ok(())
}

#[test]
fn each_line_has_its_verdict_while_the_log_is_rotated() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(4).terminate_after(Duration::from_secs(1)).start()?;
    let socket = Endpoint::Unix(namespace.scratch().join("nobody.sock"));
    let nginx = Nginx::on(&namespace)
        .workers(2)
        .location(Location::fastcgi("/four/", &Endpoint::v4(9009)))
        .location(Location::http("/six/", &Endpoint::v6(9009)))
        .location(Location::fastcgi("/unix/", &socket))
        .location(Location::http("/unix-http/", &socket))
        .location(Location::fpm("/cut/", &fpm))
        .location(Location::fpm("/hasty/", &fpm).read_timeout(Duration::from_millis(300)))
        .start()?;
    // Unix sockets are watched from the start where one is asked for.
    let upstreams = [":9000".to_owned(), ":9009".to_owned(), socket.to_string()];
    let upstreams: Vec<_> = upstreams.iter().flat_map(|upstream| ["-u", upstream]).collect();
    let tracer = auditor(&nginx, &upstreams)?;
    let client = nginx.client();
    let refused = ["/four/a", "/six/b", "/unix/c", "/unix-http/d?e=:f"];
    let some_of_each = |tag: &str| -> Result<()> {
        let cut = client.ask(&format!("/cut/sleep.php?s=20&tag=cut-{tag}"))?;
        let gone = client.ask(&format!("/cut/sleep.php?s=20&tag=gone-{tag}"))?;
        fpm.worker_on(&format!("gone-{tag}"))?;
        gone.abort()?;
        for path in refused.into_iter().chain(refused) {
            ensure!(client.get(path)?.status == 502);
        }
        // Long after nginx's timer, also where that is late.
        ensure!(client.get("/hasty/sleep.php?s=20")?.status == 504);
        ensure!(client.get("/cut/ok.php")?.status == 200);
        ensure!(cut.answer()?.status == 502);
        Ok(())
    };

    some_of_each("before")?;
    let (log, rotated) = (nginx.error_log(), nginx.error_log().with_extension("log.1"));
    fs::rename(&log, &rotated)?;
    // nginx goes on with the file it has open.
    some_of_each("meanwhile")?;
    process::send(nginx.master(), Signal::SIGUSR1)?;
    wait::until_true("nginx to open a new log", || Ok(log.exists()))?;
    some_of_each("after")?;

    let logged = 3 * (2 * refused.len() + 3);
    tracer.wait_for(logged)?;
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let failures = wait::until("every line", || {
        let failures = error_log::parse(&(read(&rotated) + &read(&log)));
        Ok(Some(failures).filter(|failures| failures.len() >= logged))
    })?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    is_clean(&account, logged)?;
    ensure!(
        count(&failures, Kind::ClientAbort) == 3 && count(&failures, Kind::TimedOut) == 3,
        "{failures:#?}"
    );
    ensure!((failures.len(), account.verdicts.len()) == (logged, logged), "{failures:#?}");
    Ok(())
}

#[test]
fn a_storm_pairs_off_without_a_rest() -> Result<()> {
    let count = wait::load(5_000);
    let namespace = Namespace::new()?;
    let nginx = Nginx::on(&namespace)
        .workers(2)
        .location(Location::fastcgi("/four/", &Endpoint::v4(9009)))
        .location(Location::http("/six/", &Endpoint::v6(9009)))
        .start()?;
    let tracer = auditor(&nginx, &[])?;
    let client = nginx.client();
    std::thread::scope(|scope| {
        let six = scope.spawn(|| client.storm("/six/", count / 2, 4));
        client.storm("/four/", count / 2, 4)?;
        six.join().map_err(|_| anyhow::anyhow!("a storm panicked"))?
    })?;
    tracer.wait_for(count)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    is_clean(&account, count)
}

#[test]
fn what_is_not_traced_is_not_audited() -> Result<()> {
    let namespace = Namespace::new()?;
    let elsewhere = Namespace::new()?;
    let start = |namespace: &Namespace| {
        Nginx::on(namespace)
            .location(Location::fastcgi("/wanted/", &Endpoint::v4(9009)))
            .location(Location::fastcgi("/other/", &Endpoint::v4(9010)))
            .start()
    };
    let (nginx, other) = (start(&namespace)?, start(&elsewhere)?);
    let others_log = other.error_log();
    let others_log = others_log.to_str().context("a path in UTF-8")?;
    // Failures of before, of another upstream, and of another nginx.
    ensure!(nginx.client().get("/wanted/")?.status == 502);
    let tracer = auditor(&nginx, &["-u", "127.0.0.1:9009", "--error-log", others_log])?;
    for path in ["/wanted/", "/other/", "/other/"] {
        ensure!(nginx.client().get(path)?.status == 502);
        ensure!(other.client().get(path)?.status == 502);
    }
    tracer.wait_for(1)?;
    ensure!(nginx.wait_for_failures(4)?.len() == 4 && other.wait_for_failures(3)?.len() == 3);
    let account = tracer.stop()?;
    account.is_orderly()?;
    is_clean(&account, 1)
}

#[test]
fn one_line_in_two_logs_is_one_failure() -> Result<()> {
    let namespace = Namespace::new()?;
    let nginx = Nginx::on(&namespace).location(Location::fastcgi("/", &Endpoint::v4(9009))).start()?;
    let again = nginx.error_log().with_extension("link");
    std::os::unix::fs::symlink(nginx.error_log(), &again)?;
    let tracer = auditor(&nginx, &["--error-log", again.to_str().context("a path in UTF-8")?])?;
    for _ in 0..5 {
        ensure!(nginx.client().get("/")?.status == 502);
    }
    tracer.wait_for(5)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    is_clean(&account, 5)
}

#[test]
fn a_line_that_nothing_explains_is_shown() -> Result<()> {
    let namespace = Namespace::new()?;
    let nginx = Nginx::on(&namespace).location(Location::fastcgi("/", &Endpoint::v4(9009))).start()?;
    let tracer = auditor(&nginx, &[])?;
    ensure!(nginx.client().get("/")?.status == 502);
    tracer.wait_for(1)?;
    let log = fs::read_to_string(nginx.error_log())?;
    let line = log.lines().find(|line| line.contains("upstream: ")).context("nginx's line")?;
    let forged = line.replace(
        "connect() failed (111: Connection refused) while connecting to upstream",
        "upstream timed out",
    );
    let mut appended = File::options().append(true).open(nginx.error_log())?;
    writeln!(appended, "{forged}")?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let audit = audit(&account)?;
    ensure!((&audit["logged"], &audit["explained"]) == (&2.into(), &1.into()), "{audit:#}");
    let [unexplained] = audit["unexplained"].as_array().context("a list")?.as_slice() else {
        anyhow::bail!("{audit:#}")
    };
    let worker = nginx.workers()?[0];
    ensure!(unexplained["line"] == forged && unexplained["pid"] == worker, "{audit:#}");
    ensure!(unexplained["upstream"] == "127.0.0.1:9009", "{audit:#}");
    ensure!(unexplained["time"].as_str().is_some_and(|time| time.ends_with(".000000Z")), "{audit:#}");
    ensure!(audit["unlogged"] == serde_json::json!([]), "{audit:#}");
    Ok(())
}

#[test]
fn a_verdict_that_nginx_did_not_log_is_shown() -> Result<()> {
    let namespace = Namespace::new()?;
    // nginx writes elsewhere.
    let nginx = Nginx::on(&namespace)
        .location(Location::fastcgi("/", &Endpoint::v6(9009)).directive("error_log /dev/null"))
        .start()?;
    let tracer = auditor(&nginx, &[])?;
    ensure!(nginx.client().get("/")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let audit = audit(&account)?;
    ensure!((&audit["logged"], &audit["explained"]) == (&0.into(), &0.into()), "{audit:#}");
    let verdict = account.only(&Endpoint::v6(9009))?;
    let expected = serde_json::json!([{
        "time": verdict.time, "cause": "refused", "detail": "no_listener", "pid": nginx.workers()?[0],
        "upstream": "[::1]:9009",
    }]);
    ensure!(audit["unlogged"] == expected, "{audit:#}");
    Ok(())
}

#[test]
fn a_log_without_info_cannot_show_that_a_client_went() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let log = namespace.folder("logs")?.join("errors.log");
    let to_log = format!("error_log {} error", log.display());
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/php/", &fpm).directive(&to_log))
        .location(Location::fastcgi("/refused/", &Endpoint::v4(9009)).directive(&to_log))
        .start()?;
    let (master, path) = (nginx.master().to_string(), log.to_str().context("a path in UTF-8")?);
    let tracer = Tracer::start(&["-p", &master, "--error-log", path])?;
    let gone = nginx.client().ask("/php/sleep.php?s=20&tag=gone")?;
    fpm.worker_on("gone")?;
    gone.abort()?;
    ensure!(nginx.client().get("/refused/")?.status == 502);
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let audit = audit(&account)?;
    let figures = ["logged", "explained", "unaudited"].map(|figure| audit[figure].as_u64());
    ensure!(figures == [Some(1); 3], "{audit:#}");
    ensure!(audit["unlogged"] == serde_json::json!([]), "{audit:#}");
    Ok(())
}

#[test]
fn what_had_begun_before_the_tracing_is_left_out() -> Result<()> {
    let namespace = Namespace::new()?;
    let four = Fpm::on(&namespace).start()?;
    let unix = Fpm::on(&namespace).listen(Endpoint::Unix(namespace.scratch().join("fpm.sock"))).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/four/", &four))
        .location(Location::fpm("/unix/", &unix))
        .start()?;
    let early = [
        nginx.client().ask("/four/sleep.php?s=20&tag=early")?,
        nginx.client().ask("/unix/sleep.php?s=20&tag=early")?,
    ];
    let workers = [four.worker_on("early")?, unix.worker_on("early")?];
    let tracer = auditor(&nginx, &[])?;
    for (asked, worker) in early.into_iter().zip(workers) {
        process::send(worker, Signal::SIGKILL)?;
        ensure!(asked.answer()?.status == 502);
    }
    // And one that is seen from its beginning.
    let asked = nginx.client().ask("/four/sleep.php?s=20&tag=late")?;
    process::send(four.worker_on("late")?, Signal::SIGKILL)?;
    ensure!(asked.answer()?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let audit = audit(&account)?;
    let figures = ["logged", "explained", "early"].map(|figure| audit[figure].as_u64());
    ensure!(figures == [Some(1), Some(1), Some(2)], "{audit:#}");
    ensure!(
        audit["unexplained"] == serde_json::json!([]) && audit["unlogged"] == serde_json::json!([]),
        "{audit:#}"
    );
    Ok(())
}

#[test]
fn failures_beyond_the_count_asked_for_are_not_missed() -> Result<()> {
    let namespace = Namespace::new()?;
    let nginx =
        Nginx::on(&namespace).workers(2).location(Location::fastcgi("/", &Endpoint::v4(9009))).start()?;
    let tracer = auditor(&nginx, &["-c", "10"])?;
    nginx.client().storm("/", 400, 4)?;
    let account = tracer.finish()?;
    account.is_orderly()?;
    ensure!(account.verdicts.len() == 10);
    is_clean(&account, 10)
}

#[test]
fn a_log_may_come_later_and_must_be_one() -> Result<()> {
    let namespace = Namespace::new()?;
    let nginx = Nginx::on(&namespace).location(Location::fastcgi("/", &Endpoint::v4(9009))).start()?;
    let folder = namespace.folder("logs")?;
    let refused = rig::tracer::run(&["live", "--error-log", folder.to_str().context("a path in UTF-8")?])?;
    ensure!(refused.status.code() == Some(1) && refused.stdout.is_empty(), "{refused:?}");
    let complaint = format!("why502: {} cannot be followed: it is no regular file", folder.display());
    ensure!(refused.stderr == complaint, "{refused:?}");

    // Read from its beginning once it is there; and for a person, all's well is one sentence.
    let late = folder.join("error.log");
    let (master, path) = (nginx.master().to_string(), late.to_str().context("a path in UTF-8")?);
    let tracer = Tracer::spawn(&["-p", &master, "--error-log", path], None, |_| {})?;
    ensure!(tracer.complaints().contains(&format!("{path} does not exist yet")), "{}", tracer.complaints());
    ensure!(nginx.client().get("/")?.status == 502);
    tracer
        .lines()
        .wait("a verdict", |lines| lines.iter().any(|line| line.contains("refused/no_listener")))?;
    fs::copy(nginx.error_log(), &late)?;
    tracer.signal(Signal::SIGINT)?;
    let run = tracer.end()?;
    ensure!(run.status.success(), "{run:?}");
    let sentence = "nginx logged 1 upstream failure; it has its verdict.";
    ensure!(run.stdout.iter().any(|line| line == sentence), "{run:?}");
    Ok(())
}
