//! Holds the verdicts against nginx's own error log: each upstream failure that nginx logs has exactly one verdict, and the
//! other way round.

mod early;
pub(crate) mod follow;
mod kind;
mod line;
mod matching;
mod moment;
pub(crate) mod once;
mod pair;
mod pairing;
pub(crate) mod spoken;
mod workers;

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use jiff::{Timestamp, tz::TimeZone};

use crate::{
    args::Live,
    model::{
        audit::{Report, Unexplained, Unlogged},
        budget,
        failure::Failure,
        upstream::{Upstream, UpstreamFilter},
        verdict::Verdict,
    },
};

use early::Early;
use follow::Follower;
use line::Line;
use once::Once;
use pair::{Explained, Logged};
use pairing::{Pairing, Settled};
use workers::Workers;

/// How often the logs are to be read.
pub const PERIOD: Duration = Duration::from_millis(200);

/// How long a line and its verdict may miss each other at the end of a run: the kernel may see an end before nginx writes of
/// it.
pub const GRACE: Duration = Duration::from_secs(1);

/// How often lines and verdicts are paired off (ns).
const SETTLING: i64 = 1_000_000_000;

/// An audit under way.
#[derive(Debug)]
pub struct Audit {
    logs: Vec<Log>,
    ground: Ground,
    stage: Stage,
    settled: i64,
    report: Report,
}

/// One log and what is known of it.
#[derive(Debug)]
struct Log {
    follower: Follower,
    /// It has lines of level info, so clients that went away are in it.
    shows_info: bool,
    /// Nothing could be read the last time.
    is_failing: bool,
}

/// What is needed to take in a line.
#[derive(Debug)]
struct Ground {
    upstreams: Vec<UpstreamFilter>,
    zone: TimeZone,
    workers: Workers,
    early: Early,
    once: Once,
    pairing: Pairing,
}

/// Failures count while the tracing goes on. Those just before and just after may have a verdict or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Before,
    Tracing,
    After,
}

impl Audit {
    /// Opens the logs, at their ends; none if there are none to audit. To be called before the tracing begins.
    ///
    /// # Errors
    /// If a log is there and cannot be read.
    pub fn open(args: &Live) -> Result<Option<Self>, Failure> {
        if args.error_logs.is_empty() {
            return Ok(None);
        }
        let logs = args.error_logs.iter().map(|path| Log::open(path)).collect::<Result<Vec<_>, _>>()?;
        let ground = Ground {
            upstreams: args.trace.upstreams.clone(),
            zone: TimeZone::try_system().unwrap_or(TimeZone::UTC),
            workers: Workers::new(&args.trace),
            early: Early::default(),
            once: Once::new(logs.len()),
            pairing: Pairing::default(),
        };
        Ok(Some(Self { logs, ground, stage: Stage::Before, settled: 0, report: Report::default() }))
    }

    /// To be called once every hook is attached.
    pub fn begin(&mut self) {
        self.read();
        self.ground.early = Early::take_stock(&self.ground.workers, now());
        self.stage = Stage::Tracing;
    }

    /// Takes in a verdict that was given to the user.
    pub fn verdict(&mut self, verdict: &Verdict) {
        self.take(verdict, true);
    }

    /// Takes in a verdict that was not, since the run is over: its line is not to be missed.
    pub fn withheld(&mut self, verdict: &Verdict) {
        self.take(verdict, false);
    }

    fn take(&mut self, verdict: &Verdict, counts: bool) {
        if matches!(verdict.upstream, Upstream::Named(_)) {
            // It is nginx's line itself, and names no upstream.
            return;
        }
        self.ground.pairing.verdict(Explained {
            at: verdict.unix_ns,
            since: now(),
            logged_pid: self.ground.workers.written_by(verdict.nginx.pid),
            pid: verdict.nginx.pid,
            upstream: verdict.upstream.clone(),
            cause: verdict.cause,
            errno: verdict.errno.clone(),
            error_log: verdict.error_log.clone(),
            counts,
        });
    }

