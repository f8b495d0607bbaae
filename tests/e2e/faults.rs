//! The rig's own ground truth, continued: what nginx logs about upstreams that speak wrongly, and where it has nobody to ask.

use std::os::unix::fs::chown;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rig::error_log::{Failure, Kind};
use rig::{
    By, Certificate, Endpoint, Fault, FaultyServer, FaultySite, Help, Location, Namespace, Nginx, Resolver,
};

const SOON: Duration = Duration::from_millis(700);

const READING_HEADER: &str = "reading response header from upstream";
const READING: &str = "reading upstream";
/// Whether nginx has seen the end by the time it has read the beginning is a matter of time, and what it was doing then as well.
const EITHER: &str = "";
const HANDSHAKING: &str = "SSL handshaking to upstream";

/// Asks for each fault, and holds the lines that nginx logs against those said to come.
fn each_logs(cases: &[(Fault, &[(&str, &str)])], arrange: impl Fn(Location) -> Location) -> Result<()> {
    let namespace = Namespace::new()?;
    let site = FaultySite::start(&namespace, By::Tcp, cases.iter().map(|(fault, _)| *fault), arrange)?;
    for ((fault, failures), (_, expected)) in site.ask_each()?.iter().zip(cases) {
        let said: Vec<_> = failures.iter().map(what).collect();
        let is_so = said.len() == expected.len()
            && said.iter().zip(*expected).all(|((message, doing), (expected, when))| {
                message == expected && (doing == when || *when == EITHER)
            });
        ensure!(is_so, "{fault}: {failures:#?}");
        ensure!(failures.iter().all(|failure| failure.level == "error" && failure.errno.is_none()));
    }
    Ok(())
}

fn what(failure: &Failure) -> (&str, &str) {
    (&failure.message, failure.doing.as_deref().unwrap_or_default())
}

#[test]
fn http_spoken_wrongly_is_logged() -> Result<()> {
    let cut = "upstream prematurely closed connection";
    each_logs(
        &[
            (Fault::CutLength, &[(cut, READING)]),
            (Fault::CutChunk, &[(cut, READING)]),
            (Fault::NoHttp, &[("upstream sent no valid HTTP/1.0 header", READING_HEADER)]),
            (Fault::BadHeader, &[("upstream sent invalid header: \"X-\\x01...\"", READING_HEADER)]),
            (Fault::BadChunk, &[("upstream sent invalid chunked response", READING)]),
            (Fault::BigHeader, &[("upstream sent too big header", READING_HEADER)]),
            (Fault::Answer, &[]),
        ],
        |location| location,
    )?;
    each_logs(
        &[
            (Fault::CutLength, &[(cut, EITHER)]),
            (Fault::CutChunk, &[(cut, EITHER)]),
            (Fault::BadChunk, &[("upstream sent invalid chunked response", EITHER)]),
            (Fault::Answer, &[]),
        ],
        Location::unbuffered,
    )
}

#[test]
fn fastcgi_spoken_wrongly_is_logged() -> Result<()> {
    let cut_stdout = "upstream prematurely closed FastCGI stdout";
    let cut_request = "upstream prematurely closed FastCGI request";
    // To nginx, the end of the connection is the end of the response, wherever that is.
    let silent =
        [(Fault::FastcgiCutRecord, &[][..]), (Fault::FastcgiNoEnd, &[]), (Fault::FastcgiStderr, &[])];
    let buffered: [(Fault, &[(&str, &str)]); 6] = [
        (Fault::FastcgiCutStdout, &[(cut_stdout, READING)]),
        (Fault::FastcgiCutRequest, &[(cut_request, READING)]),
        (Fault::FastcgiEndAtOnce, &[("upstream sent unexpected FastCGI record: 3", READING_HEADER)]),
        (Fault::FastcgiUnknownRecord, &[("upstream sent invalid FastCGI record type: 99", READING_HEADER)]),
        (Fault::FastcgiBigHeader, &[("upstream sent too big header", READING_HEADER)]),
        (Fault::FastcgiBadHeader, &[("upstream sent invalid header: \"X-\\x01...\"", READING_HEADER)]),
    ];
    let unbuffered: [(Fault, &[(&str, &str)]); 2] = [
        (Fault::FastcgiCutStdout, &[(cut_request, EITHER)]),
        (Fault::FastcgiCutRequest, &[(cut_request, EITHER)]),
    ];
    each_logs(&[&buffered[..], &silent].concat(), |location| location)?;
    each_logs(&[&unbuffered[..], &silent].concat(), Location::unbuffered)
}

