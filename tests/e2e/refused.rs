//! `refused`: nobody listens.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use rig::reconcile::pair_off;
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, Tracer};

#[test]
fn a_port_without_listener_is_no_listener_over_ipv4_and_ipv6() -> Result<()> {
    let (four, six) = (Endpoint::v4(9009), Endpoint::v6(9009));
    let namespace = Namespace::new()?;
    let nginx = Nginx::on(&namespace)
        .workers(2)
        .location(Location::fastcgi("/four/", &four))
        .location(Location::fastcgi("/six/", &six))
        .location(Location::http("/http/", &four))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    for path in ["/four/", "/six/", "/http/", "/four/", "/six/", "/http/"] {
        ensure!(nginx.client().get(path)?.status == 502);
    }
    tracer.wait_for(6)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(nginx.failures().len() == 6);
    pair_off(&nginx.failures(), &account.verdicts)?;
    for verdict in &account.verdicts {
        verdict.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))?;
        verdict.blames(None, None, None)?;
        ensure!(
            nginx.workers()?.contains(&verdict.nginx.pid) && verdict.nginx.comm == "nginx",
            "{verdict:#?}"
        );
        ensure!(verdict.us.connected.is_none() && verdict.us.accepted.is_none(), "{verdict:#?}");
    }
    ensure!(account.about(&four).iter().all(|verdict| verdict.family() == Some("inet")));
    ensure!(account.about(&six).iter().all(|verdict| verdict.family() == Some("inet6")));
    ensure!((account.about(&four).len(), account.about(&six).len()) == (4, 2));
    Ok(())
}

#[test]
fn a_stopped_php_fpm_is_no_listener_from_then_on() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/php/ok.php")?.status == 200);
    fpm.stop(Signal::SIGTERM)?;
    namespace.wait_for_no_listener(fpm.endpoint())?;
    ensure!(nginx.client().get("/php/ok.php")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    account.only(fpm.endpoint())?.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))
}

#[test]
fn each_retry_is_an_exchange_with_a_verdict_of_its_own() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let dead = [Endpoint::v4(9007), Endpoint::v6(9008)];
    let nginx = Nginx::on(&namespace)
        .group("retried", &[&dead[0], &dead[1], fpm.endpoint()], &[])
        .location(Location::fpm("/php/", &fpm).through_group("retried"))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    while nginx.failures().len() < 2 {
        // Round and round until both dead ones have had their turn; every request is answered by the live
        // one.
        ensure!(nginx.client().get("/php/ok.php")?.status == 200);
    }
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    for verdict in &account.verdicts {
        ensure!(verdict.name() == "refused/no_listener", "{verdict:#?}");
    }
    for endpoint in &dead {
        account.only(endpoint)?;
    }
    Ok(())
}
