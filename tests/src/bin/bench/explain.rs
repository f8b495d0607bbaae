//! What each tool could explain of the same failures: all of them watch at once.
//!
//! A failure counts as explained when one line of what the tool says has what the explanation consists of. Nobody is asked to
//! conclude anything from several lines.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use rig::process::{self, Process};
use rig::{Client, Endpoint, Fpm, Location, Namespace, Nginx};

use crate::figure::{emit, note, progress};
use crate::stage::Stage;
use crate::tool::{Ended, Tool, Watched};

const PORT: u16 = 8082;
const REFUSED: u16 = 9101;
const KILLED: u16 = 9102;
const FULL: u16 = 9103;
const BUSY: u16 = 9104;
const SLOW: u16 = 9105;

/// A failure that was made, and what an explanation of it is.
struct Failure {
    name: &'static str,
    /// Any of these, each of which is words of one line.
    explanations: Vec<Vec<String>>,
}

/// Makes the failures and emits who explained which.
pub(crate) fn measure(stage: &Stage) -> Result<()> {
    progress("five failures, watched by every tool at once");
    let namespace = &stage.namespace;
    let mut scene = Scene::set(namespace)?;
    let workers = scene.nginx.workers()?;
    let watched = Watched {
        namespace: namespace.clone(),
        workers,
        ports: "portrange 9101-9105",
        upstream: None,
        _nginx: None,
    };
    let mut running = Vec::new();
    for tool in Tool::ALL {
        match tool.start(&watched) {
            Ok(started) => running.push(started),
            Err(error) if tool != Tool::Why502 => {
                note("failures", tool.name(), &format!("does not work here: {error}"))?;
            }
            Err(error) => return Err(error),
        }
    }
    let client = scene.nginx.client();
    let failures = [
        scene.refused(&client)?,
        scene.killed(&client)?,
        scene.full(&client)?,
        scene.busy(&client)?,
        scene.slow(&client)?,
    ];
    for running in running {
        let name = running.name();
        let said = running.stop().and_then(|ended: Ended| ended.said())?;
        for Failure { name: failure, explanations } in &failures {
            let is_explained = explanations
                .iter()
                .any(|words| said.lines().any(|line| words.iter().all(|word| has_word(line, word))));
            emit(failure, name, "explained", f64::from(u8::from(is_explained)))?;
        }
    }
    Ok(())
}

/// Who fails: an nginx with one php-fpm for each failure.
struct Scene {
    namespace: Namespace,
    nginx: Nginx,
    refused: Fpm,
    killed: Fpm,
    full: Fpm,
    busy: Fpm,
    slow: Fpm,
}

impl Scene {
    fn set(namespace: &Namespace) -> Result<Scene> {
        let pool = |port| Fpm::on(namespace).listen(Endpoint::v4(port));
        let refused = pool(REFUSED).start()?;
        let killed = pool(KILLED).start()?;
        let full = pool(FULL).backlog(1).start()?;
        let busy = pool(BUSY).workers(1).start()?;
        let slow = pool(SLOW).start()?;
        let nginx = Nginx::on(namespace)
            .port(PORT)
            .location(Location::fpm("/refused/", &refused))
            .location(Location::fpm("/killed/", &killed))
            .location(Location::fpm("/full/", &full).connect_timeout(Duration::from_millis(800)))
            .location(Location::fpm("/busy/", &busy).read_timeout(Duration::from_secs(1)))
            .location(Location::fpm("/patient/", &busy))
            .location(Location::fpm("/slow/", &slow).read_timeout(Duration::from_millis(2500)))
            .start()?;
        Ok(Scene { namespace: namespace.clone(), nginx, refused, killed, full, busy, slow })
    }

    /// To be said: that the upstream's host answered with a reset, or its errno.
    fn refused(&mut self, client: &Client) -> Result<Failure> {
        self.refused.stop(Signal::SIGTERM)?;
        self.namespace.wait_for_no_listener(&Endpoint::v4(REFUSED))?;
        fails(client, "/refused/ok.php", 502)?;
        let reset = [format!("127.0.0.1.{REFUSED}"), "Flags [R.]".into()];
        let state = [REFUSED.to_string(), "state 2 -> 7".into()];
        Ok(failure("refused", &[&["no_listener".into()], &["ECONNREFUSED".into()], &reset, &state]))
    }

    /// To be said: which process sent which signal.
    fn killed(&mut self, client: &Client) -> Result<Failure> {
        let asked = client.ask("/killed/sleep.php?s=30&tag=victim")?;
        let worker = self.killed.worker_on("victim")?;
        let mut shell = process::command("/bin/sh");
        shell.args(["-c", &format!("kill -9 {worker}; exit 0")]);
        let mut shell = Process::start(shell)?;
        let killer = shell.pid().to_string();
        ensure!(shell.wait()?.success(), "the shell could not kill");
        ensure!(asked.answer()?.status == 502, "nginx did not answer 502");
        Ok(failure("worker_killed", &[&[killer.clone(), "SIGKILL".into()], &[killer, "signal 9".into()]]))
    }

    /// To be said: that a queue was full.
    fn full(&mut self, client: &Client) -> Result<Failure> {
        self.full.freeze()?;
        let _fillers = self.namespace.fill_queue(&Endpoint::v4(FULL), 2)?;
        fails(client, "/full/ok.php", 504)?;
        let port = FULL.to_string();
        let full = [port.clone(), "queue".into(), "full".into()];
        Ok(failure("accept_queue_overflow", &[&[port, "accept_queue_overflow".into()], &full]))
    }

    /// To be said: that no worker accepted the connection.
    fn busy(&mut self, client: &Client) -> Result<Failure> {
        let occupying = client.ask("/patient/sleep.php?s=2&tag=occupying")?;
        self.busy.worker_on("occupying")?;
        fails(client, "/busy/ok.php", 504)?;
        ensure!(occupying.answer()?.status == 200, "the busy worker did not answer");
        let port = BUSY.to_string();
        Ok(failure("never_accepted", &[&[port.clone(), "never_accepted".into()], &[port, "accept".into()]]))
    }

    /// To be said: the worker, and what it waited for.
    fn slow(&mut self, client: &Client) -> Result<Failure> {
        let asked = client.ask("/slow/sleep.php?s=4&tag=slow")?;
        let worker = self.slow.worker_on("slow")?;
        ensure!(asked.answer()?.status == 504, "nginx did not answer 504");
        Ok(failure("slow_worker", &[&[worker.to_string(), "clock_nanosleep".into()]]))
    }
}

fn failure(name: &'static str, explanations: &[&[String]]) -> Failure {
    Failure { name, explanations: explanations.iter().map(|words| words.to_vec()).collect() }
}

fn fails(client: &Client, path: &str, status: u16) -> Result<()> {
    let answer = client.get(path)?.status;
    ensure!(answer == status, "nginx answered {answer} instead of {status} to {path}");
    Ok(())
}

/// Whether a line has a word, or a number that is not part of a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let is_digit = |character: Option<char>| character.is_some_and(|c| c.is_ascii_digit());
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (line[..at].chars().next_back(), line[at + word.len()..].chars().next());
        let (first, last) = (word.chars().next(), word.chars().next_back());
        !(is_digit(first) && is_digit(before) || is_digit(last) && is_digit(after))
    })
}
