//! What a slow worker was doing, on real workers that wait for real things.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rig::reconcile::pair_off;
use rig::verdict::Doing;
use rig::{Database, Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Tracer, Verdict, wait};

/// Long enough for three samples.
const READ: Duration = Duration::from_secs(4);

/// Waits as libcurl does: beside its connection it watches a pair of its own, by which threads could wake it.
const SERVICE: &str = "<?php
$pair = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
$read = [stream_socket_client('tcp://ADDRESS'), $pair[0]];
$none = null;
stream_select($read, $none, $none, 30);
";

#[test]
fn a_locked_database_is_named_by_its_address() -> Result<()> {
    let namespace = Namespace::new()?;
    let database = Database::start(&namespace)?;
    let fpm = Fpm::on(&namespace).pool("php_admin_value[extension] = pgsql").start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm).read_timeout(READ)).start()?;
    let ways = [("tcp", database.endpoint()), ("unix", Endpoint::Unix(database.socket()))];
    for (name, way) in &ways {
        fs::write(fpm.docroot().join(format!("{name}.php")), database.script(way))?;
    }
    let client = nginx.client();
    ensure!(client.get("/php/tcp.php")?.body == b"0\n", "the script does not work without a lock");

    let tracer = Tracer::of(nginx.master())?;
    let lock = database.lock()?;
    let asked = ways.each_ref().map(|(name, _)| client.ask(&format!("/php/{name}.php?tag={name}")));
    let workers = ways.each_ref().map(|(name, _)| fpm.worker_on(name));
    for one in asked {
        ensure!(one?.answer()?.status == 504);
    }
    tracer.wait_for(2)?;
    drop(lock);

    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    for ((_, way), worker) in ways.iter().zip(workers) {
        let verdict = of_worker(&account.verdicts, worker?)?;
        verdict.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))?;
        let samples = waited_on(verdict, &way.to_string())?;
        let sentence = format!("In {} samples it waited on {way}.", all(samples));
        ensure!(verdict.explanation.contains(&sentence), "{verdict:#?}");
        let advice = verdict.advice.as_deref().unwrap_or_default();
        ensure!(advice.contains(&way.to_string()) && advice.contains("PostgreSQL"), "{verdict:#?}");
        let evidence = verdict.evidence.iter().find(|evidence| evidence.source == "/proc sampling");
        let evidence = evidence.context("no evidence of it")?;
        ensure!(evidence.fact.contains(&format!("{samples} waited on {way}")), "{verdict:#?}");
        let us = evidence.us.unwrap_or_default();
        ensure!(
            (2_000_000..waited_us(verdict)? + 500_000).contains(&us),
            "the last sample was taken at {us} us"
        );
    }
    Ok(())
}

#[test]
fn running_sleeping_and_waiting_are_told_apart() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(6).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm).read_timeout(READ)).start()?;
    let held = fpm.docroot().join("held");
    let holder = fs::File::create(&held)?;
    holder.lock()?;
    let lock = "<?php $file = fopen(__DIR__ . '/held', 'c'); flock($file, LOCK_EX); echo 'free';";
    fs::write(fpm.docroot().join("lock.php"), lock)?;
    fs::write(fpm.docroot().join("child.php"), "<?php echo shell_exec('sleep 30');")?;
    let service = FaultyServer::start(&namespace, Fault::NeverAccept, Endpoint::v4(9100), 4)?;
    fs::write(
        fpm.docroot().join("service.php"),
        SERVICE.replace("ADDRESS", &service.endpoint().to_string()),
    )?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();

    let scripts = [
        ("running", "spin.php?s=30"),
        ("sleeping", "sleep.php?s=30"),
        ("locked", "lock.php?"),
        ("child", "child.php?"),
        ("service", "service.php?"),
        ("stalled", "slow_body.php?s=30"),
    ];
    let asked = scripts.map(|(tag, script)| client.ask(&format!("/php/{script}&tag={tag}")));
    let worker = |tag: &str| fpm.worker_on(tag);
    for ((tag, _), one) in scripts.iter().zip(asked) {
        // The response that stalls has begun, so its status was sent already.
        let status = if *tag == "stalled" { 200 } else { 504 };
        ensure!(one?.answer()?.status == status, "{tag}");
    }
    tracer.wait_for(6)?;
    let account = tracer.stop()?;
    account.is_orderly()?;

    let verdict = of_worker(&account.verdicts, worker("running")?)?;
    let Doing { samples, waits, running } = doing(verdict)?;
    // On a machine busy with other things it also has to wait for its turn.
    let in_turn: u32 = waits.iter().filter(|wait| wait.on == "a free CPU").map(|wait| wait.samples).sum();
    ensure!(running + in_turn == *samples && verdict.explanation.contains(" CPU"), "{verdict:#?}");

    for tag in ["sleeping", "stalled"] {
        let verdict = of_worker(&account.verdicts, worker(tag)?)?;
        let samples = waited_on(verdict, "time to pass (clock_nanosleep)")?;
        let sentence = format!(" slept (clock_nanosleep) in {} samples.", all(samples));
        ensure!(verdict.explanation.contains(&sentence), "{verdict:#?}");
    }
    let verdict = of_worker(&account.verdicts, worker("locked")?)?;
    waited_on(verdict, &format!("a lock on {}", held.display()))?;
    let verdict = of_worker(&account.verdicts, worker("child")?)?;
    waited_on(verdict, "the output of its child process sleep")?;
    let verdict = of_worker(&account.verdicts, worker("service")?)?;
    waited_on(verdict, &service.endpoint().to_string())?;
    Ok(())
}

