//! Upstreams behind unix sockets, Debian's default for php-fpm.

use std::fs::{self, Permissions};
use std::net::UdpSocket;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use rig::error_log::Kind;
use rig::reconcile::pair_off;
use rig::{
    Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Sight, Tracer, Verdict, When, process,
    wait,
};

const READ: Duration = Duration::from_millis(800);

fn socket(namespace: &Namespace, name: &str) -> Endpoint {
    Endpoint::Unix(namespace.scratch().join(name))
}

/// Watches one nginx and only these sockets, from the start.
fn watch(nginx: &Nginx, sockets: &[&Endpoint]) -> Result<Tracer> {
    let master = nginx.master().to_string();
    let named: Vec<String> = sockets.iter().map(|socket| socket.for_nginx()).collect();
    let mut arguments = vec!["-p", &master];
    arguments.extend(named.iter().flat_map(|name| ["-u", name]));
    Tracer::start(&arguments)
}

/// Connections of nobody in particular, until `count` are queued.
fn fill(namespace: &Namespace, listener: &Endpoint, places: Range<u32>) -> Result<Vec<UnixStream>> {
    let Endpoint::Unix(path) = listener else { anyhow::bail!("{listener} is no unix socket") };
    let fillers =
        places.clone().map(|_| UnixStream::connect(path).context("filling")).collect::<Result<Vec<_>>>()?;
    namespace.wait_for_queue(listener, places.end)?;
    Ok(fillers)
}

fn queue_of(verdict: &Verdict) -> Option<(u32, u32)> {
    verdict.queue.as_ref().and_then(|queue| Some((queue.depth?, queue.limit?)))
}

#[test]
fn what_nginx_asks_the_system_is_no_exchange() -> Result<()> {
    let namespace = Namespace::new()?;
    let missing = socket(&namespace, "missing");
    let path = namespace.scratch().join("missing");
    let tracer = Tracer::start(&["--comm", "asks", "--connect-errors"])?;
    namespace.run(|| {
        prctl::set_name(c"asks")?;
        // The C library asks for users and groups here, and mostly nobody is there; names and logs go by datagrams.
        let _nobody = UnixStream::connect("/var/run/nscd/socket");
        ensure!(UnixDatagram::unbound()?.connect(&path).is_err());
        ensure!(UdpSocket::bind("0.0.0.0:0")?.connect("10.99.0.1:53").is_err());
        ensure!(UnixStream::connect(&path).is_err());
        Ok(())
    })?;
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.verdicts.len() == 1 && account.summary["exchanges"] == 1, "{:#?}", account.verdicts);
    ensure!(account.only(&missing)?.name() == "refused/socket_missing");
    Ok(())
}

#[test]
fn a_missing_socket_and_a_stale_one_are_told_apart() -> Result<()> {
    let namespace = Namespace::new()?;
    let (missing, stale) = (socket(&namespace, "missing"), socket(&namespace, "stale"));
    drop(UnixListener::bind(namespace.scratch().join("stale"))?);
    let nginx = Nginx::on(&namespace)
        .location(Location::fastcgi("/missing/", &missing))
        .location(Location::http("/stale/", &stale))
        .start()?;
    let tracer = watch(&nginx, &[&missing, &stale])?;
    for path in ["/missing/", "/stale/", "/missing/"] {
        ensure!(nginx.client().get(path)?.status == 502);
    }
    tracer.wait_for(3)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    for (upstream, count, name, errno) in [
        (&missing, 2, "refused/socket_missing", "ENOENT"),
        (&stale, 1, "refused/no_listener", "ECONNREFUSED"),
    ] {
        let about = account.about(upstream);
        ensure!(about.len() == count, "{about:#?}");
        for verdict in about {
            verdict.says(name, "proven", 502, Some(errno))?;
            verdict.blames(None, None, None)?;
            ensure!(verdict.family() == Some("unix") && verdict.us.connected.is_none(), "{verdict:#?}");
        }
    }
    Ok(())
}

