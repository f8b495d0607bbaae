//! `why502 serve` left on: mixed load round after round while nginx, php-fpm and the service itself reload and scrapers misbehave. Nothing
//! is lost, memory and descriptors stay as they are, and the counters, the verdicts in the file and the lines in nginx's log are the same.
//!
//! For 40 s, or for as long as `RIG_SOAK` says (`24h`, `90m`, `600s`).

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use rig::error_log::{self, Failure};
use rig::reconcile::pair_off;
use rig::service::{Service, series, verdicts};
use rig::{Client, Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Verdict, process, wait};

/// For how long rounds begin.
const LENGTH: Duration = Duration::from_secs(40);
/// How many rounds there are at least; half of them, and half of the time, are for its memory to become what it needs.
const ROUNDS: usize = 8;
/// By how much its memory may then grow (bytes), however long the run is: what the allocator keeps back.
const GROWTH: u64 = 2 << 20;
/// Less than what is kept of a failed exchange until it is emitted (bytes).
const RECORD: u64 = 512;
/// Clients of a round that leave.
const LEAVING: usize = 5;
/// Scrapers of a round that never end a request, never read, or ask for too much.
const SCRAPERS: usize = 60;

/// How long it goes on.
fn length() -> Result<Duration> {
    let Ok(given) = env::var("RIG_SOAK") else { return Ok(LENGTH) };
    let wrong = || format!("RIG_SOAK is a time, as in 24h, 90m or 600s, not {given}");
    let (number, unit) = given.split_at_checked(given.len().saturating_sub(1)).with_context(wrong)?;
    let seconds = match unit {
        "h" => 3600,
        "m" => 60,
        "s" => 1,
        _ => return Err(anyhow!(wrong())),
    };
    Ok(Duration::from_secs(seconds * number.parse::<u64>().with_context(wrong)?))
}

/// What is loaded.
struct Site {
    _namespace: Namespace,
    pool: Fpm,
    mute: FaultyServer,
    _faulty: [FaultyServer; 2],
    nginx: Nginx,
}

impl Site {
    fn new() -> Result<Site> {
        let namespace = Namespace::new()?;
        // So that a reload lets requests end: what fails then fails by what the test does, and by nothing else.
        let pool = Fpm::on(&namespace).workers(4).control_timeout(Duration::from_secs(20)).start()?;
        let faulty = |fault, port| FaultyServer::start(&namespace, fault, Endpoint::v4(port), 512);
        let mute = faulty(Fault::Mute, 9101)?;
        let others = [faulty(Fault::CloseUnanswered, 9102)?, faulty(Fault::Reset, 9103)?];
        let of = |path: &str, server: &FaultyServer| Location::http(path, server.endpoint());
        let nginx = Nginx::on(&namespace)
            .workers(2)
            .location(Location::fpm("/php/", &pool))
            .location(Location::fastcgi("/none/", &Endpoint::v4(9009)))
            .location(of("/left/", &mute))
            .location(of("/mute/", &mute).read_timeout(Duration::from_secs(1)))
            .location(of("/closes/", &others[0]))
            .location(of("/resets/", &others[1]))
            .start()?;
        Ok(Site { _namespace: namespace, pool, mute, _faulty: others, nginx })
    }

