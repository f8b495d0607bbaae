//! Who told an application server to stop, on the servers that people run; and how its workers crash once they have read the request.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use rig::memory::MemoryLimit;
use rig::reconcile::pair_off;
use rig::{Application, Endpoint, Location, Namespace, Nginx, Server, Sight, Tracer, Verdict, process, wait};

fn me() -> i32 {
    std::process::id().cast_signed()
}

fn explains(verdict: &Verdict, what: &str) -> Result<()> {
    ensure!(verdict.explanation.contains(what), "{what:?} is not in {verdict:#?}");
    Ok(())
}

#[test]
fn uwsgi_that_is_stopped_with_requests_under_way_names_who_stopped_it() -> Result<()> {
    let namespace = Namespace::new()?;
    let uwsgi = Application::start(&namespace, Server::Uwsgi, 9100)?;
    let nginx = Nginx::on(&namespace).location(Location::http("/", uwsgi.endpoint())).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let asked = [nginx.client().ask("/one")?, nginx.client().ask("/two")?];
    let mut workers = uwsgi.workers(2)?;
    uwsgi.signal(Signal::SIGINT)?;
    for one in asked {
        ensure!(one.answer()?.status == 502);
    }
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    for verdict in &account.verdicts {
        verdict.says("premature_close/worker_stopped", "proven", 502, None)?;
        let worker = verdict.worker_pid();
        verdict.blames(worker, Some("SIGINT"), Some(uwsgi.pid()))?;
        ensure!(worker.is_some_and(|pid| workers.contains(&pid)), "{workers:?}: {verdict:#?}");
        workers.retain(|pid| Some(*pid) != worker);
        explains(verdict, &format!("{} sent SIGINT to uwsgi", me()))?;
        explains(verdict, &format!("{}, which sent SIGINT to the uwsgi", uwsgi.pid()))?;
    }
    Ok(())
}

