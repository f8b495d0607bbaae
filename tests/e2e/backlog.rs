//! `why502 backlog`: what it says of accept queues is what the kernel itself says.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::accept;
use rig::tracer::run;
use rig::{Backlog, Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, wait};

const BACKLOG: usize = 3;
const CLIENTS: usize = 9;

/// B + 1 connections fit; each further client is a victim with a name; the count is the kernel's own.
fn a_tcp_listener_is_emitted_exactly(
    namespace: &Namespace,
    listener: &Endpoint,
    backlog: Backlog,
) -> Result<()> {
    let before = namespace.tcp_counter("ListenOverflows")?;
    let crowd = namespace.file(namespace, listener, CLIENTS)?;
    namespace.wait_for_queue(listener, BACKLOG as u32 + 1)?;
    let (lucky, mut unlucky) = crowd.by_luck()?;
    ensure!(lucky.len() == BACKLOG + 1, "{lucky:?} got in");
    let dropped = || -> Result<u64> { Ok(namespace.tcp_counter("ListenOverflows")? - before) };
    wait::until_true("each SYN to be dropped", || Ok(dropped()? >= unlucky.len() as u64))?;

    let least = dropped()?;
    let account = backlog.stop()?;
    let most = dropped()?;
    let last = account.last(listener)?;
    ensure!(last["limit"] == BACKLOG && last["asked"] == BACKLOG, "{last}");
    ensure!(last["depth"] == BACKLOG + 1 && last["max_depth"] == BACKLOG + 1, "{last}");
    ensure!(last["accepted"] == 0 && last["wait_us"]["max"].is_null(), "{last}");
    let overflows = last["overflows"].as_u64().unwrap_or_default();
    ensure!(
        (least..=most).contains(&overflows),
        "{overflows} overflows, by the kernel {least} to {most}: {last}"
    );
    let reconciled = account.reconciled(listener)?;
    ensure!(reconciled["difference"] == 0, "{reconciled}");

    unlucky.sort_unstable_by_key(ToString::to_string);
    let names: Vec<String> = unlucky.iter().map(ToString::to_string).collect();
    ensure!(account.victims() == names, "{:#?} instead of {names:?}", account.victims());
    let mut attempts = 0;
    for victim in account.all("overflow") {
        ensure!(victim["stage"] == "syn" && victim["outcome"] == "waiting", "{victim}");
        attempts += victim["attempts"].as_u64().unwrap_or_default();
    }
    ensure!(attempts == overflows, "{attempts} attempts and {overflows} overflows");
    Ok(())
}

#[test]
fn a_full_queue_names_each_client_beyond_backlog_and_one() -> Result<()> {
    for listener in [Endpoint::v4(9471), Endpoint::v6(9472)] {
        let namespace = Namespace::new()?;
        let backlog = Backlog::of(&listener)?;
        let _socket = namespace.listen(&listener, BACKLOG as i32)?;
        backlog.wait_for_listener("a new listener", |line| line["addr"] == listener.to_string())?;
        a_tcp_listener_is_emitted_exactly(&namespace, &listener, backlog)?;
    }
    Ok(())
}

#[test]
fn a_listener_that_is_older_than_the_tracer_is_emitted_as_exactly() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).listen(Endpoint::v4(9473)).backlog(BACKLOG as i32).start()?;
    fpm.freeze()?;
    let backlog = Backlog::of(fpm.endpoint())?;
    backlog.wait_for_listener("php-fpm's listener", |line| line["pid"] == fpm.master())?;
    a_tcp_listener_is_emitted_exactly(&namespace, fpm.endpoint(), backlog)
}

#[test]
fn what_was_queued_before_the_start_is_counted() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).listen(Endpoint::v4(9474)).backlog(5).start()?;
    fpm.freeze()?;
    let _fillers = namespace.fill_queue(fpm.endpoint(), 4)?;
    let backlog = Backlog::of(fpm.endpoint())?;
    backlog.wait_for_listener("the depth", |line| line["depth"] == 4)?;
    fpm.thaw()?;
    backlog.wait_for_listener("an empty queue", |line| line["depth"] == 0)?;
    let account = backlog.stop()?;
    let last = account.last(fpm.endpoint())?;
    ensure!(last["max_depth"] == 4 && last["arrived"] == 0 && last["accepted"] == 4, "{last}");
    Ok(())
}

