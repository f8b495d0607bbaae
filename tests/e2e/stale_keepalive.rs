//! The idle timers of the servers that people run, which go off while nginx sends the next request on a kept connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rig::process::{self, Pid};
use rig::reconcile::pair_off;
use rig::{Application, Location, Namespace, Nginx, Server, Tracer, wait};

fn nginx_before(namespace: &Namespace, servers: &[(&str, &Application)]) -> Result<Nginx> {
    let mut nginx = Nginx::on(namespace);
    for (name, server) in servers {
        nginx = nginx
            .group(name, &[server.endpoint()], &["keepalive 8"])
            .location(Location::http(&format!("/{name}/"), server.endpoint()).through_group(name));
    }
    nginx.start()
}

fn gunicorn(namespace: &Namespace, arguments: &'static [&'static str]) -> Result<Application> {
    Application::start(namespace, Server::Gunicorn(arguments), 9101)
}

fn worker_of(gunicorn: &Application) -> Result<Pid> {
    let workers = process::children(gunicorn.pid())?;
    workers.first().copied().context("gunicorn has no worker")
}

/// A client's connection that is kept.
struct Client(TcpStream);

impl Client {
    fn connect(namespace: &Namespace) -> Result<Client> {
        let stream = namespace.run(|| Ok(TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], 8080)))?))?;
        stream.set_read_timeout(Some(wait::bound()))?;
        Ok(Client(stream))
    }

    fn ask(&mut self, name: &str) -> Result<()> {
        Ok(write!(self.0, "GET /{name}/ok HTTP/1.1\r\nHost: rig\r\n\r\n")?)
    }

    fn answered(&mut self) -> Result<()> {
        let mut answer = Vec::new();
        let mut some = [0; 4096];
        while !answer.ends_with(b"ok\n") {
            let read = self.0.read(&mut some)?;
            ensure!(read > 0, "the answer ends: {}", String::from_utf8_lossy(&answer));
            answer.extend_from_slice(&some[..read]);
        }
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        Ok(())
    }
}

#[test]
fn the_idle_timeouts_of_node_gunicorn_and_puma_show_in_three_races() -> Result<()> {
    const ROUNDS: u32 = 3;
    let namespace = Namespace::new()?;
    let node = Application::start(&namespace, Server::Node, 9100)?;
    let gunicorn =
        gunicorn(&namespace, &["--worker-class", "gthread", "--threads", "2", "--keep-alive", "2"])?;
    let puma = Application::start(&namespace, Server::Puma, 9102)?;
    let servers = [("node", &node), ("gunicorn", &gunicorn), ("puma", &puma)];
    let nginx = nginx_before(&namespace, &servers)?;
    let tracer = Tracer::of(nginx.master())?;
    let mut clients = Vec::new();
    for (name, _) in servers {
        let mut client = Client::connect(&namespace)?;
        client.ask(name)?;
        client.answered()?;
        clients.push(client);
    }
    let worker = nginx.workers()?[0];
    for _ in 0..ROUNDS {
        // While nginx stands still, a request comes, and then the kept connection is closed: it sees them in this order.
        let frozen = process::stop(worker)?;
        for (client, (name, _)) in clients.iter_mut().zip(servers) {
            client.ask(name)?;
        }
        wait::until_true("the servers to close what is idle", || {
            let mut ss = namespace.command(process::find_program(&["ss"])?);
            ss.args(["-Hnt", "state", "established", "dport >= :9100 and dport <= :9102"]);
            Ok(process::output(ss)?.trim().is_empty())
        })?;
        drop(frozen);
        for client in &mut clients {
            client.answered()?;
        }
    }
    tracer.wait_for(9)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let closers = [node.pid(), worker_of(&gunicorn)?, puma.pid()];
    let settings = ["server.keepAliveTimeout", "--keep-alive", "persistent_timeout"];
    let least = [5_000_000, 2_000_000, 2_000_000];
    for (index, (name, server)) in servers.into_iter().enumerate() {
        let verdicts = account.about(server.endpoint());
        ensure!(verdicts.len() == 3, "{name}: {verdicts:#?}");
        for (verdict, round) in verdicts.iter().zip(1..=ROUNDS) {
            verdict.says("premature_close/stale_keepalive", "proven", 502, None)?;
            verdict.blames(Some(closers[index]), None, None)?;
            let kept = verdict.kept.as_ref().context("no kept connection")?;
            let closed = kept.closed_after_us.context("when it was closed is not known")?;
            // The timer may have begun a little before nginx had read the answer.
            ensure!(closed + 100_000 >= least[index] && kept.idle_us >= Some(closed), "{name}: {kept:?}");
            ensure!(kept.closes == Some(round), "{name}: {kept:?}");
            // gunicorn looks at its timers about once a second, and the others are late where the machine is busy: what counts as alike is
            // held against how long each was idle.
            let idle = verdicts.iter().filter_map(|other| other.kept.as_ref()?.closed_after_us);
            let alike =
                idle.take(round as usize).filter(|idle| idle.abs_diff(closed) <= (closed / 10).max(100_000));
            ensure!(kept.alike.map(|alike| alike as usize) == Some(alike.count()), "{name}: {kept:?}");
            let is_shown = verdict.explanation.contains("an idle timeout of about");
            ensure!(is_shown == (kept.alike == Some(ROUNDS)), "{name}: {verdict:#?}");
            let advice = verdict.advice.as_deref().unwrap_or_default();
            ensure!(advice.contains("keepalive_timeout") && advice.contains(settings[index]), "{advice}");
        }
    }
    Ok(())
}

#[test]
fn a_timer_that_goes_off_with_the_next_request_unread_is_a_reset() -> Result<()> {
    let namespace = Namespace::new()?;
    let node = Application::start(&namespace, Server::Node, 9100)?;
    let gunicorn =
        gunicorn(&namespace, &["--worker-class", "gthread", "--threads", "2", "--keep-alive", "5"])?;
    let servers = [("node", &node), ("gunicorn", &gunicorn)];
    let nginx = nginx_before(&namespace, &servers)?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    let closers = [node.pid(), worker_of(&gunicorn)?];
    for (name, _) in servers {
        ensure!(client.get(&format!("/{name}/ok"))?.status == 200, "{name}");
    }
    let answered = Instant::now();
    let idle_for = |least: u64| Ok(answered.elapsed() > Duration::from_millis(least));
    wait::until_true("the connections to have been idle", || idle_for(4_000))?;
    // A busy moment of the server's: when it comes to itself, its timer has gone off, and it looks at that first.
    let busy = [process::stop(closers[0])?, process::stop(closers[1])?];
    let asked = [client.ask("/node/ok")?, client.ask("/gunicorn/ok")?];
    wait::until_true("both requests to lie unread, and the timers to go off", || {
        let mut ss = namespace.command(process::find_program(&["ss"])?);
        ss.args(["-Hnt", "state", "established", "sport >= :9100 and sport <= :9101"]);
        let unread = process::output(ss)?.lines().filter(|line| !line.trim_start().starts_with('0')).count();
        Ok(unread == 2 && idle_for(6_800)?)
    })?;
    drop(busy);
    for one in asked {
        ensure!(one.answer()?.status == 200);
    }
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    for (closer, (name, server)) in closers.into_iter().zip(servers) {
        let verdict = account.only(server.endpoint())?;
        verdict.says("reset/stale_keepalive", "proven", 502, Some("ECONNRESET"))?;
        verdict.blames(Some(closer), None, None)?;
        ensure!(verdict.explanation.contains("had read nothing of the request"), "{name}: {verdict:#?}");
    }
    Ok(())
}
