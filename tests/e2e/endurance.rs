//! Mixed load, round after round: successes and failures of every kind while nginx and php-fpm reload, php-fpm's workers are
//! killed at random, and tracers come and go. Each verdict has its line in nginx's log, memory does not grow, nothing is left.
//!
//! Four rounds, or as many as begin within `RIG_ENDURANCE` minutes (`30` or `30m`). `RIG_SEED` makes the same random choices as
//! the run that printed it.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::id;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use rig::process::{self, Pid};
use rig::tracer::as_if_looked_at;
use rig::{Programs, Tracer, Verdict, wait};

use dice::Dice;
use site::Site;

#[path = "endurance/dice.rs"]
mod dice;
#[path = "endurance/site.rs"]
mod site;

/// How many rounds there are at least.
const ROUNDS: usize = 4;
/// Rounds in one life of the tracer that comes and goes.
const LIFE: usize = 2;
/// After this many rounds, and half of a long run, the lasting tracer has the memory that it needs: some of what it remembers, and
/// bounds, takes ten minutes to be as much as it ever is.
const WARM: usize = 2;

/// By how much its memory may then grow (bytes), however long the run is: in four rounds, what the allocator keeps back has come to 1 MiB.
const GROWTH: u64 = 2 << 20;
/// Less than what is kept of a failed exchange until it is emitted (bytes).
const RECORD: u64 = 512;
/// Open exchanges that the lasting tracer has room for: more than there are at a time, fewer than there are in all, so that entries
/// that stayed behind would show.
const ROOM: &str = "1024";

/// For how long rounds are to begin.
fn length() -> Result<Duration> {
    let Ok(given) = env::var("RIG_ENDURANCE") else { return Ok(Duration::ZERO) };
    let minutes = given.trim_end_matches('m').parse::<u64>();
    let minutes =
        minutes.with_context(|| format!("RIG_ENDURANCE is minutes, as in 30 or 30m, not {given}"))?;
    Ok(Duration::from_secs(60 * minutes))
}

#[test]
fn rounds_of_mixed_load_are_explained_and_leave_nothing() -> Result<()> {
    let (dice, seed) = Dice::new()?;
    let length = length()?;
    let site = Site::new(!length.is_zero())?;
    let network = fs::read_link(format!("/proc/{}/ns/net", site.nginx.master()))?;
    let scratch = site.namespace.scratch().to_owned();
    endure(&site, dice, length).with_context(|| format!("RIG_SEED={seed} makes the same random choices"))?;
    drop(site);
    ensure!(!scratch.exists(), "{} is left", scratch.display());
    ensure!(inside(&network)?.is_empty(), "processes are left in {}", network.display());
    let children = process::children(id().cast_signed())?;
    ensure!(children.is_empty(), "processes are left: {children:?}");
    Ok(())
}

fn endure(site: &Site, mut dice: Dice, length: Duration) -> Result<()> {
    let begun = Instant::now();
    // Lines and answers wait for a minute for what explains them: in a run that is not much longer, that would be all that shows.
    let is_short = length.is_zero();
    let lasting = match is_short {
        true => site.tracer_alone(&["--max-open", ROOM, "--no-access-log"])?,
        false => site.tracer(&["--max-open", ROOM])?,
    };
    let (mut verdicts, mut lost) = (Vec::new(), 0);
    let mut log = site.log();
    let mut warm = None;
    let mut rounds = 0;
    while rounds < ROUNDS || begun.elapsed() < length {
        let tracer = site.tracer(&[])?;
        let held = Programs::of(tracer.pid())?;
        let before = log.failures.len();
        for _ in 0..LIFE {
            site.round(&mut dice)?;
            rounds += 1;
            log.settle()?;
            let logged = log.failures.len();
            // It has caught up before more comes, or before it goes.
            if let Err(late) = tracer.wait_for_nearly(logged - before) {
                // Which are missing says more than that some are.
                site.check(&tracer.stop()?, &log.failures[before..], LIFE)?;
                return Err(late);
            }
            if warm.is_none() && rounds >= WARM && begun.elapsed() >= length / 2 {
                lasting.wait_for_nearly(logged)?;
                warm = Some((memory(&lasting)?, logged));
            }
            eprintln!("round {rounds}: {logged} failures so far, {} bytes held", memory(&lasting)?);
        }
        let account = tracer.stop()?;
        site.check(&account, &log.failures[before..], LIFE)?;
        lost += account.lost()?;
        verdicts.extend(account.verdicts);
        held.wait_gone()?;
    }
    let logged = log.failures.len();
    lasting.wait_for_nearly(logged)?;
    let (needed, before) = warm.context("the run was too short")?;
    has_not_grown(needed, memory(&lasting)?, logged - before)?;

    let held = Programs::of(lasting.pid())?;
    let account = lasting.stop()?;
    if is_short {
        Site::kept_up(&account)?;
    } else {
        site.logged(&account, logged)?;
    }
    emitted_the_same(&verdicts, &account.verdicts, lost.max(account.lost()?))?;
    held.wait_gone()
}

