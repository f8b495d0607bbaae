//! Clients that cancel, or leave, other than by closing an HTTP/1.1 connection over TCP (issue 20).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use http::Request;
use rig::tracer::Account;
use rig::{Endpoint, Fault, FaultyServer, Location, Namespace, Nginx, Tracer, wait};

const HTTP2: u16 = 8082;

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A request under way.
struct Asked {
    response: ResponseFuture,
    stream: SendStream<Bytes>,
}

async fn ask(requests: &SendRequest<Bytes>, path: &str) -> Result<Asked> {
    let request = Request::get(format!("http://rig{path}")).body(())?;
    let (response, stream) = requests.clone().ready().await?.send_request(request, true)?;
    Ok(Asked { response, stream })
}

/// What an HTTP/2 client does, on one connection with `nginx`, which it then leaves.
fn over_http2(
    namespace: &Namespace,
    acts: impl AsyncFnOnce(&SendRequest<Bytes>) -> Result<()>,
) -> Result<()> {
    let mut stream = namespace.run(|| Ok(TcpStream::connect(loopback(HTTP2))?))?;
    let shared = stream.try_clone()?;
    shared.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (requests, connection) = h2::client::handshake(tokio::net::TcpStream::from_std(shared)?).await?;
        let driven = tokio::spawn(connection);
        acts(&requests).await?;
        driven.abort();
        // It returns once the task has ended: nothing is sent after the FIN.
        ensure!(driven.await.is_err_and(|error| error.is_cancelled()), "nginx ended the connection");
        anyhow::Ok(())
    })?;
    // Closed at once it would leave with a reset wherever a frame of nginx's had come and was not read yet.
    stream.shutdown(Shutdown::Write)?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(wait::bound()))?;
    stream.read_to_end(&mut Vec::new()).context("waiting for nginx to close")?;
    Ok(())
}

/// An nginx that speaks HTTP/2 and HTTP/1.1 to its clients, and passes everything on as these directives say.
fn front(namespace: &Namespace, pass: &str) -> Result<Nginx> {
    Nginx::on(namespace)
        .block(&format!("server {{ listen 127.0.0.1:{HTTP2} http2; location / {{ {pass}; }} }}"))
        .start()
}

fn are_named(account: &Account, upstream: &Endpoint, name: &str, count: usize) -> Result<()> {
    account.is_orderly()?;
    ensure!(account.verdicts.len() == count, "{:#?}", account.verdicts);
    for verdict in account.about(upstream) {
        verdict.says(name, "proven", 499, None)?;
    }
    ensure!(account.about(upstream).len() == count, "{:#?}", account.verdicts);
    Ok(())
}

#[test]
fn requests_that_one_client_cancels_at_once_are_reported_each() -> Result<()> {
    const REQUESTS: usize = 5;
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9100), 16)?;
    let nginx = front(&namespace, "proxy_pass http://127.0.0.1:9100")?;
    let tracer = Tracer::of(nginx.master())?;
    over_http2(&namespace, async |requests| {
        let mut under_way = Vec::new();
        for _ in 0..REQUESTS {
            under_way.push(ask(requests, "/").await?);
        }
        tokio::task::block_in_place(|| server.wait_read(REQUESTS))?;
        for asked in &mut under_way {
            asked.stream.send_reset(Reason::CANCEL);
        }
        tokio::task::block_in_place(|| nginx.wait_for_accesses(REQUESTS))?;
        Ok(())
    })?;
    tracer.wait_for(REQUESTS)?;
    are_named(&tracer.stop()?, server.endpoint(), "client_abort/stream_cancelled", REQUESTS)?;
    ensure!(nginx.wait_for_accesses(REQUESTS)?.iter().all(|access| access.status == 499));
    Ok(())
}

#[test]
fn a_client_that_leaves_with_five_requests_under_way_is_reported_for_each() -> Result<()> {
    const REQUESTS: usize = 5;
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9100), 16)?;
    let nginx = front(&namespace, "proxy_pass http://127.0.0.1:9100")?;
    let tracer = Tracer::of(nginx.master())?;
    over_http2(&namespace, async |requests| {
        let mut under_way = Vec::new();
        for _ in 0..REQUESTS {
            under_way.push(ask(requests, "/").await?);
        }
        tokio::task::block_in_place(|| server.wait_read(REQUESTS))
    })?;
    tracer.wait_for(REQUESTS)?;
    are_named(&tracer.stop()?, server.endpoint(), "client_abort/before_response", REQUESTS)?;
    ensure!(nginx.wait_for_accesses(REQUESTS)?.iter().all(|access| access.status == 499));
    Ok(())
}

#[test]
fn a_grpc_deadline_is_the_clients() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9100), 4)?;
    let nginx = front(&namespace, "grpc_pass grpc://127.0.0.1:9100")?;
    let tracer = Tracer::of(nginx.master())?;
    over_http2(&namespace, async |requests| {
        let mut asked = ask(requests, "/service/Method").await?;
        tokio::task::block_in_place(|| server.wait_read(1))?;
        asked.stream.send_reset(Reason::CANCEL);
        tokio::task::block_in_place(|| nginx.wait_for_accesses(1))?;
        Ok(())
    })?;
    tracer.wait_for(1)?;
    are_named(&tracer.stop()?, server.endpoint(), "client_abort/stream_cancelled", 1)
}

/// Answers one request with `head`, and keeps the connection until the client has gone.
fn begin_answer(listener: &TcpListener, head: &[u8], more: &[u8]) -> Result<()> {
    let (mut stream, _) = listener.accept()?;
    let mut request = [0; 4096];
    ensure!(stream.read(&mut request)? > 0);
    stream.write_all(head)?;
    // As much of it as is taken.
    while !more.is_empty() && stream.write_all(more).is_ok() {}
    while stream.read(&mut request).is_ok_and(|read| read > 0) {}
    Ok(())
}