    /// Reads what the logs have got since.
    pub fn read(&mut self) {
        let now = now();
        let Self { logs, ground, stage, report, .. } = self;
        for (number, Log { follower, shows_info, is_failing }) in logs.iter_mut().enumerate() {
            let read = follower.read(&mut |text| {
                let Some(Line { is_info, failure }) = Line::parse(text) else { return };
                *shows_info |= is_info;
                if text.len() > budget::LOG_LINE {
                    report.given_up += u64::from(failure.is_some());
                } else if let Some(failure) = failure
                    && ground.once.is_new(number, text, now)
                {
                    ground.take(text, failure, *stage, now);
                }
            });
            if let Some(other) = follower.take_turn() {
                let (path, other) = (follower.path().display(), other.display());
                crate::notice!("{path} is a link that leads to {other} now; that is followed");
            }
            if let (Err(error), false) = (&read, *is_failing) {
                let path = follower.path().display();
                crate::notice!("{path} cannot be read at the moment, so the audit may miss lines: {error}");
            }
            *is_failing = read.is_err();
        }
        if now - self.settled >= SETTLING {
            self.settled = now;
            self.ground.early.look_now_and_then(now);
            let settled = self.ground.pairing.settle(now);
            self.account(settled);
        }
    }

    /// To be called when the run is over: what is logged from here on only serves to match what was before.
    pub fn end(&mut self) {
        self.read();
        self.stage = Stage::After;
    }

    /// Whether nothing waits for its match any more.
    pub fn is_complete(&self) -> bool {
        self.ground.pairing.is_complete()
    }

    /// What it came to. Whatever still waits for its match has none.
    pub fn finish(mut self) -> Report {
        let settled = self.ground.pairing.finish();
        self.account(settled);
        self.report
    }

    fn account(&mut self, Settled { explained, unexplained, unlogged, given_up }: Settled) {
        let report = &mut self.report;
        report.explained += explained;
        report.logged += explained;
        report.given_up += given_up;
        for logged in unexplained {
            if self.ground.early.accounts_for(&logged, now()) {
                report.early += 1;
                continue;
            }
            let is_ambiguous = logged.failure.upstream.is_ambiguous();
            report.logged += u64::from(!is_ambiguous);
            let list = if is_ambiguous { &mut report.ambiguous } else { &mut report.unexplained };
            list.push(Unexplained {
                unix_ns: logged.at,
                pid: logged.failure.pid,
                upstream: logged.failure.upstream.shown(),
                line: logged.line,
            });
        }
        // Which of several logs a verdict belongs in, nobody knows: all must show it.
        let shows_info = self.logs.iter().all(|log| log.shows_info);
        for Explained { at, pid, upstream, cause, .. } in unlogged {
            if shows_info || kind::is_always_logged(cause) {
                report.unlogged.push(Unlogged { unix_ns: at, cause, pid, upstream });
            } else {
                report.unaudited += 1;
            }
        }
    }
}

impl Log {
    fn open(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let follower = Follower::open(path).with_context(|| format!("{shown} cannot be followed"))?;
        if !follower.is_open() {
            crate::notice!("{shown} does not exist yet; it will be read from its beginning once it does");
        }
        Ok(Self { follower, shows_info: false, is_failing: false })
    }
}

impl Ground {
    fn take(&mut self, text: &str, failure: line::Failure, stage: Stage, now: i64) {
        let among = failure.upstream.is_among(&self.upstreams);
        if among == Some(false) || !self.workers.are_traced(failure.pid) {
            return;
        }
        let seconds = moment::unix_seconds(failure.time, &self.zone, now / 1_000_000_000);
        self.pairing.line(Logged {
            at: seconds.saturating_mul(1_000_000_000),
            since: now,
            counts: stage == Stage::Tracing && failure.certain && among.is_some(),
            failure,
            line: text.to_owned(),
        });
    }
}

/// Nanoseconds since 1970.
fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
