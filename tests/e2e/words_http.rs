//! What nginx says of upstreams that speak HTTP wrongly, or not at all, each with its verdict (issue 19).

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use rig::error_log::{Failure, Kind};
use rig::reconcile::pair_off_words;
use rig::{By, Endpoint, Fault, FaultyServer, FaultySite, Location, Namespace, Nginx, Tracer};

/// What the response to each of these is to nginx depends on its version: 1.22 takes no offence at most of them.
const OF_VERSIONS: [Fault; 4] =
    [Fault::BadLength, Fault::TwoLengths, Fault::LengthAndCoding, Fault::UnknownCoding];

fn name(fault: Fault, line: &Failure) -> &'static str {
    match fault {
        Fault::NoHttp | Fault::BadChunk => "rejected_response/wrong_protocol",
        Fault::BigHeader => "rejected_response/header_too_big",
        _ if line.kind == Kind::PrematureClose => "premature_close/response_cut_short",
        _ => "rejected_response/invalid_header",
    }
}

fn speaks_wrongly(by: By, arrange: fn(Location) -> Location) -> Result<()> {
    let faults = [
        Fault::CutLength,
        Fault::CutChunk,
        Fault::NoHttp,
        Fault::BadHeader,
        Fault::BadChunk,
        Fault::BigHeader,
        Fault::Answer,
    ];
    let namespace = Namespace::new()?;
    let site = FaultySite::start(&namespace, by, faults.into_iter().chain(OF_VERSIONS), arrange)?;
    let account = site.is_explained(name)?;
    for (fault, least) in [(Fault::CutLength, 4_000), (Fault::CutChunk, 100)] {
        let verdict = site.verdict(&account, fault)?;
        let received = verdict.bytes.as_ref().and_then(|bytes| bytes.received).context("bytes received")?;
        ensure!((least..least + 200).contains(&received), "{verdict:#?}");
        ensure!(verdict.explanation.contains(&received.to_string()), "{verdict:#?}");
    }
    let causes: BTreeSet<&str> = account.verdicts.iter().map(|verdict| verdict.cause.as_str()).collect();
    ensure!(causes == ["premature_close", "rejected_response"].into(), "{causes:?}");
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
fn a_file_that_nginx_may_not_write_is_its_own_trouble() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9100), 4)?;
    let nginx = Nginx::on(&namespace)
        .user("nobody nogroup")
        .location(server.location().directive("proxy_store /nowhere"))
        .start()?;
    let temporary = nginx.error_log().with_file_name("proxy");
    std::os::unix::fs::chown(&temporary, Some(0), Some(0))?;
    let tracer = Tracer::of(nginx.master())?;
    let _ = nginx.client().get("/answer/");
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let failures = nginx.failures();
    pair_off_words(&failures, &account.verdicts)?;
    let verdict = account.only(server.endpoint())?;
    ensure!((verdict.name().as_str(), verdict.confidence.as_str()) == ("local_error/temp_file", "proven"));
    ensure!(verdict.errno.as_deref() == Some("EACCES"), "{verdict:#?}");
    verdict.blames(Some(server.pid()), None, None)
}

#[test]
fn a_client_that_goes_as_the_answer_comes_is_no_failure_of_the_upstream() -> Result<()> {
    let namespace = Namespace::new()?;
    for (goes_first, port) in [(true, 9100), (false, 9101)] {
        let mut server = FaultyServer::start(&namespace, Fault::AnswerWhenTold, Endpoint::v4(port), 4)?;
        let silent = server.location().directive("error_log /dev/null");
        let nobody = Location::http("/nobody/", &Endpoint::v4(9109));
        let nginx = Nginx::on(&namespace).location(silent).location(nobody).start()?;
        let tracer = Tracer::of(nginx.master())?;
        let asked = nginx.client().ask("/answer-when-told/")?;
        server.wait_read(1)?;
        // Both have come before nginx looks, and it looks in this order.
        let stopped = nginx.freeze()?;
        if goes_first {
            asked.abort()?;
            server.answer()?;
        } else {
            server.answer()?;
            asked.abort()?;
        }
        drop(stopped);
        nginx.wait_for_accesses(1)?;
        // What is refused after it is emitted after it.
        nginx.client().get("/nobody/")?;
        tracer.wait_for(1 + usize::from(goes_first))?;
        let account = tracer.stop()?;
        account.is_orderly()?;
        account.only(&Endpoint::v4(9109))?.says(
            "refused/no_listener",
            "proven",
            502,
            Some("ECONNREFUSED"),
        )?;
        if goes_first {
            account.only(server.endpoint())?.says("client_abort/before_response", "proven", 499, None)?;
        } else {
            ensure!(account.about(server.endpoint()).is_empty(), "{:#?}", account.verdicts);
        }
    }
    Ok(())
}
