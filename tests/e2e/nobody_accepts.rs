//! `read_timeout/nobody_accepts`: a listener that nobody accepts from, and who holds it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::process::{self, Pid, Process};
use rig::reconcile::pair_off;
use rig::{Endpoint, Fault, FaultyServer, Location, Namespace, Nginx, Sight, Tracer, Verdict, wait};

const READ: Duration = Duration::from_secs(1);

const STUCK: &str = "Nobody works that queue off";

/// Listens, answers that many requests with an empty `200`, and does no more: what comes last on its command line is run in its place, or it
/// waits for a signal. The listener stays open.
const SERVER: &str = r#"import os, signal, socket, sys
at, backlog, answers, *then = sys.argv[1:]
family = socket.AF_UNIX if at.startswith("/") else socket.AF_INET
listener = socket.socket(family)
if family == socket.AF_UNIX:
    listener.bind(at)
else:
    host, port = at.split(":")
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, int(port)))
listener.listen(int(backlog))
os.set_inheritable(listener.fileno(), True)
for _ in range(int(answers)):
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(4096):
        pass
    connection.close()
if then:
    os.execvp(then[0], then)
signal.pause()"#;

fn serve(namespace: &Namespace, at: &Endpoint, backlog: u32, answers: u32, then: &[&str]) -> Result<Process> {
    let mut command = namespace.command(process::find_program(&["python3"])?);
    command.args(["-c", SERVER, &at.to_string(), &backlog.to_string(), &answers.to_string()]).args(then);
    let server = namespace.start(command)?;
    namespace.wait_for_listener(at)?;
    Ok(server)
}

fn held_by(verdict: &Verdict, pid: Pid, comm: &str) -> Result<()> {
    let holders = verdict.holders.as_deref().with_context(|| format!("nobody looked: {verdict:#?}"))?;
    ensure!(holders.len() == 1 && holders[0].pid == pid && holders[0].comm == comm, "{verdict:#?}");
    ensure!(holders[0].doing.is_some(), "{verdict:#?}");
    ensure!(verdict.explanation.contains(&format!("held by {comm} {pid} alone")), "{verdict:#?}");
    Ok(())
}

#[test]
fn a_listener_that_a_sleep_has_inherited_is_held_by_nobody_who_accepts() -> Result<()> {
    let namespace = Namespace::new()?;
    for endpoint in [Endpoint::v4(9001), Endpoint::Unix(namespace.scratch().join("leaked.sock"))] {
        let sleep = serve(&namespace, &endpoint, 1, 0, &["sleep", "1000"])?;
        let location = Location::http("/", &endpoint).read_timeout(READ).connect_timeout(READ);
        let nginx = Nginx::on(&namespace).location(location).start()?;
        let tracer = Tracer::of(nginx.master())?;
        // A backlog of one lets two wait; others find no room.
        let is_unix = matches!(endpoint, Endpoint::Unix(_));
        for _ in 0..2 {
            ensure!(nginx.client().get("/")?.status == 504);
        }
        tracer.wait_for(2)?;
        // Who holds a listener is looked at for a twentieth of the time only, and these come one after the other at once.
        let mut emitted = 2;
        wait::until_true("a look at the full queue", || {
            ensure!(nginx.client().get("/")?.status == if is_unix { 502 } else { 504 });
            emitted += 1;
            tracer.wait_for(emitted)?;
            Ok(tracer.lines().so_far().iter().any(|line| line.contains(STUCK)))
        })?;
        let account = tracer.stop()?;
        account.is_orderly()?;
        pair_off(&nginx.failures(), &account.verdicts)?;
        let [first, second, full @ ..] = account.verdicts.as_slice() else { anyhow::bail!("{account:#?}") };
        // That nobody left the queue since shows only where the end of what was given up does.
        let is_followed = !is_unix || Sight::here()?.has("unix_sockets")?;
        for (verdict, sure) in [(first, "proven"), (second, if is_followed { "proven" } else { "inferred" })]
        {
            verdict.says("read_timeout/nobody_accepts", sure, 504, Some("ETIMEDOUT"))?;
            held_by(verdict, sleep.pid(), "sleep")?;
            ensure!(verdict.explanation.contains("which slept (clock_nanosleep)"), "{verdict:#?}");
            let advice = verdict.advice.as_deref().unwrap_or_default();
            ensure!(advice.contains("inherited"), "{verdict:#?}");
        }
        let detail = if is_unix { "unix_backlog_full" } else { "syn_dropped" };
        for verdict in full {
            ensure!(verdict.name() == format!("accept_queue_overflow/{detail}"), "{verdict:#?}");
        }
        let last = full.last().context("none found it full")?;
        held_by(last, sleep.pid(), "sleep")?;
        ensure!(last.explanation.contains(STUCK), "{last:#?}");
    }
    Ok(())
}

