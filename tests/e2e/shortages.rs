//! What the host and a worker's control group were short of while nginx waited.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rig::control_group::ControlGroup;
use rig::reconcile::pair_off;
use rig::{Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Tracer, Verdict};

/// Long enough for several readings.
const READ: Duration = Duration::from_secs(5);

/// The figures of a verdict.
fn pressure(verdict: &Verdict) -> Result<&serde_json::Value> {
    let pressure = verdict.pressure.as_ref().with_context(|| format!("no pressure: {verdict:#?}"))?;
    let us = pressure["us"].as_u64().context("a time")?;
    let lasted = verdict.us.ended.context("an end")?;
    ensure!(us >= lasted / 2 && us <= lasted + 200_000, "{us} us of {lasted}: {verdict:#?}");
    Ok(pressure)
}

#[test]
fn a_worker_that_its_cpu_quota_held_back_is_reported_as_such() -> Result<()> {
    // A twentieth of a CPU.
    let group = ControlGroup::with_quota("system.slice/php8.2-fpm.service", 5_000)?;
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm).read_timeout(READ)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let asked = nginx.client().ask("/php/spin.php?s=60&tag=victim")?;
    let worker = fpm.worker_on("victim")?;
    group.hold([worker])?;
    ensure!(asked.answer()?.status == 504);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;

    let verdict = account.only(fpm.endpoint())?;
    verdict.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))?;
    let pressure = pressure(verdict)?;
    let quota = &pressure["cgroup"]["quota"];
    let figure = |name: &str| quota[name].as_u64().with_context(|| format!("no {name}: {verdict:#?}"));
    let (throttled, periods, us) = (
        figure("throttled_periods")?,
        figure("periods")?,
        pressure["cgroup"]["us"].as_u64().context("a time")?,
    );
    ensure!(figure("throttled_us")? >= us / 2 && throttled >= periods / 2, "{verdict:#?}");
    ensure!(quota["path"] == group.path(), "{verdict:#?}");
    let sentence = "Its CPU quota held php8.2-fpm.service back";
    ensure!(verdict.explanation.contains(sentence), "{verdict:#?}");
    ensure!(verdict.evidence.iter().any(|evidence| evidence.source == "cpu.stat"), "{verdict:#?}");
    Ok(())
}

#[test]
fn a_worker_that_waits_for_somebody_else_has_figures_and_no_excuse() -> Result<()> {
    let group = ControlGroup::with_quota("system.slice/php8.2-fpm.service", 5_000)?;
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(2).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm).read_timeout(READ)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    // One spins, so that the quota holds their group back; the other would sleep without it, too.
    let client = nginx.client();
    let asked = ["spin", "sleep"].map(|what| client.ask(&format!("/php/{what}.php?s=60&tag={what}")));
    for tag in ["spin", "sleep"] {
        group.hold([fpm.worker_on(tag)?])?;
    }
    let sleeper = fpm.worker_on("sleep")?;
    for one in asked {
        ensure!(one?.answer()?.status == 504);
    }
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.verdicts.iter().find(|verdict| verdict.worker_pid() == Some(sleeper));
    let verdict = verdict.context("nothing on who slept")?;
    verdict.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))?;
    ensure!(pressure(verdict)?["cgroup"]["quota"]["throttled_us"].as_u64() > Some(0), "{verdict:#?}");
    ensure!(!verdict.explanation.contains("quota"), "{verdict:#?}");
    Ok(())
}

#[test]
fn what_nobody_accepts_has_the_hosts_figures() -> Result<()> {
    let namespace = Namespace::new()?;
    let silent = FaultyServer::start(&namespace, Fault::NeverAccept, Endpoint::v4(9100), 4)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/silent/", silent.endpoint()).read_timeout(READ))
        .location(Location::http("/fast/", &Endpoint::v4(9101)))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/fast/")?.status == 502);
    ensure!(nginx.client().get("/silent/")?.status == 504);
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(silent.endpoint())?;
    let pressure = pressure(verdict)?;
    ensure!(pressure["running"].as_u64() > Some(0) && pressure["cpus"].as_u64() > Some(0), "{verdict:#?}");
    ensure!(pressure["cgroup"].is_null(), "{verdict:#?}");
    // Over at once: there is nothing that a shortage could explain.
    ensure!(account.only(&Endpoint::v4(9101))?.pressure.is_none());
    Ok(())
}