#[test]
fn a_unix_listener_is_emitted_as_exactly_old_or_new() -> Result<()> {
    let namespace = Namespace::new()?;
    let old = Fpm::on(&namespace)
        .listen(Endpoint::Unix(namespace.scratch().join("old.sock")))
        .backlog(BACKLOG as i32)
        .start()?;
    old.freeze()?;
    let new = Endpoint::Unix(namespace.scratch().join("new.sock"));
    for listener in [old.endpoint(), &new] {
        let backlog = Backlog::of(listener)?;
        let _socket = if *listener == new { Some(namespace.listen(&new, BACKLOG as i32)?) } else { None };
        let crowd = namespace.crowd(listener, CLIENTS)?;
        let refused = CLIENTS - BACKLOG - 1;
        ensure!(crowd.refused() == vec![Errno::EAGAIN; refused], "{:?}", crowd.refused());
        namespace.wait_for_queue(listener, BACKLOG as u32 + 1)?;
        let account = backlog.stop()?;
        let last = account.last(listener)?;
        ensure!(last["limit"] == BACKLOG && last["max_depth"] == BACKLOG + 1, "{last} {}", account.stderr);
        ensure!(last["depth"] == BACKLOG + 1 && last["overflows"] == refused, "{last} {}", account.stderr);
        ensure!(
            account.victims() == vec![format!("pid:{}", std::process::id()); refused],
            "{:?}",
            account.victims()
        );
        for victim in account.all("overflow") {
            ensure!(victim["stage"] == "unix" && victim["outcome"] == "refused", "{victim}");
            ensure!(victim["attempts"] == 1 && victim["errno"] == Errno::EAGAIN as i32, "{victim}");
        }
    }
    Ok(())
}

fn accept_all(listener: &OwnedFd, count: usize) -> Result<()> {
    for _ in 0..count {
        let accepted = accept(listener.as_raw_fd())?;
        // SAFETY: accept has just made it, for us alone.
        drop(unsafe { OwnedFd::from_raw_fd(accepted) });
    }
    Ok(())
}

#[test]
fn a_burst_between_two_looks_is_seen_whole() -> Result<()> {
    const BURST: usize = 40;
    let namespace = Namespace::new()?;
    for listener in [Endpoint::v4(9475), Endpoint::Unix(namespace.scratch().join("burst.sock"))] {
        let backlog = Backlog::of(&listener)?;
        let socket = namespace.listen(&listener, BURST as i32 - 1)?;
        // It comes and goes within a few milliseconds; nothing waits for the tracer. A client may believe to be connected before
        // its connection is in the queue.
        let crowd = namespace.crowd(&listener, BURST)?;
        namespace.wait_for_queue(&listener, BURST as u32)?;
        accept_all(&socket, BURST)?;
        drop(crowd);
        let account = backlog.stop()?;
        let last = account.last(&listener)?;
        ensure!(last["max_depth"] == BURST && last["depth"] == 0, "{last}");
        ensure!(last["arrived"] == BURST && last["accepted"] == BURST && last["overflows"] == 0, "{last}");
        ensure!(last["full_us"].as_u64() > Some(0), "it was full for a moment: {last}");
        let wait = |which: &str| last["wait_us"][which].as_u64();
        ensure!(wait("p50") > Some(0) && wait("p50") <= wait("p99") && wait("p99") <= wait("max"), "{last}");
    }
    Ok(())
}

#[test]
fn who_gets_in_late_and_who_gives_up_are_told_apart() -> Result<()> {
    let namespace = Namespace::new()?;
    let listener = Endpoint::v4(9476);
    let backlog = Backlog::of(&listener)?;
    let socket = namespace.listen(&listener, 0)?;
    let filler = namespace.file(&namespace, &listener, 1)?;
    let (late, gone) = (namespace.file(&namespace, &listener, 1)?, namespace.file(&namespace, &listener, 1)?);
    let (names, gone_names) = (late.by_luck()?.1, gone.by_luck()?.1);
    drop(gone);
    backlog.wait_for_victims(1)?;
    accept_all(&socket, 1)?;
    backlog.wait_for_victims(2)?;
    let account = backlog.stop()?;
    drop(filler);
    for victim in account.all("overflow") {
        let outcome = if victim["client"] == names[0].to_string() { "got_in" } else { "gave_up" };
        ensure!(victim["outcome"] == outcome, "{victim}");
        ensure!(outcome == "got_in" || victim["client"] == gone_names[0].to_string(), "{victim}");
        ensure!(victim["process"]["pid"] == std::process::id(), "{victim}");
    }
    ensure!(account.reconciled(&listener)?["difference"] == 0);
    Ok(())
}

