//! nginx's word where it is not heard: read in the error log that nginx holds open (issue 19).

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::reconcile::pair_off_words;
use rig::{
    By, Client, Endpoint, Fault, FaultyServer, FaultySite, Location, Namespace, Nginx, Tracer, Verdict,
    error_log, process, wait,
};

/// Where the files are that are missing.
const FILES: u16 = 8090;

/// Checks a verdict whose word was read.
fn was_read(verdict: &Verdict, name: &str) -> Result<()> {
    ensure!((verdict.name().as_str(), verdict.confidence.as_str()) == (name, "inferred"), "{verdict:#?}");
    ensure!(verdict.word.is_some(), "{verdict:#?}");
    ensure!(source(verdict) == Some("error_log"), "{verdict:#?}");
    Ok(())
}

/// Where a verdict's word comes from.
fn source(verdict: &Verdict) -> Option<&str> {
    let said = verdict.evidence.iter().find(|one| one.fact.contains(" says: "))?;
    Some(&said.source)
}

#[test]
fn what_the_kernel_calls_a_success_is_reported_from_the_log_that_nginx_holds_open() -> Result<()> {
    let namespace = Namespace::new()?;
    let faults =
        [Fault::CutLength, Fault::CutChunk, Fault::NoHttp, Fault::BadHeader, Fault::BigHeader, Fault::Answer];
    let site = FaultySite::start(&namespace, By::Tcp, faults, |location| location)?;
    let tracer = Tracer::start(&["-p", &site.nginx().master().to_string(), "--no-uprobe"])?;
    let said = site.ask_each()?;
    tracer.wait_for(said.iter().filter(|(_, lines)| !lines.is_empty()).count())?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&site.nginx().failures(), &account.verdicts)?;
    for (fault, name) in [
        (Fault::CutLength, "premature_close/response_cut_short"),
        (Fault::CutChunk, "premature_close/response_cut_short"),
        (Fault::NoHttp, "rejected_response/wrong_protocol"),
        (Fault::BadHeader, "rejected_response/invalid_header"),
        (Fault::BigHeader, "rejected_response/header_too_big"),
    ] {
        let of = &said.iter().find(|(of, _)| *of == fault).context("not asked")?.1;
        // What nginx takes no offence at, in this version, has no line.
        if !of.is_empty() {
            was_read(site.verdict(&account, fault)?, name)?;
        }
    }
    ensure!(account.verdicts.len() >= 4, "{:#?}", account.verdicts);
    Ok(())
}

#[test]
fn the_log_is_followed_while_it_is_rotated_and_each_line_has_its_verdict() -> Result<()> {
    let namespace = Namespace::new()?;
    let one = Endpoint::v4(9001);
    let nginx = Nginx::on(&namespace)
        .block(
            "upstream pair { server 127.0.0.1:9001 max_fails=1 fail_timeout=60s; \
             server 127.0.0.1:9002 max_fails=1 fail_timeout=60s; }",
        )
        .location(Location::http("/pair/", &one).through_group("pair"))
        .location(Location::http("/nobody/", &Endpoint::v4(9009)))
        .start()?;
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "--no-uprobe"])?;
    let (log, rotated) = (nginx.error_log(), nginx.error_log().with_extension("log.1"));
    let ask = || -> Result<()> {
        ensure!(nginx.client().get("/pair/")?.status == 502);
        ensure!(nginx.client().get("/nobody/")?.status == 502);
        Ok(())
    };
    // The first one takes both servers out.
    ask()?;
    fs::rename(&log, &rotated)?;
    ask()?;
    process::send(nginx.master(), Signal::SIGUSR1)?;
    wait::until_true("nginx to open a new log", || Ok(log.exists()))?;
    ask()?;
    ask()?;
    tracer.wait_for(9)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let lines = error_log::parse(&(read(&rotated) + &read(&log)));
    ensure!(lines.len() == 9, "{lines:#?}");
    pair_off_words(&lines, &account.verdicts)?;
    for verdict in &account.verdicts {
        let name = if verdict.upstream.is_some() {
            "refused/no_listener"
        } else {
            "not_attempted/no_live_upstreams"
        };
        was_read(verdict, name)?;
    }
    let without = account.verdicts.iter().filter(|verdict| verdict.group.as_deref() == Some("pair"));
    ensure!(without.count() == 3, "{:#?}", account.verdicts);
    Ok(())
}

