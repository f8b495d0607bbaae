//! Everything at once: many failures of every kind among successes, and many successes alone.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use rig::reconcile::{pair_off_but_for, settled};
use rig::{Client, Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Sight, Tracer, wait};

const READ: Duration = Duration::from_millis(1_500);
/// Shorter than the second after which a SYN is sent again.
const CONNECT: Duration = Duration::from_millis(800);

/// How many clients go away. One that does before nginx has connected for it leaves no trace.
const LEAVING: usize = 40;

/// One kind of failure: where it is asked for, how often and how many at a time, and what it must be called.
struct Kind {
    path: &'static str,
    upstream: Endpoint,
    count: usize,
    at_a_time: usize,
    name: &'static str,
}

#[test]
fn a_storm_of_every_cause_is_explained_line_by_line() -> Result<()> {
    let namespace = Namespace::new()?;
    let faulty = |fault, port, backlog| FaultyServer::start(&namespace, fault, Endpoint::v4(port), backlog);
    let servers = [
        faulty(Fault::CloseUnanswered, 9101, 512)?,
        faulty(Fault::Reset, 9102, 512)?,
        faulty(Fault::NeverAccept, 9103, 4096)?,
        faulty(Fault::Mute, 9104, 512)?,
        faulty(Fault::StallMidway, 9105, 512)?,
        faulty(Fault::ResetMidway, 9106, 512)?,
        faulty(Fault::Answer, 9107, 512)?,
        faulty(Fault::Answer, 9108, 512)?,
        faulty(Fault::Mute, 9110, 512)?,
    ];
    let full = faulty(Fault::NeverAccept, 9109, 1)?;
    let missing = Endpoint::Unix(namespace.scratch().join("missing.sock"));
    let nowhere: Endpoint = "10.66.0.1:9000".parse()?;
    namespace.ip("route add unreachable 10.66.0.0/24")?;
    // What dies is not what reloads: whom a reload kills is not known beforehand.
    let dying = Fpm::on(&namespace).listen(Endpoint::v4(9001)).workers(4).start()?;
    let reloading = Fpm::on(&namespace).listen(Endpoint::v6(9002)).workers(4).start()?;
    let http = |path: &str, upstream: &Endpoint| {
        Location::http(path, upstream).connect_timeout(CONNECT).read_timeout(READ)
    };

    let kind = |path, upstream: &Endpoint, count, at_a_time, name| Kind {
        path,
        upstream: upstream.clone(),
        count,
        at_a_time,
        name,
    };
    let at = |index: usize| servers[index].endpoint();
    let dropped =
        Sight::here()?.by_drops("connect_timeout/dropped_by_firewall", "connect_timeout/syn_unanswered")?;
    let kinds = [
        kind("/refused4/", &Endpoint::v4(9201), 300, 2, "refused/no_listener"),
        kind("/refused6/", &Endpoint::v6(9202), 300, 2, "refused/no_listener"),
        kind("/missing/", &missing, 200, 2, "refused/socket_missing"),
        kind("/nowhere/", &nowhere, 200, 2, "refused/no_route"),
        kind("/closes/", at(0), 300, 2, "premature_close/peer_closed"),
        kind("/resets/", at(1), 300, 2, "reset/peer_aborted"),
        kind("/queued/", at(2), 120, 60, "read_timeout/nobody_accepts"),
        kind("/mute/", at(3), 120, 60, "read_timeout/slow_worker"),
        kind("/stalls/", at(4), 60, 60, "read_timeout/stalled_response"),
        kind("/cuts/", at(5), 60, 2, "reset/peer_aborted"),
        kind("/dropped/", at(6), 60, 30, dropped),
        kind("/rejected/", at(7), 100, 2, "refused/rejected_by_firewall"),
        kind("/full/", full.endpoint(), 60, 30, "accept_queue_overflow/syn_dropped"),
        kind("/php/die.php?signal=9", dying.endpoint(), 40, 2, "reset/worker_killed"),
    ];
    let mut nginx = Nginx::on(&namespace)
        .workers(4)
        .location(Location::fpm("/php/", &dying))
        .location(Location::fpm("/fine/", &reloading));
    for Kind { path, upstream, .. } in kinds.iter().filter(|kind| !kind.path.starts_with("/php/")) {
        nginx = nginx.location(http(path, upstream));
    }
    let nginx = nginx.location(Location::http("/left/", at(8)));
    let nginx = nginx.start()?;
    namespace.nft(
        "table inet rig {
           chain in { type filter hook input priority 0; tcp dport 9107 drop; tcp dport 9108 reject with tcp reset; }
         }",
    )?;
    let _fillers = namespace.fill_queue(full.endpoint(), 2)?;

    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "--connect-errors"])?;
    let client = nginx.client();
    thread::scope(|scope| {
        let storms: Vec<_> = kinds
            .iter()
            .map(|kind| scope.spawn(|| client.storm(kind.path, kind.count, kind.at_a_time)))
            .collect();
        let background = scope.spawn(|| client.storm("/fine/ok.php", wait::load(3_000), 4));
        let leaving = scope.spawn(|| leave(&client, LEAVING));
        // Whom this kills, and what of it nginx can retry nowhere, the log says.
        let busy: Vec<_> = (0..3).map(|n| client.ask(&format!("/fine/sleep.php?s=20&tag=busy{n}"))).collect();
        for n in 0..busy.len() {
            reloading.worker_on(&format!("busy{n}"))?;
        }
        reloading.reload()?;
        for one in busy {
            ensure!(one?.answer()?.status == 502);
        }
        leaving.join().map_err(|_| anyhow!("a thread panicked"))??;
        background.join().map_err(|_| anyhow!("a thread panicked"))??;
        for storm in storms {
            storm.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok(())
    })?;

    let failures = settled(&nginx)?;
    ensure!(failures.len() >= 2_000, "only {} failures", failures.len());
    let came = tracer.wait_for_nearly(failures.len());
    let account = tracer.stop()?;
    account.is_orderly()?;
    // First: which are missing says more than that some are.
    pair_off_but_for(account.lost()?, &nginx.failures(), &account.verdicts)?;
    came?;
    let mut missing = 0;
    for kind in &kinds {
        missing += account.without_verdict(&kind.upstream, kind.name, kind.count)?;
    }
    ensure!(missing <= account.lost()?, "{missing} verdicts are missing: {}", account.stderr);
    let left = account.about(at(8));
    ensure!(left.len() <= LEAVING && left.iter().all(|verdict| verdict.cause == "client_abort"), "{left:#?}");
    ensure!(account.verdicts.iter().all(|verdict| verdict.cause != "unknown"));
    // The reload: by php-fpm's master, or a request that waited for it.
    for verdict in account.about(reloading.endpoint()) {
        ensure!(
            matches!(verdict.name().as_str(), "reset/worker_killed" | "client_abort/before_response")
                || verdict.cause == "premature_close",
            "{verdict:#?}"
        );
        if verdict.cause == "reset" {
            ensure!(verdict.killer_pid() == Some(reloading.master()), "{verdict:#?}");
        }
    }
    Ok(())
}

