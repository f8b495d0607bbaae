//! Workers that stand still in the middle of a request: stopped by a signal, or frozen with their cgroup.

use std::time::Duration;

use anyhow::{Result, ensure};
use rig::freezer::Freezer;
use rig::reconcile::pair_off;
use rig::{Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Tracer, process};

/// Long enough for three samples.
const READ: Duration = Duration::from_secs(4);

#[test]
fn a_worker_that_is_stopped_or_frozen_is_not_taken_for_what_it_did_before() -> Result<()> {
    for (how, on, advice) in [
        ("stopped", "leave to go on (it was stopped)", "SIGSTOP"),
        ("frozen", "its cgroup to be thawed", "docker pause"),
    ] {
        let namespace = Namespace::new()?;
        let fpm = Fpm::on(&namespace).start()?;
        let nginx =
            Nginx::on(&namespace).location(Location::fpm("/php/", &fpm).read_timeout(READ)).start()?;
        let tracer = Tracer::of(nginx.master())?;
        let asked = nginx.client().ask("/php/sleep.php?s=30&tag=still")?;
        let worker = fpm.worker_on("still")?;
        let _still = if how == "stopped" {
            (Some(process::stop(worker)?), None)
        } else {
            (None, Some(Freezer::freeze(worker)?))
        };
        ensure!(asked.answer()?.status == 504);
        tracer.wait_for(1)?;
        let account = tracer.stop()?;
        account.is_orderly()?;
        pair_off(&nginx.failures(), &account.verdicts)?;
        let verdict = account.only(fpm.endpoint())?;
        verdict.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))?;
        let doing = verdict.worker.as_ref().and_then(|worker| worker.doing.as_ref());
        ensure!(doing.is_some_and(|doing| doing.waits[0].on == on), "{verdict:#?}");
        ensure!(verdict.explanation.contains(how), "{verdict:#?}");
        ensure!(verdict.advice.as_ref().is_some_and(|said| said.contains(advice)), "{verdict:#?}");
    }
    Ok(())
}

#[test]
fn of_listeners_that_share_an_address_the_one_that_does_not_accept_is_named() -> Result<()> {
    for is_stopped in [false, true] {
        let namespace = Namespace::new()?;
        let endpoint = Endpoint::v4(9001);
        let start = |fault| FaultyServer::start_beside(&namespace, fault, endpoint.clone(), 16);
        let idle = [start(Fault::Answer)?, start(Fault::Answer)?];
        let hung = start(if is_stopped { Fault::Answer } else { Fault::NeverAccept })?;
        let _stopped = if is_stopped { Some(process::stop(hung.pid())?) } else { None };
        let location = Location::http("/", &endpoint).read_timeout(Duration::from_secs(1));
        let nginx = Nginx::on(&namespace).location(location).start()?;
        let tracer = Tracer::of(nginx.master())?;
        // The kernel chooses by a hash of the addresses: sooner or later the one that hangs.
        let mut asked = 0;
        while nginx.client().get("/")?.status != 504 {
            asked += 1;
            ensure!(asked < 1_000, "the kernel never chose it");
        }
        tracer.wait_for(1)?;
        let account = tracer.stop()?;
        account.is_orderly()?;
        pair_off(&nginx.failures(), &account.verdicts)?;
        let verdict = account.only(&endpoint)?;
        verdict.says("read_timeout/never_accepted", "proven", 504, Some("ETIMEDOUT"))?;
        let named =
            "Of 3 listeners that share this address (SO_REUSEPORT) it waited in that of faulty-server";
        ensure!(verdict.explanation.contains(named), "{verdict:#?}");
        ensure!(verdict.explanation.contains(&hung.pid().to_string()), "{verdict:#?}");
        ensure!(idle.iter().all(|one| !verdict.explanation.contains(&one.pid().to_string())), "{verdict:#?}");
        ensure!(verdict.explanation.contains("stands still") == is_stopped, "{verdict:#?}");
    }
    Ok(())
}