    /// Loads it, and reloads all that can be meanwhile. Returns how many exchanges failed.
    fn round(&self, number: usize, reload: impl FnOnce() -> Result<()>) -> Result<usize> {
        let client = self.nginx.client();
        let storms = [
            ("/php/ok.php", wait::load(300), 3, 200),
            ("/none/", wait::load(1_200), 4, 502),
            ("/closes/", wait::load(40), 2, 502),
            ("/resets/", wait::load(40), 2, 502),
            ("/mute/", 10, 10, 504),
            ("/php/die.php?signal=9", 10, 2, 502),
        ];
        thread::scope(|scope| {
            let client = &client;
            let storms: Vec<_> = storms
                .into_iter()
                .map(|(path, count, at_a_time, status)| {
                    let storm = scope.spawn(move || client.storm(path, count, at_a_time));
                    (path, count, status, storm)
                })
                .collect();
            self.leave(client, number)?;
            self.nginx.reload()?;
            self.pool.reload()?;
            reload()?;
            let mut failures = LEAVING;
            for (path, count, status, storm) in storms {
                let answered = storm.join().map_err(|_| anyhow!("a thread panicked"))??;
                ensure!(answered == [(status, count)].into(), "{path}: {answered:?}");
                failures += if status == 200 { 0 } else { count };
            }
            Ok(failures)
        })
    }

    /// Clients that leave once the server has their requests.
    fn leave(&self, client: &Client, number: usize) -> Result<()> {
        let asked = (0..LEAVING).map(|_| client.ask("/left/")).collect::<Result<Vec<_>>>()?;
        // The storm on the same server has its own ten.
        self.mute.wait_read((number - 1) * (LEAVING + 10) + LEAVING + 10)?;
        asked.into_iter().try_for_each(rig::client::Asked::abort)
    }
}

/// What is new in nginx's error log, which grows long.
struct Log {
    path: PathBuf,
    read: u64,
}

impl Log {
    /// The failures of this round, once they are all there.
    fn failures(&mut self, count: usize) -> Result<Vec<Failure>> {
        let mut text = String::new();
        wait::until(&format!("{count} failures in nginx's log"), || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.read))?;
            text.clear();
            file.read_to_string(&mut text)?;
            let failures = error_log::parse(&text);
            Ok((text.ends_with('\n') && failures.len() >= count).then_some(failures))
        })
        .inspect(|_| self.read += text.len() as u64)
    }
}

/// The file of verdicts, which is moved away in each round, as logrotate does.
struct Lines {
    path: PathBuf,
    moved: PathBuf,
    /// Verdicts of the file that were read before it was moved.
    read: usize,
}

impl Lines {
    fn rotate(&self) -> Result<()> {
        fs::rename(&self.path, &self.moved).context("moving the verdicts away")
    }

    /// The verdicts of this round, once they are all there.
    fn verdicts(&mut self, count: usize) -> Result<Vec<Verdict>> {
        let (all, read) = wait::until(&format!("{count} verdicts in the file"), || {
            let (mut all, new) = (verdicts(&self.moved)?, verdicts(&self.path)?);
            all.drain(..self.read);
            let read = new.len();
            all.extend(new);
            Ok((all.len() >= count).then_some((all, read)))
        })?;
        self.read = read;
        Ok(all)
    }
}

/// Scrapers that mean harm, until they are dropped.
fn scrapers(service: &Service) -> Result<Vec<TcpStream>> {
    let server = service.metrics()?;
    let mut crowd = Vec::new();
    for number in 0..SCRAPERS {
        let mut stream = TcpStream::connect(server)?;
        // One that was let go already takes nothing.
        let _ = match number % 3 {
            0 => stream.write_all(b"GET /metrics HTTP/1.1\r\nX: "),
            1 => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"),
            _ => stream
                .write_all("GET /metrics?".bytes().chain([b'a'; 1 << 16]).collect::<Vec<_>>().as_slice()),
        };
        crowd.push(stream);
    }
    Ok(crowd)
}

/// Failures by upstream, cause, detail and confidence.
type Counts = BTreeMap<[String; 4], f64>;

fn count(counts: &mut Counts, emitted: &[Verdict]) -> Result<()> {
    for verdict in emitted {
        let upstream = verdict.address().context("an address")?.to_owned();
        let (cause, detail) = (verdict.cause.clone(), verdict.detail.clone());
        *counts.entry([upstream, cause, detail, verdict.confidence.clone()]).or_default() += 1.0;
    }
    Ok(())
}

