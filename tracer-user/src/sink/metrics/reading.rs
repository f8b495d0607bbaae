//! All metrics with their values at one moment, whoever takes them: the page, or a collector.

use std::sync::{Arc, PoisonError, atomic::Ordering};

use super::{
    Shared, bpf,
    counted::Counted,
    family::{Family, Value, family},
    table::{self, Metric},
    waits::Waits,
};
use crate::{model::clock, sink::drops::Drops, version};

/// What the kernel says of this process.
#[derive(Debug)]
struct Own {
    cpu_s: f64,
    resident_bytes: u64,
    started_s: f64,
}

impl Own {
    fn now() -> Option<Self> {
        let stat = procfs::process::Process::myself().and_then(|process| process.stat()).ok()?;
        let ticks = procfs::ticks_per_second() as f64;
        let booted_s = clock::booted_ns() as f64 / 1e9;
        Some(Self {
            cpu_s: (stat.utime + stat.stime) as f64 / ticks,
            resident_bytes: stat.rss * procfs::page_size(),
            started_s: booted_s + stat.starttime as f64 / ticks,
        })
    }
}

/// What was counted, and what else there is to know, at one moment.
#[derive(Debug)]
pub(in crate::sink) struct Reading {
    began_ns: i64,
    counted: Arc<Counted>,
    lines_lost: u64,
    dropped: Vec<(&'static str, Arc<Drops>)>,
    bpf_ns: Option<u64>,
    own: Option<Own>,
}

impl Reading {
    pub(in crate::sink) fn now(shared: &Shared) -> Self {
        Self {
            began_ns: shared.began_ns,
            counted: shared.counted(),
            lines_lost: shared.lines_lost.load(Ordering::Relaxed),
            dropped: shared.dropped.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            bpf_ns: bpf::run_ns(),
            own: Own::now(),
        }
    }

    /// When counting began (ns since 1970).
    pub(in crate::sink) fn began_ns(&self) -> i64 {
        self.began_ns
    }

    /// Every metric of the table, in its order; those that only some kernels measure, or that were not asked for, are left out then.
    pub(in crate::sink) fn families(&self) -> Vec<Family<'_>> {
        use Value::{Count, Info, Level, Seconds};
        let counted = &*self.counted;
        let mut all = vec![
            family(
                table::EXCHANGES,
                counted.exchanges.iter().map(|(of, count)| (vec![&**of], Count(*count))),
            ),
            family(
                table::FAILURES,
                counted.failures.iter().map(|((of, cause, confidence), count)| {
                    (vec![&**of, cause.cause(), cause.detail(), confidence.name()], Count(*count))
                }),
            ),
            family(
                table::FAILURE_SECONDS,
                counted.times.iter().map(|(cause, times)| (vec![*cause], Value::Histogram(times.shown()))),
            ),
            family(table::DELAYED, counted.delayed.iter().map(|(of, count)| (vec![&**of], Count(*count)))),
            single(table::CLIENT_ABORTS, Count(counted.client_aborts)),
            family(
                table::WORKERS_KILLED,
                counted.killed.iter().map(|((of, signal, killer), count)| {
                    (vec![&**of, signal.as_str(), &**killer], Count(*count))
                }),
            ),
            family(
                table::QUEUE_DEPTH,
                counted.queues.iter().map(|(of, queue)| (vec![&**of], Level(queue.depth.into()))),
            ),
            family(
                table::QUEUE_LIMIT,
                counted.queues.iter().map(|(of, queue)| (vec![&**of], Level(queue.limit.into()))),
            ),
            family(
                table::QUEUE_FULL,
                counted.full_ns.iter().map(|(of, ns)| (vec![&**of], Seconds(*ns as f64 / 1e9))),
            ),
            family(
                table::OVERFLOWS,
                counted.overflows.iter().map(|((of, stage), count)| (vec![&**of, *stage], Count(*count))),
            ),
        ];
        all.extend(counted.waits.iter().flat_map(Waits::families));
        all.extend([
            family(table::LOST, counted.lost.iter().map(|(reason, count)| (vec![*reason], Count(*count)))),
            single(table::UNTRACKED, Count(counted.untracked)),
            single(table::UNEXPLAINED, Count(counted.unexplained)),
            single(table::LINES_LOST, Count(self.lines_lost)),
            family(
                table::DROPPED,
                self.dropped.iter().flat_map(|(sink, drops)| {
                    drops.counts().map(|(reason, count)| (vec![*sink, reason], Count(count)))
                }),
            ),
        ]);
        all.extend(self.bpf_ns.map(|ns| single(table::BPF_SECONDS, Seconds(ns as f64 / 1e9))));
        all.push(family(table::SOURCE, counted.sources().map(|(fact, source)| (vec![fact, source], Info))));
        let build = vec![env!("CARGO_PKG_VERSION"), version::COMMIT];
        all.push(family(table::BUILD, [(build, Info)].into_iter()));
        if let Some(Own { cpu_s, resident_bytes, started_s }) = &self.own {
            all.push(single(table::CPU, Seconds(*cpu_s)));
            all.push(single(table::MEMORY, Level(*resident_bytes as f64)));
            all.push(single(table::STARTED, Level(*started_s)));
        }
        all
    }
}

fn single<'a>(metric: Metric, value: Value<'a>) -> Family<'a> {
    family(metric, [(Vec::new(), value)].into_iter())
}
