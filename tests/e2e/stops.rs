//! php-fpm ends a worker at a timeout of its own, or because it was told to reload or to stop: told apart by who signalled its master.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use rig::reconcile::pair_off;
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, Tracer, Verdict};

fn advises(verdict: &Verdict, what: &str, not: &str) -> Result<()> {
    let advice = verdict.advice.as_deref().unwrap_or_default();
    ensure!(advice.contains(what) && !advice.contains(not), "{verdict:#?}");
    Ok(())
}

#[test]
fn a_timeout_a_reload_and_a_stop_of_php_fpm_are_told_apart() -> Result<()> {
    let namespace = Namespace::new()?;
    let listening = |port| Fpm::on(&namespace).listen(Endpoint::v4(port));
    let late = listening(9000).terminate_after(Duration::from_secs(1)).start()?;
    let reloaded = listening(9001).start()?;
    let mut stopped = listening(9002).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/late/", &late))
        .location(Location::fpm("/reloaded/", &reloaded))
        .location(Location::fpm("/stopped/", &stopped))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let ask = |name: &str| nginx.client().ask(&format!("/{name}/sleep.php?s=20&tag={name}"));
    let asked = [ask("late")?, ask("reloaded")?, ask("stopped")?];
    let workers = [late.worker_on("late")?, reloaded.worker_on("reloaded")?, stopped.worker_on("stopped")?];
    let masters = [late.master(), reloaded.master(), stopped.master()];
    reloaded.reload()?;
    stopped.stop(Signal::SIGTERM)?;
    for one in asked {
        ensure!(one.answer()?.status == 502);
    }
    tracer.wait_for(3)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let me = std::process::id();
    for ((fpm, worker), master) in [&late, &reloaded, &stopped].into_iter().zip(workers).zip(masters) {
        let verdict = account.only(fpm.endpoint())?;
        verdict.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
        // A master that stops follows its SIGTERM up with a SIGKILL at once: either may come first.
        ensure!((verdict.worker_pid(), verdict.killer_pid()) == (Some(worker), Some(master)), "{verdict:#?}");
    }
    let timeout = account.only(late.endpoint())?;
    advises(timeout, "request_terminate_timeout", "process_control_timeout")?;
    advises(timeout, "it is 1 s, and this request was cut off after 1.", ", or ")?;
    ensure!(!timeout.explanation.contains("had sent"), "{timeout:#?}");
    for (fpm, signal, does) in
        [(&reloaded, "SIGUSR2", "who reloads php-fpm"), (&stopped, "SIGTERM", "who stops php-fpm")]
    {
        let verdict = account.only(fpm.endpoint())?;
        advises(verdict, does, "request_terminate_timeout")?;
        let sender = format!("{me} had sent {signal} to php-fpm");
        ensure!(verdict.explanation.contains(&sender), "{sender:?} is not in {verdict:#?}");
    }
    Ok(())
}

#[test]
fn a_reload_that_gives_grace_is_the_reason_however_late_it_ends_a_request() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).control_timeout(Duration::from_secs(1)).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let asked = nginx.client().ask("/php/sleep.php?s=20&tag=graced")?;
    let worker = fpm.worker_on("graced")?;
    fpm.reload()?;
    ensure!(asked.answer()?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let verdict = account.only(fpm.endpoint())?;
    verdict.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
    verdict.blames(Some(worker), Some("SIGTERM"), Some(fpm.master()))?;
    advises(verdict, "who reloads php-fpm", "request_terminate_timeout")
}

#[test]
fn a_worker_that_has_served_pm_max_requests_fails_nobody() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).pool("pm.max_requests = 1").start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    for _ in 0..10 {
        ensure!(nginx.client().get("/php/ok.php")?.status == 200);
    }
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.verdicts.is_empty() && nginx.failures().is_empty(), "{:#?}", account.verdicts);
    Ok(())
}
