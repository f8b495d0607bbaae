//! What is said of 502 and 504, and what is true: each test is named after the truth, and shows it by the verdicts alone.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::reconcile::pair_off;
use rig::tracer::Account;
use rig::{Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Sight, Tracer, Verdict};

const READ: Duration = Duration::from_millis(900);
/// Shorter than the second after which a SYN is sent again.
const CONNECT: Duration = Duration::from_millis(700);

/// Watches every connect of one nginx.
fn watch(nginx: &Nginx) -> Result<Tracer> {
    Tracer::start(&["-p", &nginx.master().to_string(), "--connect-errors"])
}

/// Stops the tracer and holds its account against nginx's log.
fn account(tracer: Tracer, nginx: &Nginx, failures: usize) -> Result<Account> {
    tracer.wait_for(failures)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    ensure!(account.verdicts.len() == failures, "{:#?}", account.verdicts);
    Ok(account)
}

fn names(verdicts: &[Verdict]) -> Vec<String> {
    let mut names: Vec<_> = verdicts.iter().map(Verdict::name).collect();
    names.sort_unstable();
    names
}

fn depth_and_limit(verdict: &Verdict) -> Option<(u32, u32)> {
    verdict.queue.as_ref().and_then(|queue| Some((queue.depth?, queue.limit?)))
}

/// Claim 1: "502 comes when pm.max_children is reached."
#[test]
fn busy_workers_make_requests_late_or_504_and_never_502() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(1).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/patient/", &fpm))
        .location(Location::fpm("/php/", &fpm).read_timeout(READ))
        .start()?;
    let tracer = watch(&nginx)?;
    let client = nginx.client();
    let busy = client.ask("/patient/sleep.php?s=2&tag=busy")?;
    fpm.worker_on("busy")?;
    let late = client.ask("/patient/ok.php")?;
    let lost: Vec<_> = (0..3).map(|_| client.ask("/php/ok.php")).collect::<Result<_>>()?;
    for one in lost {
        ensure!(one.answer()?.status == 504);
    }
    ensure!(late.answer()?.status == 200 && busy.answer()?.status == 200);
    let account = account(tracer, &nginx, 3)?;
    for verdict in &account.verdicts {
        verdict.says("read_timeout/never_accepted", "proven", 504, Some("ETIMEDOUT"))?;
    }
    Ok(())
}

/// Claim 2: "502 comes when the backlog is full."
#[test]
fn a_full_backlog_is_502_at_once_on_unix_sockets_and_504_while_connecting_on_tcp() -> Result<()> {
    let namespace = Namespace::new()?;
    let path = Endpoint::Unix(namespace.scratch().join("fpm.sock"));
    let unix = Fpm::on(&namespace).listen(path).backlog(1).start()?;
    let tcp = Fpm::on(&namespace).backlog(1).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/unix/", &unix).read_timeout(READ))
        .location(Location::fpm("/tcp/", &tcp).connect_timeout(CONNECT).read_timeout(READ))
        .start()?;
    let tracer = watch(&nginx)?;
    let client = nginx.client();
    for (fpm, path) in [(&unix, "/unix/ok.php"), (&tcp, "/tcp/ok.php")] {
        fpm.freeze()?;
        // Two fit; the third does not.
        let queued = [client.ask(path)?, client.ask(path)?];
        namespace.wait_for_queue(fpm.endpoint(), 2)?;
        let third = client.get(path)?.status;
        ensure!(third == if path.starts_with("/unix") { 502 } else { 504 }, "{third}");
        for one in queued {
            ensure!(one.answer()?.status == 504);
        }
    }
    let account = account(tracer, &nginx, 6)?;
    let full = |fpm: &Fpm| {
        let verdicts = account.about(fpm.endpoint());
        let full = verdicts.into_iter().find(|verdict| verdict.cause == "accept_queue_overflow");
        full.cloned().with_context(|| format!("{} was never full", fpm.endpoint()))
    };
    let (unix, tcp) = (full(&unix)?, full(&tcp)?);
    unix.says("accept_queue_overflow/unix_backlog_full", "proven", 502, Some("EAGAIN"))?;
    tcp.says("accept_queue_overflow/syn_dropped", "proven", 504, Some("ETIMEDOUT"))
}

/// Claim 3: "With the queue full the server ignores SYNs at random, and established connections grow without bound."
#[test]
fn a_full_queue_drops_every_syn_and_holds_one_connection_more_than_the_backlog() -> Result<()> {
    const BACKLOG: u32 = 3;
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).backlog(BACKLOG.cast_signed()).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/", &fpm).connect_timeout(CONNECT)).start()?;
    let tracer = watch(&nginx)?;
    fpm.freeze()?;
    let _fillers = namespace.fill_queue(fpm.endpoint(), BACKLOG + 1)?;
    ensure!(nginx.client().storm("/ok.php", 40, 40)? == [(504, 40)].into());
    let account = account(tracer, &nginx, 40)?;
    for verdict in &account.verdicts {
        verdict.says("accept_queue_overflow/syn_dropped", "proven", 504, Some("ETIMEDOUT"))?;
        ensure!(depth_and_limit(verdict) == Some((BACKLOG + 1, BACKLOG)), "{verdict:#?}");
    }
    Ok(())
}

