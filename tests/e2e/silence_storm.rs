//! A storm of what is no upstream's fault beside real failures: each failure has its verdict, each client that left has one, and nothing
//! else has any (issue 20).

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use rig::error_log::Kind;
use rig::reconcile::{pair_off_words, settled};
use rig::tls::Certificate;
use rig::tracer::Account;
use rig::{Client, Endpoint, Fault, FaultyServer, Namespace, Nginx, Tracer, Verdict, wait};

use crate::http2::Visitor;

#[path = "silence_storm/http2.rs"]
mod http2;
#[path = "silence_storm/uploads.rs"]
mod uploads;
#[path = "silence_storm/websocket.rs"]
mod websocket;

/// Where nginx is asked: by HTTP/1, by HTTP/2, by HTTP/2 over TLS.
const FRONT: u16 = 8081;
const HTTP2: u16 = 8082;
const TLS: u16 = 8083;
/// Its own server behind another.
const BEHIND: u16 = 8084;
/// Where the origin answers: by faults of its own choosing, plainly, and after the whole request.
const ODD: u16 = 9201;
const PLAIN: u16 = 9202;
const SINK: u16 = 9203;
/// Nobody is there.
const NOBODY: u16 = 9109;

/// What nginx ends early on purpose, or passes on, each with what its client gets.
const FINE: [(&str, &str); 9] = [
    ("/intercepted/", "fine\n"),
    ("/named/", "plain\n"),
    ("/next/", "plain\n"),
    ("/authorized/", "plain\n"),
    ("/elsewhere/", "fine\n"),
    ("/mirrored/", "plain\n"),
    ("/kept/", "plain\n"),
    ("/behind/", "plain\n"),
    ("/plain/", "plain\n"),
];

/// How many of those are ended early, each time that it is asked for.
const ENDED_EARLY: usize = 6;

/// How often all of it is done.
#[derive(Clone, Copy)]
struct Scale {
    /// Of each of [`FINE`].
    fine: usize,
    /// Clients of each kind that leave, or cancel.
    leaving: usize,
    uploads: usize,
    /// Uploads that go wrong, of each kind.
    wrong_uploads: usize,
    sockets: usize,
    /// Of each kind of failure.
    failures: usize,
}

