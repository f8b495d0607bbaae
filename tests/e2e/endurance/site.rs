//! The site that the tracers watch: nginx, php-fpm, servers that misbehave, and what is done to them in a round.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::mem;
use std::path::PathBuf;
use std::process::id;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd;
use rig::error_log::{self, Failure};
use rig::process::Pid;
use rig::reconcile::pair_off_but_for;
use rig::tracer::Account;
use rig::{
    Client, Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Sight, Tracer, Verdict, wait,
};

use super::dice::Dice;

const READ: Duration = Duration::from_millis(1_500);
/// Shorter than the second after which a SYN is sent again.
const CONNECT: Duration = Duration::from_millis(800);

/// Clients of a round that go away. One that does before nginx has connected for it leaves no trace.
const LEAVING: usize = 10;

/// Servers of each round: how each misbehaves, its port and its backlog.
const FAULTS: [(Fault, u16, i32); 9] = [
    (Fault::CloseUnanswered, 9101, 512),
    (Fault::Reset, 9102, 512),
    (Fault::NeverAccept, 9103, 512),
    (Fault::Mute, 9104, 512),
    (Fault::StallMidway, 9105, 512),
    (Fault::ResetMidway, 9106, 512),
    (Fault::Answer, 9107, 512),
    (Fault::Answer, 9108, 512),
    (Fault::Mute, 9110, 512),
];

/// One kind of failure: where it is asked for, how often in a round and how many at a time, and what it must be called.
pub struct Kind {
    path: &'static str,
    upstream: Endpoint,
    count: usize,
    at_a_time: usize,
    name: &'static str,
}

/// Everything that lasts through all rounds.
pub struct Site {
    pub namespace: Namespace,
    pub nginx: Nginx,
    kinds: Vec<Kind>,
    left: Endpoint,
    /// Pools whose workers are killed at random and which reload: over TCP, and over a unix socket.
    pools: [Fpm; 2],
    _dying: Fpm,
}

