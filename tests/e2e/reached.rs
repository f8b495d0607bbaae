//! Whether an upstream that nothing answers for was reached before, and until when.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rig::reconcile::pair_off;
use rig::verdict::Reached;
use rig::{Endpoint, Fault, FaultyServer, Location, Namespace, Nginx, Tracer, Verdict, wait};

const PATIENCE: Duration = Duration::from_secs(1);
const NETWORK: &str = "10.82.0.0/24";

fn hosts() -> Result<(Namespace, Namespace)> {
    let (here, there) = (Namespace::new()?, Namespace::new()?);
    here.join(&there, "wire", Ipv4Addr::new(10, 82, 0, 1), Ipv4Addr::new(10, 82, 0, 2))?;
    here.sysctl("net.ipv4.neigh.wire.retrans_time_ms", "50")?;
    Ok((here, there))
}

/// Packets for this address go to nobody on the link any more.
fn lose(here: &Namespace, address: &str) -> Result<()> {
    here.ip(&format!("neigh replace {address} lladdr 02:00:00:00:00:99 dev wire nud permanent"))?;
    Ok(())
}

fn reached<'a>(verdict: &'a Verdict, by: &str) -> Result<&'a Reached> {
    let reached = verdict.reached.as_ref().with_context(|| format!("not known: {verdict:#?}"))?;
    ensure!(reached.by == by && reached.us < 0, "{verdict:#?}");
    ensure!(verdict.explanation.contains("It was reached before: until "), "{verdict:#?}");
    ensure!(verdict.advice.as_deref().is_some_and(|advice| advice.contains("has moved")), "{verdict:#?}");
    Ok(reached)
}

#[test]
fn the_kernel_remembers_until_when_an_upstream_answered_before_the_tracing() -> Result<()> {
    let (here, there) = hosts()?;
    there.ip("address add 10.82.0.4/24 dev wire")?;
    let upstream: Endpoint = "10.82.0.2:9000".parse()?;
    let never: Endpoint = "10.82.0.4:9000".parse()?;
    let _server = FaultyServer::start(&there, Fault::Answer, "0.0.0.0:9000".parse()?, 8)?;
    let nginx = Nginx::on(&here)
        .location(Location::http("/there/", &upstream).connect_timeout(PATIENCE))
        .location(Location::http("/never/", &never).connect_timeout(PATIENCE))
        .start()?;
    let client = nginx.client();
    ensure!(client.get("/there/")?.status == 200);
    wait::until_true("the kernel to remember it", || {
        // Until then it is asked in vain, which is an error.
        Ok(here.ip("tcp_metrics show 10.82.0.2").is_ok_and(|shown| shown.contains("10.82.0.2")))
    })?;
    let tracer = Tracer::of(nginx.master())?;
    lose(&here, "10.82.0.2")?;
    lose(&here, "10.82.0.4")?;
    ensure!(client.get("/there/")?.status == 504 && client.get("/never/")?.status == 504);
    // It moves: nobody answers for its address on the link any more, and then no way leads there.
    there.ip("address flush dev wire")?;
    here.ip("neigh del 10.82.0.2 dev wire")?;
    ensure!(client.get("/there/")?.status == 502);
    here.ip(&format!("route del {NETWORK} dev wire"))?;
    ensure!(client.get("/there/")?.status == 502);
    tracer.wait_for(4)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdicts = account.about(&upstream);
    let causes = ["connect_timeout/syn_unanswered", "refused/no_route", "refused/no_route"];
    ensure!(verdicts.len() == causes.len(), "{verdicts:#?}");
    let mut before = 0;
    for (verdict, cause) in verdicts.into_iter().zip(causes) {
        ensure!(verdict.name() == cause, "{verdict:#?}");
        let us = reached(verdict, "tcp_metrics")?.us;
        ensure!(us < before, "it was reached once, longer ago each time: {verdict:#?}");
        verdict.has_evidence("a TCP connection with 10.82.0.2 works, as the kernel remembers")?;
        before = us;
    }
    let verdict = account.only(&never)?;
    ensure!(verdict.name() == "connect_timeout/syn_unanswered" && verdict.reached.is_none(), "{verdict:#?}");
    ensure!(!verdict.explanation.contains("reached"), "{verdict:#?}");
    Ok(())
}

#[test]
fn until_when_nginx_had_connections_to_an_upstream_is_known_without_the_kernels_memory() -> Result<()> {
    let (here, there) = hosts()?;
    here.sysctl("net.ipv4.tcp_no_metrics_save", "1")?;
    let upstream: Endpoint = "10.82.0.2:9000".parse()?;
    let _server = FaultyServer::start(&there, Fault::Mute, "0.0.0.0:9000".parse()?, 8)?;
    let location = Location::http("/", &upstream).connect_timeout(PATIENCE).read_timeout(PATIENCE);
    let nginx = Nginx::on(&here).location(location).start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/")?.status == 504);
    lose(&here, "10.82.0.2")?;
    ensure!(nginx.client().get("/")?.status == 504);
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdicts = account.about(&upstream);
    let [silent, gone] = verdicts.as_slice() else { anyhow::bail!("{verdicts:#?}") };
    ensure!(silent.cause == "read_timeout" && silent.reached.is_none(), "{silent:#?}");
    gone.says("connect_timeout/syn_unanswered", "inferred", 504, Some("ETIMEDOUT"))?;
    let us = reached(gone, "exchange")?.us;
    // Its connection came about when it was asked, for as long as nginx waited before the other one was.
    ensure!(us <= -PATIENCE.as_micros().try_into().unwrap_or(i64::MAX), "{gone:#?}");
    gone.has_evidence("an exchange of nginx's has a connection to 10.82.0.2:9000")
}