/// Clients that go away before the answer.
fn leave(client: &Client, count: usize) -> Result<()> {
    for _ in 0..count {
        client.ask("/left/")?.abort()?;
    }
    Ok(())
}

#[test]
fn a_hundred_thousand_successes_give_no_verdict() -> Result<()> {
    let count = wait::load(100_000);
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let this = Endpoint::v4(8080);
    let mut nginx = Nginx::on(&namespace)
        .workers(2)
        .group("kept", &[&this], &["keepalive 32"])
        .group("closed", &[&this], &[])
        .location(Location::fixed("/fixed"))
        .location(Location::http("/kept/", &this).through_group("kept"))
        .location(Location::http("/closed/", &this).through_group("closed"))
        .location(Location::fpm("/php/", &fpm))
        .start()?;
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "--connect-errors"])?;
    for (path, connections) in [("/kept/fixed", 8), ("/closed/fixed", 8)] {
        ensure!(nginx.client().storm_kept(path, count / 2, connections)? == [(200, count / 2)].into());
    }
    let large = vec![b'x'; 2_000_000];
    for _ in 0..20 {
        let answer = nginx.client().post("/php/echo.php", &large)?;
        ensure!(answer.status == 200 && answer.body.len() == large.len());
    }
    ensure!(nginx.client().storm("/php/ok.php", 500, 4)? == [(200, 500)].into());
    // What is on a kept connection is counted when it ends.
    nginx.stop(Signal::SIGQUIT)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(nginx.failures().is_empty(), "{:#?}", nginx.failures());
    ensure!(account.verdicts.is_empty(), "{:#?}", account.verdicts);
    let watched = account.summary["exchanges"].as_u64().context("exchanges")?;
    ensure!(watched >= count as u64, "{watched}");
    Ok(())
}