impl Site {
    /// Starts it all; for a long run with smaller storms.
    pub fn new(is_long: bool) -> Result<Site> {
        let namespace = Namespace::new()?;
        let socket = |name: &str| Endpoint::Unix(namespace.scratch().join(name));
        let pool = |listen| Fpm::on(&namespace).listen(listen).workers(4).start();
        let dying = pool(Endpoint::v4(9001))?;
        let pools = [pool(Endpoint::v6(9002))?, pool(socket("fpm.sock"))?];
        namespace.ip("route add unreachable 10.66.0.0/24")?;
        let dropped = Sight::here()?
            .by_drops("connect_timeout/dropped_by_firewall", "connect_timeout/syn_unanswered")?;
        let tcp = Endpoint::v4;
        let kinds = [
            ("/refused4/", tcp(9201), 1_200, 4, "refused/no_listener"),
            ("/refused6/", Endpoint::v6(9202), 400, 2, "refused/no_listener"),
            ("/missing/", socket("missing.sock"), 300, 2, "refused/socket_missing"),
            ("/nowhere/", "10.66.0.1:9000".parse()?, 100, 2, "refused/no_route"),
            ("/closes/", tcp(9101), 100, 2, "premature_close/peer_closed"),
            ("/resets/", tcp(9102), 100, 2, "reset/peer_aborted"),
            ("/queued/", tcp(9103), 30, 30, "read_timeout/nobody_accepts"),
            ("/mute/", tcp(9104), 30, 30, "read_timeout/slow_worker"),
            ("/stalls/", tcp(9105), 20, 20, "read_timeout/stalled_response"),
            ("/cuts/", tcp(9106), 40, 2, "reset/peer_aborted"),
            ("/dropped/", tcp(9107), 20, 20, dropped),
            ("/rejected/", tcp(9108), 40, 2, "refused/rejected_by_firewall"),
            ("/full/", tcp(9109), 20, 20, "accept_queue_overflow/syn_dropped"),
            ("/php/die.php?signal=9", dying.endpoint().clone(), 20, 2, "reset/worker_killed"),
        ];
        let kinds = kinds.map(|(path, upstream, count, at_a_time, name)| {
            let count = match at_a_time {
                // What waits for nginx's timers is as many on any machine: it takes no work.
                20.. => count,
                // A long run's sum is large enough to show growth, and its end to be held in memory.
                _ if is_long => count / 10,
                _ => wait::load(count).max(2),
            };
            Kind { path, upstream, count, at_a_time, name }
        });
        let http = |path: &str, upstream: &Endpoint| {
            Location::http(path, upstream).connect_timeout(CONNECT).read_timeout(READ)
        };
        let mut nginx = Nginx::on(&namespace)
            .workers(2)
            .location(Location::fpm("/php/", &dying))
            .location(Location::fpm("/tcp/", &pools[0]))
            .location(Location::fpm("/unix/", &pools[1]))
            .location(Location::http("/left/", &tcp(9110)));
        for Kind { path, upstream, .. } in kinds.iter().filter(|kind| !kind.path.starts_with("/php/")) {
            nginx = nginx.location(http(path, upstream));
        }
        let nginx = nginx.start()?;
        namespace.nft(
            "table inet rig {
               chain in { type filter hook input priority 0; tcp dport 9107 drop; tcp dport 9108 reject with tcp reset; }
             }",
        )?;
        let (kinds, left) = (kinds.into(), tcp(9110));
        Ok(Site { namespace, nginx, kinds, left, pools, _dying: dying })
    }

    /// Watches its nginx, and what that logs, with further arguments.
    pub fn tracer(&self, arguments: &[&str]) -> Result<Tracer> {
        let log = self.nginx.error_log();
        let log = log.to_str().context("a path in UTF-8")?;
        self.tracer_alone(&[&["--error-log", log], arguments].concat())
    }

    /// The same, but for what it logs.
    pub fn tracer_alone(&self, arguments: &[&str]) -> Result<Tracer> {
        let master = self.nginx.master().to_string();
        Tracer::start(&[&["-p", &master, "--connect-errors"], arguments].concat())
    }

    /// One round. Nothing is open at its end.
    pub fn round(&self, dice: &mut Dice) -> Result<()> {
        let client = self.nginx.client();
        // Some of them keep what nginx has given up for as long as they live.
        let faulty =
            |(fault, port, backlog)| FaultyServer::start(&self.namespace, fault, Endpoint::v4(port), backlog);
        let _servers = FAULTS.into_iter().map(faulty).collect::<Result<Vec<_>>>()?;
        let full = faulty((Fault::NeverAccept, 9109, 1))?;
        let _fillers = self.namespace.fill_queue(full.endpoint(), 2)?;
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let storms: Vec<_> = self
                .kinds
                .iter()
                .map(|kind| scope.spawn(|| client.storm(kind.path, kind.count, kind.at_a_time).map(drop)))
                .chain(["/tcp/ok.php", "/unix/ok.php"].map(|path| {
                    let client = &client;
                    scope.spawn(move || client.storm(path, wait::load(400), 2).map(drop))
                }))
                .chain(["/tcp/sleep.php?s=0.3", "/unix/sleep.php?s=0.3"].map(|path| {
                    let client = &client;
                    scope.spawn(move || client.storm(path, 20, 3).map(drop))
                }))
                .collect();
            let killing = scope.spawn(|| self.kill_workers(dice, &is_over));
            leave(&client)?;
            self.nginx.reload()?;
            let reloads: Vec<_> = self.pools.iter().map(|pool| scope.spawn(|| pool.reload())).collect();
            for thread in storms.into_iter().chain(reloads) {
                thread.join().map_err(|_| anyhow!("a thread panicked"))??;
            }
            is_over.store(true, Ordering::Relaxed);
            killing.join().map_err(|_| anyhow!("a thread panicked"))?
        })
    }

    /// Kills a worker of some pool again and again, until the round is over.
    fn kill_workers(&self, dice: &mut Dice, is_over: &AtomicBool) -> Result<()> {
        while !is_over.load(Ordering::Relaxed) {
            let workers = self.pools[dice.below(self.pools.len())].workers()?;
            let signal = [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGSEGV][dice.below(3)];
            if !workers.is_empty() {
                match kill(unistd::Pid::from_raw(workers[dice.below(workers.len())]), signal) {
                    // A reload may have been quicker.
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => return Err(error).context("killing a worker of php-fpm"),
                }
            }
            // No faster than php-fpm makes new ones.
            thread::sleep(wait::patience() * Duration::from_millis(100 + dice.below(200) as u64));
        }
        Ok(())
    }

    /// What nginx logs.
    pub fn log(&self) -> Log {
        Log { path: self.nginx.error_log(), read: 0, failures: Vec::new() }
    }

    /// Holds the account of one life against what nginx logged meanwhile, and each verdict against what was done.
    pub fn check(&self, account: &Account, failures: &[Failure], rounds: usize) -> Result<()> {
        let logged = self.logged(account, failures.len())?;
        pair_off_but_for(account.lost()?, failures, &logged)?;
        let mut missing = 0;
        for kind in &self.kinds {
            missing += account.without_verdict(&kind.upstream, kind.name, rounds * kind.count)?;
        }
        ensure!(missing <= account.lost()?, "{missing} verdicts are missing: {}", account.stderr);
        for verdict in account.about(&self.left) {
            ensure!(verdict.cause == "client_abort", "{verdict:#?}");
        }
        for pool in &self.pools {
            for verdict in account.about(pool.endpoint()) {
                check_death(verdict, pool.master())?;
            }
        }
        Ok(())
    }

    /// Checks that nothing was lost, and that there was room for all that was open at a time.
    pub fn kept_up(account: &Account) -> Result<()> {
        account.is_orderly()?;
        ensure!(account.summary["untracked"] == 0, "too many were open at once: {}", account.summary);
        Ok(())
    }

    /// Checks by the audit, too, that each failure that nginx logged has its verdict, and the reverse; returns the verdicts on them.
    ///
    /// A worker that dies between the last byte of its response and its close leaves nginx content, and no hook sees whether the
    /// response was whole: of such deaths, and of nothing else, a verdict may have no line if it says that it is not sure.
    pub fn logged(&self, account: &Account, count: usize) -> Result<Vec<Verdict>> {
        Self::kept_up(account)?;
        let audit = account.others.last().context("no audit")?;
        let (unlogged, unexplained) = (&audit["unlogged"], &audit["unexplained"]);
        let missing = unexplained.as_array().context("a list")?.len();
        ensure!(missing <= account.lost()?, "{audit:#}\n{}", account.stderr);
        let expected = serde_json::json!({
            "v": 1, "type": "audit", "logged": count, "explained": count - missing, "unexplained": unexplained,
            "unlogged": unlogged, "ambiguous": [], "truncated": false, "early": 0, "unaudited": 0, "given_up": 0,
        });
        ensure!(*audit == expected, "{audit:#}\n{}", account.stderr);
        let mut logged = account.verdicts.clone();
        for entry in unlogged.as_array().context("a list")? {
            let is_it = |verdict: &Verdict| {
                entry["time"] == verdict.time.as_str()
                    && entry["pid"] == verdict.nginx.pid
                    && self.pools.iter().any(|pool| verdict.address() == Some(&pool.endpoint().to_string()))
                    && ["premature_close/worker_killed", "premature_close/worker_crashed"]
                        .contains(&verdict.name().as_str())
                    && verdict.confidence != "proven"
            };
            let place = logged.iter().position(is_it);
            logged.swap_remove(place.with_context(|| format!("nginx logged nothing of this: {entry:#}"))?);
        }
        Ok(logged)
    }
}

