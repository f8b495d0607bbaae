//! Everything that nginx says of upstreams, all at once and from several workers: one verdict for each line, one line for each verdict, and
//! each right (issue 19).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, gettid};
use rig::reconcile::{pair_off_words, pair_off_words_but_for, settled};
use rig::tracer::Account;
use rig::{
    Certificate, Client, Endpoint, Fault, FaultyServer, Fpm, Help, Location, Namespace, Nginx, Resolver,
    Tracer, Verdict, process,
};

const SOON: Duration = Duration::from_millis(1_500);

/// How often each kind of failure is asked for, and how many at a time: those that are waited for, all at once.
const COUNT: usize = 60;
const AT_A_TIME: usize = 2;

/// What can be asked for, where that goes, and what it must be called.
struct Kind {
    path: String,
    upstream: Endpoint,
    names: &'static [&'static str],
}

impl Kind {
    fn is_waited_for(&self) -> bool {
        self.names.iter().any(|name| name.contains("timeout") && !name.starts_with("connect"))
    }
}

const CUT: &[&str] = &["premature_close/response_cut_short"];
const PROTOCOL: &[&str] = &["rejected_response/wrong_protocol"];
const HEADER: &[&str] = &["rejected_response/invalid_header"];
const BIG: &[&str] = &["rejected_response/header_too_big"];
const HTTP2: &[&str] = &["rejected_response/http2_error"];
const ABORTED: &[&str] = &["reset/peer_aborted"];
const SLOW: &[&str] = &["read_timeout/slow_worker"];
const REFUSED: &[&str] = &["refused/no_listener"];

const OVER_TCP: [(Fault, &[&str]); 27] = [
    (Fault::CutLength, CUT),
    (Fault::CutChunk, CUT),
    (Fault::NoHttp, PROTOCOL),
    (Fault::BadHeader, HEADER),
    (Fault::BadChunk, PROTOCOL),
    (Fault::BigHeader, BIG),
    (Fault::Reset, ABORTED),
    (Fault::ResetMidway, ABORTED),
    (Fault::CloseUnanswered, &["premature_close/peer_closed"]),
    (Fault::Mute, SLOW),
    (Fault::StallMidway, &["read_timeout/stalled_response"]),
    (Fault::FastcgiCutRecord, CUT),
    (Fault::FastcgiNoEnd, CUT),
    (Fault::FastcgiCutStdout, CUT),
    (Fault::FastcgiCutRequest, CUT),
    (Fault::FastcgiEndAtOnce, &["premature_close/response_cut_short", "rejected_response/wrong_protocol"]),
    (Fault::FastcgiUnknownRecord, PROTOCOL),
    (Fault::FastcgiBigHeader, BIG),
    (Fault::FastcgiBadHeader, HEADER),
    (Fault::Http2Reset, &["reset/http2_stream"]),
    (Fault::Http2Goaway, &["reset/http2_goaway"]),
    (Fault::Http2CutStream, CUT),
    (Fault::Http2CutConnection, CUT),
    (Fault::Http2BadLength, HTTP2),
    (Fault::Http2BadIndex, HTTP2),
    (Fault::Http2Push, HTTP2),
    (Fault::Http2BigFrame, HTTP2),
];

const OVER_UNIX: [(Fault, &[&str]); 6] = [
    (Fault::CutChunk, CUT),
    (Fault::BadHeader, HEADER),
    // Who closed it is not seen on every kernel.
    (Fault::CloseUnread, &["reset/peer_aborted", "unknown/not_enough_facts"]),
    (Fault::Mute, SLOW),
    (Fault::FastcgiCutStdout, CUT),
    (Fault::FastcgiBigHeader, BIG),
];

/// Behind TLS: the port, what nginx is to be asked for, and what it must be called.
const OVER_TLS: [(u16, &str, &[&str]); 5] = [
    (8441, "issuer", &["tls_failed/certificate_rejected"]),
    (8444, "closes", &["premature_close/peer_closed"]),
    (8445, "late", SLOW),
    (8446, "cut", CUT),
    (9107, "plain", &["tls_failed/handshake"]),
];

