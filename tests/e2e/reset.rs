//! `reset`: the connection was reset, and by whose doing.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use rig::reconcile::pair_off;
use rig::{Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Tracer, process, wait};

#[test]
fn request_terminate_timeout_is_a_kill_by_php_fpms_master() -> Result<()> {
    let namespace = Namespace::new()?;
    let four = Fpm::on(&namespace).terminate_after(Duration::from_secs(1)).start()?;
    let six =
        Fpm::on(&namespace).listen(Endpoint::v6(9000)).terminate_after(Duration::from_secs(1)).start()?;
    let nginx = Nginx::on(&namespace)
        .workers(2)
        .location(Location::fpm("/four/", &four))
        .location(Location::fpm("/six/", &six))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    let asked = [client.ask("/four/sleep.php?s=20&tag=cut")?, client.ask("/six/spin.php?s=20&tag=cut")?];
    let workers = [four.worker_on("cut")?, six.worker_on("cut")?];
    for one in asked {
        ensure!(one.answer()?.status == 502);
    }
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    for (fpm, worker) in [&four, &six].into_iter().zip(workers) {
        let verdict = account.only(fpm.endpoint())?;
        verdict.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
        verdict.blames(Some(worker), Some("SIGTERM"), Some(fpm.master()))?;
        ensure!(verdict.us.accepted.is_some() && verdict.us.worker_ended.is_some(), "{verdict:#?}");
        ensure!(verdict.bytes.as_ref().is_some_and(|bytes| bytes.received == Some(0)), "{verdict:#?}");
        ensure!(
            verdict.advice.as_ref().is_some_and(|a| a.contains("request_terminate_timeout")),
            "{verdict:#?}"
        );
    }
    Ok(())
}

#[test]
fn a_kill_from_outside_names_the_killer() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let mut expected = Vec::new();

    let asked = nginx.client().ask("/php/sleep.php?s=20&tag=by-the-test")?;
    let worker = fpm.worker_on("by-the-test")?;
    process::send(worker, Signal::SIGKILL)?;
    ensure!(asked.answer()?.status == 502);
    expected.push((worker, "SIGKILL", std::process::id().cast_signed()));

    // php-fpm's workers answer SIGTERM by raising it once more at themselves: the first sender is the killer.
    let asked = nginx.client().ask("/php/sleep.php?s=20&tag=by-a-shell")?;
    let worker = fpm.worker_on("by-a-shell")?;
    let mut shell = process::command("/bin/sh");
    shell.args(["-c", &format!("kill -TERM {worker}")]);
    let mut shell = process::Process::start(shell)?;
    ensure!(shell.wait()?.success());
    ensure!(asked.answer()?.status == 502);
    expected.push((worker, "SIGTERM", shell.pid()));

    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    for (verdict, (worker, signal, killer)) in account.verdicts.iter().zip(expected) {
        verdict.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
        verdict.blames(Some(worker), Some(signal), Some(killer))?;
        let named = verdict.worker.as_ref().and_then(|worker| worker.comm.clone()).unwrap_or_default();
        ensure!(named.starts_with("php-fpm"), "{verdict:#?}");
    }
    Ok(())
}

#[test]
fn a_worker_that_does_it_to_itself_is_no_victim_of_others() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let mut workers = Vec::new();
    for (tag, signal) in [("crash", Signal::SIGSEGV), ("kill", Signal::SIGKILL)] {
        let path = format!("/php/die.php?signal={}&tag={tag}", signal as i32);
        ensure!(nginx.client().get(&path)?.status == 502);
        workers.push(fpm.worker_on(tag)?);
    }
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let [crash, kill] = account.verdicts.as_slice() else { anyhow::bail!("{:#?}", account.verdicts) };
    crash.says("reset/worker_crashed", "proven", 502, Some("ECONNRESET"))?;
    ensure!((crash.worker_pid(), crash.signal()) == (Some(workers[0]), Some("SIGSEGV")), "{crash:#?}");
    kill.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
    kill.blames(Some(workers[1]), Some("SIGKILL"), Some(workers[1]))
}

#[test]
fn who_killed_the_last_bearer_of_a_pid_has_not_killed_the_next() -> Result<()> {
    const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
    if !Path::new(LAST_PID).exists() {
        eprintln!("not tested: this kernel lets nobody choose a pid (CONFIG_CHECKPOINT_RESTORE)");
        return Ok(());
    }
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(1).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let mut command = process::command(process::find_program(&["sleep"])?);
    command.arg("1000");
    let mut first = process::Process::start(command)?;
    let pid = first.pid();
    first.signal(Signal::SIGKILL)?;
    first.wait()?;
    wait::until_true("a worker with that pid", || {
        let workers = fpm.workers()?;
        let [worker] = workers[..] else { return Ok(false) };
        if worker != pid {
            std::fs::write(LAST_PID, (pid - 1).to_string())?;
            process::send(worker, Signal::SIGKILL)?;
            wait::until_true("another worker", || Ok(fpm.workers()?.iter().any(|one| *one != worker)))?;
        }
        Ok(worker == pid)
    })?;
    ensure!(nginx.client().get("/php/die.php?signal=9&tag=again")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let verdict = account.only(fpm.endpoint())?;
    verdict.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
    verdict.blames(Some(pid), Some("SIGKILL"), Some(pid))
}

#[test]
fn a_living_process_that_resets_is_not_taken_for_a_dead_one() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut queued = FaultyServer::start(&namespace, Fault::NeverAccept, Endpoint::v4(9100), 4)?;
    let aborter = FaultyServer::start(&namespace, Fault::Reset, Endpoint::v6(9101), 4)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/queued/", queued.endpoint()))
        .location(Location::http("/reset/", aborter.endpoint()))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/reset/")?.status == 502);
    let asked = nginx.client().ask("/queued/")?;
    namespace.wait_for_queue(queued.endpoint(), 1)?;
    queued.close_listener()?;
    ensure!(asked.answer()?.status == 502);
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(queued.endpoint())?;
    verdict.says("reset/listener_closed", "proven", 502, Some("ECONNRESET"))?;
    ensure!(verdict.signal().is_none() && verdict.killer.is_none(), "{verdict:#?}");
    let verdict = account.only(aborter.endpoint())?;
    verdict.says("reset/peer_aborted", "proven", 502, Some("ECONNRESET"))?;
    verdict.blames(Some(aborter.pid()), None, None)
}
