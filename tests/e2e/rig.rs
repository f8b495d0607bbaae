//! The rig's own ground truth: each fault yields the line in nginx's error log that it is said to, without
//! any tracer.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::error_log::{Failure, Kind};
use rig::{
    Client, Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Remote, Temper, process, wait,
};

/// A second that is short enough to wait for and long enough for a busy machine.
const SOON: Duration = Duration::from_millis(700);

fn only(failures: &[Failure]) -> Result<&Failure> {
    ensure!(failures.len() == 1, "not one failure but {failures:#?}");
    failures.first().context("no failure")
}

#[test]
fn a_healthy_upstream_answers_and_logs_nothing() -> Result<()> {
    let namespace = Namespace::new()?;
    let four = Fpm::on(&namespace).start()?;
    let six = Fpm::on(&namespace).listen(Endpoint::v6(9000)).start()?;
    let unix = Fpm::on(&namespace).listen(Endpoint::Unix(namespace.scratch().join("fpm.sock"))).start()?;
    let nginx = Nginx::on(&namespace)
        .workers(2)
        .location(Location::fpm("/four/", &four))
        .location(Location::fpm("/six/", &six))
        .location(Location::fpm("/unix/", &unix))
        .start()?;
    for (prefix, fpm) in [("four", &four), ("six", &six), ("unix", &unix)] {
        let answer = nginx.client().get(&format!("/{prefix}/ok.php?tag={prefix}"))?;
        ensure!(answer.status == 200 && answer.body.starts_with(b"hello from "), "{answer:?}");
        ensure!(fpm.workers()?.contains(&fpm.worker_on(prefix)?));
        ensure!(namespace.accept_queue(fpm.endpoint())? == Some(0));
    }
    let large = vec![b'x'; 3_000_000];
    ensure!(nginx.client().post("/four/echo.php", &large)?.body == large);
    ensure!(nginx.client().storm("/four/ok.php", 500, 4)? == [(200, 500)].into());
    ensure!(nginx.wait_for_accesses(504)?.iter().all(|access| access.status == 200));
    ensure!(nginx.failures().is_empty(), "{:#?}", nginx.failures());
    Ok(())
}

#[test]
fn a_port_without_listener_is_111_and_502() -> Result<()> {
    let namespace = Namespace::new()?;
    let stale = namespace.scratch().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale)?);
    let nginx = Nginx::on(&namespace)
        .location(Location::fastcgi("/four/", &Endpoint::v4(9009)))
        .location(Location::fastcgi("/six/", &Endpoint::v6(9009)))
        .location(Location::fastcgi("/stale/", &Endpoint::Unix(stale.clone())))
        .location(Location::fastcgi("/missing/", &Endpoint::Unix("/nonexistent".into())))
        .start()?;
    for path in ["/four/", "/six/", "/stale/", "/missing/"] {
        ensure!(nginx.client().get(path)?.status == 502);
    }
    let failures = nginx.failures();
    let seen: Vec<_> = failures.iter().map(|f| (f.kind, f.errno, f.upstream.clone())).collect();
    let expected = [
        (Kind::Connect, Some(111), Some(Endpoint::v4(9009))),
        (Kind::Connect, Some(111), Some(Endpoint::v6(9009))),
        (Kind::Connect, Some(111), Some(Endpoint::Unix(stale))),
        (Kind::Connect, Some(2), Some(Endpoint::Unix("/nonexistent".into()))),
    ];
    ensure!(seen == expected, "{failures:#?}");
    ensure!(failures[0].text == "connect() failed (111: Connection refused) while connecting to upstream");
    ensure!(nginx.workers()? == [failures[0].pid]);
    Ok(())
}

#[test]
fn a_killed_worker_is_104_and_502() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).terminate_after(Duration::from_secs(1)).start()?;
    let patient = Fpm::on(&namespace).listen(Endpoint::v4(9001)).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/timed/", &fpm))
        .location(Location::fpm("/php/", &patient))
        .start()?;
    let client = nginx.client();
    ensure!(client.get("/timed/sleep.php?s=20")?.status == 502);
    // It kills first and logs then.
    wait::until_true("php-fpm's word", || Ok(fpm.log().contains("execution timed out")))?;
    let asked = client.ask("/php/sleep.php?s=20&tag=victim")?;
    process::send(patient.worker_on("victim")?, Signal::SIGKILL)?;
    ensure!(asked.answer()?.status == 502);
    ensure!(client.get("/php/die.php?signal=11")?.status == 502);
    let failures = nginx.failures();
    ensure!(failures.len() == 3, "{failures:#?}");
    let text = "recv() failed (104: Connection reset by peer) while reading response header from upstream";
    ensure!(failures.iter().all(|failure| failure.text == text), "{failures:#?}");
    Ok(())
}

