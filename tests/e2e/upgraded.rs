//! Connections that were upgraded (101): whatever ends one is no failure, unless it is the death of its worker.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use rig::error_log::Kind;
use rig::process::{self, Pid};
use rig::tracer::Account;
use rig::web_socket::{greet, read_to_end};
use rig::{By, Endpoint, Fault, FaultyServer, Location, Namespace, Nginx, Tracer, Verdict, wait};
use tungstenite::{Message, WebSocket};

/// Where nobody listens: a real failure beside the others.
const NOBODY: u16 = 9109;
const SERVER: u16 = 9100;
/// Where each request goes, too.
const MIRROR: u16 = 9101;

struct Site {
    namespace: Namespace,
    server: FaultyServer,
    nginx: Nginx,
}

impl Site {
    fn new(by: By) -> Result<Site> {
        Site::with_timeout(by, Duration::from_secs(30))
    }

    fn with_timeout(by: By, timeout: Duration) -> Result<Site> {
        let namespace = Namespace::new()?;
        let endpoint = match by {
            By::Tcp => Endpoint::v4(SERVER),
            By::Unix => Endpoint::Unix(namespace.scratch().join("web-socket.sock")),
        };
        let server = FaultyServer::start(&namespace, Fault::WebSocket, endpoint, 64)?;
        let nginx = Nginx::on(&namespace)
            .group("kept", &[server.endpoint()], &["keepalive 4"])
            .location(web_socket(server.location()).read_timeout(timeout))
            .location(
                web_socket(Location::http("/kept/", server.endpoint()).through_group("kept"))
                    .read_timeout(timeout),
            )
            .location(
                web_socket(Location::http("/mirrored/", server.endpoint()))
                    .read_timeout(timeout)
                    .directive("mirror /copy/"),
            )
            .location(Location::http("/copy/", &Endpoint::v4(MIRROR)))
            .location(Location::http("/nobody/", &Endpoint::v4(NOBODY)))
            .start()?;
        Ok(Site { namespace, server, nginx })
    }

    /// A client that has been greeted, and has exchanged so many messages.
    fn client(&self, path: &str, messages: usize) -> Result<WebSocket<TcpStream>> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
        let stream = self.namespace.run(|| Ok(TcpStream::connect(address)?))?;
        stream.set_read_timeout(Some(wait::bound()))?;
        greet(stream, &format!("ws://rig{path}"), messages)
    }

    /// A real failure, after which the tracer's account holds that one and `others`.
    fn account(&self, tracer: Tracer, others: usize) -> Result<Account> {
        ensure!(self.nginx.client().get("/nobody/")?.status == 502);
        tracer.wait_for(others + 1)?;
        let account = tracer.stop()?;
        account.is_orderly()?;
        account.only(&Endpoint::v4(NOBODY))?.says(
            "refused/no_listener",
            "proven",
            502,
            Some("ECONNREFUSED"),
        )?;
        ensure!(account.verdicts.len() == others + 1, "{:#?}", account.verdicts);
        Ok(account)
    }

    /// How many bytes lie unread at the server's end of its only connection.
    fn unread(&self) -> Result<u64> {
        let table = fs::read_to_string(format!("/proc/{}/net/tcp", self.server.pid()))?;
        let port = format!(":{SERVER:04X}");
        let of_server = |line: &&str| {
            let mut columns = line.split_whitespace().skip(1);
            columns.next().is_some_and(|local| local.ends_with(&port)) && columns.nth(1) == Some("01")
        };
        let line = table.lines().find(of_server).context("the server's end")?;
        let (_, unread) = line
            .split_whitespace()
            .nth(4)
            .and_then(|queues| queues.split_once(':'))
            .context("the length of its queue")?;
        Ok(u64::from_str_radix(unread, 16)?)
    }
}

fn web_socket(location: Location) -> Location {
    location
        .directive("proxy_set_header Upgrade $http_upgrade")
        .directive("proxy_set_header Connection upgrade")
}