#[test]
fn a_client_whose_kernel_stops_trying_has_timed_out() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.sysctl("net.ipv4.tcp_syn_retries", "1")?;
    let listener = Endpoint::v4(9490);
    let backlog = Backlog::of(&listener)?;
    let _socket = namespace.listen(&listener, 0)?;
    let _crowd = namespace.file(&namespace, &listener, 2)?;
    backlog.wait_for_victims(1)?;
    let account = backlog.stop()?;
    let victims = account.all("overflow");
    ensure!(victims.len() == 1, "{victims:#?}");
    ensure!(
        victims[0]["outcome"] == "timed_out" && victims[0]["errno"] == Errno::ETIMEDOUT as i32,
        "{}",
        victims[0]
    );
    // Its first SYN and at least one more.
    ensure!(victims[0]["attempts"].as_u64() >= Some(2), "{}", victims[0]);
    ensure!(account.reconciled(&listener)?["difference"] == 0);
    Ok(())
}

#[test]
fn a_unix_client_that_blocks_is_a_victim_that_gets_in() -> Result<()> {
    let namespace = Namespace::new()?;
    let listener = Endpoint::Unix(namespace.scratch().join("blocking.sock"));
    let backlog = Backlog::of(&listener)?;
    let socket = namespace.listen(&listener, 0)?;
    let _filler = namespace.crowd(&listener, 1)?;
    let patient = namespace.patient(&listener);
    backlog.wait_for_listener("a second in which it waits", |line| {
        line["depth"] == 1 && line["full_us"].as_u64() > Some(500_000)
    })?;
    accept_all(&socket, 1)?;
    patient.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
    backlog.wait_for_victims(1)?;
    let account = backlog.stop()?;
    let victims = account.all("overflow");
    ensure!(victims.len() == 1 && account.last(&listener)?["overflows"] == 1, "{victims:#?}");
    ensure!(victims[0]["stage"] == "unix" && victims[0]["outcome"] == "got_in", "{}", victims[0]);
    ensure!(victims[0]["client"] == format!("pid:{}", std::process::id()), "{}", victims[0]);
    Ok(())
}

#[test]
fn in_a_storm_on_several_processors_the_count_is_still_the_kernels() -> Result<()> {
    const THREADS: usize = 4;
    const ROUNDS: usize = 100;
    let namespace = Namespace::new()?;
    let listener = Endpoint::v4(9493);
    let backlog = Backlog::of(&listener)?;
    let socket = namespace.listen(&listener, BACKLOG as i32)?;
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    backlog.wait_for_listener("a new listener", |line| line["addr"] == listener.to_string())?;
    let before = namespace.tcp_counter("ListenOverflows")?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let accepting = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                // Nothing to accept is no error here.
                if accept_all(&socket, 1).is_err() {
                    thread::yield_now();
                }
            }
        });
        let storm =
            || -> Result<()> { (0..ROUNDS).try_for_each(|_| namespace.crowd(&listener, 8).map(drop)) };
        let clients: Vec<_> = (0..THREADS).map(|_| scope.spawn(storm)).collect();
        let results: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        is_over.store(true, Ordering::Relaxed);
        accepting.join().map_err(|_| anyhow::anyhow!("the one who accepts panicked"))?;
        for result in results {
            result.map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(())
    })?;
    // The queue may be full in the end, and what a closed client sends again (its FIN) meets it as well.
    let dropped = || -> Result<u64> { Ok(namespace.tcp_counter("ListenOverflows")? - before) };
    let least = dropped()?;
    let account = backlog.stop()?;
    let most = dropped()?;
    let last = account.last(&listener)?;
    let overflows = last["overflows"].as_u64().unwrap_or_default();
    ensure!(least > 0, "the queue was never full");
    ensure!((least..=most).contains(&overflows), "the kernel counted {least} to {most}: {last}");
    ensure!(account.reconciled(&listener)?["difference"] == 0, "{}", account.reconciled(&listener)?);
    Ok(())
}