#[test]
fn a_full_accept_queue_drops_the_syn_and_is_504() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).backlog(1).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm).connect_timeout(SOON)).start()?;
    fpm.freeze()?;
    let fillers = namespace.fill_queue(fpm.endpoint(), 2)?;
    let overflows = namespace.tcp_counter("ListenOverflows")?;
    ensure!(nginx.client().get("/php/ok.php")?.status == 504);
    let failures = nginx.failures();
    let text = "upstream timed out (110: Connection timed out) while connecting to upstream";
    ensure!(only(&failures)?.text == text, "{failures:#?}");
    ensure!(namespace.tcp_counter("ListenOverflows")? > overflows, "no overflow was counted");
    drop(fillers);
    fpm.thaw()?;
    namespace.wait_for_queue(fpm.endpoint(), 0)?;
    ensure!(nginx.client().get("/php/ok.php")?.status == 200);
    Ok(())
}

#[test]
fn a_queued_request_and_a_slow_worker_are_both_504() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(1).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm).read_timeout(SOON)).start()?;
    let slow = nginx.client().ask("/php/sleep.php?s=3&tag=slow")?;
    fpm.worker_on("slow")?;
    let queued = nginx.client().ask("/php/ok.php?tag=queued")?;
    namespace.wait_for_queue(fpm.endpoint(), 1)?;
    ensure!(slow.answer()?.status == 504 && queued.answer()?.status == 504);
    ensure!(!fpm.has_begun("queued"));
    let text = "upstream timed out (110: Connection timed out) while reading response header from upstream";
    let failures = nginx.failures();
    ensure!(failures.len() == 2 && failures.iter().all(|failure| failure.text == text), "{failures:#?}");
    // Claim 5: what was never accepted in time is executed all the same.
    fpm.worker_on("queued")?;
    Ok(())
}

#[test]
fn a_client_that_goes_is_499_at_level_info() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let asked = nginx.client().ask("/php/sleep.php?s=1&tag=gone")?;
    fpm.worker_on("gone")?;
    asked.abort()?;
    let failures = nginx.wait_for_failures(1)?;
    ensure!(only(&failures)?.kind == Kind::ClientAbort && failures[0].level == "info", "{failures:#?}");
    ensure!(nginx.wait_for_accesses(1)?[0].status == 499);
    Ok(())
}

#[test]
fn faulty_servers_fail_as_they_are_told() -> Result<()> {
    let namespace = Namespace::new()?;
    let faults = [
        (
            Fault::Reset,
            "recv() failed (104: Connection reset by peer) while reading response header from upstream",
        ),
        (
            Fault::CloseUnanswered,
            "upstream prematurely closed connection while reading response header from upstream",
        ),
        (Fault::StallMidway, "upstream timed out (110: Connection timed out) while reading upstream"),
        (Fault::ResetMidway, "readv() failed (104: Connection reset by peer) while reading upstream"),
        (
            Fault::NeverRead,
            "upstream timed out (110: Connection timed out) while reading response header from upstream",
        ),
        (
            Fault::NeverAccept,
            "upstream timed out (110: Connection timed out) while reading response header from upstream",
        ),
    ];
    let mut servers = Vec::new();
    let mut nginx = Nginx::on(&namespace);
    for (index, (fault, _)) in (0..).zip(faults) {
        let server = FaultyServer::start(&namespace, fault, Endpoint::v4(9100 + index), 4)?;
        nginx = nginx.location(Location::http(&format!("/{fault}/"), server.endpoint()).read_timeout(SOON));
        servers.push(server);
    }
    let good = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9199), 4)?;
    let nginx = nginx.location(Location::http("/answer/", good.endpoint())).start()?;
    ensure!(nginx.client().get("/answer/")?.body == b"ok\n");
    good.wait_accepted(1)?;
    for (count, (fault, text)) in (1..).zip(faults) {
        nginx.client().get(&format!("/{fault}/"))?;
        let failures = nginx.wait_for_failures(count)?;
        ensure!(failures.last().is_some_and(|failure| failure.text == text), "{fault}: {failures:#?}");
    }
    Ok(())
}

#[test]
fn a_closing_listener_resets_what_is_queued() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut server = FaultyServer::start(&namespace, Fault::NeverAccept, Endpoint::v4(9100), 4)?;
    let nginx = Nginx::on(&namespace).location(Location::http("/http/", server.endpoint())).start()?;
    let asked = nginx.client().ask("/http/")?;
    namespace.wait_for_queue(server.endpoint(), 1)?;
    server.close_listener()?;
    ensure!(asked.answer()?.status == 502);
    let failures = nginx.failures();
    ensure!(only(&failures)?.errno == Some(104), "{failures:#?}");
    ensure!(process::state(server.pid()).is_some(), "the server has gone with its listener");
    Ok(())
}