/// A client that cancels in the middle of a response, at once after some of it has come.
fn cancels_in_the_middle(head: &'static [u8], more: &'static [u8]) -> Result<()> {
    let namespace = Namespace::new()?;
    let listener = namespace.run(|| Ok(TcpListener::bind(loopback(9100))?))?;
    let serving = thread::spawn(move || begin_answer(&listener, head, more));
    let nginx = front(&namespace, "proxy_pass http://127.0.0.1:9100")?;
    let tracer = Tracer::of(nginx.master())?;
    over_http2(&namespace, async |requests| {
        let Asked { response, mut stream } = ask(requests, "/").await?;
        let mut body = response.await?.into_body();
        ensure!(!body.data().await.context("some of the body")??.is_empty());
        stream.send_reset(Reason::CANCEL);
        tokio::task::block_in_place(|| nginx.wait_for_accesses(1))?;
        Ok(())
    })?;
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let verdict = account.only(&Endpoint::v4(9100))?;
    // The status was sent already.
    let said = (verdict.name(), verdict.confidence.as_str(), verdict.status);
    ensure!(said == ("client_abort/stream_cancelled".to_owned(), "proven", None), "{verdict:#?}");
    serving.join().map_err(|_| anyhow::anyhow!("the server panicked"))?
}

#[test]
fn a_video_that_is_skipped_is_the_clients() -> Result<()> {
    cancels_in_the_middle(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n", &[b'x'; 65_536])
}

#[test]
fn an_event_stream_that_is_left_is_the_clients() -> Result<()> {
    cancels_in_the_middle(
        b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n\r\ndata: first\n\n",
        b"",
    )
}

#[test]
fn a_client_on_a_unix_socket_that_leaves_is_reported() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9100), 4)?;
    let socket = namespace.scratch().join("front.sock");
    let nginx = Nginx::on(&namespace)
        .block(&format!(
            "server {{ listen unix:{}; location / {{ proxy_pass http://127.0.0.1:9100; }} }}",
            socket.display()
        ))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let mut stream = UnixStream::connect(&socket)?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    server.wait_read(1)?;
    drop(stream);
    tracer.wait_for(1)?;
    are_named(&tracer.stop()?, server.endpoint(), "client_abort/before_response", 1)?;
    ensure!(nginx.wait_for_accesses(1)?[0].status == 499);
    Ok(())
}

#[test]
fn a_client_that_left_is_reported_though_nginx_has_something_to_do_after() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9100), 4)?;
    let after = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9101), 4)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/", server.endpoint()).directive("post_action /after/"))
        .location(Location::http("/after/", after.endpoint()))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let asked = nginx.client().ask("/")?;
    server.wait_read(1)?;
    asked.abort()?;
    after.wait_read(1)?;
    tracer.wait_for(1)?;
    are_named(&tracer.stop()?, server.endpoint(), "client_abort/before_response", 1)
}

#[test]
fn a_client_that_had_gone_and_was_ignored_is_no_cause_of_a_timeout() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9100), 4)?;
    let ignoring = Location::http("/", server.endpoint()).directive("proxy_ignore_client_abort on");
    let nginx = Nginx::on(&namespace).location(ignoring.read_timeout(Duration::from_millis(700))).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let asked = nginx.client().ask("/")?;
    server.wait_read(1)?;
    asked.reset()?;
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    account.only(server.endpoint())?.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))
}

/// While nginx is stopped, one client leaves and the timer of another's exchange runs out: it comes to both in one turn.
#[test]
fn a_client_that_leaves_in_the_turn_of_anothers_timer_is_told_from_it() -> Result<()> {
    let namespace = Namespace::new()?;
    let (left, late) = (Endpoint::v4(9100), Endpoint::v4(9101));
    let servers = [
        FaultyServer::start(&namespace, Fault::Mute, left.clone(), 4)?,
        FaultyServer::start(&namespace, Fault::Mute, late.clone(), 4)?,
    ];
    let timeout = Duration::from_millis(700);
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/left/", &left))
        .location(Location::http("/late/", &late).read_timeout(timeout))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let (leaves, waits) = (nginx.client().ask("/left/")?, nginx.client().ask("/late/")?);
    servers[0].wait_read(1)?;
    servers[1].wait_read(1)?;
    let frozen = nginx.freeze()?;
    leaves.abort()?;
    // The timer is nginx's own: that it has run out is known by nothing else.
    thread::sleep(timeout);
    drop(frozen);
    ensure!(waits.answer()?.status == 504);
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    account.only(&left)?.says("client_abort/before_response", "proven", 499, None)?;
    account.only(&late)?.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))
}

/// Where nginx's word is not heard, what it read last is a sign.
#[test]
fn without_nginx_s_word_a_cancelled_request_is_only_inferred() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9100), 4)?;
    let nginx = front(&namespace, "proxy_pass http://127.0.0.1:9100")?;
    let master = nginx.master().to_string();
    let tracer = Tracer::start(&["-p", &master, "--no-uprobe"])?;
    over_http2(&namespace, async |requests| {
        let mut asked = ask(requests, "/").await?;
        tokio::task::block_in_place(|| server.wait_read(1))?;
        asked.stream.send_reset(Reason::CANCEL);
        tokio::task::block_in_place(|| nginx.wait_for_accesses(1))?;
        Ok(())
    })?;
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    account.only(server.endpoint())?.says("client_abort/stream_cancelled", "inferred", 499, None)
}
