//! Timers, nginx's own and the kernel's, and what nginx ends for reasons of its own.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::error_log::{Kind, count};
use rig::reconcile::pair_off;
use rig::{
    Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Remote, Temper, Tracer, process, wait,
};

const SOON: Duration = Duration::from_millis(800);
/// What nginx's own timers are set to where the kernel's are to fire.
const LATE: Duration = Duration::from_secs(60);

/// Drops every packet with data to a port, so that the handshake still succeeds.
fn drop_data_to(namespace: &Namespace, port: u16) -> Result<()> {
    namespace.nft(&format!(
        "table inet rig {{ chain input {{ type filter hook input priority 0; \
         tcp dport {port} tcp flags & psh == psh drop\n}}\n}}"
    ))
}

#[test]
fn a_response_that_stalls_is_reported_though_the_access_log_says_200() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let unix = Fpm::on(&namespace).listen(Endpoint::Unix(namespace.scratch().join("fpm.sock"))).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/php/", &fpm).read_timeout(SOON))
        .location(Location::fpm("/unix/", &unix).read_timeout(SOON))
        .start()?;
    let tracer = Tracer::start(&[
        "-p",
        &nginx.master().to_string(),
        "-u",
        &fpm.endpoint().to_string(),
        "-u",
        &unix.endpoint().for_nginx(),
    ])?;
    let client = nginx.client();
    let asked =
        [client.ask("/php/slow_body.php?s=2.5&tag=tcp")?, client.ask("/unix/slow_body.php?s=2.5&tag=unix")?];
    for one in asked {
        let answer = one.answer()?;
        ensure!(answer.status == 200 && !answer.body.ends_with(b"the end\n"), "{}", answer.status);
    }
    tracer.wait_for(2)?;
    let failures = nginx.wait_for_failures(2)?;
    ensure!(nginx.wait_for_accesses(2)?.iter().all(|access| access.status == 200));
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&failures, &account.verdicts)?;
    for (fpm, tag) in [(&fpm, "tcp"), (&unix, "unix")] {
        let verdict = account.only(fpm.endpoint())?;
        ensure!(verdict.name() == "read_timeout/stalled_response", "{verdict:#?}");
        ensure!(verdict.status.is_none(), "{verdict:#?}");
        verdict.blames(Some(fpm.worker_on(tag)?), None, None)?;
        ensure!(verdict.us.first_received.is_some(), "{verdict:#?}");
    }
    Ok(())
}

#[test]
fn what_never_arrives_is_unacked_whether_its_other_end_is_here_or_not() -> Result<()> {
    let namespace = Namespace::new()?;
    let remote = Remote::start(&namespace, Temper::Deaf)?;
    let server = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9100), 4)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/far/", &remote.endpoint()).read_timeout(SOON))
        .location(Location::http("/near/", server.endpoint()).read_timeout(SOON))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    drop_data_to(&namespace, 9100)?;
    for path in ["/far/", "/near/"] {
        ensure!(nginx.client().get(path)?.status == 504);
    }
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(&remote.endpoint())?;
    verdict.says("read_timeout/unacked", "inferred", 504, Some("ETIMEDOUT"))?;
    let verdict = account.only(server.endpoint())?;
    verdict.says("read_timeout/unacked", "proven", 504, Some("ETIMEDOUT"))
}

#[test]
fn a_remote_upstream_that_acknowledges_and_is_silent_gives_no_answer() -> Result<()> {
    let namespace = Namespace::new()?;
    let remote = Remote::start(&namespace, Temper::Mute)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/far/", &remote.endpoint()).read_timeout(SOON))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/far/")?.status == 504);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(&remote.endpoint())?;
    verdict.says("read_timeout/no_answer", "inferred", 504, Some("ETIMEDOUT"))?;
    verdict.blames(None, None, None)
}

#[test]
fn a_request_that_is_not_read_fails_while_sending_only_if_it_did_not_fit() -> Result<()> {
    let namespace = Namespace::new()?;
    let start = |fault, port| FaultyServer::start(&namespace, fault, Endpoint::v4(port), 4);
    for (kind, limit) in [("rmem", "4096 16384 65536"), ("wmem", "4096 16384 1048576")] {
        namespace.sysctl(&format!("net.ipv4.tcp_{kind}"), limit)?;
    }
    let accepted = start(Fault::NeverRead, 9100)?;
    let queued = start(Fault::NeverAccept, 9101)?;
    let location = |prefix: &str, server: &FaultyServer| {
        Location::http(prefix, server.endpoint()).read_timeout(SOON).send_timeout(SOON)
    };
    let nginx = Nginx::on(&namespace)
        .location(location("/accepted/", &accepted))
        .location(location("/queued/", &queued))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let (large, small) = (vec![b'x'; 8_000_000], vec![b'x'; 300_000]);
    for (path, body) in
        [("/accepted/", &large), ("/accepted/", &small), ("/queued/", &large), ("/queued/", &small)]
    {
        ensure!(nginx.client().post(path, body)?.status == 504, "{path}");
    }
    tracer.wait_for(4)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let failures = nginx.failures();
    pair_off(&failures, &account.verdicts)?;
    let sending =
        failures.iter().filter(|failure| failure.text.ends_with("while sending request to upstream"));
    ensure!(sending.count() == 2, "{failures:#?}");
    let names: Vec<_> = account.verdicts.iter().map(rig::Verdict::name).collect();
    let right = [
        "send_timeout/peer_not_reading",
        "read_timeout/slow_worker",
        "read_timeout/nobody_accepts",
        "read_timeout/nobody_accepts",
    ];
    ensure!(names == right, "{names:?}");
    Ok(())
}