/// Claim 4: "Small fastcgi buffers cause 502."
#[test]
fn only_the_headers_buffer_can_be_too_small() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace)
        .location(
            Location::fpm("/body/", &fpm)
                .directive("fastcgi_buffers 2 4k")
                .directive("fastcgi_busy_buffers_size 4k"),
        )
        .location(Location::fpm("/header/", &fpm))
        .location(
            Location::fpm("/wide/", &fpm)
                .directive("fastcgi_buffer_size 64k")
                .directive("fastcgi_buffers 8 64k"),
        )
        .start()?;
    let tracer = watch(&nginx)?;
    let client = nginx.client();
    ensure!(client.get("/body/echo.php?bytes=3000000")?.body.len() == 3_000_000);
    ensure!(client.get("/wide/big_header.php")?.status == 200);
    ensure!(client.get("/header/big_header.php")?.status == 502);
    let account = account(tracer, &nginx, 1)?;
    ensure!(account.verdicts[0].name() == "rejected_response/header_too_big");
    let advice = account.verdicts[0].advice.clone().unwrap_or_default();
    ensure!(advice.contains("fastcgi_buffer_size"), "{advice}");
    Ok(())
}

/// Claim 5: "After a 504 php-fpm goes on processing."
#[test]
fn after_a_504_workers_go_on_and_what_was_never_accepted_is_executed_later() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(1).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/", &fpm).read_timeout(READ)).start()?;
    let tracer = watch(&nginx)?;
    let slow = nginx.client().ask("/sleep.php?s=2&tag=slow")?;
    let worker = fpm.worker_on("slow")?;
    let queued = nginx.client().ask("/ok.php?tag=queued")?;
    ensure!(slow.answer()?.status == 504 && queued.answer()?.status == 504);
    ensure!(!fpm.has_begun("queued"));
    ensure!(fpm.worker_on("queued")? == worker);
    tracer.lines().wait("both ends after the failures", |lines| {
        lines.iter().filter(|line| line.contains("\"type\":\"after\"")).count() == 2
    })?;
    let account = account(tracer, &nginx, 2)?;
    ensure!(names(&account.verdicts) == ["read_timeout/never_accepted", "read_timeout/slow_worker"]);
    for after in &account.others {
        ensure!(after["worker"]["pid"] == worker, "{after}");
    }
    let late = account.others.iter().filter(|after| after["accepted_late"] == true).count();
    ensure!(late == 1, "{:#?}", account.others);
    Ok(())
}

/// Claim 6: "rp_filter must be 0 behind a layer-4 load balancer."
#[test]
fn strict_rp_filter_drops_only_asymmetric_paths_and_loose_mode_suffices() -> Result<()> {
    let (near, far) = (Namespace::new()?, Namespace::new()?);
    near.join(&far, "one", Ipv4Addr::new(10, 77, 1, 1), Ipv4Addr::new(10, 77, 1, 2))?;
    near.join(&far, "two", Ipv4Addr::new(10, 77, 2, 1), Ipv4Addr::new(10, 77, 2, 2))?;
    near.sysctl("net.ipv4.conf.two.arp_announce", "2")?;
    // Over the second link, with the address of the first, where the answer would go.
    near.ip("route add 10.77.1.2/32 via 10.77.2.2 dev two src 10.77.1.1")?;
    let (crossed, straight): (Endpoint, Endpoint) = ("10.77.1.2:9000".parse()?, "10.77.2.2:9000".parse()?);
    let _servers = [
        FaultyServer::start(&far, Fault::Answer, crossed.clone(), 8)?,
        FaultyServer::start(&far, Fault::Answer, straight.clone(), 8)?,
    ];
    let nginx = Nginx::on(&near)
        .location(Location::http("/crossed/", &crossed).connect_timeout(CONNECT))
        .location(Location::http("/straight/", &straight).connect_timeout(CONNECT))
        .start()?;
    let tracer = watch(&nginx)?;
    let status = |path| anyhow::Ok(nginx.client().get(path)?.status);
    far.sysctl("net.ipv4.conf.all.rp_filter", "1")?;
    ensure!(status("/straight/")? == 200 && status("/crossed/")? == 504);
    far.sysctl("net.ipv4.conf.all.rp_filter", "2")?;
    ensure!(status("/straight/")? == 200 && status("/crossed/")? == 200);
    let account = account(tracer, &nginx, 1)?;
    let (name, confidence) = Sight::here()?.by_drops(
        ("connect_timeout/dropped_by_rp_filter", "proven"),
        ("connect_timeout/syn_unanswered", "inferred"),
    )?;
    account.only(&crossed)?.says(name, confidence, 504, Some("ETIMEDOUT"))
}

