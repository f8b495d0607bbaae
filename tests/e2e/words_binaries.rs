//! Whichever binary nginx is, and however why502 comes and goes: each is heard, and none is left otherwise than it was (issue 19).

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use rig::error_log::{Failure, Kind};
use rig::nginx::Program;
use rig::process::{self, Pid};
use rig::reconcile::pair_off_words;
use rig::{By, Endpoint, Fault, FaultyServer, FaultySite, Namespace, Nginx, Tracer, function, wait};

/// What nginx calls for each line that it logs.
const LOGS: &str = "ngx_log_error_core";

/// Every fault whose response nginx, of any version, takes offence at or not.
const FAULTS: [Fault; 11] = [
    Fault::CutLength,
    Fault::CutChunk,
    Fault::NoHttp,
    Fault::BadHeader,
    Fault::BadChunk,
    Fault::BigHeader,
    Fault::BadLength,
    Fault::TwoLengths,
    Fault::LengthAndCoding,
    Fault::UnknownCoding,
    Fault::Answer,
];

fn name(fault: Fault, line: &Failure) -> &'static str {
    match fault {
        Fault::NoHttp | Fault::BadChunk => "rejected_response/wrong_protocol",
        Fault::BigHeader => "rejected_response/header_too_big",
        _ if line.kind == Kind::PrematureClose => "premature_close/response_cut_short",
        _ => "rejected_response/invalid_header",
    }
}

fn nginx_of(namespace: &Namespace, program: Program) -> rig::nginx::Builder {
    Nginx::on(namespace).program(program)
}

#[test]
#[ignore = "needs the newest nginx, which cargo xtask setup fetches; cargo xtask test runs it"]
fn the_newest_nginx_is_heard() -> Result<()> {
    ensure!(Program::has_newest(), "there is no newest nginx: cargo xtask setup fetches it");
    let namespace = Namespace::new()?;
    let nginx = nginx_of(&namespace, Program::Newest);
    let site = FaultySite::on(&namespace, nginx, By::Tcp, FAULTS, |location| location)?;
    let account = site.is_explained(name)?;
    // It refuses what the older ones let pass.
    ensure!(account.verdicts.len() == FAULTS.len() - 1, "{:#?}", site.nginx().failures());
    Ok(())
}

#[test]
fn an_nginx_that_only_another_mount_namespace_has_is_heard() -> Result<()> {
    let namespace = Namespace::new()?;
    let nginx = nginx_of(&namespace, Program::Hidden);
    let site =
        FaultySite::on(&namespace, nginx, By::Tcp, [Fault::CutLength, Fault::BadHeader], |location| {
            location
        })?;
    let program = fs::read_link(format!("/proc/{}/exe", site.nginx().master()))?;
    ensure!(!program.exists(), "{} can be seen from here", program.display());
    site.is_explained(name)?;
    Ok(())
}

#[test]
fn two_binaries_at_once_are_told_apart() -> Result<()> {
    let namespace = Namespace::new()?;
    let other = if Program::has_newest() { Program::Newest } else { Program::Hidden };
    let cuts = |port| FaultyServer::start(&namespace, Fault::CutLength, Endpoint::v4(port), 64);
    let (first, second) = (cuts(9101)?, cuts(9102)?);
    let one = Nginx::on(&namespace).location(first.location()).start()?;
    let two = nginx_of(&namespace, other).port(8081).location(second.location()).start()?;
    ensure!(function::text(one.master(), LOGS).is_ok() && function::text(two.master(), LOGS).is_ok());
    let tracer = Tracer::start(&["-u", "127.0.0.1:9101", "-u", "127.0.0.1:9102"])?;
    for _ in 0..20 {
        for nginx in [&one, &two] {
            ensure!(nginx.client().get("/cut-length/")?.status == 200);
        }
    }
    tracer.wait_for(40)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&[one.failures(), two.failures()].concat(), &account.verdicts)?;
    for (nginx, server) in [(&one, &first), (&two, &second)] {
        for verdict in account.about(server.endpoint()) {
            ensure!(
                verdict.name() == "premature_close/response_cut_short" && verdict.confidence == "proven",
                "{verdict:#?}"
            );
            ensure!([verdict.nginx.pid] == nginx.workers()?[..], "{verdict:#?}");
        }
    }
    Ok(())
}