#[test]
fn http2_spoken_wrongly_is_logged() -> Result<()> {
    let cases: [(Fault, &[(&str, &str)]); 10] = [
        (Fault::Http2Reset, &[("upstream rejected request with error 2", READING_HEADER)]),
        (Fault::Http2ResetMidway, &[("upstream rejected request with error 2", READING_HEADER)]),
        (Fault::Http2Goaway, &[("upstream sent goaway with error 11", READING_HEADER)]),
        (Fault::Http2CutStream, &[("upstream prematurely closed stream", READING_HEADER)]),
        (Fault::Http2CutConnection, &[("upstream prematurely closed connection", EITHER)]),
        (Fault::Http2BadLength, &[("upstream sent rst stream frame with invalid length: 5", READING_HEADER)]),
        (
            Fault::Http2BadIndex,
            &[
                ("upstream sent invalid http2 table index: 100", READING_HEADER),
                ("upstream sent invalid header", READING_HEADER),
            ],
        ),
        (Fault::Http2Push, &[("upstream sent unexpected push promise frame", READING_HEADER)]),
        (Fault::Http2BigFrame, &[("upstream sent too large http2 frame: 20000", READING_HEADER)]),
        (Fault::Http2Answer, &[]),
    ];
    each_logs(&cases, |location| location)
}

#[test]
fn one_protocol_at_a_port_of_another_is_logged() -> Result<()> {
    let namespace = Namespace::new()?;
    let path = namespace.scratch().join("http.sock");
    let server = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9100), 4)?;
    let unix = FaultyServer::start(&namespace, Fault::Answer, Endpoint::Unix(path), 4)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fastcgi("/fastcgi/", server.endpoint()))
        .location(Location::fastcgi("/unix/", unix.endpoint()))
        .location(Location::grpc("/grpc/", server.endpoint()))
        .location(Location::https("/https/", server.endpoint()))
        .start()?;
    let version = "upstream sent unsupported FastCGI protocol version: 72";
    let cases = [
        ("fastcgi", Kind::RejectedResponse, version, READING_HEADER),
        ("unix", Kind::RejectedResponse, version, READING_HEADER),
        ("grpc", Kind::RejectedResponse, "upstream sent too large http2 frame: 4740180", READING_HEADER),
        (
            "https",
            Kind::Tls,
            "SSL_do_handshake() failed (SSL: error:0A00010B:SSL routines::wrong version number)",
            HANDSHAKING,
        ),
    ];
    for (count, (path, kind, message, doing)) in (1..).zip(cases) {
        ensure!(nginx.client().get(&format!("/{path}/"))?.status == 502, "{path}");
        let failures = nginx.wait_for_failures(count)?;
        let last = failures.last().context("no failure")?;
        ensure!((last.kind, what(last)) == (kind, (message, doing)), "{path}: {failures:#?}");
    }
    Ok(())
}

