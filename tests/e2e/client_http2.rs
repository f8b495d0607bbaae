//! Clients of HTTP/2 that end more than one request at a time: they break the rules, say goodbye, or read nothing; and clients whose request goes
//! wrong while the response is on its way (issue 20). Frames are written by hand, for no library sends what is wrong (RFC 9113).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Result, anyhow, ensure};
use rig::tracer::Account;
use rig::{By, Certificate, Endpoint, Fault, FaultyServer, Namespace, Nginx, Tracer, Verdict, wait};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Where nginx speaks HTTP/2, and HTTP/1.1; over TLS, where it does.
const HTTP2: u16 = 8082;
const HTTP1: u16 = 8081;
const UPSTREAM: u16 = 9100;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const CANCEL: [u8; 4] = 8_u32.to_be_bytes();
const LARGEST_WINDOW: [u8; 4] = 0x7fff_ffff_u32.to_be_bytes();

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// What a connection begins with: the preface and settings, which let each stream take as much as there may be.
fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let window = [&[0, 4][..], &LARGEST_WINDOW].concat();
    bytes.extend(frame(SETTINGS, 0, 0, &window));
    bytes.extend(frame(WINDOW_UPDATE, 0, 0, &0x3fff_ffff_u32.to_be_bytes()));
    bytes
}

/// A request without a body (RFC 7541): `:method GET`, `:scheme http`, `:authority rig`, `:path`.
fn asks(stream: u32, path: &str) -> Vec<u8> {
    let mut header = vec![0x82, 0x86, 0x41, 3, b'r', b'i', b'g', 0x04, path.len() as u8];
    header.extend(path.as_bytes());
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &header)
}

/// The beginning of one with a body of nine bytes.
fn posts(stream: u32) -> Vec<u8> {
    let header = [0x83, 0x86, 0x84, 0x41, 3, b'r', b'i', b'g', 0x0f, 0x0d, 1, b'9'];
    [frame(HEADERS, END_HEADERS, stream, &header), frame(DATA, 0, stream, b"half")].concat()
}

/// A client's connection, plain or over TLS.
trait Connection: Read + Write {
    /// Says goodbye over TLS, and stays connected.
    fn says_goodbye(&mut self) -> Result<()>;
}

impl Connection for TcpStream {
    fn says_goodbye(&mut self) -> Result<()> {
        Err(anyhow!("there is no TLS"))
    }
}

impl Connection for StreamOwned<ClientConnection, TcpStream> {
    fn says_goodbye(&mut self) -> Result<()> {
        self.conn.send_close_notify();
        Ok(self.flush()?)
    }
}

/// All that a test needs.
struct Site {
    namespace: Namespace,
    nginx: Nginx,
    certificate: Option<Certificate>,
}

impl Site {
    /// An nginx that passes everything on to `upstream`, as it comes; these are directives for its server.
    fn start(namespace: Namespace, upstream: &Endpoint, over_tls: bool, directives: &str) -> Result<Site> {
        let certificate = over_tls.then(|| Certificate::of_server(&namespace, "rig")).transpose()?;
        let tls = certificate.as_ref().map_or_else(String::new, |certificate| {
            let (path, key) = (certificate.path(), certificate.key());
            format!("ssl_certificate {}; ssl_certificate_key {};", path.display(), key.display())
        });
        let ssl = if over_tls { "ssl" } else { "" };
        let nginx = Nginx::on(&namespace)
            .block(&format!(
                "server {{ listen 127.0.0.1:{HTTP2} {ssl} http2; listen 127.0.0.1:{HTTP1} {ssl}; {tls}
                  {directives}
                  location / {{ proxy_pass http://{}; proxy_http_version 1.1; proxy_request_buffering off; }} }}",
                upstream.for_nginx()
            ))
            .start()?;
        Ok(Site { namespace, nginx, certificate })
    }

    fn connect(&self, port: u16) -> Result<Box<dyn Connection>> {
        let stream = self.namespace.run(|| Ok(TcpStream::connect(loopback(port))?))?;
        stream.set_read_timeout(Some(wait::bound()))?;
        let Some(certificate) = &self.certificate else { return Ok(Box::new(stream)) };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate.path())?)?;
        let mut settings = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        settings.alpn_protocols = vec![if port == HTTP2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let connection = ClientConnection::new(Arc::new(settings), ServerName::try_from("rig")?)?;
        Ok(Box::new(StreamOwned::new(connection, stream)))
    }
}

fn upstream(namespace: &Namespace, by: By) -> Endpoint {
    match by {
        By::Tcp => Endpoint::v4(UPSTREAM),
        By::Unix => Endpoint::Unix(namespace.scratch().join("upstream.sock")),
    }
}

/// How many requests a client has under way.
const REQUESTS: usize = 3;

/// What became of the requests of a client that has [`REQUESTS`] under way, on streams 1, 3 and 5, and then does something: the account, and their
/// statuses in nginx's access log.
fn with_several(
    by: By,
    over_tls: bool,
    directives: &str,
    act: impl FnOnce(&mut dyn Connection) -> Result<()>,
) -> Result<(Account, Vec<u16>)> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Mute, upstream(&namespace, by), 16)?;
    let site = Site::start(namespace, server.endpoint(), over_tls, directives)?;
    let tracer = Tracer::of(site.nginx.master())?;
    let mut client = site.connect(HTTP2)?;
    client.write_all(&[preface(), asks(1, "/"), asks(3, "/"), asks(5, "/")].concat())?;
    server.wait_read(REQUESTS)?;
    act(&mut *client)?;
    let accesses = site.nginx.wait_for_accesses(REQUESTS)?;
    tracer.wait_for(REQUESTS)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.verdicts.len() == REQUESTS, "{:#?}", account.verdicts);
    ensure!(account.about(server.endpoint()).len() == REQUESTS, "{:#?}", account.verdicts);
    // Of a header that nginx cannot read, it has a line of its own.
    Ok((account, accesses.iter().map(|access| access.status).filter(|status| *status != 0).collect()))
}

