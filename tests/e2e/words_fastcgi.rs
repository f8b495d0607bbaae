//! What nginx says of upstreams that speak FastCGI wrongly, or not at all, each with its verdict (issue 19).

use std::collections::BTreeMap;
use std::fs;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
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
        ensure!(note["upstream"]["addr"] == fpm.endpoint().to_string(), "{note}");
        ensure!(!note.to_string().contains("secret"), "{note}");
    }
    ensure!(account.summary["words"]["notes"] == lines, "{}", account.summary);
    ensure!(account.summary["words"]["said"] == 0, "{}", account.summary);
    Ok(())
}

#[test]
fn each_note_names_the_upstream_it_was_read_from_and_is_emitted_where_that_was_asked_for() -> Result<()> {
    let namespace = Namespace::new()?;
    let pools = [
        Fpm::on(&namespace).listen(Endpoint::v4(9001)).workers(4).start()?,
        Fpm::on(&namespace).listen(Endpoint::v6(9002)).workers(4).start()?,
        Fpm::on(&namespace)
            .listen(Endpoint::Unix(namespace.scratch().join("noted.sock")))
            .workers(4)
            .start()?,
    ];
    let mut nginx = Nginx::on(&namespace);
    for (number, pool) in pools.iter().enumerate() {
        nginx = nginx.location(Location::fpm(&format!("/{number}/"), pool));
    }
    let nginx = nginx.start()?;
    let ask = |count: usize| -> Result<()> {
        thread::scope(|scope| {
            let asked: Vec<_> = (0..pools.len())
                .map(|number| {
                    let client = nginx.client();
                    scope.spawn(move || {
                        (0..count).try_for_each(|_| {
                            let answer = client.get(&format!("/{number}/stderr.php"))?;
                            ensure!(answer.status == 200, "{}", answer.status);
                            Ok(())
                        })
                    })
                })
                .collect();
            asked.into_iter().try_for_each(|asked| asked.join().map_err(|_| anyhow!("a thread panicked"))?)
        })
    };
    let logged = || -> Result<BTreeMap<String, usize>> {
        let log = fs::read_to_string(nginx.error_log())?;
        let mut by_upstream = BTreeMap::new();
        for line in log.lines().filter(|line| line.contains("FastCGI sent in stderr")) {
            let (_, named) = line.split_once("upstream: \"fastcgi://").context("no upstream")?;
            let named = named.split_once('"').context("no end of it")?.0;
            let named = named.trim_start_matches("unix:").trim_end_matches(':');
            *by_upstream.entry(named.to_owned()).or_default() += 1;
        }
        Ok(by_upstream)
    };
    // Each is reported of its own upstream, of none where nginx was not seen to read it, and never of another.
    let is_counted = |tracer: Tracer, wanted: &BTreeMap<String, usize>, all: usize| -> Result<()> {
        let account = tracer.stop()?;
        account.is_orderly()?;
        ensure!(account.verdicts.is_empty(), "{:#?}", account.verdicts);
        let mut counted = BTreeMap::<&str, usize>::new();
        for note in &account.others {
            *counted.entry(note["upstream"]["addr"].as_str().unwrap_or("nobody")).or_default() += 1;
        }
        for (upstream, count) in counted.iter().filter(|(upstream, _)| **upstream != "nobody") {
            ensure!(wanted.get(*upstream).is_some_and(|right| count <= right), "{counted:#?} of {wanted:#?}");
        }
        ensure!(counted.len() >= wanted.len(), "{counted:#?} of {wanted:#?}");
        let left_out = account.summary["words"]["left_out"].as_u64().context("no count")?;
        ensure!(
            account.others.len() as u64 + left_out == all as u64,
            "{counted:#?} of {all}, {left_out} left out"
        );
        Ok(())
    };

    let unix = pools[2].endpoint().to_string();
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "--connect-errors"])?;
    ask(30)?;
    nginx.wait_for_accesses(90)?;
    let all = logged()?;
    ensure!(all.len() == 3 && all.contains_key(&unix), "{all:#?}");
    is_counted(tracer, &all, all.values().sum())?;

    let tracer = Tracer::start(&[
        "-p",
        &nginx.master().to_string(),
        "-u",
        "127.0.0.1:9001",
        "-u",
        &format!("unix:{unix}"),
    ])?;
    ask(30)?;
    nginx.wait_for_accesses(180)?;
    let mut wanted = logged()?;
    for (upstream, count) in &mut wanted {
        *count -= all[upstream];
    }
    let new = wanted.values().sum();
    wanted.retain(|upstream, _| !upstream.starts_with('['));
    is_counted(tracer, &wanted, new)
}