impl Scale {
    /// Some 2,000 successes and doings of clients beside some 500 failures.
    fn of_storm() -> Scale {
        Scale {
            fine: wait::load(150),
            leaving: 80,
            uploads: 40,
            wrong_uploads: 40,
            sockets: 80,
            failures: wait::load(80),
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// An nginx that answers as the others need it, and is not traced.
fn origin(namespace: &Namespace) -> Result<Nginx> {
    let folder = namespace.folder("origin")?;
    fs::write(folder.join("large"), "x".repeat(100_000))?;
    let folder = folder.display();
    Nginx::on(namespace)
        .port(8090)
        .block(&format!(
            "server {{ listen 127.0.0.1:{ODD} backlog=1000; root {folder}; error_page 503 /large;
              add_header X-Accel-Redirect $elsewhere always;
              location = /large {{ }}
              location / {{ try_files /large =404; }}
              location /unavailable/ {{ return 503; }} }}"
        ))
        .block("map $request_uri $elsewhere { ~elsewhere /fine/; default ''; }")
        .block(&format!(
            "server {{ listen 127.0.0.1:{PLAIN} backlog=1000; location / {{ return 200 \"plain\\n\"; }} }}
             server {{ listen 127.0.0.1:{SINK} backlog=1000; location / {{ proxy_pass http://127.0.0.1:{PLAIN}; }} }}"
        ))
        .start()
}

/// Servers that fail, by where they are asked for. The last is for clients that leave before its answer.
const FAULTS: [(Fault, &str, &[&str]); 4] = [
    (Fault::Reset, "/reset/", &["reset/peer_aborted"]),
    (Fault::CutLength, "/cut/", &["premature_close/response_cut_short"]),
    (Fault::CloseUnanswered, "/closed/", &["premature_close/peer_closed"]),
    (Fault::Mute, "/slow/", &["read_timeout/slow_worker"]),
];

/// All that is watched, and whom it asks.
struct Site {
    namespace: Namespace,
    nginx: Nginx,
    _origin: Nginx,
    servers: Vec<FaultyServer>,
    /// For clients of HTTP/1, of HTTP/2, and behind another nginx.
    mute: [FaultyServer; 3],
    /// For clients whose uploads go wrong.
    unfed: FaultyServer,
    sockets: TcpListener,
    certificate: Certificate,
}

impl Site {
    fn start() -> Result<Site> {
        let namespace = Namespace::new()?;
        let start = |fault, port| FaultyServer::start(&namespace, fault, Endpoint::v4(port), 1_000);
        let servers: Vec<_> =
            (9101..).zip(FAULTS).map(|(port, (fault, ..))| start(fault, port)).collect::<Result<_>>()?;
        let mute = [start(Fault::Mute, 9121)?, start(Fault::Mute, 9122)?, start(Fault::Mute, 9123)?];
        let unfed = start(Fault::Mute, 9124)?;
        let sockets = namespace.run(|| Ok(TcpListener::bind(loopback(0))?))?;
        let certificate = Certificate::of_server(&namespace, "rig")?;
        let origin = origin(&namespace)?;
        let failing: String = FAULTS
            .iter()
            .zip(&servers)
            .map(|((fault, path, _), server)| {
                let to = server.endpoint().for_nginx();
                let timeout = if *fault == Fault::Mute { "proxy_read_timeout 1s;" } else { "" };
                format!("location {path} {{ proxy_pass http://{to}; {timeout} }}\n")
            })
            .collect();
        let wrong_uploads: String = uploads::FAULTS
            .iter()
            .map(|uploads::Fault { path, directive, .. }| {
                let to = unfed.endpoint().for_nginx();
                format!("location {path} {{ proxy_pass http://{to}; proxy_http_version 1.1; proxy_request_buffering off; {directive}; }}\n")
            })
            .collect();
        let [http1, http2, behind] = mute.each_ref().map(|server| server.endpoint().for_nginx());
        let socket = sockets.local_addr()?.port();
        let locations = format!(
            "{failing} {wrong_uploads}
             location /fine/ {{ return 200 \"fine\\n\"; }}
             location /plain/ {{ proxy_pass http://127.0.0.1:{PLAIN}; }}
             location /kept/ {{ proxy_pass http://kept; proxy_http_version 1.1; proxy_set_header Connection ''; }}
             location /behind/ {{ proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection '';
               proxy_set_header User-Agent {}; }}
             location /intercepted/ {{ proxy_pass http://127.0.0.1:{ODD}/unavailable/; proxy_intercept_errors on; error_page 503 =200 /fine/; }}
             location /named/ {{ proxy_pass http://127.0.0.1:{ODD}/unavailable/; proxy_intercept_errors on; error_page 503 =200 @other; }}
             location @other {{ proxy_pass http://127.0.0.1:{PLAIN}; }}
             location /next/ {{ proxy_pass http://pair/unavailable/; proxy_next_upstream http_503; }}
             location /authorized/ {{ auth_request /authorize; proxy_pass http://127.0.0.1:{PLAIN}; }}
             location = /authorize {{ proxy_pass http://127.0.0.1:{ODD}/large; }}
             location /elsewhere/ {{ proxy_pass http://127.0.0.1:{ODD}; }}
             location /mirrored/ {{ mirror /copy; proxy_pass http://127.0.0.1:{PLAIN}; }}
             location = /copy {{ proxy_pass http://127.0.0.1:{ODD}/large; }}
             location /upload/ {{ proxy_pass http://127.0.0.1:{SINK}; proxy_request_buffering off; proxy_http_version 1.1; }}
             location /mute/ {{ proxy_pass http://{http1}; }}
             location /stream/ {{ proxy_pass http://{http2}; }}
             location /nobody/ {{ proxy_pass http://127.0.0.1:{NOBODY}; }}
             location /dead/ {{ proxy_pass http://dead; }}
             location /socket/ {{ proxy_pass http://127.0.0.1:{socket}; proxy_http_version 1.1;
               proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}",
            // As long as a browser's: one that is not, and that ends at once on a kept connection, is taken for TLS's goodbye.
            "rig".repeat(30),
        );
        let (path, key) = (certificate.path(), certificate.key());
        let nginx = Nginx::on(&namespace)
            .workers(2)
            // What is made to wait otherwise, waits for its client, however long a busy machine takes to come to that.
            .block("proxy_read_timeout 1h;")
            .block(&format!(
                "upstream pair {{ server 127.0.0.1:{ODD} max_fails=0; server 127.0.0.1:{PLAIN} backup; }}
                 upstream kept {{ server 127.0.0.1:{PLAIN}; keepalive 4; }}
                 upstream behind {{ server 127.0.0.1:{BEHIND}; keepalive 4; }}
                 upstream dead {{ server 127.0.0.1:{NOBODY} fail_timeout=60s; server 127.0.0.1:9108 fail_timeout=60s; }}"
            ))
            .block(&format!("server {{ listen 127.0.0.1:{FRONT} backlog=1000; {locations} }}"))
            .block(&format!("server {{ listen 127.0.0.1:{HTTP2} http2; {locations} }}"))
            .block(&format!(
                "server {{ listen 127.0.0.1:{TLS} ssl http2; ssl_certificate {}; ssl_certificate_key {}; {locations} }}",
                path.display(),
                key.display()
            ))
            .block(&format!(
                "server {{ listen 127.0.0.1:{BEHIND} backlog=1000;
                   location / {{ proxy_pass http://127.0.0.1:{PLAIN}; }}
                   location /behind/mute/ {{ proxy_pass http://{behind}; }} }}"
            ))
            .start()?;
        Ok(Site { namespace, nginx, _origin: origin, servers, mute, unfed, sockets, certificate })
    }

    fn client(&self) -> Client {
        Client::new(&self.namespace, loopback(FRONT))
    }

    /// Does everything at once.
    fn storm(&self, scale: &Scale) -> Result<()> {
        let failing: Vec<_> = FAULTS.iter().map(|(_, path, _)| *path).chain(["/nobody/", "/dead/"]).collect();
        let (client, join) = (self.client(), |one: thread::ScopedJoinHandle<'_, Result<()>>| {
            one.join().map_err(|_| anyhow!("a thread panicked"))?
        });
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for path in failing {
                // What is waited for takes a second each.
                let at_a_time = if path == "/slow/" { scale.failures / 2 } else { 2 };
                for _ in 0..at_a_time {
                    // What is cut off may have no header even.
                    let client = client.clone();
                    let count = scale.failures / at_a_time;
                    threads.push(scope.spawn(move || {
                        (0..count).for_each(|_| drop(client.get(path)));
                        Ok(())
                    }));
                }
            }
            for (path, body) in FINE {
                let client = client.clone();
                threads.push(scope.spawn(move || {
                    (0..scale.fine).try_for_each(|_| {
                        let answer = client.get(path)?;
                        let got = String::from_utf8_lossy(&answer.body);
                        ensure!((answer.status, &*got) == (200, body), "{path}: {} {got:.20}", answer.status);
                        Ok(())
                    })
                }));
            }
            threads.push(scope.spawn(|| {
                let body = vec![b'x'; 200_000];
                (0..scale.uploads).try_for_each(|_| {
                    let status = client.post("/upload/", &body)?.status;
                    ensure!(status == 200, "an upload: {status}");
                    Ok(())
                })
            }));
            threads.push(scope.spawn(|| websocket::serve(&self.sockets, scale.sockets)));
            threads.push(scope.spawn(|| websocket::visits(&self.namespace, loopback(FRONT), scale.sockets)));
            let [http1, _, behind] = &self.mute;
            for (path, server) in [("/mute/", http1), ("/behind/mute/", behind)] {
                let client = client.clone();
                threads.push(scope.spawn(move || leave(&client, path, server, scale.leaving)));
            }
            threads.push(scope.spawn(|| self.cancel(scale.leaving)));
            threads.push(scope.spawn(|| {
                uploads::go_wrong(&self.namespace, loopback(FRONT), &self.unfed, scale.wrong_uploads)
            }));
            let ended: Vec<_> = threads.into_iter().map(join).collect();
            ended.into_iter().collect()
        })
    }

    /// Visitors by HTTP/2, plainly and over TLS: each cancels what it asked for beside what it waits for, and leaves with some unanswered.
    fn cancel(&self, count: usize) -> Result<()> {
        let tls = http2::trusting(&self.certificate.path())?;
        let [_, server, _] = &self.mute;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let mut visitors = Vec::new();
            for number in 0..2 * count / STREAMS {
                let (port, tls) = if number % 2 == 0 { (HTTP2, None) } else { (TLS, Some(&tls)) };
                let mut visitor = Visitor::connect(&self.namespace, loopback(port), tls).await?;
                for _ in 0..STREAMS {
                    visitor.ask("/stream/").await?;
                }
                visitors.push(visitor);
            }
            tokio::task::block_in_place(|| server.wait_read(visitors.len() * STREAMS))?;
            for visitor in &mut visitors {
                for _ in 0..STREAMS / 2 {
                    visitor.cancel()?;
                    for (path, status) in [("/plain/", 200), ("/intercepted/", 200), ("/nobody/", 502)] {
                        let got = visitor.get(path).await?;
                        ensure!(got == status, "{path}: {got}");
                    }
                }
            }
            for visitor in visitors {
                visitor.leave().await;
            }
            Ok(())
        })
    }
}

/// How many requests each visitor by HTTP/2 has under way.
const STREAMS: usize = 10;

/// Clients that leave, all within a moment, some by a reset.
fn leave(client: &Client, path: &str, server: &FaultyServer, count: usize) -> Result<()> {
    let asked: Vec<_> = (0..count).map(|_| client.ask(path)).collect::<Result<_>>()?;
    server.wait_read(count)?;
    for (number, asked) in asked.into_iter().enumerate() {
        if number % 4 == 0 {
            asked.reset()?
        } else {
            asked.abort()?
        }
        if number % 8 == 0 {
            ensure!(client.get("/kept/")?.status == 200);
        }
    }
    Ok(())
}

/// How many verdicts about each upstream have which name.
fn counts(verdicts: &[&Verdict]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for verdict in verdicts {
        let at = verdict.address().unwrap_or("nobody");
        *counts.entry(format!("{at} {}, {}", verdict.name(), verdict.confidence)).or_default() += 1;
    }
    counts
}

fn is_clients(verdict: &Verdict) -> bool {
    matches!(verdict.cause.as_str(), "client_abort" | "client_error")
}

/// Checks each verdict on a failure by what the rig made.
fn is_right(site: &Site, verdict: &Verdict) -> bool {
    let is_at = |endpoint: &Endpoint| verdict.address() == Some(&endpoint.to_string());
    let faulty = FAULTS.iter().zip(&site.servers).find(|(_, server)| is_at(server.endpoint()));
    match faulty {
        Some(((_, _, names), _)) => names.contains(&verdict.name().as_str()),
        None if is_at(&Endpoint::v4(NOBODY)) || is_at(&Endpoint::v4(9108)) => {
            verdict.name() == "refused/no_listener"
        }
        None => verdict.name() == "not_attempted/no_live_upstreams",
    }
}

fn number(account: &Account, name: &str) -> Result<usize> {
    let number = account.summary[name].as_u64().with_context(|| format!("no {name}: {}", account.summary))?;
    Ok(number.try_into()?)
}

#[test]
fn each_failure_and_each_client_that_left_has_a_verdict_and_nothing_else() -> Result<()> {
    let scale = Scale::of_storm();
    let site = Site::start()?;
    let tracer = Tracer::of(site.nginx.master())?;
    site.storm(&scale)?;
    let failures = settled(&site.nginx)?;
    let failed: Vec<_> = failures.into_iter().filter(|failure| failure.kind != Kind::ClientAbort).collect();
    ensure!(failed.len() >= 5 * scale.failures, "only {} failures", failed.len());
    // Of the uploads that go wrong, nginx logs two kinds as errors.
    let came = tracer.wait_for(failed.len() + 3 * scale.leaving + scale.wrong_uploads);
    let account = tracer.stop()?;
    account.is_orderly()?;
    let (clients, others): (Vec<_>, Vec<_>) = account.verdicts.iter().partition(|one| is_clients(one));
    // Which group has no server alive is a conclusion where what failed before the tracing began may matter.
    let is_sure = |verdict: &Verdict| verdict.confidence == "proven" || verdict.cause == "not_attempted";
    let is_wrong = |verdict: &&&Verdict| !is_right(&site, verdict) || !is_sure(verdict);
    let wrong: Vec<_> = others.iter().filter(is_wrong).copied().collect();
    ensure!(wrong.is_empty(), "{:#?}, of {:#?}: {:#?}", counts(&wrong), counts(&others), wrong.first());
    // Of some clients' faults nginx says a word.
    let said = clients.iter().filter(|one| one.word.is_some()).chain(&others);
    pair_off_words(&failed, &said.copied().cloned().collect::<Vec<_>>())?;
    came?;
    let wrong_uploads = account.about(site.unfed.endpoint());
    for fault in &uploads::FAULTS {
        let of_kind =
            wrong_uploads.iter().filter(|one| one.name() == fault.name && one.confidence == "proven");
        ensure!(of_kind.count() == scale.wrong_uploads, "{}: {:#?}", fault.name, counts(&wrong_uploads));
    }
    ensure!(
        wrong_uploads.len() == uploads::FAULTS.len() * scale.wrong_uploads,
        "{:#?}",
        counts(&wrong_uploads)
    );
    // Each that left by HTTP/1, at each hop.
    let [http1, http2, behind] = site.mute.each_ref().map(|server| account.about(server.endpoint()));
    let by_hop = account.about(&Endpoint::v4(BEHIND));
    let of_clients = counts(&clients);
    for about in [&http1, &behind, &by_hop] {
        let are_clients = about.iter().all(|one| one.cause == "client_abort" && one.confidence == "proven");
        ensure!(are_clients && about.len() == scale.leaving, "{} {of_clients:#?}", about.len());
    }
    // An inner one says whose it was, and that is one of the outer ones.
    for inner in &behind {
        let outer = inner.outer.as_ref().and_then(|outer| outer.nginx.local.as_ref());
        ensure!(outer.is_some(), "{inner:#?}");
        ensure!(by_hop.iter().any(|one| one.nginx.local.as_ref() == outer), "{inner:#?}");
    }
    // What a stream's cancelling ends is a client's, and no upstream's.
    ensure!(http2.iter().all(|one| one.cause == "client_abort"), "{of_clients:#?}");
    let left = http1.len() + http2.len() + behind.len() + by_hop.len();
    ensure!(clients.len() == left + wrong_uploads.len(), "{of_clients:#?}");
    // What is not emitted of them is counted, and so is what nginx ended early, unless nothing more had come by then.
    let early = ENDED_EARLY * scale.fine + scale.leaving;
    let (ended_early, canceled) = (number(&account, "ended_early")?, 2 * scale.leaving - http2.len());
    ensure!((canceled..=early + canceled).contains(&ended_early), "{early} {canceled} {}", account.summary);
    Ok(())
}

#[test]
fn where_nginx_is_not_heard_nothing_wrong_is_proven() -> Result<()> {
    let scale = Scale::of_storm();
    let site = Site::start()?;
    let tracer = Tracer::start(&["-p", &site.nginx.master().to_string(), "--no-uprobe"])?;
    site.storm(&scale)?;
    let failures = settled(&site.nginx)?;
    ensure!(failures.len() >= 5 * scale.failures, "only {} failures", failures.len());
    let account = tracer.stop()?;
    account.is_orderly()?;
    let is_wrong = |verdict: &&Verdict| {
        verdict.confidence == "proven" && (is_clients(verdict) || !is_right(&site, verdict))
    };
    let wrong: Vec<_> = account.verdicts.iter().filter(is_wrong).collect();
    ensure!(wrong.is_empty(), "{:#?}: {:#?}", counts(&wrong), wrong.first());
    // What the kernel alone shows is emitted all the same.
    let refused = account.verdicts.iter().filter(|verdict| verdict.cause == "refused").count();
    ensure!(refused >= scale.failures, "{:#?}", counts(&account.verdicts.iter().collect::<Vec<_>>()));
    Ok(())
}