/// nginx's error log, of which only what is new is read: in a long run it grows long.
pub struct Log {
    path: PathBuf,
    /// How far it has been read (bytes).
    read: u64,
    /// Every upstream failure so far, in order.
    pub failures: Vec<Failure>,
}

impl Log {
    /// Waits until nginx logs no more, and reads on: every request is answered then, or its client has left.
    pub fn settle(&mut self) -> Result<()> {
        let length = || Ok::<_, anyhow::Error>(fs::metadata(&self.path)?.len());
        let mut before = length()?;
        wait::until_true("nginx to have logged everything", || {
            thread::sleep(Duration::from_millis(300));
            Ok(mem::replace(&mut before, length()?) == before)
        })?;
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut new = Vec::new();
        self.read += file.read_to_end(&mut new)? as u64;
        self.failures.extend(error_log::parse(&String::from_utf8_lossy(&new)));
        Ok(())
    }
}

/// A worker died of this process's signal, or of its master's at a reload, which may let it exit by itself. Who took a unix
/// connection and died before it read from it, not every kernel shows.
fn check_death(verdict: &Verdict, master: Pid) -> Result<()> {
    let is_death = matches!(verdict.cause.as_str(), "reset" | "premature_close")
        && matches!(verdict.detail.as_str(), "worker_killed" | "worker_crashed" | "worker_exited");
    let is_unseen = verdict.name() == "unknown/not_enough_facts"
        && verdict.family() == Some("unix")
        && verdict.worker.is_none();
    let killers = [Some(id().cast_signed()), Some(master), None];
    ensure!((is_death || is_unseen) && killers.contains(&verdict.killer_pid()), "{verdict:#?}");
    Ok(())
}

/// Clients that go away before the answer.
fn leave(client: &Client) -> Result<()> {
    for _ in 0..LEAVING {
        client.ask("/left/")?.abort()?;
    }
    Ok(())
}