#[test]
fn a_storm_of_all_that_nginx_says_is_explained_line_by_line() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut kinds = Vec::new();
    let mut servers = Vec::new();
    let mut nginx = Nginx::on(&namespace).workers(3);
    let arrange = |location: Location| location.read_timeout(SOON).connect_timeout(SOON);
    for (port, (fault, names)) in (9100..).zip(OVER_TCP) {
        let server = FaultyServer::start(&namespace, fault, Endpoint::v4(port + 100), 512)?;
        nginx = nginx.location(arrange(server.location()));
        kinds.push(Kind { path: format!("/{fault}/"), upstream: server.endpoint().clone(), names });
        servers.push(server);
    }
    for (fault, names) in OVER_UNIX {
        let upstream = Endpoint::Unix(namespace.scratch().join(format!("{fault}.sock")));
        let server = FaultyServer::start(&namespace, fault, upstream.clone(), 512)?;
        let path = format!("/unix/{fault}/");
        let location = match fault.to_string().starts_with("fastcgi") {
            true => Location::fastcgi(&path, &upstream),
            false => Location::http(&path, &upstream),
        };
        nginx = nginx.location(arrange(location));
        kinds.push(Kind { path, upstream, names });
        servers.push(server);
    }

    let (own, other) =
        (Certificate::self_signed(&namespace, "own")?, Certificate::self_signed(&namespace, "other")?);
    let mut behind = Nginx::on(&namespace).port(8090).workers(2);
    let start = |fault, port| FaultyServer::start(&namespace, fault, Endpoint::v4(port), 512);
    servers.extend([start(Fault::Mute, 9102)?, start(Fault::CutLength, 9103)?, start(Fault::Answer, 9107)?]);
    for port in 8440..8447 {
        let answer = match port {
            8444 => "return 444;",
            8445 => "proxy_pass http://127.0.0.1:9102;",
            8446 => "proxy_pass http://127.0.0.1:9103;",
            _ => "return 200 hello;",
        };
        behind = behind.block(&own.server(port, answer));
    }
    let behind = behind.start()?;
    for (port, name, names) in OVER_TLS {
        let path = format!("/tls/{name}/");
        let mut location = arrange(Location::https(&path, &Endpoint::v4(port)));
        if name == "issuer" {
            let trusted = format!("proxy_ssl_trusted_certificate {}", other.path().display());
            location =
                location.directive("proxy_ssl_verify on").directive("proxy_ssl_name own").directive(&trusted);
        }
        nginx = nginx.location(location);
        kinds.push(Kind { path, upstream: Endpoint::v4(port), names });
    }

    let missing = Endpoint::Unix(namespace.scratch().join("missing.sock"));
    for (path, upstream, names) in [
        ("/refused4/", Endpoint::v4(9301), REFUSED),
        ("/refused6/", Endpoint::v6(9302), REFUSED),
        ("/missing/", missing, &["refused/socket_missing"]),
    ] {
        nginx = nginx.location(Location::http(path, &upstream));
        kinds.push(Kind { path: path.into(), upstream, names });
    }
    // What goes to nobody, but for the failures that come before.
    let _resolver = Resolver::start(&namespace, 5301, Help::NoSuchName)?;
    let pair = [Endpoint::v4(9311), Endpoint::v4(9312)];
    let unresolved = Location::http("/unresolved/", &pair[0])
        .through_group("nobody.test:80$arg_more")
        .directive("resolver 127.0.0.1:5301 ipv6=off");
    let dying = Fpm::on(&namespace).listen(Endpoint::v4(9001)).workers(4).start()?;
    let reloading = Fpm::on(&namespace).listen(Endpoint::v6(9002)).workers(4).start()?;
    let nginx = nginx
        .block("upstream pair { server 127.0.0.1:9311 fail_timeout=60s; server 127.0.0.1:9312 fail_timeout=60s; }")
        .location(Location::http("/pair/", &pair[0]).through_group("pair"))
        .location(unresolved)
        .location(Location::fpm("/php/", &dying))
        .location(Location::fpm("/fine/", &reloading))
        .start()?;
    kinds.push(Kind {
        path: "/php/die.php?signal=9".into(),
        upstream: dying.endpoint().clone(),
        names: &["reset/worker_killed"],
    });

    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "--connect-errors"])?;
    storm(&nginx, &kinds, &reloading)?;
    let failures = settled(&nginx)?;
    ensure!(failures.len() >= 2_000, "only {} failures", failures.len());
    // Where lines and verdicts are not one to one, which are missing says more than that some are.
    let came = tracer.wait_for(failures.len().saturating_sub(2 * COUNT));
    let account = tracer.stop()?;
    account.is_orderly()?;
    drop((servers, behind));
    let is_right = is_right(&account, &kinds, &pair, &reloading);
    pair_off_words_but_for(account.unexplained()?, &failures, &account.verdicts)
        .with_context(|| format!("{is_right:?}; {}; {}", account.summary["words"], account.stderr))?;
    is_right?;
    came
}