#[test]
fn a_log_that_is_named_is_read_once() -> Result<()> {
    let namespace = Namespace::new()?;
    let nginx = Nginx::on(&namespace).location(Location::http("/nobody/", &Endpoint::v4(9009))).start()?;
    let (master, log) = (nginx.master().to_string(), nginx.error_log());
    let log = log.to_str().context("a path in UTF-8")?;
    let tracer = Tracer::start(&["-p", &master, "--no-uprobe", "--error-log", log])?;
    for _ in 0..3 {
        ensure!(nginx.client().get("/nobody/")?.status == 502);
    }
    tracer.wait_for(3)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    account.verdicts.iter().try_for_each(|verdict| was_read(verdict, "refused/no_listener"))
}

#[test]
fn a_flood_of_lines_of_no_upstream_is_stepped_back_from_for_a_while() -> Result<()> {
    let namespace = Namespace::new()?;
    let nobody = Endpoint::v4(9009);
    let nginx = Nginx::on(&namespace)
        .block(&format!("server {{ listen 127.0.0.1:{FILES}; location / {{ root /nonexistent; }} }}"))
        .location(Location::http("/nobody/", &nobody))
        .start()?;
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "--word-rate", "100"])?;
    let mut asked = 0;
    let mut ask = || -> Result<usize> {
        ensure!(nginx.client().get("/nobody/")?.status == 502);
        asked += 1;
        Ok(asked)
    };
    tracer.wait_for(ask()?)?;
    let files = Client::new(&namespace, SocketAddr::from(([127, 0, 0, 1], FILES)));
    wait::until_true("why502 to step back", || {
        files.storm("/missing", 500, 2)?;
        Ok(tracer.complaints().contains("--word-rate"))
    })?;
    tracer.wait_for(ask()?)?;
    // It comes back when it has been quiet for long enough.
    wait::until_true("nginx to be heard again", || {
        tracer.wait_for(ask()?)?;
        let last = tracer.lines().so_far().into_iter().rfind(|line| line.contains("\"verdict\""));
        Ok(last.is_some_and(|line| line.contains("uprobe/ngx_log_error_core")))
    })?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.stderr.matches("--word-rate").count() == 1, "{}", account.stderr);
    ensure!(account.summary["stepped_back"] == 1, "{}", account.summary);
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    let (heard, read): (Vec<_>, Vec<_>) = account
        .verdicts
        .iter()
        .partition(|verdict| source(verdict).is_some_and(|source| source.starts_with("uprobe/")));
    ensure!(heard.len() >= 2 && !read.is_empty(), "{:#?}", account.verdicts);
    for verdict in heard {
        verdict.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))?;
    }
    read.into_iter().try_for_each(|verdict| was_read(verdict, "refused/no_listener"))
}

#[test]
fn exchanges_that_end_together_have_one_verdict_each_and_their_own_lines() -> Result<()> {
    let namespace = Namespace::new()?;
    let mute = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9100), 64)?;
    let cut = FaultyServer::start(&namespace, Fault::CloseUnanswered, Endpoint::v4(9101), 64)?;
    let nginx = Nginx::on(&namespace)
        .location(mute.location().read_timeout(Duration::from_secs(1)))
        .location(cut.location())
        .start()?;
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "--no-uprobe"])?;
    let client = nginx.client();
    // Half of the clients leave in the second in which nginx gives the others up.
    let asked = (0..12).map(|_| client.ask("/mute/")).collect::<Result<Vec<_>>>()?;
    mute.wait_read(12)?;
    let mut stay = Vec::new();
    for (number, one) in asked.into_iter().enumerate() {
        if number % 2 == 0 {
            stay.push(one);
            continue;
        }
        one.abort()?;
        ensure!(client.get("/close-unanswered/")?.status == 502);
    }
    for one in stay {
        ensure!(one.answer()?.status == 504);
    }
    let failures = nginx.wait_for_failures(18)?;
    tracer.wait_for(18)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&failures, &account.verdicts)?;
    let mut names = BTreeMap::<String, usize>::new();
    for verdict in &account.verdicts {
        *names.entry(verdict.name()).or_default() += 1;
        ensure!(verdict.confidence == "inferred", "{verdict:#?}");
    }
    let right = ["client_abort/before_response", "premature_close/peer_closed", "read_timeout/slow_worker"];
    ensure!(names == right.map(|name| (name.to_owned(), 6)).into(), "{names:#?}");
    Ok(())
}