#[test]
fn the_kernel_gives_up_on_a_syn_before_nginx_does() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.sysctl("net.ipv4.tcp_syn_retries", "1")?;
    let remote = Remote::start(&namespace, Temper::Silent)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/far/", &remote.endpoint()).connect_timeout(LATE))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/far/")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    account.only(&remote.endpoint())?.says(
        "kernel_timeout/syn_retries_exhausted",
        "inferred",
        502,
        Some("ETIMEDOUT"),
    )
}

#[test]
fn a_request_that_is_not_read_from_a_unix_socket_fails_while_sending() -> Result<()> {
    let namespace = Namespace::new()?;
    let endpoint = Endpoint::Unix(namespace.scratch().join("never-reads.sock"));
    let server = FaultyServer::start(&namespace, Fault::NeverRead, endpoint.clone(), 4)?;
    let location = Location::http("/unix/", server.endpoint()).read_timeout(SOON).send_timeout(SOON);
    let nginx = Nginx::on(&namespace).location(location).start()?;
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "-u", &endpoint.for_nginx()])?;
    ensure!(nginx.client().post("/unix/", &vec![b'x'; 4 << 20])?.status == 504);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let failures = nginx.failures();
    ensure!(failures.len() == 1 && failures[0].text.ends_with("while sending request to upstream"));
    let names: Vec<_> = account.verdicts.iter().map(rig::Verdict::name).collect();
    ensure!(names == ["send_timeout/peer_not_reading"], "{names:?}");
    Ok(())
}

#[test]
fn the_kernel_gives_up_on_data_before_nginx_does() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.sysctl("net.ipv4.tcp_retries2", "2")?;
    let server = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9100), 4)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/near/", server.endpoint()).read_timeout(LATE).send_timeout(LATE))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    drop_data_to(&namespace, 9100)?;
    ensure!(nginx.client().get("/near/")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(server.endpoint())?;
    ensure!(verdict.name() == "kernel_timeout/retransmits_exhausted", "{verdict:#?}");
    ensure!(verdict.errno.as_deref() == Some("ETIMEDOUT"), "{verdict:#?}");
    Ok(())
}

#[test]
fn a_host_without_free_ports_is_to_blame_itself() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.sysctl("net.ipv4.ip_local_port_range", "40000 40003")?;
    let server = FaultyServer::start(&namespace, Fault::NeverAccept, Endpoint::v4(9100), 64)?;
    let nginx = Nginx::on(&namespace).location(Location::http("/near/", server.endpoint())).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let fillers = namespace.fill_queue(server.endpoint(), 4)?;
    ensure!([500, 502].contains(&nginx.client().get("/near/")?.status));
    tracer.wait_for(1)?;
    drop(fillers);
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(server.endpoint())?;
    ensure!(verdict.name() == "local_error/ports_exhausted", "{verdict:#?}");
    ensure!(verdict.errno.as_deref() == Some("EADDRNOTAVAIL"), "{verdict:#?}");
    Ok(())
}