/// Handshakes that begin while there is room and end when there is none: TCP_DEFER_ACCEPT holds them up.
fn late_handshakes(abort: &str, outcome: &str) -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.sysctl("net.ipv4.tcp_abort_on_overflow", abort)?;
    let listener = Endpoint::v4(9477);
    let backlog = Backlog::of(&listener)?;
    let _socket = namespace.listen_deferring(&listener, BACKLOG as i32)?;
    backlog.wait_for_listener("a new listener", |line| line["addr"] == listener.to_string())?;
    let before = namespace.tcp_counter("ListenOverflows")?;
    let fillers = namespace.crowd(&listener, BACKLOG)?;
    fillers.send()?;
    namespace.wait_for_queue(&listener, BACKLOG as u32)?;
    // So many unfinished handshakes fit without SYN cookies on every kernel: 5.10 takes no more. One will still find room.
    let crowd = namespace.crowd(&listener, BACKLOG)?;
    namespace.wait_for_half_open(&listener, BACKLOG)?;
    ensure!(crowd.by_luck()?.0.len() == BACKLOG, "each believes to be connected");
    crowd.send()?;
    namespace.wait_for_queue(&listener, BACKLOG as u32 + 1)?;
    let victims = BACKLOG - 1;
    let dropped = || -> Result<u64> { Ok(namespace.tcp_counter("ListenOverflows")? - before) };
    wait::until_true("each end of a handshake to be dropped", || Ok(dropped()? >= victims as u64))?;
    let crowd = if outcome == "gave_up" {
        drop(crowd);
        let yet = dropped()?;
        wait::until_true("what their kernel sends for closed clients to be dropped, twice each", || {
            Ok(dropped()? >= yet + 2 * victims as u64)
        })?;
        None
    } else {
        Some(crowd)
    };
    let least = dropped()?;
    let account = backlog.stop()?;
    let most = dropped()?;
    let last = account.last(&listener)?;
    let overflows = last["overflows_at"]["final_ack"].as_u64().unwrap_or_default();
    ensure!(
        (least..=most).contains(&overflows) && last["overflows"] == overflows,
        "{least} to {most}: {last}"
    );
    ensure!(account.reconciled(&listener)?["difference"] == 0, "{}", account.reconciled(&listener)?);
    ensure!(account.all("overflow").len() == victims, "{:#?}", account.all("overflow"));
    for victim in account.all("overflow") {
        ensure!(victim["stage"] == "final_ack" && victim["outcome"] == outcome, "{victim}");
    }
    if let Some(crowd) = crowd {
        let resets = crowd.errors()?.into_iter().filter(|error| *error == Errno::ECONNRESET as i32).count();
        ensure!(resets == if outcome == "reset" { victims } else { 0 }, "{resets} clients were reset");
    }
    Ok(())
}

#[test]
fn the_end_of_a_handshake_at_a_full_queue_is_reported_as_such() -> Result<()> {
    late_handshakes("0", "waiting")
}

#[test]
fn with_abort_on_overflow_the_end_of_a_handshake_is_reset() -> Result<()> {
    late_handshakes("1", "reset")
}

#[test]
fn a_client_that_closes_after_its_handshake_is_one_victim_whatever_its_kernel_still_sends() -> Result<()> {
    late_handshakes("0", "gave_up")
}

#[test]
fn clients_of_another_namespace_are_named() -> Result<()> {
    let (near, far) = (Namespace::new()?, Namespace::new()?);
    let (here, there) = (Ipv4Addr::new(10, 78, 1, 1), Ipv4Addr::new(10, 78, 1, 2));
    near.join(&far, "wire", here, there)?;
    let listener: Endpoint = "10.78.1.1:9478".parse()?;
    let backlog = Backlog::of(&listener)?;
    let _socket = near.listen(&listener, BACKLOG as i32)?;
    backlog.wait_for_listener("a new listener", |line| line["addr"] == listener.to_string())?;
    let before = near.tcp_counter("ListenOverflows")?;
    let crowd = far.file(&near, &listener, CLIENTS)?;
    near.wait_for_queue(&listener, BACKLOG as u32 + 1)?;
    let victims = CLIENTS - BACKLOG - 1;
    wait::until_true("each SYN to be dropped", || {
        Ok(near.tcp_counter("ListenOverflows")? - before >= victims as u64)
    })?;
    let account = backlog.stop()?;
    let mut names: Vec<String> = crowd.by_luck()?.1.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    ensure!(names.len() == victims && account.victims() == names, "{:?}", account.victims());
    ensure!(account.reconciled(&listener)?["difference"] == 0);
    Ok(())
}