#[test]
fn a_binary_that_nginx_is_upgraded_to_is_heard() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::CutLength, Endpoint::v4(9100), 64)?;
    let program = namespace.folder("program")?.join("nginx");
    let installed = process::find_program(&["nginx"])?;
    fs::copy(&installed, &program)?;
    let nginx =
        nginx_of(&namespace, Program::File(program.clone())).daemon().location(server.location()).start()?;
    let tracer = Tracer::start(&["-u", "127.0.0.1:9100", "-v"])?;
    ensure!(nginx.client().get("/cut-length/")?.status == 200);
    // As a package's upgrade does it: the old file stays what it is to those who run it.
    let next = program.with_extension("new");
    fs::copy(&installed, &next)?;
    fs::rename(&next, &program)?;
    let master = nginx.upgrade()?;
    // The kernel takes its time to put a breakpoint into a file.
    let heard = format!("what nginx {master} says of its upstreams is heard");
    wait::until_true("the new binary to be heard", || Ok(tracer.complaints().contains(&heard)))?;
    ensure!(nginx.client().get("/cut-length/")?.status == 200);
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    let pids: Vec<Pid> = account.verdicts.iter().map(|verdict| verdict.nginx.pid).collect();
    ensure!(process::children(master)?.contains(&pids[1]) && pids[0] != pids[1], "{pids:?}");
    ensure!(account.verdicts.iter().all(|verdict| verdict.confidence == "proven"), "{:#?}", account.verdicts);
    Ok(())
}

#[test]
fn nothing_is_left_in_nginx_however_the_tracer_ends() -> Result<()> {
    let namespace = Namespace::new()?;
    let faults = [Fault::CutLength, Fault::BadHeader, Fault::Answer];
    let nginx = Nginx::on(&namespace).workers(2);
    let site = FaultySite::on(&namespace, nginx, By::Tcp, faults, |location| location)?;
    let nginx = site.nginx();
    let texts =
        || nginx.workers()?.into_iter().map(|pid| function::text(pid, LOGS)).collect::<Result<Vec<_>>>();
    let before = texts()?;
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGKILL] {
        let tracer = Tracer::of(nginx.master())?;
        // A worker's page has the breakpoint from the start, or from its first use on.
        ask(nginx)?;
        ensure!(texts()?.iter().zip(&before).all(|(now, before)| now != before), "no breakpoint is seen");
        tracer.signal(signal)?;
        tracer.end()?;
        wait::until_true("the text as it was", || Ok(texts()? == before))
            .with_context(|| format!("after {signal}"))?;
        let logged = nginx.failures().len();
        ask(nginx)?;
        nginx.wait_for_failures(logged + 2)?;
    }
    Ok(())
}

/// One success, and two failures that nginx logs.
fn ask(nginx: &Nginx) -> Result<()> {
    for (path, status) in [("answer", 200), ("cut-length", 200), ("bad-header", 502)] {
        let answer = nginx.client().get(&format!("/{path}/"))?;
        ensure!(answer.status == status, "{path}: {}", answer.status);
    }
    Ok(())
}

#[test]
fn attaching_and_detaching_under_load_breaks_nothing() -> Result<()> {
    let namespace = Namespace::new()?;
    let faults = [Fault::BadHeader, Fault::Answer];
    let nginx = Nginx::on(&namespace).workers(2);
    let site = FaultySite::on(&namespace, nginx, By::Tcp, faults, |location| location)?;
    let nginx = site.nginx();
    let before = nginx.workers()?;
    let (client, is_over) = (nginx.client(), AtomicBool::new(false));
    let load = |path: &str, status: u16| -> Result<usize> {
        let mut asked = 0;
        while !is_over.load(Ordering::Relaxed) {
            ensure!(client.storm(path, 20, 2)? == [(status, 20)].into(), "{path} is answered otherwise");
            asked += 20;
        }
        Ok(asked)
    };
    let (answered, refused) = thread::scope(|scope| -> Result<_> {
        let good = scope.spawn(|| load("/answer/", 200));
        let bad = scope.spawn(|| load("/bad-header/", 502));
        let cycles = || -> Result<()> {
            for signal in [Signal::SIGINT, Signal::SIGKILL, Signal::SIGTERM, Signal::SIGKILL] {
                let tracer = Tracer::of(nginx.master())?;
                tracer.wait_for(20)?;
                tracer.signal(signal)?;
                tracer.end()?;
            }
            Ok(())
        };
        let cycled = cycles();
        is_over.store(true, Ordering::Relaxed);
        let ended = |load: thread::ScopedJoinHandle<'_, Result<usize>>| {
            load.join().map_err(|_| anyhow!("a thread panicked"))?
        };
        let counts = (ended(good)?, ended(bad)?);
        cycled?;
        Ok(counts)
    })?;
    let failures = nginx.wait_for_failures(refused)?;
    ensure!(failures.len() == refused && answered > 0, "{} of {refused}", failures.len());
    // None of them died of it.
    ensure!(nginx.workers()? == before);
    Ok(())
}