#[test]
fn tls_that_fails_is_logged() -> Result<()> {
    let namespace = Namespace::new()?;
    let (own, other) =
        (Certificate::self_signed(&namespace, "own")?, Certificate::self_signed(&namespace, "other")?);
    let revoked = format!("proxy_ssl_crl {}", own.revoke(&namespace)?.display());
    let deaf = FaultyServer::start(&namespace, Fault::NeverRead, Endpoint::v4(9100), 4)?;
    let mute = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9101), 4)?;
    let server = Nginx::on(&namespace)
        .port(8090)
        .block(&own.server(8443, "return 200 hello;"))
        .block(&own.server(8444, "return 444;"))
        .block(&own.server(8445, &format!("proxy_pass http://{};", mute.endpoint())))
        .start()?;
    let to = |prefix: &str, port| {
        Location::https(prefix, &Endpoint::v4(port))
            .read_timeout(SOON)
            .connect_timeout(SOON)
            .directive("proxy_ssl_session_reuse off")
    };
    let verified = |prefix: &str, name: &str, by: &Certificate| {
        to(prefix, 8443)
            .directive("proxy_ssl_verify on")
            .directive(&format!("proxy_ssl_name {name}"))
            .directive(&format!("proxy_ssl_trusted_certificate {}", by.path().display()))
    };
    let nowhere = "/nonexistent/$host.pem";
    let nginx = Nginx::on(&namespace)
        .location(verified("/good/", "own", &own))
        .location(verified("/issuer/", "own", &other))
        .location(verified("/name/", "other", &own))
        .location(verified("/revoked/", "own", &own).directive(&revoked))
        .location(to("/closes/", 8444))
        .location(to("/late/", 8445))
        .location(to("/silent/", 9100))
        .location(
            to("/certificate/", 8443)
                .directive(&format!("proxy_ssl_certificate {nowhere}"))
                .directive(&format!("proxy_ssl_certificate_key {nowhere}")),
        )
        .start()?;
    ensure!(nginx.client().get("/good/")?.body == b"hello");
    let cases = [
        (
            "issuer",
            502,
            Kind::Tls,
            "upstream SSL certificate verify error: (18:self-signed certificate)",
            HANDSHAKING,
        ),
        ("name", 502, Kind::Tls, "upstream SSL certificate does not match \"other\"", HANDSHAKING),
        (
            "revoked",
            502,
            Kind::Tls,
            "upstream SSL certificate verify error: (23:certificate revoked)",
            HANDSHAKING,
        ),
        ("closes", 502, Kind::PrematureClose, "upstream prematurely closed connection", READING_HEADER),
        ("late", 504, Kind::TimedOut, "upstream timed out", READING_HEADER),
        ("silent", 504, Kind::TimedOut, "upstream timed out", HANDSHAKING),
        (
            "certificate",
            500,
            Kind::Local,
            "cannot load certificate \"/nonexistent/rig.pem\": BIO_new_file() failed (SSL: error:80000002:system \
             library::No such file or directory:calling fopen(/nonexistent/rig.pem, r) error:10000080:BIO routines::no \
             such file)",
            "connecting to upstream",
        ),
    ];
    for (count, (path, status, kind, message, doing)) in (1..).zip(cases) {
        let answer = nginx.client().get(&format!("/{path}/"))?;
        let failures = nginx.wait_for_failures(count)?;
        let last = failures.last().context("no failure")?;
        ensure!(answer.status == status, "{path}: {}", answer.status);
        ensure!((last.kind, what(last)) == (kind, (message, doing)), "{path}: {failures:#?}");
    }
    drop((server, deaf));
    Ok(())
}

#[test]
fn where_nobody_can_be_asked_is_logged() -> Result<()> {
    let namespace = Namespace::new()?;
    let named = |prefix: &str, name: &str, port: u16| {
        Location::http(prefix, &Endpoint::v4(9100))
            .through_group(&format!("{name}:80$arg_more"))
            .directive(&format!("resolver 127.0.0.1:{port} ipv6=off"))
            .directive("resolver_timeout 1s")
    };
    let servers = [
        Resolver::start(&namespace, 5301, Help::Silent)?,
        Resolver::start(&namespace, 5302, Help::NoSuchName)?,
        Resolver::start(&namespace, 5303, Help::Failure)?,
    ];
    let (one, two) = (Endpoint::v4(9001), Endpoint::v4(9002));
    let nginx = Nginx::on(&namespace)
        .group("pair", &[&one, &two], &[])
        .location(Location::http("/pair/", &one).through_group("pair"))
        .location(named("/silent/", "silent.test", 5301))
        .location(named("/unknown/", "unknown.test", 5302))
        .location(named("/failing/", "failing.test", 5303))
        .location(named("/nobody/", "nobody.test", 5304))
        .location(Location::http("/none/", &one).through_group("none.test:80$arg_more"))
        .start()?;
    for path in ["pair", "pair", "silent", "unknown", "failing", "nobody", "none"] {
        ensure!(nginx.client().get(&format!("/{path}/"))?.status == 502, "{path}");
    }
    let failures = nginx.failures();
    let said: Vec<_> = failures.iter().map(|failure| (failure.kind, failure.message.as_str())).collect();
    let expected = [
        (Kind::Connect, "connect() failed"),
        (Kind::Connect, "connect() failed"),
        (Kind::NoLiveUpstreams, "no live upstreams"),
        (Kind::Unresolved, "silent.test could not be resolved (110: Operation timed out)"),
        (Kind::Unresolved, "unknown.test could not be resolved (3: Host not found)"),
        (Kind::Unresolved, "failing.test could not be resolved (2: Server failure)"),
        (Kind::Unresolved, "nobody.test could not be resolved (110: Operation timed out)"),
        (Kind::Unresolved, "no resolver defined to resolve none.test"),
    ];
    ensure!(said == expected, "{failures:#?}");
    ensure!(failures[2].group.as_deref() == Some("pair") && failures[2].upstream.is_none(), "{failures:#?}");
    ensure!(
        failures[0].connection == failures[1].connection && failures[2].connection > failures[1].connection
    );
    drop(servers);
    Ok(())
}

