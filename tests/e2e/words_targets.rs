//! Wherever nginx logs to, and from whichever level on: what it says is heard if its log lets it through, and else nothing is made of it
//! (issue 19).

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rig::error_log::{self, Failure};
use rig::reconcile::pair_off_words;
use rig::tracer::Account;
use rig::{By, Endpoint, Fault, FaultySite, Location, Namespace, Nginx, Tracer, wait};

const READ: Duration = Duration::from_millis(1_000);

/// What each request is, and how many verdicts there are of it; a group's failures take its servers out, and the last request finds
/// nobody to ask.
const HEARD: [(&str, usize); 5] = [
    ("refused/no_listener", 3),
    ("premature_close/response_cut_short", 1),
    ("rejected_response/invalid_header", 1),
    ("read_timeout/slow_worker", 1),
    ("not_attempted/no_live_upstreams", 1),
];

struct Site {
    /// Its servers live as long as it does.
    _namespace: Namespace,
    site: FaultySite,
}

impl Site {
    fn start(error_log: &str) -> Result<Site> {
        let namespace = Namespace::new()?;
        let site = Site::start_in(&namespace, error_log)?;
        Ok(Site { _namespace: namespace, site })
    }

    fn start_in(namespace: &Namespace, error_log: &str) -> Result<FaultySite> {
        let nginx = Nginx::on(namespace)
            .error_log(error_log)
            .block("upstream pair { server 127.0.0.1:9001 max_fails=1 fail_timeout=60s; server 127.0.0.1:9002 max_fails=1 fail_timeout=60s; }")
            .location(Location::http("/refused/", &Endpoint::v4(9003)))
            .location(Location::http("/pair/", &Endpoint::v4(9001)).through_group("pair"));
        let faults = [Fault::CutLength, Fault::BadHeader, Fault::Mute, Fault::Answer];
        FaultySite::on(namespace, nginx, By::Tcp, faults, |location| location.read_timeout(READ))
    }
}

/// Asks for each failure, and for what succeeds.
fn ask(nginx: &Nginx) -> Result<()> {
    for (path, status) in [
        ("refused", 502),
        ("answer", 200),
        ("cut-length", 200),
        ("bad-header", 502),
        ("mute", 504),
        ("pair", 502),
        ("pair", 502),
        ("answer", 200),
    ] {
        let answer = nginx.client().get(&format!("/{path}/"))?;
        ensure!(answer.status == status, "{path}: {}", answer.status);
    }
    Ok(())
}

fn is_heard(account: &Account) -> Result<()> {
    account.is_orderly()?;
    for (name, count) in HEARD {
        let of_name = account.verdicts.iter().filter(|verdict| verdict.name() == name);
        ensure!(of_name.count() == count, "{name}: {:#?}", account.verdicts);
    }
    let others =
        account.verdicts.iter().find(|verdict| verdict.confidence != "proven" || verdict.word.is_none());
    ensure!(others.is_none(), "{others:#?}");
    Ok(())
}

fn watch(nginx: &Nginx) -> Result<Account> {
    let tracer = Tracer::of(nginx.master())?;
    ask(nginx)?;
    tracer.wait_for(HEARD.iter().map(|(_, count)| count).sum())?;
    let account = tracer.stop()?;
    is_heard(&account).with_context(|| account.stderr.clone())?;
    Ok(account)
}

#[test]
fn a_log_of_any_level_that_lets_errors_through_is_heard() -> Result<()> {
    for level in ["debug", "warn"] {
        let Site { _namespace, site } = Site::start(&format!("error.log {level}"))?;
        let account = watch(site.nginx()).context(level)?;
        pair_off_words(&site.nginx().failures(), &account.verdicts).context(level)?;
    }
    Ok(())
}

#[test]
fn a_log_that_nobody_can_read_is_heard() -> Result<()> {
    let Site { _namespace, site } = Site::start("/dev/null error")?;
    watch(site.nginx())?;
    ensure!(site.nginx().failures().is_empty());
    Ok(())
}

#[test]
fn a_log_on_standard_error_is_heard_through_a_pipe() -> Result<()> {
    let Site { _namespace, site } = Site::start("stderr info")?;
    let account = watch(site.nginx())?;
    pair_off_words(&site.nginx().failures(), &account.verdicts)
}

#[test]
fn a_log_that_goes_to_syslog_is_heard() -> Result<()> {
    let namespace = Namespace::new()?;
    let sink = namespace.run(|| UdpSocket::bind("127.0.0.1:5514").context("a syslog server's socket"))?;
    sink.set_nonblocking(true)?;
    let site = Site::start_in(&namespace, "syslog:server=127.0.0.1:5514,nohostname error")?;
    let account = watch(site.nginx())?;
    let mut received = vec![0; 65_536];
    let mut lines = Vec::<Failure>::new();
    wait::until_true("nginx's lines at the syslog server", || {
        while let Ok(length) = sink.recv(&mut received) {
            lines.extend(error_log::parse(&String::from_utf8_lossy(&received[..length])));
        }
        Ok(lines.len() >= account.verdicts.len())
    })?;
    pair_off_words(&lines, &account.verdicts)
}

#[test]
fn where_the_log_lets_no_error_through_nothing_is_made_of_silence() -> Result<()> {
    for error_log in ["error.log crit", "/dev/null emerg"] {
        let Site { _namespace, site } = Site::start(error_log)?;
        let tracer = Tracer::of(site.nginx().master())?;
        ask(site.nginx())?;
        // The kernel's account of these needs no word.
        tracer.wait_for(4)?;
        let account = tracer.stop()?;
        account.is_orderly()?;
        for verdict in &account.verdicts {
            let is_the_kernels =
                ["refused/no_listener", "read_timeout/slow_worker"].contains(&verdict.name().as_str());
            ensure!(
                verdict.word.is_none() && (is_the_kernels || verdict.confidence != "proven"),
                "{verdict:#?}"
            );
            // No client went.
            ensure!(
                verdict.cause != "client_abort" && verdict.cause != "not_attempted",
                "{error_log}: {verdict:#?}"
            );
        }
        let of = |name: &str| account.verdicts.iter().filter(|verdict| verdict.name() == name).count();
        ensure!(
            of("refused/no_listener") == 3 && of("read_timeout/slow_worker") == 1,
            "{:#?}",
            account.verdicts
        );
        let answer = site.server(Fault::Answer)?;
        ensure!(account.about(answer.endpoint()).is_empty(), "{:#?}", account.verdicts);
    }
    Ok(())
}