/// Asks for every kind at once, while php-fpm is reloaded under a load of its own.
fn storm(nginx: &Nginx, kinds: &[Kind], reloading: &Fpm) -> Result<()> {
    let client = nginx.client();
    let is_over = AtomicBool::new(false);
    let ask = |path: &str, count: usize| {
        // What is cut off may have no header even.
        (0..count).for_each(|_| drop(client.get(path)));
    };
    thread::scope(|scope| {
        let mut threads = Vec::new();
        let few = [("/pair/", 4 * COUNT), ("/unresolved/", COUNT)]
            .map(|(path, count)| (path.to_owned(), count, AT_A_TIME));
        let kinds = kinds.iter().map(|kind| {
            let at_a_time = if kind.is_waited_for() { COUNT / 3 } else { AT_A_TIME };
            (kind.path.clone(), COUNT, at_a_time)
        });
        for (path, count, at_a_time) in kinds.chain(few) {
            for _ in 0..at_a_time {
                let path = path.clone();
                threads.push(scope.spawn(move || ask(&path, count / at_a_time)));
            }
        }
        let loads: Vec<_> = ["/fine/ok.php", "/fine/sleep.php?s=1&tag=busy"]
            .iter()
            .flat_map(|path| [path; 3])
            .map(|path| {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        ask(path, 1);
                    }
                })
            })
            .collect();
        let reloads = (0..4).try_for_each(|_| {
            reloading.worker_on("busy")?;
            reloading.reload()
        });
        let mut ended: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::Relaxed);
        ended.extend(loads.into_iter().map(thread::ScopedJoinHandle::join));
        ensure!(ended.iter().all(Result::is_ok), "a thread panicked");
        reloads
    })
}

/// On a busy host even a handshake may take too long. nginx's line says so, which the word is paired off with.
fn is_slow_handshake(verdict: &Verdict) -> bool {
    let says = verdict.word.as_ref().is_some_and(|word| {
        word.message == "upstream timed out" && word.doing.as_deref() == Some("SSL handshaking to upstream")
    });
    says && verdict.name() == "connect_timeout/tls_handshake"
}

/// Checks each verdict against what the rig did.
fn is_right(account: &Account, kinds: &[Kind], pair: &[Endpoint], reloading: &Fpm) -> Result<()> {
    let mut wrong = BTreeMap::<String, (usize, &Verdict)>::new();
    for verdict in &account.verdicts {
        let name = verdict.name();
        let is_at = |endpoint: &Endpoint| verdict.address() == Some(&endpoint.to_string());
        let is_right = if let Some(kind) = kinds.iter().find(|kind| is_at(&kind.upstream)) {
            (kind.names.contains(&name.as_str()) || is_slow_handshake(verdict))
                && (verdict.confidence == account.surest(verdict) || verdict.cause == "unknown")
        } else if pair.iter().any(is_at) {
            name == "refused/no_listener"
        } else if is_at(reloading.endpoint()) {
            // Its master has killed it, or it has closed what it had.
            match verdict.cause.as_str() {
                "reset" => verdict.killer_pid().is_none_or(|killer| killer == reloading.master()),
                cause => cause == "premature_close",
            }
        } else {
            verdict.upstream.is_none()
                && ["not_attempted/no_live_upstreams", "not_attempted/unresolved"].contains(&name.as_str())
        };
        if !is_right {
            let what = format!(
                "{} is told as {name}, {}",
                verdict.address().unwrap_or("nobody"),
                verdict.confidence
            );
            wrong.entry(what).or_insert((0, verdict)).0 += 1;
        }
    }
    let lines: Vec<_> =
        wrong.iter().map(|(what, (count, first))| format!("{count} x {what}: {first:?}")).collect();
    ensure!(wrong.is_empty(), "{}", lines.join("\n"));
    Ok(())
}

