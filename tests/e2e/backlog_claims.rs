//! `why502 backlog --verify` and `--experiment`: claims about backlogs, held against real kernels and a real php-fpm.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rig::backlog::Account;
use rig::{Backlog, Endpoint, Fpm, Location, Namespace, Nginx, process, tracer};
use serde_json::Value;

fn figures(check: &Value, words: &str) -> Result<()> {
    ensure!(
        check["figures"].as_str().is_some_and(|figures| figures.contains(words)),
        "no \"{words}\": {check}"
    );
    Ok(())
}

/// Watches a pool's listener and nginx's for a second, and verifies.
fn verify(fpm: &Fpm) -> Result<Account> {
    let (listener, file) = (fpm.endpoint().to_string(), fpm.pool_file());
    let file = file.to_str().context("a path that is no text")?;
    Backlog::start(&[&listener, "--verify", "--fpm-pool", file, "-d", "1s"])?.finish()
}

#[test]
fn a_configured_backlog_that_the_kernel_enforces_is_a_true_claim() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).listen(Endpoint::v4(9482)).backlog(64).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/", &fpm)).start()?;
    let account = verify(&fpm)?;
    let pool = account.check(&["the pool www has a backlog of 64", "127.0.0.1:9482"])?;
    ensure!(pool["holds"] == true, "{pool}");
    figures(pool, "enforces 64, so 65 connections fit")?;
    let by_nginx = account.check(&[&format!("nginx {}", nginx.master()), "1000 on 127.0.0.1:8080"])?;
    ensure!(by_nginx["holds"] == true, "{by_nginx}");
    let asked = account
        .all("check")
        .into_iter()
        .any(|check| check["claim"].as_str().is_some_and(|claim| claim.contains("asked for")));
    ensure!(!asked, "its configuration is known");
    ensure!(account.check(&["nothing overflowed at 127.0.0.1:9482"])?["holds"] == true);
    ensure!(account.check(&["somaxconn limits none"])?["holds"] == true);
    ensure!(account.check(&["delayed, not reset"])?["holds"] == true);
    Ok(())
}

#[test]
fn a_configuration_that_cannot_be_read_hides_no_other() -> Result<()> {
    let (namespace, other) = (Namespace::new()?, Namespace::new()?);
    let broken = Nginx::on(&other).location(Location::fixed("/")).start()?;
    fs::write(broken.error_log().with_file_name("nginx.conf"), "nonsense")?;
    let fpm = Fpm::on(&namespace).listen(Endpoint::v4(9485)).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/", &fpm)).start()?;
    let account = verify(&fpm)?;
    let unread = account.check(&[&format!("nginx {} has the backlogs", broken.master())])?;
    ensure!(unread["holds"].is_null(), "{unread}");
    let read = account.check(&[&format!("nginx {}", nginx.master()), "1000 on 127.0.0.1:8080"])?;
    ensure!(read["holds"] == true, "{read}");
    Ok(())
}

#[test]
fn a_backlog_that_somaxconn_cuts_is_a_false_claim() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.sysctl("net.core.somaxconn", "16")?;
    namespace.sysctl("net.ipv4.tcp_abort_on_overflow", "1")?;
    for listener in [Endpoint::v4(9483), Endpoint::Unix(namespace.scratch().join("cut.sock"))] {
        let fpm = Fpm::on(&namespace).listen(listener.clone()).backlog(511).start()?;
        let account = verify(&fpm)?;
        let pool = account.check(&["the pool www has a backlog of 511"])?;
        ensure!(pool["holds"] == false, "{pool}");
        figures(pool, "enforces 16, so 17 connections fit")?;
        figures(pool, "cuts it")?;
        let somaxconn = account.check(&["somaxconn limits none"])?;
        ensure!(somaxconn["holds"] == false, "{somaxconn}");
        figures(somaxconn, &listener.to_string())?;
        if let Endpoint::Tcp(_) = listener {
            ensure!(account.check(&["delayed, not reset"])?["holds"] == false);
        }
    }
    Ok(())
}

#[test]
fn without_a_configuration_what_was_asked_for_shows_below_somaxconn() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.sysctl("net.core.somaxconn", "100")?;
    for (port, backlog, holds) in [(9491, 64, Value::Bool(true)), (9492, 300, Value::Null)] {
        let listener = Endpoint::v4(port);
        let _socket = namespace.listen(&listener, backlog)?;
        let account = Backlog::start(&[&listener.to_string(), "--verify", "-d", "1s"])?.finish()?;
        let asked = account.check(&["has the backlog that it asked for"])?;
        ensure!(asked["holds"] == holds, "{asked}");
    }
    Ok(())
}

#[test]
fn an_overflow_while_watching_is_reported() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).listen(Endpoint::v4(9484)).backlog(1).start()?;
    fpm.freeze()?;
    let file = fpm.pool_file();
    let file = file.to_str().context("a path that is no text")?;
    let backlog = Backlog::start(&[":9484", "--verify", "--fpm-pool", file])?;
    let _crowd = namespace.file(&namespace, fpm.endpoint(), 5)?;
    let account = backlog.stop()?;
    let overflowed = account.check(&["nothing overflowed"])?;
    ensure!(overflowed["holds"] == false, "{overflowed}");
    figures(overflowed, "at most 2 of 2 waited")?;
    let cookies = account.check(&["SYN cookies"])?;
    ensure!(cookies["holds"] == false, "{cookies}");
    figures(cookies, "SYNs were dropped at full accept queues")?;
    Ok(())
}

