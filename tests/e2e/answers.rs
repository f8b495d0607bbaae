//! What clients were answered is accounted for by nginx's access log: tied to a verdict, or reported as what it was.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use rig::{Client, Endpoint, Fpm, Location, Namespace, Nginx, Tracer};
use serde_json::{Value, json};

/// A second request within a minute is refused.
const LIMIT: &str = "limit_req_zone $binary_remote_addr zone=one:64k rate=1r/m;";

/// The counts of one status: those that are not named are zero.
fn counts(named: Value) -> Value {
    let mut all = json!({
        "explained": 0, "upstream": 0, "rule": 0, "limit_req": 0, "limit_conn": 0, "return": 0, "rewritten": 0, "unknown": 0
    });
    for (kind, count) in named.as_object().into_iter().flatten() {
        all[kind] = count.clone();
    }
    all
}

fn statuses(summary: &Value, expected: [(&str, Value); 4]) -> Result<()> {
    let answers = &summary["answers"];
    ensure!(answers["left_out"] == 0, "{summary}");
    for (status, expected) in expected {
        ensure!(answers["statuses"][status] == counts(expected.clone()), "{status}, {expected}: {answers}");
    }
    Ok(())
}

#[test]
fn failures_the_upstreams_own_answers_rules_and_error_pages_are_told_apart() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(3).start()?;
    for (name, status) in [("bad.php", 502), ("busy.php", 503), ("broken.php", 500)] {
        fs::write(fpm.docroot().join(name), format!("<?php http_response_code({status}); echo 'mine';"))?;
    }
    let nobody = Endpoint::v4(9109);
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/php/", &fpm))
        .location(Location::fpm("/hasty/", &fpm).read_timeout(Duration::from_secs(1)))
        .location(Location::http("/nobody/", &nobody))
        .block(LIMIT)
        .location(Location::fpm("/limited/", &fpm).directive("limit_req zone=one"))
        .location(
            Location::fpm("/page/", &fpm)
                .directive("fastcgi_intercept_errors on")
                .directive("error_page 500 =503 /plain/"),
        )
        .location(Location::http("/failed/", &nobody).directive("error_page 502 =503 /plain/"))
        .location(Location::fixed("/plain/"))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    let get = |path: &str, status: u16| {
        let answer = client.get(path)?;
        ensure!(answer.status == status, "{path}: {answer:?}");
        Ok(())
    };
    let left = client.ask("/php/sleep.php?s=20&tag=left")?;
    fpm.worker_on("left")?;
    left.abort()?;
    get("/hasty/sleep.php?s=3", 504)?;
    get("/nobody/", 502)?;
    get("/failed/", 503)?;
    for _ in 0..2 {
        get("/php/bad.php", 502)?;
    }
    get("/php/busy.php", 503)?;
    get("/limited/ok.php", 200)?;
    get("/limited/ok.php", 503)?;
    get("/page/broken.php", 503)?;
    // Of these there is nothing to account for.
    get("/php/ok.php", 200)?;
    get("/php/broken.php", 500)?;
    nginx.wait_for_accesses(12)?;
    tracer.wait_for(4)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    statuses(
        &account.summary,
        [
            ("499", json!({ "explained": 1 })),
            ("502", json!({ "explained": 1, "upstream": 2 })),
            ("503", json!({ "explained": 1, "upstream": 1, "rule": 1, "rewritten": 1 })),
            ("504", json!({ "explained": 1 })),
        ],
    )
}

#[test]
fn the_only_rule_that_gives_a_status_is_named() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace)
        .block(LIMIT)
        .location(Location::fpm("/limited/", &fpm).directive("limit_req zone=one"))
        .block("server { listen 127.0.0.1:8089; location / { return 502; } }")
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let mut got = Vec::new();
    let closed = Client::new(&namespace, "127.0.0.1:8089".parse()?);
    for (client, path) in
        [(nginx.client(), "/limited/ok.php"), (nginx.client(), "/limited/ok.php"), (closed, "/")]
    {
        got.push(client.get(path)?.status);
    }
    ensure!(got == [200, 503, 502], "{got:?}");
    nginx.wait_for_accesses(3)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let none = || json!({});
    statuses(
        &account.summary,
        [
            ("499", none()),
            ("502", json!({ "return": 1 })),
            ("503", json!({ "limit_req": 1 })),
            ("504", none()),
        ],
    )
}

#[test]
fn a_second_try_is_what_counts_and_its_own_answer_is_no_failure() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    fs::write(fpm.docroot().join("busy.php"), "<?php http_response_code(503);")?;
    let nobody = Endpoint::v4(9109);
    let nginx = Nginx::on(&namespace)
        .group("both", &[&nobody, fpm.endpoint()], &["zone both 64k"])
        .location(Location::fpm("/php/", &fpm).through_group("both"))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    // The first one goes to the first server first.
    ensure!(nginx.client().get("/php/busy.php")?.status == 503);
    nginx.wait_for_accesses(1)?;
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.only(&nobody)?.name() == "refused/no_listener");
    let none = || json!({});
    statuses(
        &account.summary,
        [("499", none()), ("502", none()), ("503", json!({ "upstream": 1 })), ("504", none())],
    )
}

