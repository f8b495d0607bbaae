//! Who is called the sender of a signal, where somebody wants another to be called so.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use rig::attacker::{Attacker, Walls};
use rig::process::{self, Pid};
use rig::reconcile::pair_off;
use rig::{Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Tracer, Verdict, wait};

/// Children of the attacker's: with all of the signals that each is sent, more than any table holds.
const CROWD: &str = "300";

/// A timer goes off in an interrupt, whoever runs meanwhile: the innocent was called the sender, proven.
#[test]
fn a_timers_signal_is_nobodys_whoever_runs_meanwhile() -> Result<()> {
    let namespace = Namespace::new()?;
    let timer = FaultyServer::start(&namespace, Fault::Timer, Endpoint::v4(9100), 4)?;
    let alarm = FaultyServer::start(&namespace, Fault::Alarm, Endpoint::v4(9101), 4)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/timer/", timer.endpoint()))
        .location(Location::http("/alarm/", alarm.endpoint()))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let innocent = Attacker::start(&namespace, Walls::None, "spin", &[])?;
    ensure!(nginx.client().get("/timer/")?.status == 502);
    ensure!(nginx.client().get("/alarm/")?.status == 502);
    tracer.wait_for(2)?;
    let pid = innocent.pid();
    innocent.finish()?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    for (server, signal, by) in [
        (&timer, "SIGTERM", "sent by a timer of its own"),
        (&alarm, "SIGALRM", "sent by an alarm of its own"),
    ] {
        let verdict = account.only(server.endpoint())?;
        verdict.says("premature_close/worker_killed", "proven", 502, None)?;
        verdict.blames(Some(server.pid()), Some(signal), None)?;
        ensure!(verdict.explanation.contains(by), "{verdict:#?}");
        names_not(verdict, pid)?;
    }
    Ok(())
}

fn names_not(verdict: &Verdict, pid: Pid) -> Result<()> {
    let text = format!("{verdict:?}");
    ensure!(!text.contains("attacker") && !text.contains(&format!("{pid} sent")), "{verdict:#?}");
    Ok(())
}

/// Sends SIGTERM under a code of the sender's choice.
fn send_forged(to: Pid, code: i32) -> Result<()> {
    // SAFETY: all zeroes are a siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    (info.si_signo, info.si_code) = (libc::SIGTERM, code);
    // SAFETY: the structure outlives the call.
    let sent = unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, to, libc::SIGTERM, &raw const info) };
    Errno::result(sent)?;
    Ok(())
}

#[test]
fn a_forged_code_does_not_hide_its_sender() -> Result<()> {
    let namespace = Namespace::new()?;
    let codes = [libc::SI_TIMER, libc::SI_QUEUE, -60];
    let servers: Vec<_> = (9100..)
        .zip(codes)
        .map(|(port, _)| FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(port), 4))
        .collect::<Result<_>>()?;
    let nginx = servers.iter().enumerate().fold(Nginx::on(&namespace), |nginx, (number, server)| {
        nginx.location(Location::http(&format!("/{number}/"), server.endpoint()))
    });
    let nginx = nginx.start()?;
    let tracer = Tracer::of(nginx.master())?;
    for (number, (server, code)) in servers.iter().zip(codes).enumerate() {
        let asked = nginx.client().ask(&format!("/{number}/"))?;
        server.wait_read(1)?;
        send_forged(server.pid(), code)?;
        ensure!(asked.answer()?.status == 502);
    }
    tracer.wait_for(servers.len())?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    for server in &servers {
        let verdict = account.only(server.endpoint())?;
        verdict.says("premature_close/worker_killed", "proven", 502, None)?;
        verdict.blames(Some(server.pid()), Some("SIGTERM"), Some(std::process::id().cast_signed()))?;
    }
    Ok(())
}

/// php-fpm's worker sends itself the SIGTERM that it is sent. A user's signals to his own children pushed the first sender out, and the
/// worker became its own killer, proven.
#[test]
fn a_flood_of_signals_does_not_make_a_worker_its_own_killer() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(2).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let mut attacker = Attacker::start(&namespace, Walls::None, "signals", &[CROWD])?;
    let asked = nginx.client().ask("/php/sleep.php?s=60&tag=flooded")?;
    let worker = fpm.worker_on("flooded")?;
    process::send(worker, Signal::SIGSTOP)?;
    wait::until_true("the worker to stop", || Ok(process::state(worker) == Some('T')))?;
    process::send(worker, Signal::SIGTERM)?;
    attacker.tell("flood")?;
    attacker.wait_for("flooded")?;
    process::send(worker, Signal::SIGCONT)?;
    ensure!(asked.answer()?.status == 502);
    tracer.wait_for(1)?;
    attacker.finish()?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(fpm.endpoint())?;
    verdict.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
    verdict.blames(Some(worker), Some("SIGTERM"), Some(std::process::id().cast_signed()))?;
    ensure!(!verdict.explanation.contains("itself"), "{verdict:#?}");
    Ok(())
}

/// A kernel that does not show accept shows no worker before it reads: what such a one is sent is kept beside what strangers are.
#[test]
fn who_kills_a_worker_that_never_read_is_named_amid_a_flood() -> Result<()> {
    let namespace = Namespace::new()?;
    let deaf = FaultyServer::start(&namespace, Fault::NeverRead, Endpoint::v4(9100), 4)?;
    let nginx = Nginx::on(&namespace).location(Location::http("/deaf/", deaf.endpoint())).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let mut attacker = Attacker::start(&namespace, Walls::None, "signals", &[CROWD])?;
    let asked = nginx.client().ask("/deaf/")?;
    deaf.wait_accepted(1)?;
    attacker.tell("flood")?;
    attacker.wait_for("flooded")?;
    process::send(deaf.pid(), Signal::SIGTERM)?;
    ensure!(asked.answer()?.status == 502);
    tracer.wait_for(1)?;
    attacker.finish()?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(deaf.endpoint())?;
    verdict.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
    verdict.blames(Some(deaf.pid()), Some("SIGTERM"), Some(std::process::id().cast_signed()))
}

#[test]
fn the_master_that_ends_a_request_is_named_during_a_flood() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(2).terminate_after(Duration::from_secs(2)).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let mut attacker = Attacker::start(&namespace, Walls::None, "signals", &[CROWD])?;
    let asked = nginx.client().ask("/php/sleep.php?s=60&tag=cut")?;
    let worker = fpm.worker_on("cut")?;
    attacker.tell("flood")?;
    attacker.wait_for("flooded")?;
    ensure!(asked.answer()?.status == 502);
    tracer.wait_for(1)?;
    attacker.finish()?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let verdict = account.only(fpm.endpoint())?;
    verdict.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
    verdict.blames(Some(worker), Some("SIGTERM"), Some(fpm.master()))
}
