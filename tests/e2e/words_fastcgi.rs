//! What nginx says of upstreams that speak FastCGI wrongly, or not at all, each with its verdict (issue 19).

use std::fs;

use anyhow::{Result, ensure};
use rig::error_log::{Failure, Kind};
use rig::reconcile::pair_off_words;
use rig::{By, Endpoint, Fault, FaultyServer, FaultySite, Fpm, Location, Namespace, Nginx, Tracer};

const FAULTS: [Fault; 10] = [
    Fault::FastcgiCutRecord,
    Fault::FastcgiNoEnd,
    Fault::FastcgiCutStdout,
    Fault::FastcgiCutRequest,
    Fault::FastcgiEndAtOnce,
    Fault::FastcgiUnknownRecord,
    Fault::FastcgiBigHeader,
    Fault::FastcgiBadHeader,
    Fault::FastcgiStderr,
    Fault::FastcgiAnswer,
];

fn name(fault: Fault, line: &Failure) -> &'static str {
    match fault {
        Fault::FastcgiBigHeader => "rejected_response/header_too_big",
        Fault::FastcgiBadHeader => "rejected_response/invalid_header",
        _ if line.kind == Kind::PrematureClose => "premature_close/response_cut_short",
        _ => "rejected_response/wrong_protocol",
    }
}

fn speaks_wrongly(by: By, arrange: fn(Location) -> Location) -> Result<()> {
    let namespace = Namespace::new()?;
    let site = FaultySite::start(&namespace, by, FAULTS, arrange)?;
    site.is_explained(name)?;
    Ok(())
}

#[test]
fn each_wrong_response_has_its_cause_over_tcp() -> Result<()> {
    speaks_wrongly(By::Tcp, |location| location)
}

#[test]
fn each_wrong_response_has_its_cause_unbuffered() -> Result<()> {
    speaks_wrongly(By::Tcp, Location::unbuffered)
}

#[test]
fn each_wrong_response_has_its_cause_over_unix_sockets() -> Result<()> {
    speaks_wrongly(By::Unix, |location| location)
}

#[test]
fn fastcgi_to_a_port_of_http_is_the_wrong_protocol() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9100), 4)?;
    let nginx = Nginx::on(&namespace).location(Location::fastcgi("/tcp/", server.endpoint())).start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/tcp/")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(server.endpoint())?;
    verdict.says("rejected_response/wrong_protocol", "proven", 502, None)?;
    verdict.blames(Some(server.pid()), None, None)
}

#[test]
fn what_an_application_writes_to_stderr_is_a_note_each_and_no_failure() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/fpm/", &fpm)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    for _ in 0..3 {
        ensure!(nginx.client().get("/fpm/stderr.php")?.status == 200);
    }
    nginx.wait_for_accesses(3)?;
    let log = fs::read_to_string(nginx.error_log())?;
    let lines = log.lines().filter(|line| line.contains("FastCGI sent in stderr")).count();
    ensure!(lines >= 3 && log.contains("a secret of the application"), "{log}");
    let notes = |lines: &[String]| lines.iter().filter(|line| line.contains(r#""type":"note""#)).count();
    tracer.lines().wait("the notes", |seen| notes(seen) >= lines)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.verdicts.is_empty(), "{:#?}", account.verdicts);
    ensure!(account.others.len() == lines, "{lines} lines: {:#?}", account.others);
    for note in &account.others {
        ensure!(note["type"] == "note" && note["nginx"]["pid"] == nginx.workers()?[0], "{note}");
        ensure!(note["word"]["level"] == "error" && note["word"]["connection"].is_u64(), "{note}");
        ensure!(!note.to_string().contains("secret"), "{note}");
    }
    ensure!(account.summary["words"]["notes"] == lines, "{}", account.summary);
    ensure!(account.summary["words"]["said"] == 0, "{}", account.summary);
    Ok(())
}