#[test]
fn listeners_that_share_a_port_are_told_apart() -> Result<()> {
    let namespace = Namespace::new()?;
    let listener = Endpoint::v4(9479);
    let backlog = Backlog::of(&listener)?;
    let _sockets: Vec<OwnedFd> =
        (0..4).map(|backlog| namespace.listen_beside(&listener, backlog)).collect::<Result<_>>()?;
    let is_its = |line: &serde_json::Value| line["addr"] == listener.to_string();
    wait::until_true("four listeners", || {
        Ok(backlog.lines("listener").iter().filter(|line| is_its(line)).count() >= 4)
    })?;
    let before = namespace.tcp_counter("ListenOverflows")?;
    let crowd = namespace.file(&namespace, &listener, 60)?;
    // 1 + 2 + 3 + 4 fit.
    wait::until_true("all queues to be full", || Ok(crowd.by_luck()?.0.len() == 10))?;
    wait::until_true("each SYN to be dropped", || {
        Ok(namespace.tcp_counter("ListenOverflows")? - before >= 50)
    })?;
    let account = backlog.stop()?;
    let last: Vec<_> = account.all("listener").into_iter().filter(|line| line["final"] == true).collect();
    let mut depths: Vec<_> =
        last.iter().map(|line| (line["limit"].as_u64(), line["depth"].as_u64())).collect();
    depths.sort_unstable();
    ensure!(depths == [0, 1, 2, 3].map(|limit| (Some(limit), Some(limit + 1))), "{depths:?}");
    ensure!(account.all("overflow").len() == 50, "{} victims", account.all("overflow").len());
    ensure!(account.reconciled(&listener)?["difference"] == 0);
    Ok(())
}

/// A look at the listeners may come while the kernel side writes a new one down. Taken for one that listens elsewhere, it was not emitted,
/// nor were the clients that met its full queue.
#[test]
fn a_listener_that_is_being_written_down_is_not_emitted_yet() -> Result<()> {
    // A look comes at the wrong moment about once in twenty; emulated processors are slow to read what was closed meanwhile.
    let looks = if wait::patience() == 1 { 12 } else { 3 };
    let namespace = Namespace::new()?;
    let (listener, is_over) = (Endpoint::v4(9481), AtomicBool::new(false));
    let here = format!(r#""addr":"{listener}""#);
    thread::scope(|scope| {
        let churn = scope.spawn(|| namespace.listen_and_stop(&listener, &is_over));
        let looked = (0..looks).try_for_each(|_| -> Result<()> {
            let run = run(&["backlog", "--all", "-o", "json", "-d", "1ms"])?;
            ensure!(run.status.success(), "{}: {}", run.status, run.stderr);
            let is_here = |line: &String| line.contains(&here);
            ensure!(run.stdout.iter().any(is_here), "{} lines, none of it", run.stdout.len());
            let is_half =
                |line: &&String| line.contains(r#":0","#) || is_here(line) && !line.contains(r#""limit":1,"#);
            let half = run.stdout.iter().find(is_half);
            ensure!(half.is_none(), "{half:?}");
            Ok(())
        });
        is_over.store(true, Ordering::Relaxed);
        let churned = churn.join().map_err(|_| anyhow!("listening panicked"))?;
        churned.and(looked)
    })
}

#[test]
fn by_default_the_listeners_of_nginxs_upstreams_are_emitted_and_its_exchanges_named() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).listen(Endpoint::v4(9480)).backlog(1).start()?;
    let other = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9481), 64)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/php/", &fpm).connect_timeout(Duration::from_millis(700)))
        .start()?;
    fpm.freeze()?;
    let _fillers = namespace.fill_queue(fpm.endpoint(), 2)?;
    let backlog = Backlog::start(&[])?;
    ensure!(nginx.client().get("/php/ok.php")?.status == 504);
    backlog.wait_for_victims(1)?;
    let account = backlog.stop()?;
    let last = account.last(fpm.endpoint())?;
    ensure!(last["pid"] == fpm.master() && last["overflows"] == 1, "{last}");
    ensure!(account.last(other.endpoint()).is_err(), "nginx does not use {}", other.endpoint());
    let worker = nginx.workers()?[0];
    let ours: Vec<_> =
        account.all("overflow").into_iter().filter(|victim| victim["nginx"]["pid"] == worker).collect();
    ensure!(ours.len() == 1, "{:#?}", account.all("overflow"));
    ensure!(ours[0]["nginx"]["local"] == ours[0]["client"] && ours[0]["outcome"] == "gave_up", "{}", ours[0]);
    ensure!(ours[0]["nginx"]["upstream"] == fpm.endpoint().to_string(), "{}", ours[0]);
    Ok(())
}
