//! Clients whose requests had to wait before nginx asked an upstream, and that leave or cancel then: nginx has read from others meanwhile.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use anyhow::{Result, ensure};
use bytes::Bytes;
use h2::Reason;
use h2::client::{ResponseFuture, SendRequest};
use http::Request;
use rig::{Client, Endpoint, Fault, FaultyServer, Help, Namespace, Nginx, Resolver, Tracer};

const HTTP1: u16 = 8081;
const HTTP2: u16 = 8082;
const NAMES: u16 = 5301;
/// Where requests end up that are never answered.
const MUTE: u16 = 9100;

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// An nginx before a server that never answers. The second request at a time to `/limited/` waits a moment.
fn front(namespace: &Namespace) -> Result<Nginx> {
    let locations = format!(
        "location /named/ {{ set $name somewhere.test; proxy_pass http://$name:{MUTE}; }}
         location /limited/ {{ limit_req zone=slow burst=9; proxy_pass http://127.0.0.1:{MUTE}; }}
         location /retried/ {{ proxy_pass http://second; }}
         location /missing {{ return 404; }}"
    );
    Nginx::on(namespace)
        .block("limit_req_zone $server_port zone=slow:1m rate=4r/s;")
        .block(&format!("resolver 127.0.0.1:{NAMES} ipv6=off valid=1s;"))
        .block(&format!(
            "upstream second {{ server 127.0.0.1:9109 max_fails=0; server 127.0.0.1:{MUTE} backup; }}"
        ))
        .block(&format!("server {{ listen 127.0.0.1:{HTTP1}; {locations} }}"))
        .block(&format!("server {{ listen 127.0.0.1:{HTTP2} http2; {locations} }}"))
        .start()
}

async fn ask(requests: &SendRequest<Bytes>, path: &str) -> Result<(ResponseFuture, h2::SendStream<Bytes>)> {
    let request = Request::get(format!("http://rig{path}")).body(())?;
    Ok(requests.clone().ready().await?.send_request(request, true)?)
}

/// Cancels both of two requests on one connection, the second after it has asked for something else, and leaves once nginx has `ended` all
/// four.
///
/// What it asks for next must not come to nginx in one read with the cancel: nginx then answers in the turn in which it closes what was
/// cancelled, and that answer may be to either.
fn cancel(
    namespace: &Namespace,
    path: &str,
    reach: impl Fn(usize) -> Result<()>,
    ended: impl Fn(usize) -> Result<()>,
) -> Result<()> {
    let stream = namespace.run(|| Ok(TcpStream::connect(loopback(HTTP2))?))?;
    stream.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (requests, connection) = h2::client::handshake(tokio::net::TcpStream::from_std(stream)?).await?;
        let driven = tokio::spawn(connection);
        let mut under_way = [ask(&requests, path).await?, ask(&requests, path).await?];
        tokio::task::block_in_place(|| reach(2))?;
        for (before, (_, stream)) in under_way.iter_mut().enumerate() {
            stream.send_reset(Reason::CANCEL);
            tokio::task::block_in_place(|| ended(2 * before + 1))?;
            ensure!(ask(&requests, "/missing").await?.0.await?.status() == 404);
        }
        tokio::task::block_in_place(|| ended(4))?;
        driven.abort();
        Ok(())
    })
}

/// Clients of either protocol give up what had to wait as `path` has it wait, with so many failures before.
fn is_the_clients(path: &str, failures: usize) -> Result<()> {
    let namespace = Namespace::new()?;
    let _names = Resolver::start(&namespace, NAMES, Help::Loopback)?;
    let server = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(MUTE), 16)?;
    let nginx = front(&namespace)?;
    let tracer = Tracer::of(nginx.master())?;
    cancel(
        &namespace,
        path,
        |count| server.wait_read(count),
        |count| nginx.wait_for_accesses(count).map(drop),
    )?;
    let client = Client::new(&namespace, loopback(HTTP1));
    let leaving = [client.ask(path)?, client.ask(path)?];
    server.wait_read(4)?;
    leaving.into_iter().try_for_each(|asked| asked.abort())?;
    nginx.wait_for_accesses(6)?;
    tracer.wait_for(4 + failures)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let about = account.about(server.endpoint());
    for name in ["client_abort/stream_cancelled", "client_abort/before_response"] {
        let named: Vec<_> = about.iter().filter(|verdict| verdict.name() == name).collect();
        ensure!(named.len() == 2, "{name}: {about:#?}");
        named.into_iter().try_for_each(|verdict| verdict.says(name, "proven", 499, None))?;
    }
    Ok(())
}

#[test]
fn a_request_that_waited_for_a_name_is_explained_by_its_client() -> Result<()> {
    is_the_clients("/named/", 0)
}

#[test]
fn a_request_that_was_held_back_is_explained_by_its_client() -> Result<()> {
    is_the_clients("/limited/", 0)
}

#[test]
fn a_request_that_was_tried_again_is_explained_by_its_client() -> Result<()> {
    is_the_clients("/retried/", 4)
}
