//! The demonstration: a real nginx and real php-fpm, broken in one way after another, while `why502 live`
//! watches.
//!
//! All of it happens in a network namespace of its own; nothing is left of it, also after Ctrl-C.

use std::io::{IsTerminal, Write, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use rig::process::{self, Process};
use rig::terminal::Terminal;
use rig::tracer::Run;
use rig::{Client, Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Tracer, interrupt, wait};

/// So long that a reader can follow, after each verdict.
const BREATH: Duration = Duration::from_millis(400);

fn main() -> ExitCode {
    interrupt::run("demo", |namespace| show(namespace).map(|()| ExitCode::SUCCESS))
}

fn show(namespace: &Namespace) -> Result<()> {
    tell("Starting nginx and php-fpm in a network namespace of their own.");
    let stage = Stage::set(namespace)?;
    let master = stage.nginx.master().to_string();
    let verdicts = Arc::new(AtomicUsize::new(0));
    let (seen, terminal) = (Arc::clone(&verdicts), terminal());
    let tracer = Tracer::spawn(&["-p", &master], Some(terminal), move |line| {
        let _ = writeln!(stdout(), "{line}");
        // A verdict has a status behind its time; what belongs to it is indented.
        let status = line.split_whitespace().nth(1).filter(|_| !line.starts_with(' '));
        if status.is_some_and(|status| status == "---" || status.parse::<u16>().is_ok()) {
            seen.fetch_add(1, Ordering::Relaxed);
        }
    })?;
    tell(&format!("why502 live -p {master}: attached, watching nginx."));

    let client = stage.nginx.client();
    stage.healthy(&client)?;
    type Scene = fn(&mut Stage, &Client) -> Result<()>;
    // Each with the number of its verdicts.
    let scenes: [(Scene, usize); 8] = [
        (Stage::refused, 1),
        (Stage::terminated, 1),
        (Stage::killed_by_hand, 1),
        (Stage::queue_overflow, 1),
        (Stage::never_accepted, 1),
        (Stage::slow_worker, 1),
        (Stage::cut_short, 1),
        (Stage::no_live_upstreams, 3),
    ];
    let (mut stage, mut expected) = (stage, 0);
    for (scene, its) in scenes {
        scene(&mut stage, &client)?;
        expected += its;
        wait::until_true("why502's verdict", || Ok(verdicts.load(Ordering::Relaxed) >= expected))?;
        thread::sleep(BREATH);
    }

    tell("Ctrl-C for why502, which sums up:");
    tracer.signal(Signal::SIGINT)?;
    let Run { stderr, status, .. } = tracer.end()?;
    ensure!(status.success(), "why502 ended with {status}: {stderr}");
    let logged = stage.nginx.failures().len();
    tell(&format!(
        "nginx's own error log has {logged} lines about them, and says of hardly any of them more than an errno."
    ));
    Ok(())
}

/// What is broken: an nginx in front of one php-fpm for each scene.
struct Stage {
    namespace: Namespace,
    nginx: Nginx,
    stopped: Fpm,
    timed: Fpm,
    plain: Fpm,
    full: Fpm,
    busy: Fpm,
    cut: FaultyServer,
}

impl Stage {
    fn set(namespace: &Namespace) -> Result<Stage> {
        let pool = |port| Fpm::on(namespace).listen(Endpoint::v4(port));
        let stopped = pool(19009).start()?;
        let timed = pool(19001).terminate_after(Duration::from_secs(2)).start()?;
        let plain = pool(19002).start()?;
        let full = pool(19003).backlog(1).start()?;
        let busy = pool(19004).workers(1).start()?;
        let cut = FaultyServer::start(namespace, Fault::CutLength, Endpoint::v4(19005), 4)?;
        let [one, other] = [19006, 19007].map(Endpoint::v4);
        let nginx = Nginx::on(namespace)
            .group("pair", &[&one, &other], &[])
            .location(Location::http("/pair/", &one).through_group("pair"))
            .location(cut.location())
            .location(Location::fpm("/stopped/", &stopped))
            .location(Location::fpm("/timed/", &timed))
            .location(Location::fpm("/plain/", &plain))
            .location(Location::fpm("/full/", &full).connect_timeout(Duration::from_millis(800)))
            .location(Location::fpm("/busy/", &busy).read_timeout(Duration::from_secs(1)))
            .location(Location::fpm("/patient/", &busy))
            .location(Location::fpm("/slow/", &plain).read_timeout(Duration::from_secs(1)))
            .start()?;
        Ok(Stage { namespace: namespace.clone(), nginx, stopped, timed, plain, full, busy, cut })
    }

    fn healthy(&self, client: &Client) -> Result<()> {
        tell(
            "First some healthy requests, twenty to each of five php-fpm pools. About these why502 says nothing.",
        );
        for prefix in ["stopped", "timed", "plain", "full", "busy"] {
            let statuses = client.storm(&format!("/{prefix}/ok.php"), 20, 2)?;
            ensure!(statuses == [(200, 20)].into(), "{prefix}: {statuses:?}");
        }
        Ok(())
    }

    fn refused(&mut self, client: &Client) -> Result<()> {
        let upstream = self.stopped.endpoint().clone();
        tell(&format!("Stopping php-fpm's port: nobody listens on {upstream} now; one request."));
        self.stopped.stop(Signal::SIGTERM)?;
        self.namespace.wait_for_no_listener(&upstream)?;
        fails(client, "/stopped/ok.php", 502)
    }

    fn terminated(&mut self, client: &Client) -> Result<()> {
        tell(&format!(
            "A request that takes longer than the request_terminate_timeout of 2 s of the pool on {}.",
            self.timed.endpoint()
        ));
        fails(client, "/timed/sleep.php?s=30", 502)
    }

    fn killed_by_hand(&mut self, client: &Client) -> Result<()> {
        let asked = client.ask("/plain/sleep.php?s=30&tag=victim")?;
        let worker = self.plain.worker_on("victim")?;
        // A little into the request, as a person would be.
        thread::sleep(BREATH);
        let mut shell = process::command("/bin/sh");
        shell.args(["-c", &format!("kill -9 {worker}")]);
        tell(&format!(
            "Someone types kill -9 {worker} into a shell, and that is a php-fpm worker in the middle of a request."
        ));
        ensure!(Process::start(shell)?.wait()?.success(), "the shell could not kill");
        answers(asked.answer()?.status, 502)
    }

    fn queue_overflow(&mut self, client: &Client) -> Result<()> {
        let upstream = self.full.endpoint().clone();
        tell(&format!(
            "The workers on {upstream} stand still and their accept queue is full; one request, for which nginx tries to \
             connect for 0.8 s."
        ));
        self.full.freeze()?;
        let _fillers = self.namespace.fill_queue(&upstream, 2)?;
        fails(client, "/full/ok.php", 504)
    }

    fn never_accepted(&mut self, client: &Client) -> Result<()> {
        tell(&format!(
            "The only worker on {} is busy for 3 s; one more request, for whose response nginx waits 1 s.",
            self.busy.endpoint()
        ));
        let occupying = client.ask("/patient/sleep.php?s=3&tag=occupying")?;
        self.busy.worker_on("occupying")?;
        fails(client, "/busy/ok.php", 504)?;
        answers(occupying.answer()?.status, 200)
    }

    fn slow_worker(&mut self, client: &Client) -> Result<()> {
        tell(&format!(
            "A script on {} that takes 3 s; one request, for whose response nginx waits 1 s.",
            self.plain.endpoint()
        ));
        fails(client, "/slow/sleep.php?s=3", 504)
    }

    fn cut_short(&mut self, client: &Client) -> Result<()> {
        tell(&format!(
            "A server on {} that says how long its response is, sends less and closes; one request.",
            self.cut.endpoint()
        ));
        // What is cut off is no answer, or half of one.
        let _cut = client.get("/cut-length/");
        Ok(())
    }

    fn no_live_upstreams(&mut self, client: &Client) -> Result<()> {
        tell("A group of two servers, and nobody listens on either; two requests.");
        fails(client, "/pair/", 502)?;
        fails(client, "/pair/", 502)
    }
}

fn fails(client: &Client, path: &str, status: u16) -> Result<()> {
    answers(client.get(path)?.status, status)
}

fn answers(status: u16, expected: u16) -> Result<()> {
    ensure!(status == expected, "nginx answered {status} instead of {expected}");
    Ok(())
}

fn tell(sentence: &str) {
    // A closed standard output is noticed by why502's lines, too; it ends nothing here.
    let _ = writeln!(stdout(), "\n# {sentence}");
}

/// Like the terminal that this runs on.
fn terminal() -> Terminal {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let columns = terminal_size::terminal_size_of(stdout()).map_or(110, |(width, _)| width.0);
    Terminal { columns, colour: stdout().is_terminal() && wanted }
}