/// What a process holds of its own (bytes). Pages of its program's file are not among it: they are there as often as the kernel finds them
/// in its cache, and no more than the file has.
fn memory(tracer: &Tracer) -> Result<u64> {
    let status = procfs::process::Process::new(tracer.pid())?.status()?;
    Ok(1024 * status.rssanon.context("a process with memory")?)
}

/// Checks that a tracer needs no more than before, after so many further failures that one which kept each of them would. An emulated
/// machine is given too few: there, only what the allocator keeps back would show.
fn has_not_grown(needed: u64, now: u64, failures: usize) -> Result<()> {
    if wait::patience() > 1 {
        return Ok(());
    }
    let growth = now.saturating_sub(needed);
    ensure!(growth < GROWTH, "{needed} bytes held became {now}, with {failures} failures meanwhile");
    ensure!(failures as u64 * RECORD > GROWTH, "{failures} failures are too few for growth to show");
    Ok(())
}

/// Checks that two tracers that ran side by side gave the same verdicts, but for as many as either says that it lost events.
fn emitted_the_same(some: &[Verdict], others: &[Verdict], lost: usize) -> Result<()> {
    let end = |verdict: &Verdict| {
        let address = verdict.address().map(str::to_owned);
        (verdict.nginx.pid, verdict.nginx.local.clone(), address, as_if_looked_at(verdict))
    };
    let mut rest = BTreeMap::<_, Vec<&Verdict>>::new();
    for other in others {
        rest.entry(end(other)).or_default().push(other);
    }
    let mut only = Vec::new();
    for verdict in some {
        let said = rest.entry(end(verdict)).or_default();
        match said.iter().position(|other| is_same(verdict, other)) {
            Some(at) => drop(said.swap_remove(at)),
            None => only.push(verdict),
        }
    }
    let mut rest: Vec<_> = rest.into_values().flatten().collect();
    for left in [&mut only, &mut rest] {
        left.retain(|verdict| !may_be_alone(verdict));
    }
    ensure!(
        only.len() <= lost && rest.len() <= lost,
        "only the first said {only:#?}, only the second {rest:#?}"
    );
    Ok(())
}

/// Whether two verdicts on one end agree. The hooks of two tracers run one after the other, and where the kernel preempts them, others
/// have their turn in between: of a worker that accepted once nginx's end had ended to the one, the other may hear before it. That nobody
/// accepts is said by the one that had the time to look who does, and proven to the one that had looked at the queue before the connection
/// came and since.
fn is_same(one: &Verdict, other: &Verdict) -> bool {
    let said = |verdict: &Verdict| {
        let who = (verdict.signal().map(str::to_owned), verdict.killer_pid());
        (verdict.status, verdict.errno.clone(), who)
    };
    let is_nobody = |verdict: &&Verdict| as_if_looked_at(verdict) == "read_timeout/nobody_accepts";
    let is_as_sure = one.confidence == other.confidence
        || [one, other].iter().all(is_nobody)
        // One of them may have lost an event, where kprobes do.
        || [one, other].iter().any(|verdict| verdict.confidence == "incomplete");
    let ended = |verdict: &Verdict| verdict.time.parse::<Timestamp>().ok();
    let accepted = |verdict: &Verdict| {
        let began = ended(verdict)? - Duration::from_micros(verdict.us.ended?);
        Some(began + Duration::from_micros(verdict.us.accepted?))
    };
    let accepted_at_the_end = |verdict: &Verdict| {
        let first_end = ended(one).min(ended(other));
        accepted(verdict).zip(first_end).is_some_and(|(accepted, end)| accepted + moment() >= end)
    };
    let same_worker = match (one.worker_pid(), other.worker_pid()) {
        (Some(_), None) => accepted_at_the_end(one),
        (None, Some(_)) => accepted_at_the_end(other),
        (one, other) => one == other,
    };
    same_worker && is_as_sure && said(one) == said(other)
}

/// Whether only one of two tracers may give this verdict, which is no failure to nginx if it had read the whole response: the worker's
/// end was over a moment before nginx's, and to the other's hook, which runs after that of the first, a moment after it.
fn may_be_alone(verdict: &Verdict) -> bool {
    let has_read = verdict.bytes.as_ref().and_then(|bytes| bytes.received) > Some(0);
    let ends = verdict.us.worker_ended.zip(verdict.us.ended);
    let at_once =
        ends.is_some_and(|(worker, nginx)| Duration::from_micros(nginx.saturating_sub(worker)) <= moment());
    verdict.cause == "premature_close" && verdict.confidence == "inferred" && has_read && at_once
}

/// How far apart the hooks of two tracers may run for one event, and the clocks by which each tells the time.
fn moment() -> Duration {
    Duration::from_millis(u64::from(wait::patience()))
}

/// The processes in a network namespace, by what its link in /proc says.
fn inside(network: &Path) -> Result<Vec<Pid>> {
    let processes = procfs::process::all_processes()?.flatten().map(|process| process.pid);
    Ok(processes
        .filter(|pid| fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|net| net == network))
        .collect())
}
