//! Who the processes of a verdict are: units, containers and pods, by control groups that the tests make.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::control_group::ControlGroup;
use rig::process::{self, Pid, Process};
use rig::reconcile::pair_off;
use rig::recorder::{self, Recorder};
use rig::verdict::Home;
use rig::{Backlog, Endpoint, Fpm, Location, Namespace, Nginx, Tracer, Verdict, tracer};

const ID: &str = "3f1c2b7a9d10e4b85c6f70a1928374655647382910afbecd1122334455667788";
const POD: &str = "2f5c0f1e-8a47-4b6e-9d0c-1b2a3c4d5e6f";

fn unit(name: &str) -> Home {
    Home { unit: Some(name.to_owned()), ..Home::default() }
}

/// php-fpm, all of it.
fn all_of(fpm: &Fpm) -> Result<Vec<Pid>> {
    Ok([vec![fpm.master()], fpm.workers()?].concat())
}

/// Kills a process from within a control group, and is gone when that is done.
fn kill_from(group: &ControlGroup, victim: Pid, signal: Signal) -> Result<Pid> {
    let mut shell = process::command(process::find_program(&["sh"])?);
    let script = format!("echo $$ > '{}' && kill -{} {victim}", group.procs().display(), signal as i32);
    shell.arg("-c").arg(script);
    let mut shell = Process::start(shell)?;
    let pid = shell.pid();
    ensure!(shell.wait()?.success(), "the shell could not kill {victim}");
    Ok(pid)
}

/// The source of what a verdict says of a process's control group.
fn source_of(verdict: &Verdict, pid: Pid) -> Result<&str> {
    let facts = || verdict.evidence.iter().filter(|evidence| evidence.fact.contains("control group"));
    let fact = facts().find(|evidence| evidence.fact.contains(&format!(" {pid} is of ")));
    Ok(fact.with_context(|| format!("nothing on {pid}: {verdict:#?}"))?.source.as_str())
}