#[test]
fn a_worker_out_of_descriptors_or_connections_is_logged() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9100), 4)?;
    let nginx = Nginx::on(&namespace).open_files(40).location(server.location()).start()?;
    let begun = nginx.begin_until_full("/answer/")?;
    let answer = begun.into_iter().next().context("no request")?.finish()?.answer()?;
    let failures = nginx.wait_for_failures(1)?;
    let last = failures.last().context("no failure")?;
    ensure!(answer.status == 500, "{}", answer.status);
    ensure!((last.kind, last.level.as_str()) == (Kind::NoMeans, "alert"), "{failures:#?}");
    ensure!(
        what(last) == ("socket() failed", "connecting to upstream") && last.errno == Some(24),
        "{failures:#?}"
    );
    ensure!(last.upstream.as_ref() == Some(server.endpoint()), "{failures:#?}");

    let nginx = Nginx::on(&namespace).port(8081).connections(16).location(server.location()).start()?;
    let begun = nginx.begin_until_full("/answer/")?;
    let answer = begun.into_iter().next().context("no request")?.finish()?.answer()?;
    let failures = nginx.wait_for_failures(1)?;
    let last = failures.last().context("no failure")?;
    ensure!(answer.status == 500, "{}", answer.status);
    ensure!((last.kind, last.level.as_str()) == (Kind::NoMeans, "alert"), "{failures:#?}");
    ensure!(
        what(last) == ("16 worker_connections are not enough", "connecting to upstream"),
        "{failures:#?}"
    );
    Ok(())
}

#[test]
fn a_file_that_nginx_may_not_write_is_logged() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9100), 4)?;
    let nginx = Nginx::on(&namespace)
        .user("nobody nogroup")
        .location(server.location().directive("proxy_store /nowhere"))
        .start()?;
    let temporary = nginx.error_log().with_file_name("proxy");
    chown(&temporary, Some(0), Some(0)).with_context(|| temporary.display().to_string())?;
    let _ = nginx.client().get("/answer/");
    let failures = nginx.wait_for_failures(1)?;
    let last = failures.last().context("no failure")?;
    ensure!((last.kind, last.errno, last.level.as_str()) == (Kind::Local, Some(13), "crit"), "{failures:#?}");
    Ok(())
}

#[test]
fn a_client_that_goes_as_the_answer_comes_is_logged_if_nginx_sees_it_first() -> Result<()> {
    let namespace = Namespace::new()?;
    for (goes_first, port, status) in [(true, 9100, 499), (false, 9101, 200)] {
        let mut server = FaultyServer::start(&namespace, Fault::AnswerWhenTold, Endpoint::v4(port), 4)?;
        let nginx = Nginx::on(&namespace).location(server.location()).start()?;
        let asked = nginx.client().ask("/answer-when-told/")?;
        server.wait_read(1)?;
        // Both have come before nginx looks, and it looks in this order.
        let stopped = nginx.freeze()?;
        if goes_first {
            asked.abort()?;
            server.answer()?;
        } else {
            server.answer()?;
            asked.abort()?;
        }
        drop(stopped);
        ensure!(nginx.wait_for_accesses(1)?[0].status == status);
        let failures = nginx.failures();
        ensure!(failures.len() == usize::from(goes_first), "{failures:#?}");
        ensure!(failures.iter().all(|failure| failure.kind == Kind::ClientAbort), "{failures:#?}");
    }
    Ok(())
}