#[test]
fn a_socket_that_nginx_may_not_write_to_is_permission_denied() -> Result<()> {
    let namespace = Namespace::new()?;
    fs::set_permissions(namespace.scratch(), Permissions::from_mode(0o755))?;
    let fpm = Fpm::on(&namespace).listen(socket(&namespace, "private")).pool("listen.mode = 0600").start()?;
    let nginx =
        Nginx::on(&namespace).user("nobody nogroup").location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = watch(&nginx, &[fpm.endpoint()])?;
    ensure!(nginx.client().get("/php/ok.php")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    account.only(fpm.endpoint())?.says("refused/permission_denied", "proven", 502, Some("EACCES"))
}

#[test]
fn a_full_backlog_refuses_at_once_and_says_how_full_it_was() -> Result<()> {
    let namespace = Namespace::new()?;
    // This one listens before the tracer starts, the other one begins to afterwards.
    let old = Fpm::on(&namespace).backlog(1).listen(socket(&namespace, "old")).start()?;
    let new = Fpm::on(&namespace).backlog(2).listen(socket(&namespace, "new"));
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/old/", &old))
        .location(Location::fastcgi("/new/", &socket(&namespace, "new")))
        .start()?;
    let tracer = watch(&nginx, &[old.endpoint(), &socket(&namespace, "new")])?;
    let new = new.start()?;
    ensure!(nginx.client().get("/new/")?.status != 502);
    old.freeze()?;
    new.freeze()?;
    // A connection that nobody has accepted when connect returns shows its listener.
    let _queued = nginx.client().ask("/new/")?;
    namespace.wait_for_queue(new.endpoint(), 1)?;
    let _fillers = [fill(&namespace, old.endpoint(), 0..2)?, fill(&namespace, new.endpoint(), 1..3)?];
    for path in ["/old/ok.php", "/new/"] {
        ensure!(nginx.client().get(path)?.status == 502);
    }
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    for (fpm, depth, limit) in [(&old, 2, 1), (&new, 3, 2)] {
        let verdict = account.only(fpm.endpoint())?;
        verdict.says("accept_queue_overflow/unix_backlog_full", "proven", 502, Some("EAGAIN"))?;
        verdict.blames(None, None, None)?;
        ensure!(queue_of(verdict) == Some((depth, limit)), "{verdict:#?}");
    }
    Ok(())
}

#[test]
fn deaths_of_workers_are_named_as_over_tcp() -> Result<()> {
    let namespace = Namespace::new()?;
    let timed = Fpm::on(&namespace)
        .terminate_after(Duration::from_secs(1))
        .listen(socket(&namespace, "timed"))
        .start()?;
    let fpm = Fpm::on(&namespace).listen(socket(&namespace, "fpm")).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/timed/", &timed))
        .location(Location::fpm("/php/", &fpm))
        .start()?;
    let tracer = watch(&nginx, &[timed.endpoint(), fpm.endpoint()])?;
    let client = nginx.client();
    let cut = client.ask("/timed/sleep.php?s=20&tag=cut")?;
    let victim = client.ask("/php/sleep.php?s=20&tag=victim")?;
    let me = std::process::id().cast_signed();
    process::send(fpm.worker_on("victim")?, Signal::SIGKILL)?;
    ensure!(victim.answer()?.status == 502);
    ensure!(client.get("/php/die.php?signal=11&tag=crash")?.status == 502);
    ensure!(cut.answer()?.status == 502);
    tracer.wait_for(3)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(timed.endpoint())?;
    verdict.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
    verdict.blames(Some(timed.worker_on("cut")?), Some("SIGTERM"), Some(timed.master()))?;
    let [killed, crashed] = account.about(fpm.endpoint())[..] else {
        anyhow::bail!("{:#?}", account.verdicts)
    };
    killed.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
    killed.blames(Some(fpm.worker_on("victim")?), Some("SIGKILL"), Some(me))?;
    crashed.says("reset/worker_crashed", "proven", 502, Some("ECONNRESET"))?;
    let crasher = fpm.worker_on("crash")?;
    ensure!((crashed.worker_pid(), crashed.signal()) == (Some(crasher), Some("SIGSEGV")), "{crashed:#?}");
    for verdict in &account.verdicts {
        ensure!(verdict.us.accepted.is_some() && verdict.us.worker_ended.is_some(), "{verdict:#?}");
        ensure!(verdict.nginx.local.is_none(), "{verdict:#?}");
    }
    Ok(())
}

#[test]
fn waiting_in_the_queue_and_being_served_slowly_are_told_apart() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(1).backlog(7).listen(socket(&namespace, "fpm")).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/php/", &fpm).read_timeout(READ))
        .location(Location::fpm("/patient/", &fpm))
        .start()?;
    let tracer = watch(&nginx, &[fpm.endpoint()])?;
    let client = nginx.client();
    let slow = client.ask("/php/sleep.php?s=2&tag=slow")?;
    let worker = fpm.worker_on("slow")?;
    let queued = client.ask("/php/sleep.php?s=0.3&tag=queued")?;
    namespace.wait_for_queue(fpm.endpoint(), 1)?;
    ensure!(slow.answer()?.status == 504 && queued.answer()?.status == 504);
    ensure!(!fpm.has_begun("queued"), "the queued request was taken up in time");
    tracer.wait_for(2)?;
    ensure!(client.get("/patient/ok.php")?.status == 200);

    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let of =
        |name: &str| account.verdicts.iter().find(|v| v.name() == name).with_context(|| format!("no {name}"));
    let verdict = of("read_timeout/slow_worker")?;
    verdict.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))?;
    verdict.blames(Some(worker), None, None)?;
    ensure!(verdict.us.accepted.is_some(), "{verdict:#?}");
    let verdict = of("read_timeout/never_accepted")?;
    verdict.says("read_timeout/never_accepted", "proven", 504, Some("ETIMEDOUT"))?;
    verdict.blames(None, None, None)?;
    ensure!(verdict.us.accepted.is_none() && queue_of(verdict) == Some((1, 7)), "{verdict:#?}");
    Ok(())
}