#[test]
fn a_remote_upstream_has_one_end_here() -> Result<()> {
    let cases = [
        (Temper::Answer, 200, ""),
        (Temper::Refuse, 502, "connect() failed (111: Connection refused) while connecting to upstream"),
        (Temper::Silent, 504, "upstream timed out (110: Connection timed out) while connecting to upstream"),
        (
            Temper::Mute,
            504,
            "upstream timed out (110: Connection timed out) while reading response header from upstream",
        ),
        (
            Temper::Reset,
            502,
            "recv() failed (104: Connection reset by peer) while reading response header from upstream",
        ),
        (
            Temper::CloseUnanswered,
            502,
            "upstream prematurely closed connection while reading response header from upstream",
        ),
    ];
    let namespace = Namespace::new()?;
    let here = Remote::start(&namespace, Temper::Answer)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/far/", &here.endpoint()).read_timeout(SOON).connect_timeout(SOON))
        .start()?;
    drop(here);
    for (temper, status, text) in cases {
        let remote = Remote::start(&namespace, temper)?;
        let answer = nginx.client().get("/far/")?;
        let last = nginx.failures().pop().map(|failure| failure.text).unwrap_or_default();
        ensure!(answer.status == status && last == text, "{temper:?}: {} and {last}", answer.status);
        ensure!(namespace.accept_queue(&remote.endpoint())?.is_none(), "the kernel has a listener there");
    }
    Ok(())
}

#[test]
fn reloads_and_stops_take_effect() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut fpm = Fpm::on(&namespace).start()?;
    let mut nginx = Nginx::on(&namespace).workers(2).location(Location::fpm("/php/", &fpm)).start()?;
    let (before, master) = (nginx.workers()?, fpm.master());
    nginx.reload()?;
    fpm.reload()?;
    ensure!(fpm.master() == master && nginx.workers()?.iter().all(|pid| !before.contains(pid)));
    ensure!(nginx.client().get("/php/ok.php")?.status == 200);
    fpm.stop(Signal::SIGQUIT)?;
    namespace.wait_for_no_listener(fpm.endpoint())?;
    ensure!(nginx.client().get("/php/ok.php")?.status == 502);
    nginx.stop(Signal::SIGQUIT)
}

#[test]
fn networks_are_joined_filtered_and_tuned() -> Result<()> {
    let (here, there) = (Namespace::new()?, Namespace::new()?);
    let (near, far) = (Ipv4Addr::new(10, 97, 0, 1), Ipv4Addr::new(10, 97, 0, 2));
    here.join(&there, "rig0", near, far)?;
    let listener = there.run(|| Ok(TcpListener::bind((far, 80))?))?;
    here.run(|| Ok(TcpStream::connect((far, 80))?))?;
    there.nft(
        "table ip t { chain c { type filter hook input priority 0; tcp dport 80 reject with tcp reset\n}\n}",
    )?;
    let refused = here.run(|| Ok(TcpStream::connect((far, 80)).is_err()))?;
    ensure!(refused, "the rule rejects nothing");
    ensure!(there.nft("no such rule").is_err());
    here.sysctl("net.ipv4.tcp_abort_on_overflow", "1")?;
    drop(listener);
    Ok(())
}

#[test]
fn nothing_is_left_when_masters_are_killed() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let mut pids = namespace.processes()?;
    ensure!(pids.len() == 5, "two masters and three workers are not {pids:?}");
    process::send(nginx.master(), Signal::SIGKILL)?;
    process::send(fpm.master(), Signal::SIGKILL)?;
    let scratch = namespace.scratch().to_owned();
    drop((nginx, fpm, namespace));
    pids.retain(|pid| process::state(*pid).is_some());
    ensure!(pids.is_empty(), "{pids:?} live on");
    ensure!(!scratch.exists(), "{} is still there", scratch.display());
    Ok(())
}

#[test]
fn a_client_reads_an_answer_that_is_cut_short() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::ResetMidway, Endpoint::v4(9100), 4)?;
    let Endpoint::Tcp(address) = *server.endpoint() else { unreachable!() };
    let nginx = Nginx::on(&namespace).location(Location::http("/half/", server.endpoint())).start()?;
    let answer = nginx.client().get("/half/")?;
    ensure!(answer.status == 200 && b"only this much".starts_with(&answer.body), "{answer:?}");
    ensure!(Client::new(&namespace, address).get("/").is_err(), "a reset went unnoticed");
    Ok(())
}

#[test]
fn an_early_close_is_seen_by_whoever_waits() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::NeverAccept, Endpoint::v4(9100), 2)?;
    let mut fillers = namespace.fill_queue(server.endpoint(), 3)?;
    drop(server);
    let mut filler = fillers.pop().context("a filler")?;
    ensure!(filler.read(&mut [0]).is_err(), "the queue was not reset with its listener");
    Ok(())
}
