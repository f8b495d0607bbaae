//! Many exchanges on one connection, and several upstreams for one request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::reconcile::pair_off;
use rig::{
    Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Remote, Temper, Tracer, process, wait,
};

const READ: Duration = Duration::from_millis(800);

/// Asks on a connection of one's own that is kept, and reads the whole answer.
fn ask_and_keep(stream: &mut TcpStream, path: &str) -> Result<()> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: rig\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut some = [0; 4096];
    while !answer.ends_with(b"ok\n") {
        let read = stream.read(&mut some).context("reading an answer")?;
        ensure!(read > 0, "the answer ends: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&some[..read]);
    }
    Ok(())
}

#[test]
fn five_hundred_exchanges_on_few_connections_are_silent() -> Result<()> {
    let namespace = Namespace::new()?;
    let http = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9100), 64)?;
    let fpm = Fpm::on(&namespace).workers(4).start()?;
    let unix = Fpm::on(&namespace)
        .workers(4)
        .listen(Endpoint::Unix(namespace.scratch().join("fpm.sock")))
        .start()?;
    let mut nginx = Nginx::on(&namespace)
        .group("http", &[http.endpoint()], &["keepalive 4"])
        .group("fpm", &[fpm.endpoint()], &["keepalive 4"])
        .group("unix", &[unix.endpoint()], &["keepalive 4"])
        .location(Location::http("/http/", http.endpoint()).through_group("http"))
        .location(Location::fpm("/php/", &fpm).through_group("fpm").directive("fastcgi_keep_conn on"))
        .location(Location::fpm("/unix/", &unix).through_group("unix").directive("fastcgi_keep_conn on"))
        .start()?;
    let tracer = Tracer::start(&[
        "-p",
        &nginx.master().to_string(),
        "-u",
        &http.endpoint().to_string(),
        "-u",
        &fpm.endpoint().to_string(),
        "-u",
        &unix.endpoint().for_nginx(),
    ])?;
    for path in ["/http/", "/php/ok.php", "/unix/ok.php"] {
        ensure!(nginx.client().storm(path, 500, 2)? == [(200, 500)].into(), "{path}");
    }
    nginx.stop(Signal::SIGQUIT)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.verdicts.is_empty() && nginx.failures().is_empty(), "{:#?}", account.verdicts);
    ensure!(account.summary["exchanges"] == 1_500, "{}", account.summary);
    Ok(())
}

#[test]
fn a_failure_of_a_later_exchange_is_emitted_with_moments_of_its_own() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(1).start()?;
    let kept = |prefix| Location::fpm(prefix, &fpm).through_group("fpm").directive("fastcgi_keep_conn on");
    // What is to be answered waits for the only worker, which goes on with what nginx has given up.
    let nginx = Nginx::on(&namespace)
        .group("fpm", &[fpm.endpoint()], &["keepalive 4"])
        .location(kept("/php/").read_timeout(READ))
        .location(kept("/patient/"))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    let start = Instant::now();
    let mut killed = Vec::new();
    for tag in ["slow", "killed"] {
        for _ in 0..5 {
            ensure!(client.get("/patient/ok.php")?.status == 200);
        }
        // Long after the connection was made.
        ensure!(client.get("/patient/sleep.php?s=0.5")?.status == 200);
        let asked = client.ask(&format!("/php/sleep.php?s=1.5&tag={tag}"))?;
        killed.push(fpm.worker_on(tag)?);
        if tag == "killed" {
            process::send(killed[1], Signal::SIGKILL)?;
        }
        ensure!([502, 504].contains(&asked.answer()?.status));
    }
    let all = u64::try_from(start.elapsed().as_micros())?;
    tracer.wait_for(3)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    // nginx tries a request again whose kept connection failed, on a new one: that one is too slow.
    let [slow, dead, again] = account.verdicts.as_slice() else { anyhow::bail!("{:#?}", account.verdicts) };
    again.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))?;
    ensure!(dead.request.is_some() && dead.request == again.request && slow.request.is_none());
    ensure!(again.us.connected.is_some() && again.us.accepted.is_some(), "{again:#?}");
    slow.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))?;
    slow.blames(Some(killed[0]), None, None)?;
    dead.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
    dead.blames(Some(killed[1]), Some("SIGKILL"), Some(std::process::id().cast_signed()))?;
    for verdict in [slow, dead] {
        // Connecting and accepting belong to the first exchange of the connection.
        ensure!(verdict.us.connected.is_none() && verdict.us.accepted.is_none(), "{verdict:#?}");
        ensure!(verdict.us.first_sent == Some(0) && verdict.us.first_received.is_none(), "{verdict:#?}");
        ensure!(verdict.us.ended.is_some_and(|us| us + 400_000 < all), "{verdict:#?}");
        ensure!(verdict.bytes.as_ref().is_some_and(|bytes| bytes.received == Some(0)), "{verdict:#?}");
    }
    Ok(())
}

