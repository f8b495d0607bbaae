//! What nginx says may be long, no text at all, or not there: it is cut, spelt or left out, and nobody comes to harm (issue 19).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rig::hostile::CLOSING;
use rig::reconcile::pair_off_words;
use rig::terminal::Terminal;
use rig::tracer::Account;
use rig::{Certificate, Endpoint, Help, HostileLogger, Location, Namespace, Nginx, Resolver, Tracer};

/// No line of output is longer, in bytes, whatever nginx said.
const LONGEST: usize = 16_384;

/// Whether it changes what a terminal shows otherwise than by a character or a new line.
fn steers(character: char) -> bool {
    character != '\n' && (character.is_control() || ('\u{202a}'..='\u{202e}').contains(&character))
}

fn is_harmless(text: &str) -> Result<()> {
    ensure!(
        !text.contains(steers),
        "{:?} steers the terminal",
        text.lines().find(|line| line.contains(steers))
    );
    let longest = text.lines().map(str::len).max();
    ensure!(longest <= Some(LONGEST), "a line of {longest:?} bytes");
    Ok(())
}

/// The closing call is heard, whatever came before it.
fn is_heard(account: &Account) -> Result<()> {
    let closing = account.verdicts.iter().find(|verdict| verdict.explanation.contains(CLOSING));
    let closing = closing.context("no verdict on the last call")?;
    ensure!(closing.name() == "not_attempted/unresolved" && closing.confidence == "proven", "{closing:#?}");
    Ok(())
}

#[test]
fn wild_pointers_and_what_is_no_text_are_left_out() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut logger = HostileLogger::start(&namespace)?;
    let tracer = Tracer::of(logger.pid())?;
    logger.speak()?;
    tracer.lines().wait("the last call", |lines| lines.iter().any(|line| line.contains(CLOSING)))?;
    logger.finish()?;
    let evidence = tracer.evidence();
    let account = tracer.stop()?;
    account.is_orderly()?;
    is_harmless(&account.stderr)?;
    is_heard(&account).with_context(|| evidence.display().to_string())
}

#[test]
fn a_terminal_is_not_garbled_by_what_nginx_says() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut logger = HostileLogger::start(&namespace)?;
    let plain = Terminal { columns: 100, colour: false };
    let tracer = Tracer::spawn(&["-p", &logger.pid().to_string(), "-v", "--no-status"], Some(plain), |_| {})?;
    logger.speak()?;
    tracer.lines().wait("the last call", |lines| lines.iter().any(|line| line.contains(CLOSING)))?;
    logger.finish()?;
    tracer.signal(nix::sys::signal::Signal::SIGINT)?;
    let run = tracer.end()?;
    ensure!(run.status.success(), "{}: {}", run.status, run.stderr);
    is_harmless(&run.stdout.join("\n"))?;
    is_harmless(&run.stderr)
}

#[test]
fn names_that_steer_and_names_of_four_kilobytes_are_emitted() -> Result<()> {
    let namespace = Namespace::new()?;
    let _resolver = Resolver::start(&namespace, 5301, Help::NoSuchName)?;
    let certificate = Certificate::self_signed(&namespace, "own")?;
    let behind =
        Nginx::on(&namespace).port(8090).block(&certificate.server(8441, "return 200 hello;")).start()?;
    let garbled = "\u{1b}[2J\u{1b}]0;owned\u{7}é\u{202e}.test";
    let long = "label.".repeat(400);
    let named = |prefix: &str, name: &str| {
        Location::http(prefix, &Endpoint::v4(9100))
            .through_group(&format!("{name}:80"))
            .directive("resolver 127.0.0.1:5301 ipv6=off")
            .directive("resolver_timeout 1s")
    };
    let missing = Endpoint::Unix(namespace.scratch().join("\u{1b}[2J\u{202e}.sock"));
    let nginx = Nginx::on(&namespace)
        .block(&format!("map $host $garbled {{ default \"{garbled}\"; }}"))
        .block(&format!("map $host $long {{ default \"{long}\"; }}"))
        .location(named("/garbled/", "$garbled"))
        .location(named("/long/", "$long$long"))
        .location(Location::http("/missing/", &missing))
        .location(
            Location::https("/certificate/", &Endpoint::v4(8441))
                .connect_timeout(Duration::from_secs(5))
                .directive("proxy_ssl_verify on")
                .directive("proxy_ssl_name $garbled$long$long")
                .directive(&format!("proxy_ssl_trusted_certificate {}", certificate.path().display())),
        )
        .start()?;
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "--connect-errors"])?;
    for path in ["garbled", "long", "missing", "certificate"] {
        ensure!(nginx.client().get(&format!("/{path}/"))?.status == 502, "{path}");
    }
    tracer.wait_for(4)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    // nginx cuts its own lines at 2 kB, before it comes to whose they are.
    let (cut, whole): (Vec<_>, Vec<_>) =
        account.verdicts.iter().cloned().partition(|verdict| verdict.explanation.contains("label.label"));
    pair_off_words(&nginx.failures(), &whole)?;
    ensure!(cut.len() == 2 && cut.iter().all(|verdict| verdict.explanation.contains('…')), "{cut:#?}");
    let mut names: Vec<String> = account.verdicts.iter().map(rig::Verdict::name).collect();
    names.sort();
    let right = [
        "not_attempted/unresolved",
        "not_attempted/unresolved",
        "refused/socket_missing",
        "tls_failed/certificate_rejected",
    ];
    ensure!(names == right, "{names:?}");
    ensure!(account.verdicts.iter().all(|verdict| verdict.confidence == "proven"), "{:#?}", account.verdicts);
    drop(behind);
    Ok(())
}
