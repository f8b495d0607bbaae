//! A worker that dies while a command that it had started holds its connection on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::process::{self, Pid};
use rig::reconcile::pair_off;
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, Tracer, wait};

/// The only child of a worker, once it sleeps and is no copy of the worker any more.
fn command_of(worker: Pid) -> Result<Pid> {
    wait::until("a command of the worker's", || {
        let children = process::children(worker)?;
        let [child] = children[..] else { return Ok(None) };
        let name = std::fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
        Ok((name == "sleep\n").then_some(child))
    })
}

#[test]
fn nginx_waits_in_vain_for_a_worker_that_was_killed_and_whose_command_has_its_connection() -> Result<()> {
    let namespace = Namespace::new()?;
    let sockets = [Endpoint::v4(9000), Endpoint::Unix(namespace.scratch().join("fpm.sock"))];
    for socket in sockets {
        let fpm =
            Fpm::on(&namespace).terminate_after(Duration::from_secs(1)).listen(socket.clone()).start()?;
        let location = Location::fpm("/php/", &fpm).read_timeout(Duration::from_secs(6));
        let nginx = Nginx::on(&namespace).location(location).start()?;
        let tracer = Tracer::of(nginx.master())?;
        let asked = nginx.client().ask("/php/exec.php?s=1000&tag=killed")?;
        let worker = fpm.worker_on("killed")?;
        let command = command_of(worker)?;
        wait::until_true("the worker's end", || Ok(process::state(worker).is_none()))?;
        ensure!(asked.answer()?.status == 504);
        tracer.wait_for(1)?;
        let account = tracer.stop()?;
        process::send(command, Signal::SIGKILL)?;
        account.is_orderly()?;
        pair_off(&nginx.failures(), &account.verdicts)?;
        let verdict = account.only(fpm.endpoint())?;
        verdict.says("read_timeout/worker_gone", "proven", 504, Some("ETIMEDOUT"))?;
        verdict.blames(Some(worker), Some("SIGTERM"), Some(fpm.master()))?;
        ensure!(
            verdict.explanation.contains(&format!("sleep {command} holds the connection now")),
            "{verdict:#?}"
        );
        let advice = verdict.advice.as_ref().context("an advice")?;
        ensure!(advice.contains("request_terminate_timeout") && advice.contains("inherits"), "{verdict:#?}");
    }
    Ok(())
}

#[test]
fn a_reset_that_comes_late_is_the_killers_all_the_same() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    for (tag, signal) in [("killed", Signal::SIGKILL), ("crashed", Signal::SIGSEGV)] {
        let asked = nginx.client().ask(&format!("/php/exec.php?s=1000&tag={tag}"))?;
        let worker = fpm.worker_on(tag)?;
        let command = command_of(worker)?;
        process::send(worker, signal)?;
        wait::until_true("the worker's end", || Ok(process::state(worker).is_none()))?;
        process::send(command, Signal::SIGTERM)?;
        ensure!(asked.answer()?.status == 502);
        let me = std::process::id().cast_signed();
        tracer.wait_for(if tag == "killed" { 1 } else { 2 })?;
        let name = format!("reset/worker_{tag}");
        let lines = tracer.lines().so_far();
        let line =
            lines.iter().rev().find(|line| line.contains(r#""type":"verdict""#)).context("a verdict")?;
        let verdict: rig::Verdict = serde_json::from_str(line)?;
        verdict.says(&name, "proven", 502, Some("ECONNRESET"))?;
        verdict.blames(Some(worker), Some(signal.as_str()), Some(me))?;
        ensure!(
            verdict.explanation.contains(&format!("sleep {command} had it, too, until that ended")),
            "{verdict:#?}"
        );
    }
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)
}
