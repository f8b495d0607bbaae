//! What happens when the tracer cannot keep up: losses are counted and reported, and what they touch is called incomplete.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use rig::reconcile::pair_off;
use rig::{Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Tracer, wait};

/// Longer than the storm lasts, on an emulated processor too.
const LONG: Duration = Duration::from_secs(600);
/// More than the ring buffer holds.
const STORM: usize = 12_000;

/// The run ended once with the first turn of reading, and what had waited behind that was neither emitted nor counted.
#[test]
fn what_waits_to_be_read_at_the_end_is_emitted() -> Result<()> {
    let count = wait::load(6_000);
    let namespace = Namespace::new()?;
    let nobody = Endpoint::v4(9009);
    let nginx = Nginx::on(&namespace).workers(2).location(Location::fastcgi("/refused/", &nobody)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    tracer.signal(Signal::SIGSTOP)?;
    let statuses = nginx.client().storm("/refused/", count, 8)?;
    ensure!(statuses == [(502, count)].into(), "{statuses:?}");
    tracer.signal(Signal::SIGTERM)?;
    tracer.signal(Signal::SIGCONT)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.about(&nobody).len() == count, "{}", account.summary);
    pair_off(&nginx.failures(), &account.verdicts)
}

#[test]
fn a_reader_that_stood_still_counts_what_it_lost_and_does_not_guess() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nobody = Endpoint::v4(9009);
    let nginx = Nginx::on(&namespace)
        .workers(2)
        .main("worker_shutdown_timeout 500ms")
        .location(Location::fpm("/php/", &fpm).read_timeout(LONG))
        .location(Location::fastcgi("/refused/", &nobody))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    let cut = client.ask(&format!("/php/sleep.php?s={}&tag=cut", LONG.as_secs()))?;
    fpm.worker_on("cut")?;

    tracer.signal(Signal::SIGSTOP)?;
    let statuses = client.storm("/refused/", STORM, 8)?;
    tracer.signal(Signal::SIGCONT)?;
    ensure!(statuses == [(502, STORM)].into(), "{statuses:?}");
    tracer.wait_for(1_000)?;

    // nginx's old workers close this exchange for a reason that no fact names. With facts lost, that is no mere "unknown".
    nginx.reload()?;
    ensure!(cut.answer().is_err(), "nginx has answered");
    let address = fpm.endpoint().to_string();
    wait::until_true("a verdict on the exchange that was cut off", || {
        Ok(tracer.lines().so_far().iter().any(|line| line.contains(&address)))
    })?;
    let account = tracer.stop()?;
    ensure!(account.status.success(), "{}", account.stderr);

    let lost = account.summary["lost"].as_u64().unwrap_or_default();
    let emitted = account.about(&nobody);
    ensure!(lost > 0, "nothing was lost: {}", account.summary);
    // Each exchange is two records at the most.
    ensure!(
        emitted.len() < STORM && emitted.len() as u64 + lost >= STORM as u64,
        "{} told, {lost} lost",
        emitted.len()
    );
    for verdict in emitted {
        ensure!(
            verdict.name() == "refused/no_listener" && verdict.confidence == "incomplete",
            "{verdict:#?}"
        );
    }
    let verdict = account.only(fpm.endpoint())?;
    ensure!(verdict.name() == "unknown/evidence_lost" && verdict.confidence == "incomplete", "{verdict:#?}");
    Ok(())
}

/// The fewest open exchanges that may be asked for.
const ROOM: usize = 64;

#[test]
fn what_finds_no_room_is_counted_and_the_rest_is_explained() -> Result<()> {
    let namespace = Namespace::new()?;
    let mute = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9100), 512)?;
    let nobody = Endpoint::v4(9009);
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/mute/", mute.endpoint()).read_timeout(LONG))
        .location(Location::fastcgi("/refused/", &nobody))
        .start()?;
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "--max-open", &ROOM.to_string()])?;
    let client = nginx.client();
    let ask = |count| (0..count).map(|_| client.ask("/mute/")).collect::<Result<Vec<_>>>();
    let watched = ask(ROOM)?;
    mute.wait_read(ROOM)?;
    // No room for these any more, whatever becomes of them.
    let unwatched = ask(30)?;
    mute.wait_read(ROOM + 30)?;
    ensure!(client.storm("/refused/", 10, 1)? == [(502, 10)].into());
    for asked in unwatched.into_iter().chain(watched) {
        asked.abort()?;
    }
    tracer.wait_for(ROOM)?;
    // And now for these.
    ensure!(client.storm("/refused/", 10, 1)? == [(502, 10)].into());
    tracer.wait_for(ROOM + 10)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.summary["untracked"] == 40, "{}", account.summary);
    let notice = "more exchanges are open than the 64 that are watched at a time (--max-open)";
    ensure!(account.stderr.matches(notice).count() == 1, "{}", account.stderr);
    let [gone, refused] = [account.about(mute.endpoint()), account.about(&nobody)];
    ensure!((gone.len(), refused.len()) == (ROOM, 10), "{} {}", gone.len(), refused.len());
    for verdict in gone {
        ensure!(verdict.name() == "client_abort/before_response", "{verdict:#?}");
    }
    for verdict in refused {
        verdict.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))?;
    }
    Ok(())
}

#[test]
fn where_the_workers_find_no_room_verdicts_are_incomplete_and_not_wrong() -> Result<()> {
    let namespace = Namespace::new()?;
    // Its queue keeps the other ends of what nginx has given up.
    let queue = FaultyServer::start(&namespace, Fault::NeverAccept, Endpoint::v4(9100), 512)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/queued/", queue.endpoint()).read_timeout(Duration::from_millis(300)))
        .start()?;
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "--max-open", &ROOM.to_string()])?;
    let client = nginx.client();
    for round in 1..=3 {
        ensure!(client.storm("/queued/", ROOM / 2, ROOM / 2)? == [(504, ROOM / 2)].into());
        // What is emitted only after something was lost is incomplete.
        tracer.wait_for(round * ROOM / 2)?;
    }
    let account = tracer.stop()?;
    ensure!(account.status.success(), "{}", account.stderr);
    ensure!(account.summary["lost"].as_u64().is_some_and(|lost| lost > 0), "{}", account.summary);
    let (whole, incomplete): (Vec<_>, Vec<_>) =
        account.verdicts.iter().partition(|verdict| verdict.confidence != "incomplete");
    ensure!((whole.len(), incomplete.len()) == (ROOM, ROOM / 2), "{} {}", whole.len(), incomplete.len());
    for verdict in whole {
        // Of those that came at once, the first alone is known to have been the first in the queue.
        ensure!(["proven", "inferred"].contains(&verdict.confidence.as_str()), "{verdict:#?}");
        // Looks take a twentieth of the time at most: on a busy machine there is none for some.
        let is_looked_at = verdict.holders.is_some();
        let right = if is_looked_at { "read_timeout/nobody_accepts" } else { "read_timeout/never_accepted" };
        verdict.says(right, &verdict.confidence, 504, Some("ETIMEDOUT"))?;
    }
    ensure!(account.verdicts.iter().any(|verdict| verdict.name() == "read_timeout/nobody_accepts"));
    for verdict in incomplete {
        let right = match &verdict.holders {
            Some(_) => ["read_timeout/nobody_accepts", "unknown/evidence_lost"],
            None => ["read_timeout/never_accepted", "unknown/evidence_lost"],
        };
        ensure!(right.contains(&verdict.name().as_str()), "{verdict:#?}");
    }
    Ok(())
}