#[test]
fn closing_a_listener_a_connection_and_closing_it_unread_are_told_apart() -> Result<()> {
    let namespace = Namespace::new()?;
    let start = |fault, name| FaultyServer::start(&namespace, fault, socket(&namespace, name), 4);
    let mut queued = start(Fault::NeverAccept, "queued")?;
    let closer = start(Fault::CloseUnanswered, "closer")?;
    let unread = start(Fault::CloseUnread, "unread")?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/queued/", queued.endpoint()))
        .location(Location::http("/closer/", closer.endpoint()))
        .location(Location::http("/unread/", unread.endpoint()))
        .start()?;
    let tracer = watch(&nginx, &[queued.endpoint(), closer.endpoint(), unread.endpoint()])?;
    ensure!(nginx.client().get("/closer/")?.status == 502);
    ensure!(nginx.client().get("/unread/")?.status == 502);
    let asked = nginx.client().ask("/queued/")?;
    namespace.wait_for_queue(queued.endpoint(), 1)?;
    queued.close_listener()?;
    ensure!(asked.answer()?.status == 502);
    tracer.wait_for(3)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(queued.endpoint())?;
    verdict.says("reset/listener_closed", "proven", 502, Some("ECONNRESET"))?;
    verdict.blames(None, None, None)?;
    let verdict = account.only(closer.endpoint())?;
    verdict.says("premature_close/peer_closed", "proven", 502, None)?;
    verdict.blames(Some(closer.pid()), None, None)?;
    let verdict = account.only(unread.endpoint())?;
    // Where accepts and closes of unix sockets are not seen, it may as well have died.
    let right = match verdict.worker_pid() {
        Some(_) => "reset/peer_aborted",
        None => "unknown/not_enough_facts",
    };
    ensure!(verdict.name() == right, "{verdict:#?}");
    ensure!(verdict.worker_pid().is_none_or(|pid| pid == unread.pid()), "{verdict:#?}");
    ensure!(verdict.killer.is_none() && verdict.signal().is_none(), "{verdict:#?}");
    Ok(())
}

