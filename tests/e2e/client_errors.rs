//! `client_error`: the client's own fault while nginx had an exchange for it; and an nginx worker that has to go (issue 20).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Result, ensure};
use rig::{
    By, Certificate, Endpoint, Fault, FaultyServer, Location, Namespace, Nginx, Tracer, Verdict, wait,
};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

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

/// On a connection of TLS that had a request before.
#[test]
fn an_invalid_chunk_of_a_kept_client_s_over_tls_is_the_clients_fault() -> Result<()> {
    for by in [By::Tcp, By::Unix] {
        let namespace = Namespace::new()?;
        let certificate = Certificate::of_server(&namespace, "rig")?;
        let server = FaultyServer::start(&namespace, Fault::Mute, upstream(&namespace, by), 4)?;
        let pass = format!(
            "proxy_pass http://{}; proxy_http_version 1.1; proxy_request_buffering off; location = /fine {{ return 204; }}",
            server.endpoint().for_nginx()
        );
        let nginx = Nginx::on(&namespace).block(&certificate.server(8443, &pass)).start()?;
        let tracer = Tracer::of(nginx.master())?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate.path())?)?;
        let settings = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let connection = ClientConnection::new(Arc::new(settings), ServerName::try_from("rig")?)?;
        let stream = namespace.run(|| Ok(TcpStream::connect(loopback(8443))?))?;
        stream.set_read_timeout(Some(wait::bound()))?;
        let mut stream = StreamOwned::new(connection, stream);
        stream.write_all(b"GET /fine HTTP/1.1\r\nHost: rig\r\n\r\n")?;
        ensure!(stream.read(&mut [0; 4_096])? > 0, "no answer");
        stream.write_all(HEAD)?;
        server.wait_read(1)?;
        stream.write_all(b"no length\r\n")?;
        let _end = stream.read_to_end(&mut Vec::new());
        ensure!(nginx.wait_for_accesses(2)?[1].status == 400);
        tracer.wait_for(1)?;
        let account = tracer.stop()?;
        account.is_orderly()?;
        ensure!(account.verdicts.len() == 1, "{:#?}", account.verdicts);
        account.only(server.endpoint())?.says("client_error/invalid_body", "proven", 400, None)?;
    }
    Ok(())
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
fn a_client_that_does_not_read_is_reported() -> Result<()> {
    does_not_read("", b"GET / HTTP/1.0\r\n\r\n")
}

/// The preface, settings that leave the window as it is, and a request (RFC 9113, RFC 7541): its window is never opened again.
#[test]
fn a_client_that_keeps_its_http2_window_shut_is_reported() -> Result<()> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    // :method GET, :scheme http, :path /, :authority rig
    let header = [0x82, 0x86, 0x84, 0x41, 3, b'r', b'i', b'g'];
    bytes.extend([0, 0, header.len() as u8, 1, 5, 0, 0, 0, 1]);
    bytes.extend(header);
    does_not_read("http2", &bytes)
}

fn upstream(namespace: &Namespace, by: By) -> Endpoint {
    match by {
        By::Tcp => Endpoint::v4(9100),
        By::Unix => Endpoint::Unix(namespace.scratch().join("upstream.sock")),
    }
}

/// A frame of HTTP/2 on the first stream, or on none (RFC 9113).
fn frame(kind: u8, flags: u8, is_of_stream: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, u8::from(is_of_stream)];
    frame.extend(payload);
    frame
}

const DATA: u8 = 0;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

fn data(flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(DATA, flags, true, payload)
}

/// A client whose request, with a body of nine bytes, is passed on as it comes, and of which these frames come once some of it has: the verdict,
/// and the status in nginx's access log. Its connection stays until both are there.
fn goes_wrong_by_http2(by: By, first: &[u8], then: &[u8]) -> Result<(Verdict, u16)> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Mute, upstream(&namespace, by), 4)?;
    let nginx = Nginx::on(&namespace)
        .block(&format!(
            "server {{ listen 127.0.0.1:8082 http2;
              location / {{ proxy_pass http://{}; proxy_http_version 1.1; proxy_request_buffering off; }} }}",
            server.endpoint().for_nginx()
        ))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let mut stream = namespace.run(|| Ok(TcpStream::connect(loopback(8082))?))?;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, false, &[]));
    // :method POST, :scheme http, :path /, :authority rig, content-length 9 (RFC 7541)
    let header = [0x83, 0x86, 0x84, 0x41, 3, b'r', b'i', b'g', 0x0f, 0x0d, 1, b'9'];
    bytes.extend(frame(1, 4, true, &header));
    bytes.extend(first);
    stream.write_all(&bytes)?;
    server.wait_read(1)?;
    stream.write_all(then)?;
    let status = nginx.wait_for_accesses(1)?[0].status;
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.verdicts.len() == 1, "{:#?}", account.verdicts);
    Ok((account.only(server.endpoint())?.clone(), status))
}

#[test]
fn a_body_longer_than_it_was_to_be_is_the_clients_fault_by_http2() -> Result<()> {
    for by in [By::Tcp, By::Unix] {
        let (verdict, status) = goes_wrong_by_http2(by, &data(0, b"half"), &data(0, b"and too much"))?;
        ensure!(status == 400);
        verdict.says("client_error/invalid_body", "inferred", 400, None)?;
    }
    Ok(())
}

#[test]
fn a_body_shorter_than_it_was_to_be_is_the_clients_fault_by_http2() -> Result<()> {
    let (verdict, status) = goes_wrong_by_http2(By::Tcp, &data(0, b"half"), &data(END_STREAM, b""))?;
    ensure!(status == 400);
    verdict.says("client_error/invalid_body", "inferred", 400, None)
}

#[test]
fn an_upload_that_is_cancelled_is_no_invalid_body() -> Result<()> {
    // RST_STREAM: CANCEL
    let cancel = frame(3, 0, true, &[0, 0, 0, 8]);
    for by in [By::Tcp, By::Unix] {
        let (verdict, status) = goes_wrong_by_http2(by, &data(0, b"half"), &cancel)?;
        ensure!(status == 400, "{status}");
        let said = (verdict.name(), verdict.confidence.as_str(), verdict.status);
        ensure!(said == ("client_abort/stream_cancelled".to_owned(), "proven", None), "{verdict:#?}");
    }
    Ok(())
}

#[test]
fn what_comes_after_a_body_s_end_is_the_clients_doing() -> Result<()> {
    let whole = data(END_STREAM, b"all of it");
    let (verdict, status) = goes_wrong_by_http2(By::Tcp, &whole, &data(0, b"more"))?;
    ensure!(status == 499, "{status}");
    // nginx resets the stream.
    verdict.says("client_error/http2_error", "inferred", 499, None)
}

/// nginx gives up the whole connection.
#[test]
fn what_breaks_the_rules_of_http2_is_not_blamed_on_the_upstream() -> Result<()> {
    // More padding than there is payload.
    let (verdict, status) = goes_wrong_by_http2(By::Tcp, &data(0, b"half"), &data(PADDED, &[9, b'x']))?;
    ensure!(status == 400, "{status}");
    // By another status than a request whose body had come.
    let said = (verdict.name(), verdict.confidence.as_str(), verdict.status);
    ensure!(said == ("client_error/http2_error".to_owned(), "proven", None), "{verdict:#?}");
    Ok(())
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