fn writes(bytes: Vec<u8>) -> impl FnOnce(&mut dyn Connection) -> Result<()> {
    move |client| Ok(client.write_all(&bytes)?)
}

/// What is wrong with the whole connection, by its name.
fn breaches() -> [(&'static str, Vec<u8>); 10] {
    [
        ("data of no stream", frame(DATA, 0, 0, b"x")),
        ("more padding than payload", frame(DATA, PADDED, 1, &[9, b'x'])),
        ("an index into HPACK's tables that is too large", frame(HEADERS, 5, 7, b"\xff\xff\xff\xff\xff\x0f")),
        ("a stream of the server's", asks(98, "/")),
        ("a window's update by nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("a window that is too large", frame(WINDOW_UPDATE, 0, 0, &LARGEST_WINDOW)),
        ("a reset that is too short", frame(RST_STREAM, 0, 1, b"xx")),
        ("a ping that is too short", frame(PING, 0, 0, b"x")),
        ("settings that are too short", frame(SETTINGS, 0, 0, b"xxxxx")),
        ("a continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, b"")),
    ]
}

fn all_are(account: &Account, name: &str, confidence: &str) -> Result<()> {
    account.verdicts.iter().try_for_each(|verdict| verdict.says(name, confidence, 499, None))
}

#[test]
fn each_request_under_way_ends_with_a_connection_that_breaks_the_rules() -> Result<()> {
    for (what, bytes) in breaches() {
        for over_tls in [false, true] {
            let (account, statuses) = with_several(By::Tcp, over_tls, "", writes(bytes.clone()))?;
            ensure!(statuses == [499; REQUESTS], "{what}: {statuses:?}");
            all_are(&account, "client_error/http2_error", "proven").map_err(|error| error.context(what))?;
        }
    }
    Ok(())
}

#[test]
fn so_it_is_over_a_unix_socket() -> Result<()> {
    for over_tls in [false, true] {
        let bytes = frame(WINDOW_UPDATE, 0, 0, &[0; 4]);
        let (account, _) = with_several(By::Unix, over_tls, "", writes(bytes))?;
        all_are(&account, "client_error/http2_error", "proven")?;
    }
    Ok(())
}

/// Then nginx closes the connection, as after a goodbye.
#[test]
fn where_nginx_does_not_linger_the_client_has_ended_somehow() -> Result<()> {
    let bytes = frame(WINDOW_UPDATE, 0, 0, &[0; 4]);
    let (account, statuses) = with_several(By::Tcp, false, "lingering_close off;", writes(bytes))?;
    ensure!(statuses == [499; REQUESTS], "{statuses:?}");
    all_are(&account, "client_abort/before_response", "inferred")
}

/// Its socket shows no end.
#[test]
fn a_goodbye_over_tls_ends_each_request_under_way() -> Result<()> {
    let (account, statuses) = with_several(By::Tcp, true, "", |client| client.says_goodbye())?;
    ensure!(statuses == [499; REQUESTS], "{statuses:?}");
    all_are(&account, "client_abort/before_response", "inferred")
}

/// In one write: nginx reads both in one turn, and no act of its own lies between what it closes for the one and for the other.
#[test]
fn what_is_cancelled_right_before_is_told_from_what_ends_with_the_connection() -> Result<()> {
    for over_tls in [false, true] {
        let bytes = [frame(RST_STREAM, 0, 1, &CANCEL), frame(WINDOW_UPDATE, 0, 0, &[0; 4])].concat();
        let (account, statuses) = with_several(By::Tcp, over_tls, "", writes(bytes))?;
        ensure!(statuses == [499; REQUESTS], "{statuses:?}");
        let named = |name: &str| account.verdicts.iter().filter(|verdict| verdict.name() == name).count();
        let counts = (named("client_abort/stream_cancelled"), named("client_error/http2_error"));
        ensure!(counts == (1, 2), "{:#?}", account.verdicts);
    }
    Ok(())
}

#[test]
fn what_one_client_cancels_in_one_turn_is_reported_each() -> Result<()> {
    for over_tls in [false, true] {
        let bytes = [1, 3, 5].map(|stream| frame(RST_STREAM, 0, stream, &CANCEL)).concat();
        let (account, statuses) = with_several(By::Tcp, over_tls, "", writes(bytes))?;
        ensure!(statuses == [499; REQUESTS], "{statuses:?}");
        all_are(&account, "client_abort/stream_cancelled", "proven")?;
    }
    Ok(())
}

/// What breaks the rules for a stream only: nginx resets that, and keeps the connection.
#[test]
fn streams_that_break_the_rules_are_no_proven_cancellations() -> Result<()> {
    let bytes = [1, 3, 5].map(|stream| frame(WINDOW_UPDATE, 0, stream, &LARGEST_WINDOW)).concat();
    let (account, statuses) = with_several(By::Tcp, false, "", writes(bytes))?;
    ensure!(statuses == [499; REQUESTS], "{statuses:?}");
    all_are(&account, "client_abort/stream_cancelled", "inferred")
}

/// Answers each request with the beginning of a response, some of it at once and the rest never.
fn begins_answers(namespace: &Namespace) -> Result<JoinHandle<Result<()>>> {
    let listener = namespace.run(|| Ok(TcpListener::bind(loopback(UPSTREAM))?))?;
    Ok(thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut request = [0; 4_096];
        ensure!(stream.read(&mut request)? > 0, "no request");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
        stream.write_all(&[b'x'; 20_000])?;
        while stream.read(&mut request).is_ok_and(|read| read > 0) {}
        Ok(())
    }))
}

/// A request that goes wrong while its response is on its way: the verdict. nginx has sent its status by then.
fn goes_wrong_in_the_middle(over_tls: bool, port: u16, request: &[u8], then: &[u8]) -> Result<Verdict> {
    under_way(over_tls, port, request, "client_max_body_size 20;", then)
}

/// The same with these directives for nginx's server.
fn under_way(over_tls: bool, port: u16, request: &[u8], directives: &str, then: &[u8]) -> Result<Verdict> {
    let namespace = Namespace::new()?;
    let serving = begins_answers(&namespace)?;
    let site = Site::start(namespace, &Endpoint::v4(UPSTREAM), over_tls, directives)?;
    let tracer = Tracer::of(site.nginx.master())?;
    let mut client = site.connect(port)?;
    client.write_all(request)?;
    let mut answer: Vec<u8> = Vec::new();
    while answer.iter().filter(|byte| **byte == b'x').count() < 1_000 {
        let mut some = [0; 4_096];
        let read = client.read(&mut some)?;
        ensure!(read > 0, "no answer");
        answer.extend(&some[..read]);
    }
    client.write_all(then)?;
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    drop(client);
    let accesses = site.nginx.wait_for_accesses(1)?;
    ensure!(accesses[0].status == 200, "{accesses:?}");
    account.is_orderly()?;
    ensure!(account.verdicts.len() == 1, "{:#?}", account.verdicts);
    serving.join().map_err(|_| anyhow!("the server panicked"))??;
    Ok(account.only(&Endpoint::v4(UPSTREAM))?.clone())
}

fn is_named(verdict: &Verdict, name: &str, confidence: &str) -> Result<()> {
    let said = (verdict.name(), verdict.confidence.as_str(), verdict.status);
    ensure!(said == (name.to_owned(), confidence, None), "{said:?}: {verdict:#?}");
    Ok(())
}

const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nHost: rig\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";

#[test]
fn a_body_that_is_refused_in_the_middle_of_a_response_is_the_clients_fault() -> Result<()> {
    for over_tls in [false, true] {
        let invalid = goes_wrong_in_the_middle(over_tls, HTTP1, CHUNKED, b"no length\r\n")?;
        is_named(&invalid, "client_error/invalid_body", "proven")?;
        let too_large =
            goes_wrong_in_the_middle(over_tls, HTTP1, CHUNKED, b"1e\r\n123456789012345678901234567890\r\n")?;
        is_named(&too_large, "client_error/body_too_large", "proven")?;
    }
    Ok(())
}

#[test]
fn so_it_is_by_http2() -> Result<()> {
    for over_tls in [false, true] {
        let request = [preface(), posts(1)].concat();
        for (what, then) in [
            ("a longer body", frame(DATA, 0, 1, b"and too much")),
            ("a shorter body", frame(DATA, END_STREAM, 1, b"")),
        ] {
            let verdict = goes_wrong_in_the_middle(over_tls, HTTP2, &request, &then)?;
            is_named(&verdict, "client_error/http2_error", "inferred")
                .map_err(|error| error.context(what))?;
        }
        // Without a length.
        let header = [0x83, 0x86, 0x84, 0x41, 3, b'r', b'i', b'g'];
        let request =
            [preface(), frame(HEADERS, END_HEADERS, 1, &header), frame(DATA, 0, 1, b"half")].concat();
        let verdict = goes_wrong_in_the_middle(over_tls, HTTP2, &request, &frame(DATA, 0, 1, &[b'x'; 30]))?;
        is_named(&verdict, "client_error/body_too_large", "proven")?;
    }
    Ok(())
}

#[test]
fn a_body_that_stops_in_the_middle_of_a_response_is_the_clients_fault() -> Result<()> {
    for over_tls in [false, true] {
        for (port, request) in [(HTTP1, CHUNKED.to_vec()), (HTTP2, [preface(), posts(1)].concat())] {
            let verdict = under_way(over_tls, port, &request, "client_body_timeout 1s;", b"")?;
            is_named(&verdict, "client_error/body_timeout", "proven")?;
        }
    }
    Ok(())
}

#[test]
fn an_upload_that_is_cancelled_in_the_middle_of_a_response_is_no_fault() -> Result<()> {
    for over_tls in [false, true] {
        let request = [preface(), posts(1)].concat();
        let verdict = goes_wrong_in_the_middle(over_tls, HTTP2, &request, &frame(RST_STREAM, 0, 1, &CANCEL))?;
        is_named(&verdict, "client_abort/stream_cancelled", "proven")?;
    }
    Ok(())
}

#[test]
fn a_connection_that_breaks_the_rules_in_the_middle_of_a_response_is_reported() -> Result<()> {
    for over_tls in [false, true] {
        let (_, bytes) = &breaches()[0];
        for request in [posts(1), asks(1, "/")] {
            let request = [preface(), request].concat();
            let verdict = goes_wrong_in_the_middle(over_tls, HTTP2, &request, bytes)?;
            is_named(&verdict, "client_error/http2_error", "proven")?;
        }
    }
    Ok(())
}

/// One response fills its connection, and another request waits for an answer on it.
#[test]
fn a_client_that_does_not_read_is_reported_for_each_request_of_its_connection() -> Result<()> {
    let namespace = Namespace::new()?;
    let mute = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9101), 4)?;
    let listener = namespace.run(|| Ok(TcpListener::bind(loopback(UPSTREAM))?))?;
    let pouring = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        ensure!(stream.read(&mut [0; 4_096])? > 0, "no request");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
        while stream.write_all(&[b'x'; 65_536]).is_ok() {}
        Ok(())
    });
    let nginx = Nginx::on(&namespace)
        .block(&format!(
            "server {{ listen 127.0.0.1:{HTTP2} http2; send_timeout 500ms;
              location / {{ proxy_pass http://127.0.0.1:{UPSTREAM}; proxy_max_temp_file_size 0; }}
              location /mute/ {{ proxy_pass http://127.0.0.1:9101; }} }}"
        ))
        .start()?;
    let site = Site { namespace, nginx, certificate: None };
    let tracer = Tracer::of(site.nginx.master())?;
    let mut client = site.connect(HTTP2)?;
    client.write_all(&[preface(), asks(1, "/mute/")].concat())?;
    mute.wait_read(1)?;
    client.write_all(&asks(3, "/"))?;
    site.nginx.wait_for_accesses(2)?;
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.verdicts.len() == 2, "{:#?}", account.verdicts);
    for upstream in [&Endpoint::v4(UPSTREAM), mute.endpoint()] {
        is_named(account.only(upstream)?, "client_error/not_reading", "proven")?;
    }
    pouring.join().map_err(|_| anyhow!("the server panicked"))?
}