#[test]
fn idle_connections_that_either_side_closes_are_no_failures() -> Result<()> {
    let namespace = Namespace::new()?;
    let idle_closer = FaultyServer::start(&namespace, Fault::CloseIdle, Endpoint::v4(9100), 64)?;
    let patient = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9101), 64)?;
    let doomed = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9102), 64)?;
    let fpm = Fpm::on(&namespace).workers(2).start()?;
    let unix = Fpm::on(&namespace)
        .workers(2)
        .listen(Endpoint::Unix(namespace.scratch().join("fpm.sock")))
        .start()?;
    let short = ["keepalive 8", "keepalive_timeout 900ms"];
    let nginx = Nginx::on(&namespace)
        .group("idle_closer", &[idle_closer.endpoint()], &["keepalive 8"])
        .group("patient", &[patient.endpoint()], &short)
        .group("doomed", &[doomed.endpoint()], &["keepalive 8"])
        .group("fpm", &[fpm.endpoint()], &short)
        .group("unix", &[unix.endpoint()], &short)
        .location(Location::http("/idle_closer/", idle_closer.endpoint()).through_group("idle_closer"))
        .location(Location::http("/patient/", patient.endpoint()).through_group("patient"))
        .location(Location::http("/doomed/", doomed.endpoint()).through_group("doomed"))
        .location(Location::fpm("/php/", &fpm).through_group("fpm").directive("fastcgi_keep_conn on"))
        .location(Location::fpm("/unix/", &unix).through_group("unix").directive("fastcgi_keep_conn on"))
        .location(Location::http("/busy/", patient.endpoint()))
        .start()?;
    let tracer = Tracer::start(&[
        "-p",
        &nginx.master().to_string(),
        "-u",
        ":9100",
        "-u",
        ":9101",
        "-u",
        ":9102",
        "-u",
        ":9000",
        "-u",
        &unix.endpoint().for_nginx(),
    ])?;
    let client = nginx.client();
    let fpm_workers = fpm.workers()?;
    for path in ["/idle_closer/", "/patient/", "/doomed/", "/php/ok.php", "/unix/ok.php"] {
        ensure!(client.get(path)?.status == 200, "{path}");
    }
    process::send(doomed.pid(), Signal::SIGKILL)?;
    // A worker that is killed while its connection is idle harms nobody either.
    for worker in fpm_workers {
        process::send(worker, Signal::SIGKILL)?;
    }
    // nginx is busy all the while that the connections are closed.
    let established = || -> Result<bool> {
        let mut ss = namespace.command(process::find_program(&["ss"])?);
        ss.args([
            "-Hnt",
            "state",
            "established",
            "dport = :9100 or dport = :9101 or dport = :9102 or dport = :9000",
        ]);
        Ok(!process::output(ss)?.trim().is_empty())
    };
    let start = Instant::now();
    while established()? || start.elapsed() < Duration::from_millis(1_500) {
        ensure!(start.elapsed() < wait::bound(), "kept connections live on");
        ensure!(client.storm("/busy/", 50, 2)? == [(200, 50)].into());
    }
    // The closing of the last ones is judged a second later at most, or at the end.
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(nginx.failures().is_empty(), "{:#?}", nginx.failures());
    ensure!(account.verdicts.is_empty(), "{:#?}", account.verdicts);
    Ok(())
}

#[test]
fn a_request_on_a_connection_that_was_closed_just_before_is_stale_and_retried() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9100), 64)?;
    let nginx = Nginx::on(&namespace)
        .group("kept", &[server.endpoint()], &["keepalive 8"])
        .location(Location::http("/http/", server.endpoint()).through_group("kept"))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let mut stream = namespace.run(|| Ok(TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], 8080)))?))?;
    stream.set_read_timeout(Some(wait::bound()))?;
    ask_and_keep(&mut stream, "/http/")?;
    // While nginx stands still, a request comes, and then its kept connection is closed: it sees them in this order.
    let worker = nginx.workers()?[0];
    process::send(worker, Signal::SIGSTOP)?;
    wait::until_true("nginx to stand still", || Ok(process::state(worker) == Some('T')))?;
    write!(stream, "GET /http/ HTTP/1.1\r\nHost: rig\r\nConnection: close\r\n\r\n")?;
    let endpoint = server.endpoint().clone();
    drop(server);
    namespace.wait_for_no_listener(&endpoint)?;
    process::send(worker, Signal::SIGCONT)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let [stale, refused] = account.verdicts.as_slice() else { anyhow::bail!("{:#?}", account.verdicts) };
    // The server's end of it was closed properly: nginx reads that before it would meet the reset of what it sends.
    stale.says("premature_close/stale_keepalive", "proven", 502, None)?;
    refused.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))?;
    ensure!(stale.request.is_some() && stale.request == refused.request, "{:#?}", account.verdicts);
    Ok(())
}