/// Each way in which either side may end it.
fn whoever_ends_it(by: By) -> Result<()> {
    let site = Site::new(by)?;
    let tracer = Tracer::of(site.nginx.master())?;
    let mut ended = 0;
    for path in ["/web-socket/", "/kept/"] {
        for messages in [0, 1, 5] {
            // The client says goodbye.
            let mut client = site.client(path, messages)?;
            client.close(None)?;
            read_to_end(client);
            // It leaves, with nothing said last or something.
            drop(site.client(path, messages)?);
            let mut client = site.client(path, messages)?;
            client.send(Message::Ping("".into()))?;
            client.send(Message::text("no answer is waited for"))?;
            drop(client);
            // The server leaves.
            let mut client = site.client(path, messages)?;
            client.send(Message::text("leave"))?;
            read_to_end(client);
            ended += 4;
        }
    }
    let accesses = site.nginx.wait_for_accesses(ended)?;
    ensure!(accesses.iter().all(|access| access.status == 101), "{accesses:#?}");
    let account = site.account(tracer, 0)?;
    ensure!(account.summary["exchanges"].as_u64() == Some(ended as u64 + 1), "{}", account.summary);
    Ok(())
}

#[test]
fn whichever_side_ends_it_that_is_no_failure() -> Result<()> {
    whoever_ends_it(By::Tcp)
}

#[test]
fn whichever_side_ends_it_over_a_unix_socket_that_is_no_failure() -> Result<()> {
    whoever_ends_it(By::Unix)
}

/// What must be said of each connection that a death has cut.
fn is_cut(verdict: &Verdict, name: &str, worker: Pid, errno: Option<&str>) -> Result<()> {
    let said = (verdict.name(), verdict.confidence.as_str(), verdict.status, verdict.errno.as_deref());
    ensure!(said == (name.to_owned(), "proven", None, errno), "{said:?}: {verdict:#?}");
    ensure!(verdict.worker_pid() == Some(worker), "{verdict:#?}");
    ensure!(verdict.explanation.contains("had been upgraded"), "{verdict:#?}");
    ensure!(!verdict.explanation.contains("answer"), "{verdict:#?}");
    Ok(())
}

/// Three connections: one has only been greeted, one has talked, one is on a connection of the pool's.
fn dies(
    by: By,
    die: impl Fn(&FaultyServer, &mut WebSocket<TcpStream>) -> Result<()>,
    name: &str,
) -> Result<Vec<Verdict>> {
    let site = Site::new(by)?;
    let tracer = Tracer::of(site.nginx.master())?;
    let mut clients =
        vec![site.client("/web-socket/", 0)?, site.client("/web-socket/", 3)?, site.client("/kept/", 2)?];
    die(&site.server, &mut clients[1])?;
    clients.into_iter().for_each(read_to_end);
    site.nginx.wait_for_accesses(3)?;
    let account = site.account(tracer, 3)?;
    let cut: Vec<Verdict> = account.about(site.server.endpoint()).into_iter().cloned().collect();
    for verdict in &cut {
        is_cut(verdict, name, site.server.pid(), None)?;
    }
    ensure!(cut.len() == 3, "{cut:#?}");
    Ok(cut)
}

fn kill(server: &FaultyServer, _: &mut WebSocket<TcpStream>) -> Result<()> {
    process::send(server.pid(), Signal::SIGKILL)
}

fn sends(word: &'static str) -> impl Fn(&FaultyServer, &mut WebSocket<TcpStream>) -> Result<()> {
    move |_, client| Ok(client.send(Message::text(word))?)
}

#[test]
fn a_worker_that_is_killed_cuts_it() -> Result<()> {
    let me = std::process::id().cast_signed();
    for by in [By::Tcp, By::Unix] {
        for verdict in dies(by, kill, "upgraded/worker_killed")? {
            ensure!((verdict.signal(), verdict.killer_pid()) == (Some("SIGKILL"), Some(me)), "{verdict:#?}");
            ensure!(verdict.explanation.contains(&me.to_string()), "{verdict:#?}");
        }
    }
    Ok(())
}

#[test]
fn a_worker_that_exits_cuts_it() -> Result<()> {
    for by in [By::Tcp, By::Unix] {
        dies(by, sends("exit"), "upgraded/worker_exited")?;
    }
    Ok(())
}