/// Claim 7: "request_terminate_timeout shows as recv() failed (104) while reading response header."
#[test]
fn request_terminate_timeout_is_a_502_before_the_header_and_a_cut_200_after_it() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).terminate_after(Duration::from_secs(1)).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/", &fpm)).start()?;
    let tracer = watch(&nginx)?;
    let before = nginx.client().ask("/sleep.php?s=20")?;
    let after = nginx.client().ask("/slow_body.php?s=20&bytes=100000")?;
    ensure!(before.answer()?.status == 502 && after.answer()?.status == 200);
    let account = account(tracer, &nginx, 2)?;
    let (before, after): (Vec<_>, Vec<_>) =
        account.verdicts.iter().partition(|verdict| verdict.us.first_received.is_none());
    let [before, after] = [before.as_slice(), after.as_slice()];
    let ([before], [after]) = (before, after) else { anyhow::bail!("{:#?}", account.verdicts) };
    for (verdict, line) in [(before, "recv() failed (104"), (after, "readv() failed (104")] {
        ensure!(verdict.name() == "reset/worker_killed", "{verdict:#?}");
        ensure!(verdict.signal() == Some("SIGTERM") && verdict.killer_pid() == Some(fpm.master()));
        ensure!(verdict.error_log.as_ref().is_some_and(|text| text.starts_with(line)), "{verdict:#?}");
    }
    ensure!(before.status == Some(502) && after.status.is_none(), "{after:#?}");
    Ok(())
}

/// Claim 8: "499, 502 and 504 are all timeouts, the question is whose."
#[test]
fn a_504_is_nginxs_timer_a_499_the_clients_leaving_and_a_502_an_error() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(3).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/php/", &fpm).read_timeout(READ))
        .location(Location::http("/nobody/", &Endpoint::v4(9009)))
        .start()?;
    let tracer = watch(&nginx)?;
    let leaving = nginx.client().ask("/php/sleep.php?s=3&tag=leaving")?;
    fpm.worker_on("leaving")?;
    leaving.abort()?;
    ensure!(nginx.client().get("/php/sleep.php?s=2")?.status == 504);
    ensure!(nginx.client().get("/nobody/")?.status == 502);
    let account = account(tracer, &nginx, 3)?;
    for (status, cause, timed_out) in
        [(499, "client_abort", false), (502, "refused", false), (504, "read_timeout", true)]
    {
        let verdict = account.verdicts.iter().find(|verdict| verdict.status == Some(status));
        let is_true = verdict.is_some_and(|verdict| {
            verdict.cause == cause && (verdict.errno.as_deref() == Some("ETIMEDOUT")) == timed_out
        });
        ensure!(is_true, "{status}: {:#?}", account.verdicts);
    }
    Ok(())
}

/// Claim 9: "A backend that reaches itself through its load balancer fails now and then."
#[test]
fn a_host_that_reaches_itself_through_a_load_balancer_gets_its_syn_back_only_if_its_source_is_translated()
-> Result<()> {
    let (host, balancer) = (Namespace::new()?, Namespace::new()?);
    host.join(&balancer, "wire", Ipv4Addr::new(10, 80, 0, 1), Ipv4Addr::new(10, 80, 0, 2))?;
    host.ip("route add 10.99.0.0/24 via 10.80.0.2")?;
    balancer.sysctl("net.ipv4.ip_forward", "1")?;
    // Two virtual addresses for the host itself: the first translates the source, too.
    balancer.nft(
        "table ip rig {
           chain pre { type nat hook prerouting priority -100; tcp dport 80 dnat to 10.80.0.1:9000; }
           chain post { type nat hook postrouting priority 100; ct original ip daddr 10.99.0.1 masquerade; }
         }",
    )?;
    let (both, one): (Endpoint, Endpoint) = ("10.99.0.1:80".parse()?, "10.99.0.2:80".parse()?);
    let server = FaultyServer::start(&host, Fault::Reset, "10.80.0.1:9000".parse()?, 8)?;
    let nginx = Nginx::on(&host)
        .location(Location::http("/both/", &both).connect_timeout(CONNECT))
        .location(Location::http("/one/", &one).connect_timeout(CONNECT))
        .start()?;
    let tracer = watch(&nginx)?;
    ensure!(nginx.client().get("/both/")?.status == 502);
    ensure!(nginx.client().get("/one/")?.status == 504);
    let account = account(tracer, &nginx, 2)?;
    // Both ends are here, though the address is not.
    let verdict = account.only(&both)?;
    verdict.says("reset/peer_aborted", "proven", 502, Some("ECONNRESET"))?;
    verdict.blames(Some(server.pid()), None, None)?;
    // Newer kernels have a reason of their own for what comes back with an address of the host's own.
    let (name, confidence) = match Sight::here()?.names_drop("IP_LOCAL_SOURCE")? {
        true => ("connect_timeout/dropped_by_kernel", "proven"),
        false => ("connect_timeout/syn_unanswered", "inferred"),
    };
    account.only(&one)?.says(name, confidence, 504, Some("ETIMEDOUT"))
}

