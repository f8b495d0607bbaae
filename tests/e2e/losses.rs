//! What happens when the tracer cannot keep up: losses are counted and told, and what they touch is called incomplete.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, Tracer, wait};

/// Longer than the storm lasts, on an emulated processor too.
const LONG: Duration = Duration::from_secs(600);
/// More than the ring buffer holds.
const STORM: usize = 12_000;

#[test]
fn a_reader_that_stood_still_counts_what_it_lost_and_does_not_guess() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nobody = Endpoint::v4(9009);
    let nginx = Nginx::on(&namespace)
        .workers(2)
        .main("worker_shutdown_timeout 500ms")
        .location(Location::fpm("/php/", &fpm).read_timeout(LONG))
        .location(Location::fastcgi("/refused/", &nobody))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    let cut = client.ask(&format!("/php/sleep.php?s={}&tag=cut", LONG.as_secs()))?;
    fpm.worker_on("cut")?;

    tracer.signal(Signal::SIGSTOP)?;
    let statuses = client.storm("/refused/", STORM, 8)?;
    tracer.signal(Signal::SIGCONT)?;
    ensure!(statuses == [(502, STORM)].into(), "{statuses:?}");
    tracer.wait_for(1_000)?;

    // nginx's old workers close this exchange for a reason that no fact names. With facts lost, that is no mere "unknown".
    nginx.reload()?;
    ensure!(cut.answer().is_err(), "nginx has answered");
    let address = fpm.endpoint().to_string();
    wait::until_true("a verdict on the exchange that was cut off", || {
        Ok(tracer.lines().so_far().iter().any(|line| line.contains(&address)))
    })?;
    let account = tracer.stop()?;
    ensure!(account.status.success(), "{}", account.stderr);

    let lost = account.summary["lost"].as_u64().unwrap_or_default();
    let told = account.about(&nobody);
    ensure!(lost > 0, "nothing was lost: {}", account.summary);
    // Each exchange is two records at the most.
    ensure!(
        told.len() < STORM && told.len() as u64 + lost >= STORM as u64,
        "{} told, {lost} lost",
        told.len()
    );
    for verdict in told {
        ensure!(
            verdict.name() == "refused/no_listener" && verdict.confidence == "incomplete",
            "{verdict:#?}"
        );
    }
    let verdict = account.only(fpm.endpoint())?;
    ensure!(verdict.name() == "unknown/evidence_lost" && verdict.confidence == "incomplete", "{verdict:#?}");
    Ok(())
}