#[test]
fn a_worker_that_crashes_cuts_it() -> Result<()> {
    for verdict in dies(By::Tcp, sends("abort"), "upgraded/worker_crashed")? {
        ensure!(verdict.signal() == Some("SIGABRT"), "{verdict:#?}");
    }
    Ok(())
}

#[test]
fn what_it_left_unread_makes_its_end_a_reset() -> Result<()> {
    let site = Site::new(By::Tcp)?;
    let tracer = Tracer::of(site.nginx.master())?;
    let mut client = site.client("/web-socket/", 2)?;
    let frozen = process::stop(site.server.pid())?;
    client.send(Message::text("nobody reads this"))?;
    wait::until_true("a message that lies unread", || Ok(site.unread()? > 0))?;
    process::send(site.server.pid(), Signal::SIGKILL)?;
    read_to_end(client);
    drop(frozen);
    site.nginx.wait_for_failures(1)?;
    let account = site.account(tracer, 1)?;
    let verdict = account.only(site.server.endpoint())?;
    is_cut(verdict, "upgraded/worker_killed", site.server.pid(), Some("ECONNRESET"))?;
    let word = verdict.word.as_ref().context("nginx's word")?;
    ensure!(word.doing.as_deref() == Some("proxying upgraded connection"), "{verdict:#?}");
    Ok(())
}

#[test]
fn a_reset_by_a_worker_that_lives_is_one_and_has_no_status() -> Result<()> {
    let site = Site::new(By::Tcp)?;
    let tracer = Tracer::of(site.nginx.master())?;
    let mut client = site.client("/web-socket/", 2)?;
    client.send(Message::text("reset"))?;
    read_to_end(client);
    let failures = site.nginx.wait_for_failures(1)?;
    ensure!(failures[0].kind == Kind::Receive, "{failures:#?}");
    let account = site.account(tracer, 1)?;
    let verdict = account.only(site.server.endpoint())?;
    let said = (verdict.name(), verdict.confidence.as_str(), verdict.status, verdict.errno.as_deref());
    ensure!(said == ("reset/peer_aborted".to_owned(), "proven", None, Some("ECONNRESET")), "{verdict:#?}");
    verdict.blames(Some(site.server.pid()), None, None)
}

/// Where the copies of requests go.
struct Mirror(TcpListener);

impl Mirror {
    fn start(namespace: &Namespace) -> Result<Mirror> {
        Ok(Mirror(namespace.run(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, MIRROR))?))?))
    }

    /// Answers the next copy, and returns when nginx has closed it: so what it did for that is the last that it did for the request.
    fn answer(&self) -> Result<()> {
        let (mut stream, _) = self.0.accept()?;
        stream.set_read_timeout(Some(wait::bound()))?;
        ensure!(stream.read(&mut [0; 4_096])? > 0, "no copy");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")?;
        // Of its answer nginx may leave something unread.
        let _end = stream.read_to_end(&mut Vec::new());
        Ok(())
    }

    /// A client of the site's that was greeted before its copy was answered.
    fn client(&self, site: &Site, messages: usize) -> Result<WebSocket<TcpStream>> {
        let client = site.client("/mirrored/", messages)?;
        self.answer()?;
        Ok(client)
    }
}

/// nginx keeps what it does in one place for a request and for its copy: the copy's stands there last, and hides that the connection was upgraded.
#[test]
fn a_copy_of_its_request_makes_no_failure_and_hides_none() -> Result<()> {
    for by in [By::Tcp, By::Unix] {
        let site = Site::new(by)?;
        let mirror = Mirror::start(&site.namespace)?;
        let tracer = Tracer::of(site.nginx.master())?;
        for messages in [0, 3] {
            // Either side leaves.
            drop(mirror.client(&site, messages)?);
            let mut client = mirror.client(&site, messages)?;
            client.close(None)?;
            read_to_end(client);
            let mut client = mirror.client(&site, messages)?;
            client.send(Message::text("leave"))?;
            read_to_end(client);
        }
        let clients = [mirror.client(&site, 0)?, mirror.client(&site, 2)?];
        site.nginx.wait_for_accesses(6)?;
        process::send(site.server.pid(), Signal::SIGKILL)?;
        clients.into_iter().for_each(read_to_end);
        site.nginx.wait_for_accesses(8)?;
        let account = site.account(tracer, 2)?;
        let cut = account.about(site.server.endpoint());
        ensure!(cut.len() == 2, "{:#?}", account.verdicts);
        for verdict in cut {
            is_cut(verdict, "upgraded/worker_killed", site.server.pid(), None)?;
        }
    }
    Ok(())
}