/// Claim 10: "Health checks pass while dynamic requests fail."
#[test]
fn what_nginx_answers_itself_says_nothing_of_a_dead_php() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fixed("/health"))
        .location(Location::fpm("/php/", &fpm))
        .start()?;
    let tracer = watch(&nginx)?;
    fpm.stop(Signal::SIGTERM)?;
    for _ in 0..3 {
        ensure!(nginx.client().get("/health")?.status == 200);
        ensure!(nginx.client().get("/php/ok.php")?.status == 502);
    }
    let account = account(tracer, &nginx, 3)?;
    for verdict in &account.verdicts {
        verdict.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))?;
    }
    Ok(())
}

/// Claim 11: "A locked database ends in 502/504."
#[test]
fn a_database_that_does_not_answer_makes_its_workers_slow_and_the_rest_never_accepted() -> Result<()> {
    let namespace = Namespace::new()?;
    let database = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(3306), 8)?;
    let fpm = Fpm::on(&namespace).workers(2).start()?;
    fs::write(
        fpm.docroot().join("query.php"),
        "<?php $db = stream_socket_client('tcp://127.0.0.1:3306'); fread($db, 1);",
    )?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/", &fpm).read_timeout(READ)).start()?;
    let tracer = watch(&nginx)?;
    let asking: Vec<_> = (0..2).map(|_| nginx.client().ask("/query.php")).collect::<Result<_>>()?;
    database.wait_accepted(2)?;
    ensure!(nginx.client().storm("/ok.php", 4, 4)? == [(504, 4)].into());
    for one in asking {
        ensure!(one.answer()?.status == 504);
    }
    let account = account(tracer, &nginx, 6)?;
    let slow = account.verdicts.iter().filter(|verdict| verdict.name() == "read_timeout/slow_worker");
    let mut workers: Vec<_> = slow.filter_map(Verdict::worker_pid).collect();
    let mut all = fpm.workers()?;
    workers.sort_unstable();
    all.sort_unstable();
    ensure!(workers == all, "{workers:?} of {all:?}");
    let waiting = account.verdicts.iter().filter(|verdict| verdict.name() == "read_timeout/never_accepted");
    ensure!(waiting.count() == 4, "{:#?}", account.verdicts);
    Ok(())
}

/// Claim 12: "Security software or a firewall drops the proxy's packets."
#[test]
fn a_firewall_on_this_host_leaves_its_mark_in_the_kernel() -> Result<()> {
    let namespace = Namespace::new()?;
    let ports = [Endpoint::v4(9001), Endpoint::v4(9002)];
    let servers = ports.map(|port| FaultyServer::start(&namespace, Fault::Answer, port, 8));
    let [drops, rejects] = servers;
    let (drops, rejects) = (drops?, rejects?);
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/drops/", drops.endpoint()).connect_timeout(CONNECT))
        .location(Location::http("/rejects/", rejects.endpoint()))
        .start()?;
    let tracer = watch(&nginx)?;
    namespace.nft(
        "table inet rig { chain in { type filter hook input priority 0;
           tcp dport 9001 drop; tcp dport 9002 reject with tcp reset; } ; }",
    )?;
    ensure!(nginx.client().get("/drops/")?.status == 504);
    ensure!(nginx.client().get("/rejects/")?.status == 502);
    let account = account(tracer, &nginx, 2)?;
    let dropped = account.only(drops.endpoint())?;
    let sight = Sight::here()?;
    let (name, confidence) = sight.by_drops(
        ("connect_timeout/dropped_by_firewall", "proven"),
        ("connect_timeout/syn_unanswered", "inferred"),
    )?;
    dropped.says(name, confidence, 504, Some("ETIMEDOUT"))?;
    let rejected = account.only(rejects.endpoint())?;
    let confidence = sight.by_drops("proven", "inferred")?;
    rejected.says("refused/rejected_by_firewall", confidence, 502, Some("ECONNREFUSED"))?;
    for verdict in [dropped, rejected].into_iter().filter(|verdict| verdict.confidence == "proven") {
        ensure!(verdict.evidence.iter().any(|fact| fact.fact.contains("NETFILTER_DROP")), "{verdict:#?}");
    }
    Ok(())
}
