//! `client_error`: the client's own fault while nginx had an exchange for it; and an nginx worker that has to go (issue 20).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Result, ensure};
use rig::{Endpoint, Fault, FaultyServer, Location, Namespace, Nginx, Tracer, Verdict, wait};

const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: rig\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A client whose request is passed on as it comes, and then goes wrong: the verdict, with the status in nginx's access log.
fn goes_wrong(directive: &str, then: &[u8]) -> Result<(Verdict, u16)> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9100), 4)?;
    let location = Location::http("/", server.endpoint());
    let nginx = Nginx::on(&namespace)
        .location(location.directive("proxy_request_buffering off").directive(directive))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let mut stream = namespace.run(|| Ok(TcpStream::connect(loopback(8080))?))?;
    stream.set_read_timeout(Some(wait::bound()))?;
    stream.write_all(HEAD)?;
    server.wait_read(1)?;
    stream.write_all(then)?;
    // Whatever nginx says of it, and its end; what it has not read may have made that a reset.
    let _end = stream.read_to_end(&mut Vec::new());
    let status = nginx.wait_for_accesses(1)?[0].status;
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.verdicts.len() == 1, "{:#?}", account.verdicts);
    Ok((account.only(server.endpoint())?.clone(), status))
}

#[test]
fn a_body_that_is_too_large_is_the_clients_fault() -> Result<()> {
    let (verdict, status) = goes_wrong("client_max_body_size 8", b"a\r\n0123456789\r\n")?;
    ensure!(status == 413);
    verdict.says("client_error/body_too_large", "proven", 413, None)
}

#[test]
fn an_invalid_chunk_is_the_clients_fault() -> Result<()> {
    let (verdict, status) = goes_wrong("client_max_body_size 1m", b"no length\r\n")?;
    ensure!(status == 400);
    verdict.says("client_error/invalid_body", "proven", 400, None)
}

#[test]
fn a_body_that_stops_coming_is_the_clients_fault() -> Result<()> {
    let (verdict, status) = goes_wrong("client_body_timeout 300ms", b"")?;
    ensure!(status == 408);
    verdict.says("client_error/body_timeout", "proven", 408, None)
}

/// Sends more than anybody holds for a client, as far as it is taken.
fn pour(listener: &TcpListener) -> Result<()> {
    let (mut stream, _) = listener.accept()?;
    ensure!(stream.read(&mut [0; 4096])? > 0);
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")?;
    while stream.write_all(&[b'x'; 65_536]).is_ok() {}
    Ok(())
}

/// A client that asks and reads nothing.
fn does_not_read(protocol: &str, request: &[u8]) -> Result<()> {
    let namespace = Namespace::new()?;
    let listener = namespace.run(|| Ok(TcpListener::bind(loopback(9100))?))?;
    let pouring = thread::spawn(move || pour(&listener));
    let nginx = Nginx::on(&namespace)
        .block(&format!(
            "server {{ listen 127.0.0.1:8082 {protocol}; send_timeout 500ms;
              location / {{ proxy_pass http://127.0.0.1:9100; proxy_max_temp_file_size 0; }} }}"
        ))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let mut stream = namespace.run(|| Ok(TcpStream::connect(loopback(8082))?))?;
    stream.write_all(request)?;
    nginx.wait_for_accesses(1)?;
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.verdicts.len() == 1, "{:#?}", account.verdicts);
    let verdict = account.only(&Endpoint::v4(9100))?;
    let said = (verdict.name(), verdict.confidence.as_str(), verdict.status);
    ensure!(said == ("client_error/not_reading".to_owned(), "proven", None), "{verdict:#?}");
    pouring.join().map_err(|_| anyhow::anyhow!("the server panicked"))?
}

#[test]
fn a_client_that_does_not_read_is_told() -> Result<()> {
    does_not_read("", b"GET / HTTP/1.0\r\n\r\n")
}

/// The preface, settings that leave the window as it is, and a request (RFC 9113, RFC 7541): its window is never opened again.
#[test]
fn a_client_that_keeps_its_http2_window_shut_is_told() -> Result<()> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    // :method GET, :scheme http, :path /, :authority rig
    let header = [0x82, 0x86, 0x84, 0x41, 3, b'r', b'i', b'g'];
    bytes.extend([0, 0, header.len() as u8, 1, 5, 0, 0, 0, 1]);
    bytes.extend(header);
    does_not_read("http2", &bytes)
}

#[test]
fn a_worker_that_has_to_go_ends_what_is_under_way() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9100), 4)?;
    let nginx = Nginx::on(&namespace)
        .main("worker_shutdown_timeout 300ms")
        .location(Location::http("/", server.endpoint()))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let under_way = [nginx.client().ask("/")?, nginx.client().ask("/")?];
    server.wait_read(2)?;
    nginx.reload()?;
    let accesses = nginx.wait_for_accesses(2)?;
    ensure!(accesses.iter().all(|access| access.status == 0), "{accesses:?}");
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.about(server.endpoint()).len() == 2, "{:#?}", account.verdicts);
    for verdict in account.about(server.endpoint()) {
        let said = (verdict.name(), verdict.confidence.as_str(), verdict.status);
        ensure!(said == ("nginx_exit/shutdown_timeout".to_owned(), "proven", None), "{verdict:#?}");
    }
    drop(under_way);
    Ok(())
}
