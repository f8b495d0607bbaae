//! JSON Lines: a contract with the programs that read it.
//!
//! The types stand apart from the model; what is unknown is null and never left out.

use std::io::{self, Write};

use jiff::Timestamp;
use serde::Serialize;

use super::{Moment, Output, Summary};
use crate::{
    cause::WallClock as _,
    command::backlog::{Asked, Balance, Check, Outcome, Overflow, Queue, Stage},
    model::{
        clock::{clock_offset, monotonic_ns},
        verdict,
    },
};

/// The version of the contract.
const VERSION: u32 = 1;

/// Writes one JSON object per line.
#[derive(Debug)]
pub struct Json<W> {
    out: W,
}

#[derive(Serialize)]
struct Listener<'a> {
    v: u32,
    r#type: &'static str,
    time: String,
    r#final: bool,
    addr: String,
    netns: u32,
    pid: Option<u32>,
    comm: Option<&'a str>,
    unit: Option<&'a str>,
    container: Option<&'a str>,
    pod: Option<&'a str>,
    asked: Option<u32>,
    asked_at_least: Option<u32>,
    limit: u32,
    depth: u32,
    max_depth: u32,
    arrived: u64,
    accepted: u64,
    full_us: u64,
    overflows: u64,
    overflows_at: Stages,
    wait_us: Waits,
}

#[derive(Serialize)]
struct Stages {
    syn: u64,
    final_ack: u64,
    unix: u64,
}

#[derive(Serialize)]
struct Waits {
    p50: Option<u64>,
    p99: Option<u64>,
    max: Option<u64>,
}

#[derive(Serialize)]
struct Victim<'a> {
    v: u32,
    r#type: &'static str,
    time: String,
    listener: String,
    netns: u32,
    client: String,
    process: Option<Process<'a>>,
    stage: &'static str,
    attempts: u32,
    outcome: &'static str,
    errno: Option<u32>,
    lasted_us: u64,
    nginx: Option<Nginx>,
}

#[derive(Serialize)]
struct Process<'a> {
    pid: u32,
    comm: &'a str,
}

/// The exchange as `why502 live` names it.
#[derive(Serialize)]
struct Nginx {
    pid: u32,
    local: Option<String>,
    upstream: String,
}

#[derive(Serialize)]
struct Reconciled {
    v: u32,
    r#type: &'static str,
    netns: u32,
    seen: u64,
    elsewhere: u64,
    listen_overflows: Option<u64>,
    listen_drops: Option<u64>,
    difference: Option<i64>,
    explanation: String,
}

#[derive(Serialize)]
struct Verified<'a> {
    v: u32,
    r#type: &'static str,
    claim: &'a str,
    holds: Option<bool>,
    figures: &'a str,
}

#[derive(Serialize)]
struct Total {
    v: u32,
    r#type: &'static str,
    elapsed_us: u64,
    listeners: usize,
    victims: u64,
    unnamed: u64,
    lost: u64,
    unattributed: u64,
    unwatched: u64,
    uncompared: u64,
    forgotten: u64,
}

/// As the contract names it.
fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Syn => "syn",
        Stage::FinalAck => "final_ack",
        Stage::Unix => "unix",
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::GotIn => "got_in",
        Outcome::TimedOut => "timed_out",
        Outcome::Reset => "reset",
        Outcome::GaveUp => "gave_up",
        Outcome::Refused => "refused",
        Outcome::Failed => "failed",
        Outcome::Silent => "silent",
        Outcome::Waiting => "waiting",
    }
}

fn time(ns: u64) -> String {
    let unix_ns = clock_offset().unix_ns(ns);
    Timestamp::from_nanosecond(unix_ns.into()).map(|time| format!("{time:.6}")).unwrap_or_default()
}

impl<W: Write> Json<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out }
    }

    fn line(&mut self, object: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(object)?;
        line.push(b'\n');
        self.out.write_all(&line)
    }
}

