//! An incident: a real nginx and real php-fpm, broken in one way after another.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use crate::process::{self, Process};
use crate::{Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx};

/// So long that a reader can follow, after each verdict.
pub const BREATH: Duration = Duration::from_millis(400);

/// What is broken: an nginx in front of one php-fpm for each scene.
#[derive(Debug)]
pub struct Incident {
    namespace: Namespace,
    say: fn(&str),
    nginx: Nginx,
    stopped: Fpm,
    timed: Fpm,
    plain: Fpm,
    full: Fpm,
    busy: Fpm,
    cut: FaultyServer,
}

/// One way in which exchanges fail.
pub type Scene = fn(&mut Incident) -> Result<()>;

impl Incident {
    /// Each way, with the number of verdicts that it leads to.
    pub const SCENES: [(Scene, usize); 8] = [
        (Incident::refused, 1),
        (Incident::terminated, 1),
        (Incident::killed_by_hand, 1),
        (Incident::queue_overflow, 1),
        (Incident::never_accepted, 1),
        (Incident::slow_worker, 1),
        (Incident::cut_short, 1),
        (Incident::no_live_upstreams, 3),
    ];

    /// Starts all of it; what happens is said in sentences.
    pub fn set(namespace: &Namespace, say: fn(&str)) -> Result<Incident> {
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
        Ok(Incident { namespace: namespace.clone(), say, nginx, stopped, timed, plain, full, busy, cut })
    }

    /// The nginx.
    pub fn nginx(&self) -> &Nginx {
        &self.nginx
    }

    /// Some requests that succeed.
    pub fn healthy(&self) -> Result<()> {
        (self.say)(
            "First some healthy requests, twenty to each of five php-fpm pools. About these why502 says nothing.",
        );
        for prefix in ["stopped", "timed", "plain", "full", "busy"] {
            let statuses = self.nginx.client().storm(&format!("/{prefix}/ok.php"), 20, 2)?;
            ensure!(statuses == [(200, 20)].into(), "{prefix}: {statuses:?}");
        }
        Ok(())
    }

    fn refused(&mut self) -> Result<()> {
        let upstream = self.stopped.endpoint().clone();
        (self.say)(&format!("Stopping php-fpm's port: nobody listens on {upstream} now; one request."));
        self.stopped.stop(Signal::SIGTERM)?;
        self.namespace.wait_for_no_listener(&upstream)?;
        self.fails("/stopped/ok.php", 502)
    }

    fn terminated(&mut self) -> Result<()> {
        (self.say)(&format!(
            "A request that takes longer than the request_terminate_timeout of 2 s of the pool on {}.",
            self.timed.endpoint()
        ));
        self.fails("/timed/sleep.php?s=30", 502)
    }

    fn killed_by_hand(&mut self) -> Result<()> {
        let asked = self.nginx.client().ask("/plain/sleep.php?s=30&tag=victim")?;
        let worker = self.plain.worker_on("victim")?;
        // A little into the request, as a person would be.
        thread::sleep(BREATH);
        let mut shell = process::command("/bin/sh");
        shell.args(["-c", &format!("kill -9 {worker}")]);
        (self.say)(&format!(
            "Someone types kill -9 {worker} into a shell, and that is a php-fpm worker in the middle of a request."
        ));
        ensure!(Process::start(shell)?.wait()?.success(), "the shell could not kill");
        answers(asked.answer()?.status, 502)
    }

    fn queue_overflow(&mut self) -> Result<()> {
        let upstream = self.full.endpoint().clone();
        (self.say)(&format!(
            "The workers on {upstream} stand still and their accept queue is full; one request, for which nginx tries to \
             connect for 0.8 s."
        ));
        self.full.freeze()?;
        let _fillers = self.namespace.fill_queue(&upstream, 2)?;
        self.fails("/full/ok.php", 504)
    }

    fn never_accepted(&mut self) -> Result<()> {
        (self.say)(&format!(
            "The only worker on {} is busy for 3 s; one more request, for whose response nginx waits 1 s.",
            self.busy.endpoint()
        ));
        let occupying = self.nginx.client().ask("/patient/sleep.php?s=3&tag=occupying")?;
        self.busy.worker_on("occupying")?;
        self.fails("/busy/ok.php", 504)?;
        answers(occupying.answer()?.status, 200)
    }

    fn slow_worker(&mut self) -> Result<()> {
        (self.say)(&format!(
            "A script on {} that takes 3 s; one request, for whose response nginx waits 1 s.",
            self.plain.endpoint()
        ));
        self.fails("/slow/sleep.php?s=3", 504)
    }

    fn cut_short(&mut self) -> Result<()> {
        (self.say)(&format!(
            "A server on {} that says how long its response is, sends less and closes; one request.",
            self.cut.endpoint()
        ));
        // What is cut off is no answer, or half of one.
        let _cut = self.nginx.client().get("/cut-length/");
        Ok(())
    }

    fn no_live_upstreams(&mut self) -> Result<()> {
        (self.say)("A group of two servers, and nobody listens on either; two requests.");
        self.fails("/pair/", 502)?;
        self.fails("/pair/", 502)
    }

    fn fails(&self, path: &str, status: u16) -> Result<()> {
        answers(self.nginx.client().get(path)?.status, status)
    }
}

fn answers(status: u16, expected: u16) -> Result<()> {
    ensure!(status == expected, "nginx answered {status} instead of {expected}");
    Ok(())
}
