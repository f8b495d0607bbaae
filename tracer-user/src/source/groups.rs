//! Which groups of upstreams there are, learnt when a worker says that no server of one is alive.

use std::collections::VecDeque;

use procfs::process::{Process, Stat};

use super::{
    configurations::Configurations,
    masters::{Masters, Said},
};
use crate::{
    model::{budget, clock, groups::Configured},
    procfs::{
        host::nginx::master_of,
        processes::{pids, still},
    },
};

/// Reading a configuration takes its time, and so does finding all that run by it (ns).
const RESPITE_NS: u64 = 10_000_000_000;

/// Whose configurations have been asked for, and when.
#[derive(Debug, Default)]
pub(super) struct Known(VecDeque<(u64, Vec<u32>)>);

impl Known {
    /// What the configuration of this worker says, unless it was asked before.
    pub(super) fn ask(&mut self, worker: u32, configurations: &mut Configurations) -> Option<Configured> {
        if self.0.iter().any(|(_, workers)| workers.contains(&worker)) {
            return None;
        }
        let now = clock::monotonic_ns();
        if self.0.len() >= budget::GROUPED_CONFIGURATIONS {
            self.0.pop_front_if(|(read_ns, _)| *read_ns + RESPITE_NS <= now)?;
        }
        let answer = configurations.ask(move |masters| of(worker, masters));
        let answer = answer.unwrap_or_else(|| Err("it was not read in time".to_owned()));
        let configured = answer.unwrap_or_else(|why| Configured {
            workers: vec![worker],
            gaps: Some(why),
            ..Configured::default()
        });
        self.0.push_back((now, configured.workers.clone()));
        Some(configured)
    }
}

/// What the files say by which the worker runs.
fn of(worker: u32, masters: &mut Masters) -> Result<Configured, String> {
    let own = stat(worker.cast_signed())?;
    let master = master_of(worker).ok_or_else(|| "it has ended".to_owned())?;
    let master = stat(master.cast_signed())?;
    let said = masters.said_to(master.pid.unsigned_abs(), own.starttime)?;
    let groups = said.groups.clone()?;
    let workers = siblings(&own, &master, &said)?;
    Ok(Configured {
        workers,
        groups,
        is_narrowed: false,
        counts_statuses: said.counts_statuses,
        gaps: said.gaps.clone(),
    })
}

/// The processes that run by the same configuration.
fn siblings(own: &Stat, master: &Stat, said: &Said) -> Result<Vec<u32>, String> {
    let mut workers = vec![own.pid.unsigned_abs()];
    if own.pid == master.pid {
        return Ok(workers);
    }
    for pid in pids().map_err(|error| format!("/proc cannot be listed: {error}"))? {
        let Some(stat) = stat_of(pid)? else { continue };
        let is_sibling = stat.ppid == master.pid && stat.comm == own.comm && stat.pid != own.pid;
        if is_sibling && said.is_older_than(stat.starttime) && workers.len() < budget::GROUP_SERVERS {
            workers.push(stat.pid.unsigned_abs());
        }
    }
    Ok(workers)
}

fn stat(pid: i32) -> Result<Stat, String> {
    stat_of(pid)?.ok_or_else(|| "it has ended".to_owned())
}

/// None of who has ended.
fn stat_of(pid: i32) -> Result<Option<Stat>, String> {
    still(Process::new(pid).and_then(|process| process.stat()))
        .map_err(|error| format!("the /proc entry of {pid} cannot be read: {error}"))
}