/// A pool whose only worker is busy, with three connections in its queue, and a status page that has a worker of its own.
fn status_page(listener: Endpoint, status: Endpoint) -> Result<(Account, u32)> {
    const QUEUED: usize = 3;
    let namespace = Namespace::new()?;
    let listener = match listener {
        Endpoint::Unix(name) => Endpoint::Unix(namespace.scratch().join(name)),
        tcp => tcp,
    };
    let fpm = Fpm::on(&namespace)
        .listen(listener)
        .workers(1)
        .backlog(64)
        .pool("pm.status_path = /status")
        .pool(&format!("pm.status_listen = {status}"))
        .start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/", &fpm)).start()?;
    let _asked = nginx.client().ask("/sleep.php?s=60&tag=slow")?;
    fpm.worker_on("slow")?;
    let _crowd = namespace.crowd(fpm.endpoint(), QUEUED)?;
    namespace.wait_for_queue(fpm.endpoint(), QUEUED as u32)?;
    Ok((verify(&fpm)?, QUEUED as u32))
}

#[test]
fn php_fpms_status_page_is_right_about_a_tcp_queue() -> Result<()> {
    let (account, queued) = status_page(Endpoint::v4(9485), Endpoint::v4(9486))?;
    let page = account.check(&["status page of the pool www"])?;
    ensure!(page["holds"] == true, "{page}");
    figures(page, &format!("its listen queue is {queued}, the kernel's depth {queued}"))
}

#[test]
fn php_fpms_status_page_knows_nothing_of_a_unix_queue() -> Result<()> {
    let (account, queued) = status_page(Endpoint::Unix("fpm.sock".into()), Endpoint::v4(9487))?;
    let page = account.check(&["status page of the pool www"])?;
    ensure!(page["holds"] == false, "{page}");
    figures(page, &format!("its listen queue is 0, the kernel's depth {queued}"))
}

#[test]
fn php_fpms_status_page_is_asked_for_through_its_unix_socket() -> Result<()> {
    let namespace = Namespace::new()?;
    let socket = Endpoint::Unix(namespace.scratch().join("idle.sock"));
    let fpm = Fpm::on(&namespace).listen(socket).backlog(64).pool("pm.status_path = /status").start()?;
    let account = verify(&fpm)?;
    let page = account.check(&["status page of the pool www"])?;
    ensure!(page["holds"] == true, "{page}");
    figures(page, "its listen queue is 0, the kernel's depth 0")
}

#[test]
fn the_experiment_measures_each_claim_and_touches_nothing_outside() -> Result<()> {
    let namespace = Namespace::new()?;
    let settings = ["net.core.somaxconn", "net.ipv4.tcp_syncookies", "net.ipv4.tcp_syn_retries"];
    let read = || {
        namespace.run(|| {
            let path = |name: &str| format!("/proc/sys/{}", name.replace('.', "/"));
            settings.iter().map(|name| Ok(fs::read_to_string(path(name))?)).collect::<Result<Vec<_>>>()
        })
    };
    let before = (read()?, namespace.tcp_counter("ListenDrops")?);
    let mut command = namespace.command(tracer::binary()?);
    command.args(["backlog", "--experiment", "-o", "json"]).stdin(Stdio::null());
    let output = process::output(command)?;
    ensure!((read()?, namespace.tcp_counter("ListenDrops")?) == before, "something outside was touched");

    let lines: Vec<Value> = output.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(lines.iter().all(|line| line["v"] == 1 && line["type"] == "claim"), "{lines:#?}");
    let holds = |words: &str, expected: bool, figures: &str| {
        let has = |line: &&Value, field: &str, words: &str| {
            line[field].as_str().is_some_and(|text| text.contains(words))
        };
        let found: Vec<&Value> = lines.iter().filter(|line| has(line, "claim", words)).collect();
        ensure!(found.len() == 1, "{} claims of \"{words}\": {lines:#?}", found.len());
        ensure!(found[0]["holds"] == expected && has(&found[0], "measured", figures), "{}", found[0]);
        Ok(())
    };
    holds("backlog of N lets N", false, "0: 1, 1: 2, 4: 5, 16: 17")?;
    holds("what the application asks for", false, "listen(1000) let 9 connections wait")?;
    holds("somaxconn takes effect at once", false, "9 connections fit as before")?;
    holds("refuses new connections", false, "0 of the clients met an error")?;
    holds("makes a full queue refuse", false, "0 of the clients met an error")?;
    holds("at random", false, "in 50 of 50 rounds")?;
    holds("SYN cookies", false, "5 of 11 clients")?;
    holds("hangs for ever", false, "ETIMEDOUT")?;
    holds("was dropped is lost", false, "by the next one")?;
    holds("believes to be connected is", false, "2 of 2 whose handshake")?;
    holds("resets those", true, "2 of 2 met ECONNRESET")?;
    holds("grow without bound", false, "5 established and 0 half-open")?;
    holds("as TCP does", false, "5 fit a backlog of 4 and 5 were refused (EAGAIN)")?;
    holds("blocks waits", true, "there was room after 300 ms")?;
    // Since 6.5 the first SYNs are one second apart.
    let linear = fs::read_to_string("/proc/sys/net/ipv4/tcp_syn_linear_timeouts");
    let is_linear = linear.is_ok_and(|value| value.trim() != "0");
    holds("after 1, 3, 7 and 15 s", !is_linear, "within 21 s")?;
    let schedule =
        lines.iter().filter_map(|line| line["measured"].as_str()).find(|text| text.contains("within 21 s"));
    let (_, moments) = schedule.and_then(|text| text.split_once(" at ")).context("no schedule")?;
    // At 0, 1, 2, 3, 4, 5, 7, 11 and 19 s, or at 0, 1, 3, 7 and 15 s.
    let count = moments.split(", ").count();
    ensure!(count == if is_linear { 9 } else { 5 }, "{count} SYNs: {moments}");
    Ok(())
}