#[test]
fn a_client_that_goes_in_the_middle_of_a_response_is_reported_however_it_goes() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(4).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    let mut workers = Vec::new();
    let mut ask = |path: &str, tag: &str| -> Result<_> {
        let asked = client.ask(&format!("/php/{path}&tag={tag}"))?;
        workers.push(fpm.worker_on(tag)?);
        Ok(asked)
    };
    let fin = ask("slow_body.php?s=30", "fin")?;
    let rst = ask("slow_body.php?s=30", "rst")?;
    let before = ask("sleep.php?s=30", "before")?;
    fin.wait_for(5_000)?;
    rst.wait_for(5_000)?;
    // What nginx closes right after it has read counts as finished: the response must have paused for a while.
    let paused = Instant::now();
    wait::until_true("a pause in the response", || Ok(paused.elapsed() > Duration::from_millis(700)))?;
    fin.abort_after(5_000)?;
    rst.reset()?;
    before.reset()?;
    tracer.wait_for(3)?;
    let failures = nginx.wait_for_failures(3)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&failures, &account.verdicts)?;
    ensure!(count(&failures, Kind::ClientAbort) == 3, "{failures:#?}");
    let mut logged: Vec<_> = nginx.wait_for_accesses(3)?.iter().map(|access| access.status).collect();
    logged.sort_unstable();
    ensure!(logged == [200, 200, 499], "{logged:?}");
    let kinds = [("mid_response", None), ("mid_response", None), ("before_response", Some(499))];
    for (worker, (detail, status)) in workers.iter().zip(kinds) {
        let verdict = account.verdicts.iter().find(|verdict| verdict.worker_pid() == Some(*worker));
        let verdict = verdict.with_context(|| format!("no verdict on {worker}: {:#?}", account.verdicts))?;
        ensure!(
            (verdict.cause.as_str(), verdict.detail.as_str(), verdict.status)
                == ("client_abort", detail, status),
            "{verdict:#?}"
        );
        ensure!(verdict.killer.is_none() && verdict.signal().is_none(), "{verdict:#?}");
    }
    Ok(())
}

#[test]
fn a_header_that_is_too_big_is_rejected_by_nginx() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/php/", &fpm))
        .location(
            Location::fpm("/roomy/", &fpm)
                .directive("fastcgi_buffer_size 64k")
                .directive("fastcgi_buffers 4 64k"),
        )
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/php/big_header.php?bytes=20000")?.status == 502);
    ensure!(nginx.client().get("/roomy/big_header.php?bytes=20000")?.status == 200);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(fpm.endpoint())?;
    verdict.says("rejected_response/header_too_big", "proven", 502, None)?;
    ensure!(
        verdict.advice.as_ref().is_some_and(|advice| advice.contains("fastcgi_buffer_size")),
        "{verdict:#?}"
    );
    Ok(())
}

#[test]
fn an_nginx_worker_that_ends_takes_its_exchanges_with_it() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    for (signal, tag) in [(Signal::SIGKILL, "killed"), (Signal::SIGTERM, "stopped")] {
        let before = nginx.workers()?[0];
        let asked = nginx.client().ask(&format!("/php/sleep.php?s=20&tag={tag}"))?;
        fpm.worker_on(tag)?;
        process::send(before, signal)?;
        ensure!(asked.answer().is_err(), "an nginx that has gone has answered");
        if signal == Signal::SIGKILL {
            wait::until_true("a new nginx worker", || {
                Ok(nginx.workers()?.iter().any(|worker| *worker != before))
            })?;
        }
    }
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(nginx.failures().is_empty(), "{:#?}", nginx.failures());
    let names: Vec<_> = account.verdicts.iter().map(rig::Verdict::name).collect();
    ensure!(names == ["nginx_exit/worker_killed", "nginx_exit/worker_exited"], "{:#?}", account.verdicts);
    for (verdict, tag) in account.verdicts.iter().zip(["killed", "stopped"]) {
        verdict.blames(Some(fpm.worker_on(tag)?), None, None)?;
    }
    Ok(())
}

#[test]
fn a_reload_that_cuts_an_exchange_off_is_blamed_on_nobody_else() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace)
        .main("worker_shutdown_timeout 500ms")
        .location(Location::fpm("/php/", &fpm))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let asked = nginx.client().ask("/php/sleep.php?s=20&tag=cut")?;
    let worker = fpm.worker_on("cut")?;
    nginx.reload()?;
    ensure!(asked.answer().is_err(), "nginx has answered");
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let verdict = account.only(fpm.endpoint())?;
    // The master tells its workers by a pipe, and the old one closes the exchange before it exits: no fact names the reload.
    ensure!(["unknown", "nginx_exit"].contains(&verdict.cause.as_str()), "{verdict:#?}");
    verdict.blames(Some(worker), None, None)
}

#[test]
fn what_stalls_while_nginx_is_told_to_quit_is_a_failure_still() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::StallMidway, Endpoint::v4(9100), 4)?;
    let location = Location::http("/", server.endpoint()).read_timeout(Duration::from_secs(2));
    let nginx = Nginx::on(&namespace).location(location).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let asked = nginx.client().ask("/")?;
    server.wait_read(1)?;
    nginx.reload()?;
    let _cut_short = asked.answer();
    nginx.wait_for_failures(1)?;
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let verdict = account.only(server.endpoint())?;
    let said = (verdict.name(), verdict.confidence.as_str());
    ensure!(said == ("read_timeout/stalled_response".to_owned(), "proven"), "{verdict:#?}");
    Ok(())
}