#[test]
fn a_client_that_goes_is_told_from_a_timeout() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).listen(socket(&namespace, "fpm")).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = watch(&nginx, &[fpm.endpoint()])?;
    let asked = nginx.client().ask("/php/sleep.php?s=20&tag=gone")?;
    let worker = fpm.worker_on("gone")?;
    asked.abort()?;
    tracer.wait_for(1)?;
    let failures = nginx.wait_for_failures(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&failures, &account.verdicts)?;
    ensure!(failures[0].kind == Kind::ClientAbort, "{failures:#?}");
    let verdict = account.only(fpm.endpoint())?;
    verdict.says("client_abort/before_response", "proven", 499, None)?;
    verdict.blames(Some(worker), None, None)
}

#[test]
fn a_header_that_nginx_rejects_is_its_own_doing() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).listen(socket(&namespace, "fpm")).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = watch(&nginx, &[fpm.endpoint()])?;
    ensure!(nginx.client().get("/php/big_header.php?bytes=20000")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    account.only(fpm.endpoint())?.says("rejected_response/header_too_big", "proven", 502, None)
}

#[test]
fn a_killed_nginx_worker_is_no_fault_of_the_upstream() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).listen(socket(&namespace, "fpm")).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = watch(&nginx, &[fpm.endpoint()])?;
    let asked = nginx.client().ask("/php/sleep.php?s=5&tag=served")?;
    let worker = fpm.worker_on("served")?;
    process::send(nginx.workers()?[0], Signal::SIGKILL)?;
    ensure!(asked.answer().is_err(), "a dead nginx has answered");
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let verdict = account.only(fpm.endpoint())?;
    ensure!(verdict.name() == "nginx_exit/worker_killed", "{verdict:#?}");
    verdict.blames(Some(worker), None, None)
}

#[test]
fn sockets_that_nobody_named_are_watched_once_they_are_in_use() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).listen(socket(&namespace, "fpm")).start()?;
    let missing = socket(&namespace, "missing");
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/php/", &fpm))
        .location(Location::fastcgi("/missing/", &missing))
        .start()?;
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "-v"])?;
    ensure!(nginx.client().get("/php/ok.php")?.status == 200);
    if *Sight::here()?.when("unix_sockets")? == When::OnDemand {
        wait::until_true("why502 to notice unix sockets", || {
            Ok(tracer.complaints().contains("unix-socket upstreams are in use"))
        })?;
    }
    ensure!(nginx.client().get("/missing/")?.status == 502);
    ensure!(nginx.client().storm("/php/ok.php", 300, 2)? == [(200, 300)].into());
    let asked = nginx.client().ask("/php/sleep.php?s=20&tag=victim")?;
    let worker = fpm.worker_on("victim")?;
    process::send(worker, Signal::SIGKILL)?;
    ensure!(asked.answer()?.status == 502);
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    account.only(&missing)?.says("refused/socket_missing", "proven", 502, Some("ENOENT"))?;
    let verdict = account.only(fpm.endpoint())?;
    verdict.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
    verdict.blames(Some(worker), Some("SIGKILL"), Some(std::process::id().cast_signed()))
}

#[test]
fn successes_over_unix_sockets_are_silent() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).listen(socket(&namespace, "fpm")).start()?;
    let nginx = Nginx::on(&namespace).workers(2).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = watch(&nginx, &[fpm.endpoint()])?;
    let large = vec![b'x'; 3_000_000];
    ensure!(nginx.client().post("/php/echo.php", &large)?.body == large);
    ensure!(nginx.client().get("/php/slow_body.php?s=0.8")?.body.ends_with(b"the end\n"));
    ensure!(nginx.client().get("/php/exit.php")?.status == 200);
    ensure!(nginx.client().storm("/php/ok.php", 1_000, 4)? == [(200, 1_000)].into());
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.verdicts.is_empty() && nginx.failures().is_empty(), "{:#?}", account.verdicts);
    ensure!(account.others.is_empty(), "{:#?}", account.others);
    ensure!(account.summary["exchanges"] == 1_003, "{}", account.summary);
    Ok(())
}