#[test]
fn what_nginx_complains_of_and_passes_on_is_reported_of_its_own_connection() -> Result<()> {
    let namespace = Namespace::new()?;
    let odd = FaultyServer::start(&namespace, Fault::NoHttp, Endpoint::v4(9100), 512)?;
    let good = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9101), 512)?;
    let nginx = Nginx::on(&namespace).location(odd.location()).location(good.location()).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    thread::scope(|scope| {
        for path in ["/no-http/", "/answer/"].iter().flat_map(|path| [path; 4]) {
            let client = &client;
            // It has no header.
            scope.spawn(move || (0..100).for_each(|_| drop(client.get(path))));
        }
    });
    let failures = settled(&nginx)?;
    ensure!(failures.len() == 400, "{}", failures.len());
    let account = tracer.stop()?;
    account.is_orderly()?;
    let mut counts = BTreeMap::<String, usize>::new();
    for verdict in &account.verdicts {
        let whom = verdict.address().unwrap_or("nobody");
        *counts.entry(format!("{} of {whom}, {}", verdict.name(), verdict.confidence)).or_default() += 1;
    }
    let right = [(format!("rejected_response/wrong_protocol of {}, proven", odd.endpoint()), 400)];
    ensure!(counts == right.into(), "{counts:#?}");
    pair_off_words(&failures, &account.verdicts)
}

/// From 6.13 on two tasks that are inside of one uprobe's program on a processor may have one stack for it: a word of one must not be taken for
/// what the other says of no upstream.
#[test]
fn workers_that_take_a_processor_from_each_other_are_all_heard() -> Result<()> {
    let (count, files) = (1_500, 8_081);
    let namespace = Namespace::new()?;
    let missing = Endpoint::Unix(namespace.scratch().join("missing.sock"));
    let nginx = Nginx::on(&namespace)
        .workers(4)
        .block(&format!("server {{ listen 127.0.0.1:{files}; location / {{ root /nonexistent; }} }}"))
        .location(Location::fastcgi("/missing/", &missing))
        .start()?;
    let mut first = CpuSet::new();
    first.set(0)?;
    for worker in nginx.workers()? {
        sched_setaffinity(Pid::from_raw(worker), &first)?;
    }
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "--word-rate", "1000000"])?;
    let site = Client::new(&namespace, SocketAddr::from(([127, 0, 0, 1], files)));
    let client = nginx.client();
    let is_over = AtomicBool::new(false);
    let (failed, missed) = thread::scope(|scope| -> Result<_> {
        // Whoever wakes up takes the processor from who has it.
        let waking = scope.spawn(|| -> Result<()> {
            sched_setaffinity(Pid::from_raw(0), &first)?;
            let mut first_of_all = process::command(process::find_program(&["chrt"])?);
            first_of_all.args(["--fifo", "--pid", "1", &gettid().to_string()]);
            process::output(first_of_all)?;
            while !is_over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(2));
            }
            Ok(())
        });
        let missed = scope.spawn(|| site.storm("/nothing", 3 * count, 12));
        let failed = client.storm("/missing/", count, 8);
        let missed = missed.join().map_err(|_| anyhow::anyhow!("a storm panicked"));
        is_over.store(true, Ordering::Relaxed);
        waking.join().map_err(|_| anyhow::anyhow!("who wakes up panicked"))??;
        Ok((failed?, missed??))
    })?;
    ensure!(failed == [(502, count)].into() && missed == [(404, 3 * count)].into(), "{failed:?} {missed:?}");
    let failures = settled(&nginx)?;
    ensure!(failures.len() == count, "{}", failures.len());
    let came = tracer.wait_for(9 * count / 10);
    let account = tracer.stop()?;
    let words = &account.summary["words"];
    ensure!(words["said"] == count, "{words}; {}", account.stderr);
    // Connections may be missed where so many take turns inside of one program; that is counted.
    pair_off_words_but_for(account.unexplained()?, &failures, &account.verdicts)?;
    came
}