#[test]
fn gunicorns_timeout_is_an_abort_by_its_master() -> Result<()> {
    let namespace = Namespace::new()?;
    let gunicorn = Application::start(&namespace, Server::Gunicorn(&["--timeout", "1"]), 9100)?;
    let nginx = Nginx::on(&namespace).location(Location::http("/", gunicorn.endpoint())).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let asked = nginx.client().ask("/late")?;
    let worker = gunicorn.workers(1)?[0];
    ensure!(asked.answer()?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(gunicorn.endpoint())?;
    // Its handler raises an exception, at which Python closes the connection: the process still lives then.
    verdict.says("premature_close/worker_stopped", "inferred", 502, None)?;
    verdict.blames(Some(worker), Some("SIGABRT"), Some(gunicorn.pid()))?;
    ensure!(verdict.advice.as_ref().is_some_and(|advice| advice.contains("--timeout")), "{verdict:#?}");
    Ok(())
}

#[test]
fn a_master_that_kills_after_its_grace_is_traced_to_who_stopped_it() -> Result<()> {
    let namespace = Namespace::new()?;
    let gunicorn = Application::start(&namespace, Server::Gunicorn(&["--graceful-timeout", "1"]), 9100)?;
    let nginx = Nginx::on(&namespace).location(Location::http("/", gunicorn.endpoint())).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let asked = nginx.client().ask("/kept")?;
    let worker = gunicorn.workers(1)?[0];
    gunicorn.signal(Signal::SIGTERM)?;
    ensure!(asked.answer()?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(gunicorn.endpoint())?;
    verdict.says("premature_close/worker_killed", "proven", 502, None)?;
    verdict.blames(Some(worker), Some("SIGKILL"), Some(gunicorn.pid()))?;
    explains(verdict, &format!("{} had sent SIGTERM to gunicorn {}", me(), gunicorn.pid()))
}

#[test]
fn a_server_that_exits_or_closes_at_sigterm_was_stopped() -> Result<()> {
    let namespace = Namespace::new()?;
    let node = Application::start(&namespace, Server::Node, 9100)?;
    let python = Application::start(&namespace, Server::Python, 9101)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/node/", node.endpoint()))
        .location(Location::http("/python/", python.endpoint()))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let asked = [nginx.client().ask("/node/wait")?, nginx.client().ask("/python/wait")?];
    for server in [&node, &python] {
        server.workers(1)?;
        server.signal(Signal::SIGTERM)?;
    }
    for one in asked {
        ensure!(one.answer()?.status == 502);
    }
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(node.endpoint())?;
    verdict.says("premature_close/worker_stopped", "proven", 502, None)?;
    verdict.blames(Some(node.pid()), Some("SIGTERM"), Some(me()))?;
    // sys.exit lets Python close the connection while it still lives.
    let verdict = account.only(python.endpoint())?;
    verdict.says("premature_close/worker_stopped", "inferred", 502, None)?;
    verdict.blames(Some(python.pid()), Some("SIGTERM"), Some(me()))
}

/// Accepts one connection, reads nothing of what arrives on it, and exits when it is told to stop.
const EXITS_UNREAD: &str = "
import os, select, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
server = socket.create_server(('127.0.0.1', 9100))
open(sys.argv[1], 'w').close()
taken = server.accept()[0]
select.select([taken], [], [])
open(sys.argv[2], 'w').close()
while True:
    signal.pause()
";

#[test]
fn a_server_that_exits_at_sigterm_before_it_reads_is_never_proven_to_have_exited_by_itself() -> Result<()> {
    let namespace = Namespace::new()?;
    let (listens, taken) = (namespace.scratch().join("listens"), namespace.scratch().join("taken"));
    let mut python = namespace.command(process::find_program(&["/usr/bin/python3", "python3"])?);
    python.args(["-c", EXITS_UNREAD]).args([&listens, &taken]);
    let mut python = namespace.start(python)?;
    wait::until_true("the server to listen", || Ok(listens.exists()))?;
    let upstream = Endpoint::v4(9100);
    let nginx = Nginx::on(&namespace).location(Location::http("/", &upstream)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let asked = nginx.client().ask("/")?;
    wait::until_true("the server to have the request", || Ok(taken.exists()))?;
    python.signal(Signal::SIGTERM)?;
    ensure!(asked.answer()?.status == 502);
    ensure!(python.wait()?.code() == Some(0));
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(&upstream)?;
    if Sight::here()?.has("accepts")? {
        verdict.says("reset/worker_stopped", "proven", 502, Some("ECONNRESET"))?;
        return verdict.blames(Some(python.pid()), Some("SIGTERM"), Some(me()));
    }
    verdict.says("reset/worker_exited", "inferred", 502, Some("ECONNRESET"))?;
    explains(verdict, "Whether a signal had told it to is not known")
}

#[test]
fn who_is_only_told_to_open_its_logs_anew_closes_of_its_own_accord() -> Result<()> {
    let namespace = Namespace::new()?;
    let python = Application::start(&namespace, Server::Python, 9100)?;
    let nginx = Nginx::on(&namespace).location(Location::http("/", python.endpoint())).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let asked = nginx.client().ask("/wait")?;
    python.workers(1)?;
    // Not by its parent, which the test is: that would be an order.
    let mut shell = process::command("/bin/sh");
    shell.args(["-c", &format!("kill -HUP {}", python.pid())]);
    ensure!(process::Process::start(shell)?.wait()?.success());
    ensure!(asked.answer()?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let verdict = account.only(python.endpoint())?;
    verdict.says("premature_close/peer_closed", "proven", 502, None)?;
    verdict.blames(Some(python.pid()), None, None)
}

#[test]
fn a_worker_that_has_read_the_request_crashes_or_is_out_of_memory() -> Result<()> {
    let namespace = Namespace::new()?;
    let limit = MemoryLimit::new(64 << 20)?;
    let start = |port| Application::start(&namespace, Server::Python, port);
    let (aborts, faults, hoards, shot) = (start(9100)?, start(9101)?, start(9102)?, start(9103)?);
    limit.hold(hoards.pid())?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/9100/", aborts.endpoint()))
        .location(Location::http("/9101/", faults.endpoint()))
        .location(Location::http("/9102/", hoards.endpoint()))
        .location(Location::http("/9103/", shot.endpoint()))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    for path in ["/9100/abort", "/9101/segfault", "/9102/hoard"] {
        ensure!(nginx.client().get(path)?.status == 502, "{path}");
    }
    let asked = nginx.client().ask("/9103/wait")?;
    shot.workers(1)?;
    process::send(shot.pid(), Signal::SIGSEGV)?;
    ensure!(asked.answer()?.status == 502);
    tracer.wait_for(4)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    for (server, signal, killer) in
        [(&aborts, "SIGABRT", Some(aborts.pid())), (&faults, "SIGSEGV", None), (&shot, "SIGSEGV", Some(me()))]
    {
        let verdict = account.only(server.endpoint())?;
        verdict.says("premature_close/worker_crashed", "proven", 502, None)?;
        verdict.blames(Some(server.pid()), Some(signal), killer)?;
        ensure!(!verdict.explanation.contains("itself"), "{verdict:#?}");
    }
    let verdict = account.only(hoards.endpoint())?;
    verdict.says("premature_close/worker_oom_killed", "proven", 502, None)?;
    verdict.blames(Some(hoards.pid()), Some("SIGKILL"), None)
}