fn counted(service: &Service) -> Result<Counts> {
    let mut counts = Counts::new();
    for (labels, value) in series(&service.page()?, "why502_failures_total")? {
        let of = |name: &str| labels.get(name).cloned().with_context(|| format!("no {name}: {labels:?}"));
        counts.insert([of("upstream")?, of("cause")?, of("detail")?, of("confidence")?], value);
    }
    Ok(counts)
}

/// What a process holds of its own (bytes), and its descriptors.
fn held(service: &Service) -> Result<(u64, usize)> {
    let status = procfs::process::Process::new(service.pid())?.status()?;
    let memory = 1024 * status.rssanon.context("a process with memory")?;
    Ok((memory, process::descriptors(service.pid(), 1_000_000)?))
}

#[test]
fn left_on_it_loses_nothing_and_needs_no_more_than_before() -> Result<()> {
    let (begun, length) = (Instant::now(), length()?);
    let site = Site::new()?;
    let folder = Service::folder()?;
    let at = |name: &str| folder.path().join(name);
    let configuration = at("why502.toml");
    let mut lines = Lines { path: at("verdicts.json"), moved: at("moved.json"), read: 0 };
    fs::write(&configuration, format!("[json]\npath = \"{}\"\n", lines.path.display()))?;
    // With the standby instances from the start: whatever else this machine does may interrupt a program of its own, and a miss before they
    // are there is no loss that is tested here.
    let configuration = configuration.to_str().context("UTF-8")?;
    let words = ["-p", &site.nginx.master().to_string(), "--config", configuration, "--standby"];
    let service = Service::start(folder, &words)?;
    let mut log = Log { path: site.nginx.error_log(), read: 0 };
    let mut counts = Counts::new();
    let (mut rounds, mut failures, mut warm) = (0, 0, None);
    while rounds < ROUNDS || begun.elapsed() < length {
        rounds += 1;
        let crowd = scrapers(&service)?;
        let its = site.round(rounds, || {
            lines.rotate()?;
            service.signal(Signal::SIGHUP)?;
            service.wait_to_say("the configuration was read again", rounds)
        })?;
        failures += its;
        service.wait_for("why502_failures_total", &[], failures as f64)?;
        drop(crowd);

        let (logged, emitted) = (log.failures(its)?, lines.verdicts(its)?);
        pair_off(&logged, &emitted).with_context(|| format!("round {rounds}"))?;
        count(&mut counts, &emitted)?;
        let counted = counted(&service)?;
        ensure!(counts == counted, "round {rounds}: {counts:#?} in the file, but {counted:#?}");
        let page = service.page()?;
        for metric in ["lost_records", "untracked", "unexplained", "json_lines_lost"] {
            let metric = format!("why502_{metric}_total");
            let lost: f64 = series(&page, &metric)?.iter().map(|(_, value)| value).sum();
            ensure!(lost == 0.0, "round {rounds}: {metric} {lost}\n{page}\n{}", service.complaints());
        }
        if warm.is_none() && rounds >= ROUNDS / 2 && begun.elapsed() >= length / 2 {
            warm = Some((held(&service)?, failures));
        }
        eprintln!(
            "round {rounds}: {failures} failures so far, {:?} bytes and descriptors held",
            held(&service)?
        );
    }

    let ((needed, descriptors), before) = warm.context("the run was too short")?;
    wait::until_true("no more descriptors than before", || Ok(held(&service)?.1 <= descriptors))?;
    let (now, _) = held(&service)?;
    let since = failures - before;
    // An emulated machine is given too few: there, only what the allocator keeps back would show.
    if wait::patience() == 1 {
        ensure!(
            now.saturating_sub(needed) < GROWTH,
            "{needed} bytes held became {now}, with {since} failures meanwhile"
        );
        ensure!(since as u64 * RECORD > GROWTH, "{since} failures are too few for growth to show");
    }
    let _ended = service.stop()?;
    Ok(())
}