#[test]
fn verdicts_of_one_request_bear_the_same_name_and_of_others_another() -> Result<()> {
    let namespace = Namespace::new()?;
    let dead = [Endpoint::v4(9007), Endpoint::v6(9008)];
    let queue = FaultyServer::start(&namespace, Fault::NeverAccept, Endpoint::v4(9009), 64)?;
    let tries = "proxy_next_upstream_tries 3";
    let mut nginx = Nginx::on(&namespace);
    // Each request has servers of its own to try, for nginx leaves out for a while what has failed.
    for name in ["one", "two", "three"] {
        nginx = nginx.group(name, &[&dead[0], queue.endpoint(), &dead[1]], &[]).location(
            Location::http(&format!("/{name}/"), &dead[0])
                .through_group(name)
                .read_timeout(READ)
                .directive(tries),
        );
    }
    let nginx = nginx.location(Location::http("/single/", &dead[0])).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    let asked = ["/one/", "/two/", "/three/", "/single/"].map(|path| client.ask(path));
    for one in asked {
        ensure!([502, 504].contains(&one?.answer()?.status));
    }
    tracer.wait_for(10)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let mut by_request = std::collections::BTreeMap::<_, Vec<String>>::new();
    for verdict in &account.verdicts {
        by_request.entry(verdict.request).or_default().push(verdict.name());
    }
    ensure!(by_request.len() == 4, "{by_request:#?}");
    for (request, names) in by_request {
        let expected: &[&str] = match request {
            None => &["refused/no_listener"],
            Some(_) => &["refused/no_listener", "read_timeout/nobody_accepts", "refused/no_listener"],
        };
        ensure!(names == expected, "{request:?}: {names:?}");
    }
    Ok(())
}

#[test]
fn a_kept_connection_that_is_closed_with_the_next_request_unread_is_stale() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::CloseKept, Endpoint::v4(9100), 64)?;
    let nginx = Nginx::on(&namespace)
        .group("kept", &[server.endpoint()], &["keepalive 8"])
        .location(Location::http("/http/", server.endpoint()).through_group("kept"))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    // Of the second one on each connection nothing is read, and nginx asks again on a new one.
    for _ in 0..3 {
        ensure!(client.get("/http/")?.status == 200);
    }
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    for (verdict, closes) in account.verdicts.iter().zip(1..) {
        verdict.says("reset/stale_keepalive", "proven", 502, Some("ECONNRESET"))?;
        verdict.blames(Some(server.pid()), None, None)?;
        let kept = verdict.kept.as_ref().context("no kept connection")?;
        let (idle, closed) = (kept.idle_us, kept.closed_after_us);
        ensure!(
            kept.exchange == 2 && kept.closes == Some(closes) && idle.is_some() && closed >= idle,
            "{kept:?}"
        );
        ensure!(verdict.explanation.contains("had read nothing of the request"), "{verdict:#?}");
        ensure!(!verdict.explanation.contains("timeout"), "no timer: {verdict:#?}");
    }
    Ok(())
}

#[test]
fn a_remote_upstream_that_has_forgotten_a_kept_connection_is_inferred_to_have_closed_it() -> Result<()> {
    let namespace = Namespace::new()?;
    let remote = Remote::start(&namespace, Temper::Forget)?;
    let nginx = Nginx::on(&namespace)
        .group("kept", &[&remote.endpoint()], &["keepalive 8"])
        .location(Location::http("/far/", &remote.endpoint()).through_group("kept"))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    for _ in 0..2 {
        ensure!(client.get("/far/")?.status == 200);
    }
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(&remote.endpoint())?;
    verdict.says("reset/stale_keepalive", "inferred", 502, Some("ECONNRESET"))?;
    verdict.blames(None, None, None)?;
    ensure!(
        verdict.kept.as_ref().is_some_and(|kept| kept.exchange == 2 && kept.idle_us.is_some()),
        "{verdict:#?}"
    );
    Ok(())
}
