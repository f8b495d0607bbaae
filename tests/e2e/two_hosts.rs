//! Evidence of two hosts, joined: nginx in one network namespace, php-fpm in another, and a recorder in each that knows nothing of
//! the other.

use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::reconcile::pair_off;
use rig::recorder::{Recorder, lines, report};
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, Tracer, Verdict, process, replay, wait};

const READ: Duration = Duration::from_millis(800);

fn netns(namespace: &Namespace) -> Result<String> {
    Ok(namespace.run(|| Ok(fs::metadata("/proc/thread-self/ns/net")?.ino()))?.to_string())
}

/// The evidence of a host whose clocks go otherwise: the monotonic one by 17 minutes, the wall's by three hours.
fn skewed(file: &Path) -> Result<PathBuf> {
    let mut lines = lines(file)?;
    let clocks = &mut lines[0]["clocks"];
    for (name, seconds) in [("monotonic_ns", 17 * 60), ("distance_ns", 3 * 3_600)] {
        let ns: i64 = clocks[name].as_str().context("no clock")?.parse()?;
        clocks[name] = (ns + seconds * 1_000_000_000).to_string().into();
    }
    let to = file.with_file_name("skewed.zst");
    let mut zstd = process::command(process::find_program(&["zstd"])?);
    let mut zstd = zstd.arg("-q").stdin(Stdio::piped()).stdout(File::create(&to)?).spawn()?;
    let mut pipe = zstd.stdin.take().context("a pipe")?;
    for line in lines {
        writeln!(pipe, "{line}")?;
    }
    drop(pipe);
    ensure!(zstd.wait()?.success());
    Ok(to)
}

#[test]
fn what_one_host_infers_two_prove() -> Result<()> {
    let (near, far) = (Namespace::new()?, Namespace::new()?);
    near.join(&far, "wire", Ipv4Addr::new(10, 80, 0, 1), Ipv4Addr::new(10, 80, 0, 2))?;
    // The address that nginx knows is translated on the way.
    near.ip("route add 10.99.0.0/24 via 10.80.0.2")?;
    far.nft(
        "table ip rig { chain pre { type nat hook prerouting priority -100;
           ip daddr 10.99.0.1 tcp dport 80 dnat to 10.80.0.2:9000; }
         }",
    )?;
    let upstream: Endpoint = "10.99.0.1:80".parse()?;
    let fpm = Fpm::on(&far).listen("0.0.0.0:9000".parse()?).workers(2).backlog(2).start()?;
    let nginx = Nginx::on(&near)
        .group("far", &[&upstream], &[])
        .location(
            Location::fpm("/", &fpm)
                .directive("fastcgi_next_upstream off")
                .read_timeout(READ)
                .through_group("far"),
        )
        .location(Location::fpm("/patient/", &fpm).through_group("far"))
        .start()?;
    let web = Recorder::start(&["-p", &nginx.master().to_string(), "--only-netns", &netns(&near)?])?;
    let back = Recorder::start(&["--listener", ":9000", "--comm", "nobody", "--only-netns", &netns(&far)?])?;
    let whole = Tracer::of(nginx.master())?;

    let client = nginx.client();
    ensure!(client.storm("/patient/ok.php", 20, 2)? == [(200, 20)].into());
    let asked = client.ask("/patient/sleep.php?s=20&tag=killed")?;
    let killed = fpm.worker_on("killed")?;
    process::send(killed, Signal::SIGKILL)?;
    ensure!(asked.answer()?.status == 502);
    let asked = client.ask("/sleep.php?s=2&tag=slow")?;
    let slow = fpm.worker_on("slow")?;
    ensure!(asked.answer()?.status == 504);
    wait::until_true("a new worker", || Ok(fpm.workers()?.len() == 2 && !fpm.workers()?.contains(&killed)))?;
    fpm.freeze()?;
    ensure!(client.get("/ok.php")?.status == 504);
    // Who holds the listener is looked up right after the failure.
    whole.wait_for(3)?;
    fpm.thaw()?;
    far.wait_for_queue(fpm.endpoint(), 0)?;
    ensure!(client.get("/patient/ok.php")?.status == 200);

    let account = whole.stop()?;
    account.is_orderly()?;
    web.wait_for(3)?;
    // The three ends of workers.
    wait::until_true("the workers' ends", || {
        Ok(lines(&back.file())?.iter().filter(|line| line["type"] == "served").count() >= 3)
    })?;
    wait::until_true("a look at the accept queue", || {
        Ok(lines(&back.file())?
            .iter()
            .any(|line| line["type"] == "depth" && line["listener"] == "0.0.0.0:9000"))
    })?;
    let (web, back) = (web.stop()?, back.stop()?);
    web.is_orderly()?;
    back.is_orderly()?;

    // nginx's host alone does not know why.
    let alone = report(&[&web.file()])?;
    ensure!(alone.verdicts.len() == 3, "{alone:#?}");
    for verdict in &alone.verdicts {
        ensure!(verdict.confidence == "inferred" && verdict.worker.is_none(), "{verdict:#?}");
    }
    let names: Vec<_> = alone.verdicts.iter().map(Verdict::name).collect();
    ensure!(names == ["reset/by_remote", "read_timeout/no_answer", "read_timeout/no_answer"], "{names:?}");
    let fpm_file = skewed(&back.file())?;
    let joined = report(&[&fpm_file, &web.file()])?;
    ensure!(joined.stderr.contains("3 exchanges") && joined.stderr.contains("ahead of"), "{}", joined.stderr);
    pair_off(&nginx.failures(), &joined.verdicts)?;
    let [by_kill, by_sleep, queued] = joined.verdicts.as_slice() else {
        anyhow::bail!("{:#?}", joined.verdicts)
    };
    by_kill.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
    by_kill.blames(Some(killed), Some("SIGKILL"), Some(std::process::id().cast_signed()))?;
    by_sleep.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))?;
    by_sleep.blames(Some(slow), None, None)?;
    queued.says("read_timeout/never_accepted", "proven", 504, Some("ETIMEDOUT"))?;
    // As if both were one host.
    for (one, two) in account.verdicts.iter().zip(&joined.verdicts) {
        // Who holds the listener is looked up on nginx's own host only.
        let is_queued = two.name() == "read_timeout/never_accepted";
        let name = if is_queued { "read_timeout/nobody_accepts".to_owned() } else { two.name() };
        ensure!(one.name() == name && one.confidence == two.confidence, "{two:#?}");
        ensure!(one.worker_pid() == two.worker_pid(), "{two:#?}");
        if let (Some(one), Some(two)) = (one.us.accepted, two.us.accepted) {
            ensure!(
                one.abs_diff(two) < 2_000 * u64::from(wait::patience()),
                "accepted after {one} us, not {two} us"
            );
        }
    }
    // What was joined stays joined.
    let files = [web.file(), fpm_file];
    let mut command = process::command(rig::tracer::binary()?);
    command.args(["report", "-o", "evidence"]).args(&files).stderr(Stdio::null());
    let again = web.folder().join("joined.zst");
    fs::write(&again, command.output()?.stdout)?;
    let replayed = String::from_utf8(replay::report(&again, "json")?)?;
    ensure!(replayed.matches(r#""confidence":"proven""#).count() == 3, "{replayed}");
    Ok(())
}
