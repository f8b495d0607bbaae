//! Many failures within seconds.

use anyhow::{Result, ensure};
use rig::reconcile::pair_off;
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, Tracer};

#[test]
fn five_thousand_refused_exchanges_give_five_thousand_verdicts() -> Result<()> {
    const COUNT: usize = 5_000;
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
        let four = scope.spawn(|| client.storm("/four/", COUNT / 2, 4));
        let six = scope.spawn(|| client.storm("/six/", COUNT / 2, 4));
        let well = client.storm("/php/ok.php", 200, 1)?;
        for storm in [four, six] {
            let statuses = storm.join().map_err(|_| anyhow::anyhow!("a storm panicked"))??;
            ensure!(statuses == [(502, COUNT / 2)].into(), "{statuses:?}");
        }
        ensure!(well == [(200, 200)].into(), "{well:?}");
        Ok(())
    })?;
    tracer.wait_for(COUNT)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(nginx.failures().len() == COUNT);
    pair_off(&nginx.failures(), &account.verdicts)?;
    for verdict in &account.verdicts {
        verdict.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))?;
    }
    Ok(())
}
