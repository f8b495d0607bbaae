//! How workers end, told apart: by whose signal, by a crash, for want of memory, by an exit; and who else closes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::memory::MemoryLimit;
use rig::reconcile::pair_off;
use rig::{Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Sight, Tracer, process};

#[test]
fn a_crash_is_a_crash_whoever_sent_the_signal() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let me = std::process::id().cast_signed();
    let mut expected = Vec::new();
    for signal in [Signal::SIGSEGV, Signal::SIGABRT, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE] {
        let tag = format!("own-{signal}");
        let path = format!("/php/die.php?signal={}&tag={tag}", signal as i32);
        ensure!(nginx.client().get(&path)?.status == 502);
        let worker = fpm.worker_on(&tag)?;
        expected.push((signal, worker, worker));
    }
    for signal in [Signal::SIGSEGV, Signal::SIGABRT] {
        let tag = format!("by-me-{signal}");
        let asked = nginx.client().ask(&format!("/php/sleep.php?s=20&tag={tag}"))?;
        let worker = fpm.worker_on(&tag)?;
        process::send(worker, signal)?;
        ensure!(asked.answer()?.status == 502);
        expected.push((signal, worker, me));
    }
    tracer.wait_for(expected.len())?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    for (verdict, (signal, worker, sender)) in account.verdicts.iter().zip(expected) {
        verdict.says("reset/worker_crashed", "proven", 502, Some("ECONNRESET"))?;
        verdict.blames(Some(worker), Some(signal.as_str()), Some(sender))?;
        let names_me = verdict.explanation.contains(&me.to_string());
        ensure!(names_me == (sender == me), "{verdict:#?}");
    }
    Ok(())
}

#[test]
fn a_worker_that_runs_out_of_memory_is_oom_killed() -> Result<()> {
    let namespace = Namespace::new()?;
    let limit = MemoryLimit::new(48 << 20)?;
    let fpm = Fpm::on(&namespace).workers(1).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let worker = fpm.workers()?[0];
    limit.hold(worker)?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/php/hoard.php")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(fpm.endpoint())?;
    verdict.says("reset/worker_oom_killed", "proven", 502, Some("ECONNRESET"))?;
    verdict.blames(Some(worker), Some("SIGKILL"), None)
}

#[test]
fn a_worker_that_read_everything_ends_in_a_premature_close() -> Result<()> {
    let namespace = Namespace::new()?;
    let start = |fault, port| FaultyServer::start(&namespace, fault, Endpoint::v4(port), 4);
    let exits = start(Fault::Exit, 9100)?;
    let closes = start(Fault::CloseUnanswered, 9101)?;
    let killed = start(Fault::Mute, 9102)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/exits/", exits.endpoint()))
        .location(Location::http("/closes/", closes.endpoint()))
        .location(Location::http("/killed/", killed.endpoint()))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/exits/")?.status == 502);
    ensure!(nginx.client().get("/closes/")?.status == 502);
    let asked = nginx.client().ask("/killed/")?;
    killed.wait_read(1)?;
    process::send(killed.pid(), Signal::SIGTERM)?;
    ensure!(asked.answer()?.status == 502);
    tracer.wait_for(3)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(exits.endpoint())?;
    verdict.says("premature_close/worker_exited", "proven", 502, None)?;
    verdict.blames(Some(exits.pid()), None, None)?;
    let verdict = account.only(closes.endpoint())?;
    verdict.says("premature_close/peer_closed", "proven", 502, None)?;
    verdict.blames(Some(closes.pid()), None, None)?;
    let verdict = account.only(killed.endpoint())?;
    verdict.says("premature_close/worker_killed", "proven", 502, None)?;
    verdict.blames(Some(killed.pid()), Some("SIGTERM"), Some(std::process::id().cast_signed()))
}

