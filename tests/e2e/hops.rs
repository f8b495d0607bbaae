//! nginx before nginx: each hop's exchange has its own verdict, and the inner one says whose request it was (issue 20).

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rig::nginx::Program;
use rig::process::{self, Pid};
use rig::reconcile::pair_off_words;
use rig::tracer::Account;
use rig::{Client, Endpoint, Fault, FaultyServer, Location, Namespace, Nginx, Tracer, Verdict};

/// Shorter than anything else that waits.
const SHORT: Duration = Duration::from_millis(700);
const NOBODY: u16 = 9109;
const NOBODY_EITHER: u16 = 9108;
/// What both nginx are called.
const NAME: &str = "nginx-hop";

/// How one nginx asks the other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// Another server block of the same instance, and so the same worker.
    Itself,
    /// Another instance, over TCP.
    Tcp,
    /// Another instance, over a unix socket.
    Unix,
}

/// An nginx that asks an nginx, which asks a server that never answers, or nobody.
struct Chain {
    namespace: Namespace,
    outer: Nginx,
    /// None where it is the same.
    inner: Option<Nginx>,
    /// Where the inner one listens.
    between: Endpoint,
    mute: FaultyServer,
    tracer: Tracer,
}

impl Chain {
    /// Starts it. The outer one keeps its connections for later, or closes each.
    fn start(by: By) -> Result<Chain> {
        let namespace = Namespace::new()?;
        let mute = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9100), 64)?;
        let between = match by {
            By::Unix => Endpoint::Unix(namespace.scratch().join("between.sock")),
            By::Itself | By::Tcp => Endpoint::v4(8081),
        };
        let listen = between.for_nginx();
        let (listen, at) = (listen.trim_end_matches(':'), mute.endpoint());
        let block = format!(
            "server {{ listen {listen};
               location /fine/ {{ return 200 \"fine\\n\"; }}
               location /mute/ {{ proxy_pass http://{at}; }}
               location /slow/ {{ proxy_pass http://{at}; proxy_read_timeout {}ms; }}
               location /nobody/ {{ proxy_pass http://127.0.0.1:{NOBODY}; }}
               location /retried/ {{ proxy_pass http://dead; }} }}
             upstream dead {{ server 127.0.0.1:{NOBODY} max_fails=0; server 127.0.0.1:{NOBODY_EITHER} max_fails=0; }}",
            SHORT.as_millis()
        );
        let ask = |prefix: &str, group: &str| Location::http(prefix, &between).through_group(group);
        // A name of their own, for there may be other nginx on this host.
        let program = namespace.scratch().join(NAME);
        fs::copy(process::find_program(&["nginx"])?, &program)?;
        let nginx = || Nginx::on(&namespace).program(Program::File(program.clone()));
        let outer = nginx()
            .group("kept", &[&between], &["keepalive 8"])
            .group("closed", &[&between], &[])
            .location(ask("/kept/", "kept"))
            .location(ask("/closed/", "closed"))
            .location(ask("/short/", "closed").read_timeout(SHORT));
        let (outer, inner) = match by {
            By::Itself => (outer.block(&block).start()?, None),
            By::Tcp | By::Unix => {
                let inner = nginx().port(8090).block(&block).start()?;
                (outer.start()?, Some(inner))
            }
        };
        let tracer = Tracer::start(&["--comm", NAME])?;
        Ok(Chain { namespace, outer, inner, between, mute, tracer })
    }

    fn client(&self) -> Client {
        self.outer.client()
    }

    /// Ends the tracing after so many verdicts, which must be those of what both have logged.
    fn account(self, count: usize) -> Result<Accounts> {
        self.tracer.wait_for(count)?;
        let account = self.tracer.stop()?;
        account.is_orderly()?;
        let mut failures = self.outer.failures();
        failures.extend(self.inner.as_ref().map(Nginx::failures).unwrap_or_default());
        pair_off_words(&failures, &account.verdicts)?;
        ensure!(account.verdicts.len() == count, "{:#?}", account.verdicts);
        let worker = |nginx: &Nginx| -> Result<Pid> { nginx.workers()?.first().copied().context("a worker") };
        let outer = worker(&self.outer)?;
        let inner = self.inner.as_ref().map_or(Ok(outer), worker)?;
        Ok(Accounts {
            account,
            outer,
            inner,
            between: self.between,
            mute: self.mute,
            _namespace: self.namespace,
        })
    }
}

/// What was seen of a chain.
struct Accounts {
    account: Account,
    /// The outer one's worker.
    outer: Pid,
    /// The inner one's.
    inner: Pid,
    between: Endpoint,
    mute: FaultyServer,
    _namespace: Namespace,
}

impl Accounts {
    /// Checks whose request an inner exchange was, as far as its outer exchange is known to the rig.
    fn is_for_outer(&self, verdict: &Verdict) -> Result<()> {
        let outer = verdict.outer.as_ref().with_context(|| format!("no outer exchange: {verdict:#?}"))?;
        let said = (verdict.nginx.pid, outer.nginx.pid, outer.upstream.addr.as_str());
        ensure!(said == (self.inner, self.outer, self.between.to_string().as_str()), "{verdict:#?}");
        ensure!(outer.nginx.comm == NAME, "{verdict:#?}");
        let is_tcp = matches!(self.between, Endpoint::Tcp(_));
        ensure!(outer.nginx.local.is_some() == is_tcp, "{verdict:#?}");
        ensure!(verdict.explanation.contains(&format!("{NAME} {}", self.outer)), "{verdict:#?}");
        Ok(())
    }

    /// Checks that an inner exchange was for this outer one.
    fn is_for(&self, inner: &Verdict, outer: &Verdict) -> Result<()> {
        self.is_for_outer(inner)?;
        let local = inner.outer.as_ref().and_then(|outer| outer.nginx.local.as_ref());
        ensure!(local == outer.nginx.local.as_ref(), "{inner:#?} {outer:#?}");
        ensure!(outer.outer.is_none() && outer.nginx.pid == self.outer, "{outer:#?}");
        // Whom the outer one waited for is the inner one.
        outer.blames(Some(self.inner), None, None)
    }
}

fn the_client_leaves(by: By) -> Result<()> {
    let chain = Chain::start(by)?;
    for (round, path) in (1..).zip(["/kept/mute/", "/closed/mute/", "/kept/mute/"]) {
        ensure!(chain.client().get("/kept/fine/")?.status == 200);
        let asked = chain.client().ask(path)?;
        chain.mute.wait_read(round)?;
        asked.abort()?;
    }
    let seen = chain.account(6)?;
    let (outer, inner) = (seen.account.about(&seen.between), seen.account.about(seen.mute.endpoint()));
    ensure!(outer.len() == 3 && inner.len() == 3, "{:#?}", seen.account.verdicts);
    for verdict in &seen.account.verdicts {
        verdict.says("client_abort/before_response", "proven", 499, None)?;
    }
    for inner in inner {
        let local = inner.outer.as_ref().and_then(|outer| outer.nginx.local.clone());
        let of = outer.iter().find(|outer| outer.nginx.local == local);
        seen.is_for(inner, of.with_context(|| format!("{inner:#?}"))?)?;
        ensure!(inner.explanation.contains("whose own client had gone"), "{inner:#?}");
    }
    Ok(())
}

#[test]
fn a_client_that_leaves_is_reported_at_each_hop_of_one_instance() -> Result<()> {
    the_client_leaves(By::Itself)
}

#[test]
fn a_client_that_leaves_is_reported_at_each_hop_of_two_instances() -> Result<()> {
    the_client_leaves(By::Tcp)
}

#[test]
fn a_client_that_leaves_is_reported_at_each_hop_over_a_unix_socket() -> Result<()> {
    let chain = Chain::start(By::Unix)?;
    for (round, path) in (1..).zip(["/kept/mute/", "/closed/mute/", "/kept/mute/"]) {
        ensure!(chain.client().get("/kept/fine/")?.status == 200);
        let asked = chain.client().ask(path)?;
        chain.mute.wait_read(round)?;
        asked.abort()?;
    }
    let seen = chain.account(6)?;
    let inner = seen.account.about(seen.mute.endpoint());
    ensure!(inner.len() == 3, "{:#?}", seen.account.verdicts);
    for verdict in &seen.account.verdicts {
        verdict.says("client_abort/before_response", "proven", 499, None)?;
    }
    for inner in inner {
        seen.is_for_outer(inner)?;
        ensure!(inner.explanation.contains("whose own client had gone"), "{inner:#?}");
    }
    Ok(())
}

/// Each attempt of the inner one is for the same exchange of the outer one.
fn the_inner_one_tries_again(by: By) -> Result<()> {
    let chain = Chain::start(by)?;
    for path in ["/kept/retried/", "/closed/retried/", "/kept/retried/"] {
        ensure!(chain.client().get(path)?.status == 502);
    }
    let seen = chain.account(6)?;
    for verdict in &seen.account.verdicts {
        verdict.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))?;
        seen.is_for_outer(verdict)?;
    }
    Ok(())
}

#[test]
fn each_attempt_of_the_inner_hop_of_one_instance_is_for_the_outer_one() -> Result<()> {
    the_inner_one_tries_again(By::Itself)
}

#[test]
fn each_attempt_of_the_inner_hop_behind_a_unix_socket_is_for_the_outer_one() -> Result<()> {
    the_inner_one_tries_again(By::Unix)
}

fn the_outer_one_stops_waiting(by: By) -> Result<()> {
    let chain = Chain::start(by)?;
    ensure!(chain.client().get("/short/mute/")?.status == 504);
    let seen = chain.account(2)?;
    let (outer, inner) = (seen.account.only(&seen.between)?, seen.account.only(seen.mute.endpoint())?);
    outer.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))?;
    inner.says("client_abort/before_response", "proven", 499, None)?;
    seen.is_for(inner, outer)?;
    ensure!(inner.explanation.contains("which had stopped waiting"), "{inner:#?}");
    Ok(())
}

#[test]
fn an_inner_hop_ends_because_the_outer_one_of_the_same_instance_stopped_waiting() -> Result<()> {
    the_outer_one_stops_waiting(By::Itself)
}

#[test]
fn an_inner_hop_ends_because_the_outer_one_of_another_instance_stopped_waiting() -> Result<()> {
    the_outer_one_stops_waiting(By::Tcp)
}

/// What the inner one answers for itself is an answer to the outer one.
fn the_inner_one_fails(by: By) -> Result<()> {
    let chain = Chain::start(by)?;
    ensure!(chain.client().get("/kept/fine/")?.status == 200);
    for (path, status) in [("/kept/slow/", 504), ("/kept/nobody/", 502)] {
        ensure!(chain.client().get(path)?.status == status, "{path}");
    }
    let seen = chain.account(2)?;
    let slow = seen.account.only(seen.mute.endpoint())?;
    slow.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))?;
    seen.is_for_outer(slow)?;
    let refused = seen.account.only(&Endpoint::v4(NOBODY))?;
    refused.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))?;
    seen.is_for_outer(refused)
}

#[test]
fn a_failure_of_the_inner_hop_of_one_instance_is_reported_of_that_alone() -> Result<()> {
    the_inner_one_fails(By::Itself)
}

#[test]
fn a_failure_of_the_inner_hop_of_two_instances_is_reported_of_that_alone() -> Result<()> {
    the_inner_one_fails(By::Tcp)
}

#[test]
fn a_failure_of_the_inner_hop_behind_a_unix_socket_is_reported_of_that_alone() -> Result<()> {
    the_inner_one_fails(By::Unix)
}

#[test]
fn a_request_of_no_nginx_has_no_outer_hop() -> Result<()> {
    let namespace = Namespace::new()?;
    let mute = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9100), 4)?;
    let nginx = Nginx::on(&namespace).location(mute.location().read_timeout(SHORT)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/mute/")?.status == 504);
    let asked = nginx.client().ask("/mute/")?;
    mute.wait_read(2)?;
    asked.abort()?;
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.verdicts.iter().all(|verdict| verdict.outer.is_none()), "{:#?}", account.verdicts);
    Ok(())
}