#[test]
fn a_worker_behind_a_unix_socket_is_looked_at_as_well() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).listen(Endpoint::Unix(namespace.scratch().join("fpm.sock"))).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm).read_timeout(READ)).start()?;
    let (pid, upstream) = (nginx.master().to_string(), fpm.endpoint().to_string());
    let tracer = Tracer::start(&["-p", &pid, "-u", &upstream])?;
    ensure!(nginx.client().get("/php/sleep.php?s=30&tag=slow")?.status == 504);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let verdict = of_worker(&account.verdicts, fpm.worker_on("slow")?)?;
    verdict.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))?;
    waited_on(verdict, "time to pass (clock_nanosleep)")?;
    Ok(())
}

#[test]
fn a_fast_failure_has_no_samples() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let location = Location::fpm("/php/", &fpm).read_timeout(Duration::from_millis(500));
    let nginx = Nginx::on(&namespace).location(location).start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/php/sleep.php?s=30")?.status == 504);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let verdict = account.only(fpm.endpoint())?;
    ensure!(verdict.worker.as_ref().is_some_and(|worker| worker.doing.is_none()), "{verdict:#?}");
    ensure!(!verdict.explanation.contains("sample"), "{verdict:#?}");
    Ok(())
}

fn of_worker(verdicts: &[Verdict], worker: i32) -> Result<&Verdict> {
    let mut own = verdicts.iter().filter(|verdict| verdict.worker_pid() == Some(worker));
    let verdict = own.next().with_context(|| format!("no verdict on worker {worker}: {verdicts:#?}"))?;
    ensure!(own.next().is_none(), "two verdicts on worker {worker}: {verdicts:#?}");
    Ok(verdict)
}

/// For how long nginx waited: its timer is late where the machine is busy.
fn waited_us(verdict: &Verdict) -> Result<i64> {
    Ok(verdict.us.ended.context("its end")?.try_into()?)
}

fn doing(verdict: &Verdict) -> Result<&Doing> {
    let doing = verdict.worker.as_ref().and_then(|worker| worker.doing.as_ref());
    let doing = doing.with_context(|| format!("the worker was not looked at: {verdict:#?}"))?;
    // A second passes before the first, and a second between each two.
    let most = waited_us(verdict)? / 1_000_000;
    ensure!((2..=most).contains(&doing.samples.into()), "{} samples: {verdict:#?}", doing.samples);
    Ok(doing)
}

/// As people say it.
fn all(samples: u32) -> String {
    if samples == 2 { "both".into() } else { format!("all {samples}") }
}

/// Checks that it waited on this alone, and returns the number of samples. On an emulated processor, a look may find it on its way there.
fn waited_on(verdict: &Verdict, on: &str) -> Result<u32> {
    let Doing { samples, waits, running } = doing(verdict)?;
    let on_its_way = u32::from(wait::patience() > 1);
    let is_all = waits.len() == 1 && waits[0].on == on && waits[0].samples + running == *samples;
    ensure!(is_all && *running <= on_its_way, "it waited on {on} alone: {verdict:#?}");
    Ok(*samples)
}