#[test]
fn nginx_the_worker_and_the_killer_are_named_though_the_killer_is_gone() -> Result<()> {
    let at_nginx = ControlGroup::new(&format!("system.slice/docker-{ID}.scope"))?;
    let at_fpm = ControlGroup::new("system.slice/php8.2-fpm.service")?;
    let at_killer = ControlGroup::new(&format!(
        "kubepods.slice/kubepods-pod{}.slice/cri-containerd-{ID}.scope",
        POD.replace('-', "_")
    ))?;
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    at_fpm.hold(all_of(&fpm)?)?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    at_nginx.hold([vec![nginx.master()], nginx.workers()?].concat())?;
    let tracer = Tracer::of(nginx.master())?;
    let asked = nginx.client().ask("/php/sleep.php?s=20&tag=victim")?;
    let worker = fpm.worker_on("victim")?;
    // A stopped process dies of it only when it goes on: the killer is long gone by then.
    let stopped = process::stop(worker)?;
    let killer = kill_from(&at_killer, worker, Signal::SIGTERM)?;
    drop(stopped);
    ensure!(asked.answer()?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;

    let verdict = account.only(fpm.endpoint())?;
    verdict.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
    verdict.blames(Some(worker), Some("SIGTERM"), Some(killer))?;
    let container = Home { container: Some(ID.to_owned()), ..Home::default() };
    ensure!(verdict.nginx.home == container, "{verdict:#?}");
    ensure!(
        verdict.worker.as_ref().map(|worker| &worker.home) == Some(&unit("php8.2-fpm.service")),
        "{verdict:#?}"
    );
    let in_pod = Home { pod: Some(POD.to_owned()), ..container };
    ensure!(verdict.killer.as_ref().map(|killer| &killer.home) == Some(&in_pod), "{verdict:#?}");
    for said in [
        format!("worker {worker} of php8.2-fpm.service"),
        format!(" {killer} of container {} of pod {POD}", &ID[..12]),
    ] {
        ensure!(verdict.explanation.contains(&said), "not \"{said}\": {verdict:#?}");
    }
    // Only the kernel's side still knew the shell.
    ensure!(source_of(verdict, killer)? == "bpf_get_current_cgroup_id", "{verdict:#?}");
    ensure!(source_of(verdict, nginx.workers()?[0])? == "/proc/PID/cgroup", "{verdict:#?}");
    Ok(())
}

#[test]
fn a_listeners_owner_is_named() -> Result<()> {
    let group = ControlGroup::new("system.slice/php8.2-fpm.service")?;
    let namespace = Namespace::new()?;
    // Not the address that other tests' pools have in their own networks.
    let fpm = Fpm::on(&namespace).listen(Endpoint::v4(9495)).start()?;
    group.hold(all_of(&fpm)?)?;
    let account = Backlog::of(fpm.endpoint())?.stop()?;
    let last = account.last(fpm.endpoint())?;
    ensure!(last["pid"] == fpm.master(), "{last}");
    ensure!(last["unit"] == "php8.2-fpm.service", "{last}");
    ensure!(last.get("container").is_some_and(|container| container.is_null()), "{last}");
    Ok(())
}

#[test]
fn a_name_that_is_none_says_nothing() -> Result<()> {
    let trap = ControlGroup::new("evil\u{1b}[2J.service")?;
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    trap.hold(all_of(&fpm)?)?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/php/die.php?signal=9")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let verdict = account.only(fpm.endpoint())?;
    verdict.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
    ensure!(verdict.worker.as_ref().map(|worker| &worker.home) == Some(&Home::default()), "{verdict:#?}");
    ensure!(!format!("{verdict:?}").contains("[2J"), "{verdict:#?}");
    Ok(())
}

#[test]
fn only_the_failures_of_a_unit_a_container_or_a_control_group_are_emitted() -> Result<()> {
    let groups = [
        ControlGroup::new("system.slice/shop.service")?,
        ControlGroup::new(&format!("machine.slice/libpod-{ID}.scope"))?,
    ];
    let namespace = Namespace::new()?;
    let pools = [9100, 9101].map(|port| Fpm::on(&namespace).listen(Endpoint::v4(port)).start());
    let [shop, blog] = pools;
    let (shop, blog) = (shop?, blog?);
    groups[0].hold(all_of(&shop)?)?;
    groups[1].hold(all_of(&blog)?)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/shop/", &shop))
        .location(Location::fpm("/blog/", &blog))
        .start()?;
    let fails = |path: &str| -> Result<()> {
        let status = nginx.client().get(&format!("/{path}/die.php?signal=9"))?.status;
        ensure!(status == 502, "/{path}/ answers {status}");
        Ok(())
    };
    let master = nginx.master().to_string();
    let in_shop = groups[0].path();
    let wanted: [(&[&str], &str, &str); 3] = [
        (&["--unit", "shop"], "blog", "shop"),
        (&["--container", &ID[..12]], "shop", "blog"),
        (&["--cgroup", &in_shop], "blog", "shop"),
    ];
    for (filter, other, own) in wanted {
        let tracer = Tracer::start(&[&["-p", &master], filter].concat())?;
        // What is not emitted comes first, so that it would have been by then.
        fails(other)?;
        fails(own)?;
        tracer.wait_for(1)?;
        let account = tracer.stop()?;
        account.is_orderly()?;
        let endpoint = if own == "shop" { shop.endpoint() } else { blog.endpoint() };
        account.only(endpoint)?.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
    }

    // What was recorded without one is chosen by one later.
    let recorder = Recorder::start(&["-p", &master])?;
    fails("shop")?;
    fails("blog")?;
    let recorded = recorder.stop()?;
    recorded.is_orderly()?;
    let file = recorded.file();
    let file = file.to_str().context("a name")?;
    for (filter, count) in [(&[][..], 2), (&["--unit", "shop.service"], 1), (&["--unit", "nobody"], 0)] {
        let run = tracer::run(&[&["report", "-o", "json", file], filter].concat())?;
        let emitted = run.stdout.iter().filter(|line| line.contains(r#""type":"verdict""#)).count();
        ensure!(emitted == count, "{filter:?} tells {emitted}: {run:#?}");
    }
    ensure!(recorder::report(&[recorded.file().as_path()])?.verdicts.len() == 2);
    fs::metadata(file)?;
    Ok(())
}
