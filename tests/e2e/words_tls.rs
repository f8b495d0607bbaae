//! What nginx says of upstreams over TLS, each with its verdict (issue 19).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rig::reconcile::pair_off_words;
use rig::{Certificate, Endpoint, Fault, FaultyServer, Location, Namespace, Nginx, Tracer};

const SOON: Duration = Duration::from_millis(1_000);

fn over_tls(protocol: &str) -> Result<()> {
    let namespace = Namespace::new()?;
    let (own, other) =
        (Certificate::self_signed(&namespace, "own")?, Certificate::self_signed(&namespace, "other")?);
    let revoked = format!("proxy_ssl_crl {}", own.revoke(&namespace)?.display());
    let start = |fault, port| FaultyServer::start(&namespace, fault, Endpoint::v4(port), 4);
    let plain = start(Fault::Answer, 9100)?;
    let deaf = start(Fault::NeverRead, 9101)?;
    let mute = start(Fault::Mute, 9102)?;
    let cut = start(Fault::CutLength, 9103)?;
    // A certificate's rejection is about the connection, so that each has a server of its own.
    let mut server = Nginx::on(&namespace).port(8090);
    for port in 8440..8450 {
        let answer = match port {
            8444 => "return 444;".to_owned(),
            8445 => format!("proxy_pass http://{};", mute.endpoint()),
            8446 => format!("proxy_pass http://{};", cut.endpoint()),
            _ => "return 200 hello;".to_owned(),
        };
        server = server.block(&own.server(port, &answer));
    }
    let server = server.start()?;
    let worker = server.workers()?[0];
    let to = |prefix: &str, port| {
        Location::https(prefix, &Endpoint::v4(port))
            .read_timeout(SOON)
            .connect_timeout(SOON)
            .directive(&format!("proxy_ssl_protocols {protocol}"))
    };
    let verified = |prefix: &str, port, name: &str, by: &Certificate| {
        to(prefix, port)
            .directive("proxy_ssl_verify on")
            .directive(&format!("proxy_ssl_name {name}"))
            .directive(&format!("proxy_ssl_trusted_certificate {}", by.path().display()))
    };
    let nowhere = "/nonexistent/$host.pem";
    let nginx = Nginx::on(&namespace)
        .location(verified("/good/", 8440, "own", &own))
        .location(verified("/issuer/", 8441, "own", &other))
        .location(verified("/name/", 8442, "other", &own))
        .location(verified("/revoked/", 8443, "own", &own).directive(&revoked))
        .location(to("/closes/", 8444))
        .location(to("/late/", 8445))
        .location(to("/cut/", 8446))
        .location(to("/silent/", 9101))
        .location(to("/plain/", 9100))
        .location(
            to("/certificate/", 8447)
                .directive(&format!("proxy_ssl_certificate {nowhere}"))
                .directive(&format!("proxy_ssl_certificate_key {nowhere}")),
        )
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let rejected = "tls_failed/certificate_rejected";
    let (served, timed_out) = (Some(worker), Some("ETIMEDOUT"));
    let cases = [
        ("issuer", 8441, rejected, Some(502), None, served, "self-signed certificate"),
        ("name", 8442, rejected, Some(502), None, served, "does not match"),
        ("revoked", 8443, rejected, Some(502), None, served, "certificate revoked"),
        ("closes", 8444, "premature_close/peer_closed", Some(502), None, served, ""),
        ("late", 8445, "read_timeout/slow_worker", Some(504), timed_out, served, "proxy_read_timeout"),
        ("cut", 8446, "premature_close/response_cut_short", None, None, served, ""),
        (
            "silent",
            9101,
            "connect_timeout/tls_handshake",
            Some(504),
            timed_out,
            // Who has read nothing is not known.
            None,
            "proxy_connect_timeout",
        ),
        ("plain", 9100, "tls_failed/handshake", Some(502), None, Some(plain.pid()), "wrong version number"),
    ];
    for _ in 0..3 {
        ensure!(nginx.client().get("/good/")?.body == b"hello", "{:#?}", nginx.failures());
    }
    for (path, _, _, status, ..) in &cases {
        let answer = nginx.client().get(&format!("/{path}/"))?;
        ensure!(answer.status == status.unwrap_or(200), "{path}: {}", answer.status);
    }
    ensure!(nginx.client().get("/certificate/")?.status == 500);
    tracer.wait_for(cases.len() + 1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    for (path, port, name, status, errno, worker, reason) in cases {
        let verdict = account.only(&Endpoint::v4(port))?;
        let said = (verdict.name(), verdict.confidence.as_str(), verdict.status, verdict.errno.as_deref());
        ensure!(said == (name.to_owned(), "proven", status, errno), "{path}: {verdict:#?}");
        let text = format!("{} {}", verdict.explanation, verdict.advice.as_deref().unwrap_or_default());
        ensure!(text.contains(reason), "{path}: {reason} is not in {verdict:#?}");
        // Only where the kernel shows who accepts.
        let has_accepted = path == "silent" && verdict.worker_pid() == Some(deaf.pid());
        ensure!(verdict.worker_pid() == worker || has_accepted, "{path}: {verdict:#?}");
    }
    // nginx waited for a second from the request on, and no sentence says otherwise.
    let late = account.only(&Endpoint::v4(8445))?;
    ensure!(!late.explanation.contains(" us "), "{late:#?}");
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    let mut own = account.verdicts.iter().filter(|verdict| verdict.cause == "local_error");
    let certificate = own.next().context("no verdict on nginx's own certificate")?;
    certificate.says("local_error/certificate", "proven", 500, None)?;
    ensure!(certificate.explanation.contains("/nonexistent/rig.pem"), "{certificate:#?}");
    drop((server, deaf, mute, cut));
    Ok(())
}

#[test]
fn each_failure_has_its_cause_over_tls_1_3() -> Result<()> {
    over_tls("TLSv1.3")
}

#[test]
fn each_failure_has_its_cause_over_tls_1_2() -> Result<()> {
    over_tls("TLSv1.2")
}
