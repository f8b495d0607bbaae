//! Whatever else goes on while tracing: what is none of its business stays unmentioned.

use std::time::Duration;

use anyhow::{Result, ensure};
use rig::reconcile::pair_off;
use rig::{Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Tracer, wait};

#[test]
fn what_was_open_before_the_tracer_gets_no_wrong_verdict() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(3).start()?;
    let kept = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9100), 16)?;
    let nginx = Nginx::on(&namespace)
        .group("kept", &[kept.endpoint()], &["keepalive 4"])
        .location(Location::fpm("/patient/", &fpm).read_timeout(wait::bound()))
        .location(Location::fpm("/hasty/", &fpm).read_timeout(Duration::from_secs(2)))
        .location(Location::http("/kept/", kept.endpoint()).through_group("kept"))
        .location(Location::fastcgi("/refused/", &Endpoint::v4(9009)))
        .start()?;
    let client = nginx.client();
    ensure!(client.get("/kept/")?.status == 200);
    ensure!(client.get("/refused/")?.status == 502);
    let well = client.ask("/patient/sleep.php?s=2&tag=well")?;
    let late = client.ask("/hasty/sleep.php?s=4&tag=late")?;
    let killed = client.ask("/patient/sleep.php?s=60&tag=killed")?;
    for tag in ["well", "late", "killed"] {
        fpm.worker_on(tag)?;
    }
    let before = nginx.failures().len();

    let tracer = Tracer::of(nginx.master())?;
    rig::process::send(fpm.worker_on("killed")?, nix::sys::signal::Signal::SIGKILL)?;
    ensure!(killed.answer()?.status == 502 && well.answer()?.status == 200 && late.answer()?.status == 504);
    // The kept connection is older than the tracer, too.
    ensure!(client.storm("/kept/", 50, 1)? == [(200, 50)].into());
    kept.wait_accepted(1)?;
    ensure!(client.get("/refused/")?.status == 502);
    let account = tracer.stop()?;
    account.is_orderly()?;

    // Of what began before, it may say nothing, or what is right, or that it does not know.
    for verdict in account.about(fpm.endpoint()) {
        let right = ["reset/worker_killed", "read_timeout/slow_worker", "unknown/not_enough_facts"];
        ensure!(right.contains(&verdict.name().as_str()), "{verdict:#?}");
    }
    ensure!(account.about(kept.endpoint()).is_empty(), "{:#?}", account.about(kept.endpoint()));
    account.only(&Endpoint::v4(9009))?.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))?;
    ensure!(nginx.failures().len() == before + 3);
    Ok(())
}

#[test]
fn reloads_while_tracing_give_no_wrong_verdict() -> Result<()> {
    let namespace = Namespace::new()?;
    let gentle = Fpm::on(&namespace).control_timeout(Duration::from_secs(20)).start()?;
    let rough = Fpm::on(&namespace).listen(Endpoint::v4(9001)).start()?;
    let nginx = Nginx::on(&namespace)
        .workers(2)
        .location(Location::fpm("/gentle/", &gentle))
        .location(Location::fpm("/rough/", &rough))
        .location(Location::fastcgi("/refused/", &Endpoint::v4(9009)))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    let before = nginx.workers()?;
    ensure!(client.get("/refused/")?.status == 502);

    // Requests in flight outlive nginx's reload, in its old workers, and php-fpm's, where it waits for them.
    let in_flight = client.ask("/gentle/sleep.php?s=1&tag=in-flight")?;
    gentle.worker_on("in-flight")?;
    nginx.reload()?;
    gentle.reload()?;
    ensure!(in_flight.answer()?.status == 200);
    ensure!(client.storm("/gentle/ok.php", 100, 2)? == [(200, 100)].into());
    ensure!(client.get("/refused/")?.status == 502);

    // By default php-fpm does not wait: its master kills what is in flight.
    let cut = client.ask("/rough/sleep.php?s=20&tag=cut")?;
    let worker = rough.worker_on("cut")?;
    rough.reload()?;
    ensure!(cut.answer()?.status == 502);
    ensure!(client.get("/rough/ok.php")?.status == 200);

    tracer.wait_for(3)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let failures = nginx.failures();
    ensure!(failures.len() == 3 && !before.contains(&failures[1].pid), "{failures:#?}");
    pair_off(&failures, &account.verdicts)?;
    let refused = account.about(&Endpoint::v4(9009));
    ensure!(refused.iter().all(|verdict| verdict.name() == "refused/no_listener"), "{refused:#?}");
    let verdict = account.only(rough.endpoint())?;
    verdict.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
    verdict.blames(Some(worker), Some("SIGTERM"), Some(rough.master()))
}

#[test]
fn two_thousand_successes_are_silent() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let kept = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v6(9100), 64)?;
    let nginx = Nginx::on(&namespace)
        .workers(2)
        .group("kept", &[kept.endpoint()], &["keepalive 4"])
        .location(Location::fpm("/php/", &fpm))
        .location(Location::http("/kept/", kept.endpoint()).through_group("kept"))
        .location(Location::fastcgi("/refused/", &Endpoint::v4(9009)))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    let loads = [("/php/ok.php", 1400), ("/kept/", 600), ("/php/echo.php?bytes=300000", 100)]
        .map(|(path, count)| (path, wait::load(count)));
    for (path, count) in loads {
        ensure!(client.storm(path, count, 4)? == [(200, count)].into(), "{path}");
    }
    let large = vec![b'x'; 2_000_000];
    ensure!(client.post("/php/echo.php", &large)?.body == large);
    // Among them the one failure is still found.
    ensure!(client.get("/refused/")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    account.only(&Endpoint::v4(9009))?;
    ensure!(account.others.is_empty(), "{:#?}", account.others);
    let at_least = wait::load(1500) as u64;
    ensure!(
        account.summary["exchanges"].as_u64().is_some_and(|count| count >= at_least),
        "{}",
        account.summary
    );
    Ok(())
}