impl<W: Write> Output for Json<W> {
    fn queues(&mut self, queues: &[Queue], moment: Moment) -> io::Result<()> {
        for queue in queues {
            let verdict::Process { pid, comm } = match &queue.owner {
                Some(owner) => owner.clone(),
                None => verdict::Process { pid: 0, comm: String::new() },
            };
            let cgroup = queue.cgroup.as_deref();
            let is_known = queue.owner.is_some();
            let (asked, asked_at_least) = match queue.asked {
                Asked::Exactly(asked) => (Some(asked), Some(asked)),
                Asked::AtLeast(asked) => (None, Some(asked)),
                Asked::Unknown => (None, None),
            };
            self.line(&Listener {
                v: VERSION,
                r#type: "listener",
                time: time(monotonic_ns()),
                r#final: moment == Moment::Last,
                addr: queue.addr.to_string(),
                netns: queue.netns,
                pid: is_known.then_some(pid),
                comm: is_known.then_some(&comm),
                unit: cgroup.and_then(|cgroup| cgroup.unit.as_deref()),
                container: cgroup.and_then(|cgroup| cgroup.container.as_deref()),
                pod: cgroup.and_then(|cgroup| cgroup.pod.as_deref()),
                asked,
                asked_at_least,
                limit: queue.limit,
                depth: queue.depth,
                max_depth: queue.max_depth,
                arrived: queue.arrived,
                accepted: queue.accepted,
                full_us: queue.full_ns / 1_000,
                overflows: queue.overflows(),
                overflows_at: Stages {
                    syn: queue.syn_drops,
                    final_ack: queue.ack_drops,
                    unix: queue.unix_full,
                },
                wait_us: Waits {
                    p50: queue.waits.map(|waits| waits.p50_us),
                    p99: queue.waits.map(|waits| waits.p99_us),
                    max: queue.waits.map(|waits| waits.max_us),
                },
            })?;
        }
        Ok(())
    }

    fn forgotten(&mut self, queue: &Queue) -> io::Result<()> {
        self.queues(std::slice::from_ref(queue), Moment::Last)
    }

    fn overflow(&mut self, overflow: &Overflow) -> io::Result<()> {
        let process = overflow.process.as_ref();
        let nginx = process.filter(|_| overflow.is_nginx).map(|process| Nginx {
            pid: process.pid,
            local: overflow.client.map(|client| client.to_string()),
            upstream: overflow.listener.to_string(),
        });
        self.line(&Victim {
            v: VERSION,
            r#type: "overflow",
            time: time(overflow.first_ns),
            listener: overflow.listener.to_string(),
            netns: overflow.netns,
            client: overflow.name(),
            process: process.map(|verdict::Process { pid, comm }| Process { pid: *pid, comm }),
            stage: stage(overflow.stage),
            attempts: overflow.attempts,
            outcome: outcome(overflow.outcome),
            errno: overflow.errno,
            lasted_us: overflow.lasted_ns / 1_000,
            nginx,
        })
    }

    fn balance(&mut self, balances: &[Balance]) -> io::Result<()> {
        for balance in balances {
            self.line(&Reconciled {
                v: VERSION,
                r#type: "reconciled",
                netns: balance.netns,
                seen: balance.seen,
                elsewhere: balance.elsewhere,
                listen_overflows: balance.kernel().map(|kernel| kernel.overflows),
                listen_drops: balance.kernel().map(|kernel| kernel.drops),
                difference: balance.difference(),
                explanation: balance.explanation(),
            })?;
        }
        Ok(())
    }

    fn checks(&mut self, checks: &[Check]) -> io::Result<()> {
        for Check { claim, holds, figures } in checks {
            self.line(&Verified { v: VERSION, r#type: "check", claim, holds: *holds, figures })?;
        }
        Ok(())
    }

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        let Summary {
            elapsed_ns,
            listeners,
            forgotten,
            victims,
            unnamed,
            lost,
            unattributed,
            unwatched,
            uncompared,
        } = *summary;
        self.line(&Total {
            v: VERSION,
            r#type: "summary",
            elapsed_us: elapsed_ns / 1_000,
            listeners,
            victims,
            unnamed,
            lost,
            unattributed,
            unwatched,
            uncompared,
            forgotten,
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
