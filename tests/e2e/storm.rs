//! Many failures within seconds.

use anyhow::{Result, ensure};
use rig::reconcile::pair_off;
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, Tracer, wait};

#[test]
fn five_thousand_refused_exchanges_give_five_thousand_verdicts() -> Result<()> {
    let count = wait::load(5_000);
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace)
        .workers(2)
        .location(Location::fpm("/php/", &fpm))
        .location(Location::fastcgi("/four/", &Endpoint::v4(9009)))
        .location(Location::fastcgi("/six/", &Endpoint::v6(9009)))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    // Successes go on beside them.
    std::thread::scope(|scope| {
        let four = scope.spawn(|| client.storm("/four/", count / 2, 4));
        let six = scope.spawn(|| client.storm("/six/", count / 2, 4));
        let well = client.storm("/php/ok.php", 200, 1)?;
        for storm in [four, six] {
            let statuses = storm.join().map_err(|_| anyhow::anyhow!("a storm panicked"))??;
            ensure!(statuses == [(502, count / 2)].into(), "{statuses:?}");
        }
        ensure!(well == [(200, 200)].into(), "{well:?}");
        Ok(())
    })?;
    tracer.wait_for(count)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(nginx.failures().len() == count);
    pair_off(&nginx.failures(), &account.verdicts)?;
    for verdict in &account.verdicts {
        verdict.says("refused/no_listener", account.surest(verdict), 502, Some("ECONNREFUSED"))?;
    }
    Ok(())
}

/// Where programs are interrupted, standby instances see what they miss; where they are not, these must change nothing.
#[test]
fn standby_instances_take_each_event_once() -> Result<()> {
    let namespace = Namespace::new()?;
    let path = Endpoint::Unix(namespace.scratch().join("missing.sock"));
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace)
        .workers(2)
        .location(Location::fpm("/php/", &fpm))
        .location(Location::fastcgi("/refused/", &Endpoint::v4(9009)))
        .location(Location::fastcgi("/missing/", &path))
        .start()?;
    let pid = nginx.master().to_string();
    let tracer = Tracer::start(&["-p", &pid, "--connect-errors", "--standby"])?;
    let client = nginx.client();
    std::thread::scope(|scope| {
        let refused = scope.spawn(|| client.storm("/refused/", 300, 2));
        let missing = scope.spawn(|| client.storm("/missing/", 100, 2));
        let well = client.storm("/php/ok.php", 300, 2)?;
        ensure!(well == [(200, 300)].into(), "{well:?}");
        for (storm, count) in [(refused, 300), (missing, 100)] {
            let statuses = storm.join().map_err(|_| anyhow::anyhow!("a storm panicked"))??;
            ensure!(statuses == [(502, count)].into(), "{statuses:?}");
        }
        Ok(())
    })?;
    tracer.wait_for(400)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    ensure!(account.summary["exchanges"] == 700, "{}", account.summary);
    Ok(())
}