#[test]
fn an_idle_one_whose_request_was_copied_is_nobodys_fault() -> Result<()> {
    for by in [By::Tcp, By::Unix] {
        let site = Site::with_timeout(by, Duration::from_secs(2))?;
        let mirror = Mirror::start(&site.namespace)?;
        let tracer = Tracer::of(site.nginx.master())?;
        read_to_end(mirror.client(&site, 1)?);
        let account = site.account(tracer, 1)?;
        let verdict = account.only(site.server.endpoint())?;
        let said = (verdict.name(), verdict.confidence.as_str(), verdict.status);
        ensure!(said == ("read_timeout/idle_upgraded".to_owned(), "inferred", None), "{verdict:#?}");
    }
    Ok(())
}

/// Answers one request with more than anybody takes.
fn pour(listener: &TcpListener) -> Result<()> {
    let (mut stream, _) = listener.accept()?;
    ensure!(stream.read(&mut [0; 4_096])? > 0, "no request");
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
    while stream.write_all(&[b'x'; 65_536]).is_ok() {}
    Ok(())
}

#[test]
fn a_client_that_leaves_a_copied_request_that_was_not_upgraded_is_reported() -> Result<()> {
    let namespace = Namespace::new()?;
    let mirror = Mirror::start(&namespace)?;
    let listener = namespace.run(|| Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, SERVER))?))?;
    let pouring = thread::spawn(move || pour(&listener));
    let server = Endpoint::v4(SERVER);
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/", &server).unbuffered().directive("mirror /copy/"))
        .location(Location::http("/copy/", &Endpoint::v4(MIRROR)))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let asked = nginx.client().ask("/")?;
    mirror.answer()?;
    asked.abort_after(10_000)?;
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let verdict = account.only(&server)?;
    let said = (verdict.name(), verdict.confidence.as_str());
    ensure!(said == ("client_abort/mid_response".to_owned(), "proven"), "{verdict:#?}");
    ensure!(account.verdicts.len() == 1, "{:#?}", account.verdicts);
    pouring.join().map_err(|_| anyhow!("the server panicked"))?
}

/// Without nginx's memory, an upgraded connection looks like a kept one: then nothing about it is proven.
#[test]
fn where_nginx_is_not_listened_to_nothing_about_it_is_proven() -> Result<()> {
    let site = Site::new(By::Tcp)?;
    let tracer = Tracer::start(&["-p", &site.nginx.master().to_string(), "--no-uprobe"])?;
    for messages in [0, 2] {
        drop(site.client("/web-socket/", messages)?);
        let mut client = site.client("/web-socket/", messages)?;
        client.send(Message::text("leave"))?;
        read_to_end(client);
    }
    site.nginx.wait_for_accesses(4)?;
    ensure!(site.nginx.client().get("/nobody/")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    for verdict in account.about(site.server.endpoint()) {
        ensure!(verdict.confidence != "proven", "{verdict:#?}");
    }
    Ok(())
}

#[test]
fn one_without_a_byte_for_the_read_timeout_is_idle_and_nobodys_fault() -> Result<()> {
    for by in [By::Tcp, By::Unix] {
        let site = Site::with_timeout(by, Duration::from_secs(2))?;
        let tracer = Tracer::of(site.nginx.master())?;
        for messages in [0, 3] {
            let client = site.client("/web-socket/", messages)?;
            read_to_end(client);
        }
        let account = site.account(tracer, 2)?;
        for verdict in account.about(site.server.endpoint()) {
            let said =
                (verdict.name(), verdict.confidence.as_str(), verdict.status, verdict.errno.as_deref());
            ensure!(
                said == ("read_timeout/idle_upgraded".to_owned(), "inferred", None, Some("ETIMEDOUT")),
                "{verdict:#?}"
            );
            ensure!(verdict.explanation.contains("It was idle"), "{verdict:#?}");
        }
    }
    Ok(())
}