#[test]
fn an_exit_or_a_close_with_bytes_unread_is_a_reset() -> Result<()> {
    let namespace = Namespace::new()?;
    let exits = FaultyServer::start(&namespace, Fault::ExitUnread, Endpoint::v4(9100), 4)?;
    let closes = FaultyServer::start(&namespace, Fault::CloseUnread, Endpoint::v6(9101), 4)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/exits/", exits.endpoint()))
        .location(Location::http("/closes/", closes.endpoint()))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/exits/")?.status == 502);
    ensure!(nginx.client().get("/closes/")?.status == 502);
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(exits.endpoint())?;
    // Without accepts, what it was sent before it read anything is not kept.
    let confidence = if Sight::here()?.has("accepts")? { "proven" } else { "inferred" };
    verdict.says("reset/worker_exited", confidence, 502, Some("ECONNRESET"))?;
    verdict.blames(Some(exits.pid()), None, None)?;
    let verdict = account.only(closes.endpoint())?;
    verdict.says("reset/peer_aborted", "proven", 502, Some("ECONNRESET"))?;
    verdict.blames(Some(closes.pid()), None, None)
}

#[test]
fn a_reset_in_the_middle_of_a_response_is_reported_though_the_client_saw_200() -> Result<()> {
    let namespace = Namespace::new()?;
    let resets = FaultyServer::start(&namespace, Fault::ResetMidway, Endpoint::v4(9100), 4)?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/resets/", resets.endpoint()))
        .location(Location::fpm("/php/", &fpm))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/resets/")?.status == 200);
    let asked = nginx.client().ask("/php/slow_body.php?s=20&tag=victim")?;
    let worker = fpm.worker_on("victim")?;
    asked.wait_for(5_000)?;
    process::send(worker, Signal::SIGKILL)?;
    ensure!(asked.answer()?.status == 200);
    tracer.wait_for(2)?;
    let failures = nginx.wait_for_failures(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&failures, &account.verdicts)?;
    let verdict = account.only(resets.endpoint())?;
    ensure!(verdict.name() == "reset/peer_aborted", "{verdict:#?}");
    let verdict = account.only(fpm.endpoint())?;
    ensure!(verdict.name() == "reset/worker_killed", "{verdict:#?}");
    verdict.blames(Some(worker), Some("SIGKILL"), Some(std::process::id().cast_signed()))
}

#[test]
fn whole_answers_before_an_exit_or_a_reset_are_no_failures() -> Result<()> {
    let namespace = Namespace::new()?;
    let exits = FaultyServer::start(&namespace, Fault::AnswerAndExit, Endpoint::v4(9100), 4)?;
    let resets = FaultyServer::start(&namespace, Fault::AnswerAndReset, Endpoint::v4(9101), 4)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/exits/", exits.endpoint()))
        .location(Location::http("/resets/", resets.endpoint()))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/exits/")?.status == 200);
    let statuses = nginx.client().storm("/resets/", 100, 2)?;
    nginx.wait_for_accesses(101)?;
    let failures = nginx.failures();
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&failures, &account.verdicts).context(format!("{statuses:?}"))?;
    // How many of them nginx read before the reset came is chance; those it did are well.
    ensure!(account.about(exits.endpoint()).is_empty(), "{:#?}", account.verdicts);
    Ok(())
}

#[test]
fn what_a_restart_cuts_off_is_killed_or_was_still_queued() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut fpm = Fpm::on(&namespace).workers(1).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let served = nginx.client().ask("/php/sleep.php?s=20&tag=served")?;
    let worker = fpm.worker_on("served")?;
    let queued = nginx.client().ask("/php/ok.php")?;
    namespace.wait_for_queue(fpm.endpoint(), 1)?;
    let master = fpm.master();
    fpm.stop(Signal::SIGTERM)?;
    ensure!(served.answer()?.status == 502 && queued.answer()?.status == 502);
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let of = |name: &str| account.verdicts.iter().find(|v| v.name() == name).context(name.to_owned());
    let killed = of("reset/worker_killed")?;
    // The master follows its SIGTERM up with a SIGKILL at once: either may come first.
    ensure!((killed.worker_pid(), killed.killer_pid()) == (Some(worker), Some(master)), "{killed:#?}");
    let closed = of("reset/listener_closed")?;
    closed.says("reset/listener_closed", "proven", 502, Some("ECONNRESET"))?;
    closed.blames(None, None, None)?;
    ensure!(closed.us.ended.is_some_and(|us| us < Duration::from_secs(20).as_micros() as u64));
    Ok(())
}
