//! What workers do after nginx has given up: the `after` lines.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rig::process::Pid;
use rig::tracer::Account;
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, Tracer, wait};
use serde_json::Value;

const READ: Duration = Duration::from_millis(700);

/// One worker, busy for longer than nginx waits, and another request queued behind it.
fn two_given_up(listen: impl Fn(&Namespace) -> Endpoint) -> Result<(Account, [Pid; 2], Pid, Endpoint)> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(1).listen(listen(&namespace)).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/php/", &fpm).read_timeout(READ))
        .location(Location::fpm("/patient/", &fpm))
        .start()?;
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "-u", &fpm.endpoint().for_nginx()])?;
    let client = nginx.client();
    let slow = client.ask("/php/sleep.php?s=2&tag=slow")?;
    let worker = fpm.worker_on("slow")?;
    let queued = client.ask("/php/sleep.php?s=0.5&tag=queued")?;
    ensure!(slow.answer()?.status == 504 && queued.answer()?.status == 504);
    let late = fpm.worker_on("queued")?;
    ensure!(client.get("/patient/ok.php")?.status == 200);
    wait::until_true("two lines about what came after", || {
        Ok(tracer.lines().so_far().iter().filter(|line| line.contains(r#""type":"after""#)).count() >= 2)
    })?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    Ok((account, [worker, late], nginx.workers()?[0], fpm.endpoint().clone()))
}

fn is_emitted(listen: impl Fn(&Namespace) -> Endpoint) -> Result<()> {
    let (account, [worker, late], nginx, upstream) = two_given_up(listen)?;
    let after: Vec<&Value> = account.others.iter().filter(|line| line["type"] == "after").collect();
    ensure!(after.len() == 2 && account.verdicts.len() == 2, "{account:#?}");
    let of = |was_late: bool| {
        after.iter().find(|line| line["accepted_late"] == was_late).with_context(|| format!("{after:#?}"))
    };
    for (was_late, worker, name) in
        [(false, worker, "read_timeout/slow_worker"), (true, late, "read_timeout/never_accepted")]
    {
        let line = of(was_late)?;
        let verdict = account.verdicts.iter().find(|v| v.name() == name).context(name)?;
        ensure!(line["worker"]["pid"] == worker && line["nginx"]["pid"] == nginx, "{line}");
        ensure!(line["nginx"]["local"].as_str() == verdict.nginx.local.as_deref(), "{line} {verdict:#?}");
        ensure!(line["upstream"]["addr"] == upstream.to_string(), "{line}");
        // The script slept for 2 s, of which nginx waited for 0.7; what was queued ran after that, for 0.5 s.
        let went_on = line["went_on_us"].as_u64().context("went_on_us")?;
        ensure!((900_000..10_000_000).contains(&went_on), "{line}");
        ensure!(line["time"].as_str().is_some_and(|time| time > verdict.time.as_str()), "{line}");
        ensure!(
            line["explanation"].as_str().is_some_and(|text| text.contains(&worker.to_string())),
            "{line}"
        );
    }
    Ok(())
}

#[test]
fn a_worker_that_goes_on_is_emitted_and_so_is_one_that_begins_late() -> Result<()> {
    is_emitted(|_| Endpoint::v4(9000))
}

#[test]
fn the_same_holds_over_unix_sockets() -> Result<()> {
    is_emitted(|namespace| Endpoint::Unix(namespace.scratch().join("fpm.sock")))
}