#[test]
fn a_log_of_the_common_format_ties_by_time_and_the_rest_is_unknown() -> Result<()> {
    let namespace = Namespace::new()?;
    let log = namespace.scratch().join("plain.log");
    let nobody = Endpoint::v4(9109);
    let plain = format!("access_log {}", log.display());
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/nobody/", &nobody).directive(&plain))
        .block(LIMIT)
        .location(Location::http("/limited/", &nobody).directive("limit_req zone=one").directive(&plain))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/nobody/?502")?.status == 502);
    ensure!(nginx.client().get("/limited/?502")?.status == 502);
    ensure!(nginx.client().get("/limited/?502")?.status == 503);
    tracer.wait_for(2)?;
    rig::wait::until_true("each line", || Ok(fs::read_to_string(&log)?.lines().count() == 3))?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let none = || json!({});
    statuses(
        &account.summary,
        [
            ("499", none()),
            ("502", json!({ "explained": 2 })),
            ("503", json!({ "unknown": 1 })),
            ("504", none()),
        ],
    )
}

#[test]
fn requests_are_shown_if_asked_for_and_never_recorded() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    fs::write(fpm.docroot().join("busy.php"), "<?php http_response_code(503);")?;
    let nobody = Endpoint::v4(9109);
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/php/", &fpm))
        .location(Location::http("/nobody/", &nobody))
        .start()?;
    for shows in [true, false] {
        let pid = nginx.master().to_string();
        let tracer = Tracer::start(&[&["-p", &pid], &["--show-requests"][..usize::from(shows)]].concat())?;
        ensure!(nginx.client().get("/php/busy.php?secret")?.status == 503);
        ensure!(nginx.client().get("/nobody/?secret")?.status == 502);
        tracer.wait_for(1)?;
        nginx.wait_for_accesses(if shows { 2 } else { 4 })?;
        // Its folder goes with the tracer.
        let evidence = fs::File::open(tracer.evidence())?;
        let account = tracer.stop()?;
        account.is_orderly()?;
        let lines = rig::recorder::lines(&PathBuf::from(format!("/proc/self/fd/{}", evidence.as_raw_fd())))?;
        ensure!(lines.iter().any(|line| line["type"] == "answer"), "{lines:#?}");
        ensure!(!lines.iter().any(|line| line.to_string().contains("secret")), "a request was recorded");
        let answers: Vec<&Value> = account.others.iter().filter(|line| line["type"] == "answer").collect();
        if !shows {
            ensure!(answers.is_empty(), "{answers:#?}");
            continue;
        }
        ensure!(answers.len() == 2, "{answers:#?}");
        for (answer, status, kind, upstream, request) in [
            (answers[0], 503, "upstream", fpm.endpoint(), "/php/busy.php?secret"),
            (answers[1], 502, "explained", &nobody, "/nobody/?secret"),
        ] {
            let is_it = answer["status"] == status
                && answer["upstream_status"] == status
                && answer["kind"] == kind
                && answer["upstream"]["addr"] == upstream.to_string()
                && answer["request"] == request;
            ensure!(is_it, "{status} {kind} {request}: {answer}");
        }
    }
    Ok(())
}

#[test]
fn logs_are_followed_through_rotation_and_left_alone_if_asked() -> Result<()> {
    let namespace = Namespace::new()?;
    let nginx = Nginx::on(&namespace).location(Location::http("/", &Endpoint::v4(9109))).start()?;
    let followed = Tracer::of(nginx.master())?;
    let master = nginx.master().to_string();
    let alone = Tracer::start(&["-p", &master, "--no-access-log"])?;
    let log = nginx.error_log().with_file_name("access.log");
    ensure!(nginx.client().get("/first")?.status == 502);
    followed.wait_for(1)?;
    fs::rename(&log, log.with_extension("1"))?;
    ensure!(nginx.client().get("/between")?.status == 502);
    nginx.signal(nix::sys::signal::Signal::SIGUSR1)?;
    rig::wait::until_true("a new log", || Ok(log.exists()))?;
    ensure!(nginx.client().get("/after")?.status == 502);
    rig::wait::until_true("its line", || Ok(fs::read_to_string(&log)?.contains("/after")))?;
    followed.wait_for(3)?;
    alone.wait_for(3)?;
    let account = followed.stop()?;
    account.is_orderly()?;
    ensure!(
        account.summary["answers"]["statuses"]["502"] == counts(json!({ "explained": 3 })),
        "{}",
        account.summary
    );
    let account = alone.stop()?;
    account.is_orderly()?;
    ensure!(account.summary["answers"].is_null(), "{}", account.summary);
    Ok(())
}