#[test]
fn without_uprobes_nginx_is_left_alone_and_nothing_wrong_is_sure() -> Result<()> {
    let namespace = Namespace::new()?;
    let site = FaultySite::start(&namespace, By::Tcp, FAULTS, |location| location)?;
    let worker = site.nginx().workers()?[0];
    let before = function::text(worker, LOGS)?;
    let tracer = Tracer::start(&["-p", &site.nginx().master().to_string(), "--no-uprobe"])?;
    let said = site.ask_each()?;
    ensure!(function::text(worker, LOGS)? == before);
    let account = tracer.stop()?;
    account.is_orderly()?;
    for (fault, lines) in said {
        for verdict in account.about(site.server(fault)?.endpoint()) {
            let named = verdict.name();
            // What it refused of a header, only it knows.
            let is_header = matches!(fault, Fault::BigHeader | Fault::BadHeader);
            let is_right = lines.first().is_some_and(|line| name(fault, line) == named)
                || is_header && named == "rejected_response/header_too_big_or_invalid";
            ensure!(is_right || verdict.confidence != "proven", "{fault}: {verdict:#?}");
            ensure!(verdict.word.as_ref().is_none_or(|_| is_right), "{fault}: {verdict:#?}");
        }
    }
    Ok(())
}

/// Whatever nginx says before the kernel has a breakpoint in its binary is missed: an exchange of that time is judged by what the kernel
/// saw, and says so.
fn is_inferred_until_heard(begin: impl FnOnce(&Nginx) -> Result<()>, is_begun_first: bool) -> Result<()> {
    let namespace = Namespace::new()?;
    let servers = [(Fault::Mute, 9100), (Fault::CutLength, 9101), (Fault::Answer, 9102)];
    let servers = servers
        .into_iter()
        .map(|(fault, port)| FaultyServer::start(&namespace, fault, Endpoint::v4(port), 64))
        .collect::<Result<Vec<_>>>()?;
    let program = namespace.folder("program")?.join("nginx");
    let installed = process::find_program(&["nginx"])?;
    fs::copy(&installed, &program)?;
    let build = || {
        let nginx = nginx_of(&namespace, Program::File(program.clone())).daemon();
        let slow = Duration::from_millis(500);
        servers.iter().fold(nginx, |nginx, server| nginx.location(server.location().read_timeout(slow)))
    };
    let first = if is_begun_first { Some(build().start()?) } else { None };
    let tracer = Tracer::start(&["-u", ":9100", "-u", ":9101", "-u", ":9102", "-v"])?;
    let next = program.with_extension("new");
    fs::copy(&installed, &next)?;
    fs::rename(&next, &program)?;
    // It comes to nothing while the new binary begins, and fails.
    tracer.signal(Signal::SIGSTOP)?;
    let nginx = match first {
        Some(nginx) => nginx,
        None => build().start()?,
    };
    begin(&nginx)?;
    let ask = || -> Result<()> {
        for (path, status) in [("mute", 504), ("cut-length", 200), ("answer", 200)] {
            ensure!(nginx.client().get(&format!("/{path}/"))?.status == status, "{path}");
        }
        Ok(())
    };
    ask()?;
    ensure!(nginx.failures().len() == 2, "{:#?}", nginx.failures());
    tracer.signal(Signal::SIGCONT)?;
    tracer.wait_for(1)?;
    wait::until_true("the new binary to be heard", || {
        Ok(tracer.complaints().contains("is heard from now on"))
    })?;
    ask()?;
    tracer.wait_for(3)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let emitted: Vec<_> = account
        .verdicts
        .iter()
        .map(|verdict| (verdict.name(), verdict.confidence.as_str(), verdict.word.is_some()))
        .collect();
    let (slow, cut) = ("read_timeout/slow_worker", "premature_close/response_cut_short");
    let right = [(slow, "inferred", false), (slow, "proven", true), (cut, "proven", true)];
    ensure!(
        emitted == right.map(|(name, sure, heard)| (name.to_owned(), sure, heard)),
        "{:#?}",
        account.verdicts
    );
    pair_off_words(&nginx.failures()[2..], &account.verdicts[1..])
}

#[test]
fn what_fails_before_a_new_nginx_is_heard_is_inferred() -> Result<()> {
    is_inferred_until_heard(|_| Ok(()), false)
}

#[test]
fn what_fails_before_an_upgraded_nginx_is_heard_is_inferred() -> Result<()> {
    is_inferred_until_heard(|nginx| nginx.upgrade().map(drop), true)
}