#[test]
fn a_server_that_hangs_outside_of_accept_is_told_from_one_at_work() -> Result<()> {
    let namespace = Namespace::new()?;
    let (hangs, works) = (Endpoint::v4(9001), Endpoint::v4(9002));
    // It answered a request before.
    let hung = serve(&namespace, &hangs, 16, 1, &[])?;
    // Takes one at a time, and has one.
    let busy = "import socket, sys, signal
listener = socket.create_server(('127.0.0.1', 9002))
connection, _ = listener.accept()
signal.pause()";
    let mut command = namespace.command(process::find_program(&["python3"])?);
    command.args(["-c", busy]);
    let _busy = namespace.start(command)?;
    namespace.wait_for_listener(&works)?;
    let never = FaultyServer::start(&namespace, Fault::NeverAccept, Endpoint::v4(9003), 16)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/hangs/", &hangs).read_timeout(READ))
        .location(Location::http("/works/", &works).read_timeout(READ))
        .location(Location::http("/never/", never.endpoint()).read_timeout(READ))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    ensure!(client.get("/hangs/")?.status == 200);
    for _ in 0..2 {
        for path in ["/hangs/", "/works/", "/never/"] {
            ensure!(client.get(path)?.status == 504);
        }
    }
    tracer.wait_for(6)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    for verdict in account.about(&hangs) {
        verdict.says("read_timeout/nobody_accepts", "proven", 504, Some("ETIMEDOUT"))?;
        held_by(verdict, hung.pid(), "python3")?;
    }
    for verdict in account.about(never.endpoint()) {
        verdict.says("read_timeout/nobody_accepts", "proven", 504, Some("ETIMEDOUT"))?;
        held_by(verdict, never.pid(), "faulty-server")?;
    }
    let names: Vec<_> = account.about(&works).iter().map(|verdict| verdict.name()).collect();
    ensure!(names == ["read_timeout/slow_worker", "read_timeout/never_accepted"], "{names:?}");
    Ok(())
}

#[test]
fn a_server_that_stands_still_is_named_and_one_that_goes_on_is_not_said_to_hang() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9001), 16)?;
    let nginx =
        Nginx::on(&namespace).location(Location::http("/", server.endpoint()).read_timeout(READ)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    ensure!(client.get("/")?.status == 200);
    for round in 1..3 {
        let stopped = process::stop(server.pid())?;
        ensure!(client.get("/")?.status == 504);
        tracer.wait_for(round)?;
        drop(stopped);
        // It works off what had waited.
        ensure!(client.get("/")?.status == 200);
    }
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let (looked_at, not): (Vec<_>, Vec<_>) =
        account.about(server.endpoint()).into_iter().partition(|verdict| verdict.holders.is_some());
    ensure!(!looked_at.is_empty(), "{account:#?}");
    // Where a look takes long, as in an emulated machine, there is none within the second after another.
    for verdict in not {
        verdict.says("read_timeout/never_accepted", "proven", 504, Some("ETIMEDOUT"))?;
    }
    for verdict in looked_at {
        verdict.says("read_timeout/nobody_accepts", "proven", 504, Some("ETIMEDOUT"))?;
        held_by(verdict, server.pid(), "faulty-server")?;
        ensure!(verdict.explanation.contains("was stopped"), "{verdict:#?}");
        ensure!(verdict.advice.as_deref().unwrap_or_default().contains("SIGSTOP"), "{verdict:#?}");
    }
    Ok(())
}

#[test]
fn a_queue_that_was_worked_off_before_anybody_looked_is_not_said_to_stand_still() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9001), 16)?;
    let nginx =
        Nginx::on(&namespace).location(Location::http("/", server.endpoint()).read_timeout(READ)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    ensure!(client.get("/")?.status == 200);
    let busy = process::stop(server.pid())?;
    tracer.signal(Signal::SIGSTOP)?;
    ensure!(client.get("/")?.status == 504);
    drop(busy);
    namespace.wait_for_queue(server.endpoint(), 0)?;
    ensure!(client.get("/")?.status == 200);
    tracer.signal(Signal::SIGCONT)?;
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let verdict = account.only(server.endpoint())?;
    verdict.says("read_timeout/never_accepted", "proven", 504, Some("ETIMEDOUT"))
}
