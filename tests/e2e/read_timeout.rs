//! `read_timeout`: nginx stopped waiting for the response.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rig::reconcile::pair_off;
use rig::{Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Tracer, wait};

const READ: Duration = Duration::from_millis(800);

#[test]
fn waiting_in_the_queue_and_being_served_slowly_are_told_apart() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(1).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/php/", &fpm).read_timeout(READ))
        .location(Location::fpm("/patient/", &fpm))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();

    // One worker, busy for longer than nginx waits; another request is queued behind it.
    let slow = client.ask("/php/sleep.php?s=3&tag=slow")?;
    let worker = fpm.worker_on("slow")?;
    let queued = client.ask("/php/ok.php?tag=queued")?;
    namespace.wait_for_queue(fpm.endpoint(), 1)?;
    ensure!(slow.answer()?.status == 504 && queued.answer()?.status == 504);
    ensure!(!fpm.has_begun("queued"), "the queued request was taken up in time");
    tracer.wait_for(2)?;

    // Afterwards php-fpm works off what it was left with; a patient request behind that succeeds and says
    // nothing.
    ensure!(client.get("/patient/ok.php")?.status == 200);
    ensure!(fpm.has_begun("queued"), "what was queued has never been executed");

    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    ensure!(account.verdicts.len() == 2, "{:#?}", account.verdicts);
    for verdict in &account.verdicts {
        ensure!(verdict.us.connected.is_some() && verdict.us.first_sent.is_some(), "{verdict:#?}");
        ensure!(verdict.us.first_received.is_none(), "{verdict:#?}");
    }
    let of =
        |name: &str| account.verdicts.iter().find(|v| v.name() == name).with_context(|| format!("no {name}"));
    let verdict = of("read_timeout/slow_worker")?;
    verdict.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))?;
    verdict.blames(Some(worker), None, None)?;
    ensure!(verdict.us.accepted.is_some(), "{verdict:#?}");
    let verdict = of("read_timeout/never_accepted")?;
    verdict.says("read_timeout/never_accepted", "proven", 504, Some("ETIMEDOUT"))?;
    verdict.blames(None, None, None)?;
    ensure!(verdict.us.accepted.is_none(), "{verdict:#?}");
    Ok(())
}

#[test]
fn workers_that_all_stand_still_accept_nothing_over_ipv6() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).listen(Endpoint::v6(9000)).start()?;
    let nginx =
        Nginx::on(&namespace).workers(2).location(Location::fpm("/php/", &fpm).read_timeout(READ)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    fpm.freeze()?;
    let client = nginx.client();
    let asked = (0..5).map(|_| client.ask("/php/ok.php")).collect::<Result<Vec<_>>>()?;
    namespace.wait_for_queue(fpm.endpoint(), 5)?;
    for one in asked {
        ensure!(one.answer()?.status == 504);
    }
    tracer.wait_for(5)?;
    fpm.thaw()?;
    namespace.wait_for_queue(fpm.endpoint(), 0)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    // That nobody was taken from before them is known of the first, and of those that ended after it.
    ensure!(account.verdicts.iter().any(|verdict| verdict.confidence == "proven"), "{account:#?}");
    for verdict in &account.verdicts {
        ensure!(["proven", "inferred"].contains(&verdict.confidence.as_str()), "{verdict:#?}");
        verdict.says("read_timeout/nobody_accepts", &verdict.confidence, 504, Some("ETIMEDOUT"))?;
        ensure!(verdict.explanation.contains("which was stopped"), "{verdict:#?}");
        verdict.blames(None, None, None)?;
    }
    Ok(())
}

#[test]
fn slow_workers_are_named_each_by_its_own_pid() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(4).start()?;
    let holder = FaultyServer::start(&namespace, Fault::StallMidway, Endpoint::v4(9100), 4)?;
    let nginx = Nginx::on(&namespace)
        .workers(2)
        .location(Location::fpm("/php/", &fpm).read_timeout(READ))
        .location(Location::http("/stalled/", holder.endpoint()).read_timeout(READ))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    let stalled = client.ask("/stalled/")?;
    let tags = ["one", "two", "three", "four"];
    let asked = tags.map(|tag| client.ask(&format!("/php/sleep.php?s=2&tag={tag}")));
    for one in asked {
        ensure!(one?.answer()?.status == 504);
    }
    // The header had come, so the status was sent already: only the body is cut short.
    ensure!(stalled.answer()?.status == 200);
    tracer.wait_for(5)?;
    let failures = nginx.wait_for_failures(5)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&failures, &account.verdicts)?;
    let mut right = tags.iter().map(|tag| fpm.worker_on(tag)).collect::<Result<Vec<_>>>()?;
    let about = account.about(fpm.endpoint());
    let mut said: Vec<_> = about.iter().filter_map(|verdict| verdict.worker_pid()).collect();
    right.sort_unstable();
    said.sort_unstable();
    ensure!(right == said, "{right:?} were slow, not {said:?}");
    for verdict in about {
        verdict.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))?;
    }
    let verdict = account.only(holder.endpoint())?;
    ensure!(verdict.name() == "read_timeout/stalled_response", "{verdict:#?}");
    Ok(())
}

#[test]
fn a_slow_answer_in_time_is_no_failure() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(1).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    let slow = client.ask("/php/sleep.php?s=1.2&tag=slow")?;
    fpm.worker_on("slow")?;
    let queued = client.ask("/php/slow_body.php?s=0.8")?;
    ensure!(slow.answer()?.status == 200 && queued.answer()?.body.ends_with(b"the end\n"));
    wait::until_true("an empty queue", || Ok(namespace.accept_queue(fpm.endpoint())? == Some(0)))?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.verdicts.is_empty() && nginx.failures().is_empty(), "{:#?}", account.verdicts);
    Ok(())
}
