//! nginx's configuration, read when a worker says that no server of a group is alive: which groups there are.

use std::collections::VecDeque;

use procfs::process::{Process, Stat};

use crate::{
    budget, clock,
    groups::Configured,
    host::{
        Master,
        nginx::{Configuration, configuration, counts_statuses, groups, master_of},
    },
    processes::{pids, still},
};

/// By how much a process may be older than its time of birth says, which is in clock ticks (ns).
const TICK_NS: i64 = 10_000_000;

/// Reading a configuration takes its time, and nothing is read from the ring buffer meanwhile (ns).
const RESPITE_NS: u64 = 10_000_000_000;

/// Whose configurations have been read, and when.
#[derive(Debug, Default)]
pub(super) struct Known(VecDeque<(u64, Vec<u32>)>);

impl Known {
    /// What the configuration of this worker says, unless it was asked before.
    pub(super) fn ask(&mut self, worker: u32) -> Option<Configured> {
        if self.0.iter().any(|(_, workers)| workers.contains(&worker)) {
            return None;
        }
        let now = clock::monotonic_ns();
        if self.0.len() >= budget::GROUPED_CONFIGURATIONS {
            self.0.pop_front_if(|(read_ns, _)| *read_ns + RESPITE_NS <= now)?;
        }
        let configured = read(worker).unwrap_or_else(|why| Configured {
            workers: vec![worker],
            gaps: Some(why),
            ..Configured::default()
        });
        self.0.push_back((now, configured.workers.clone()));
        Some(configured)
    }
}

/// What the files say now, if they have not changed since the worker was born.
fn read(worker: u32) -> Result<Configured, String> {
    let own = stat(worker.cast_signed())?;
    let master = master_of(worker).ok_or_else(|| "it has ended".to_owned())?;
    let master = stat(master.cast_signed())?;
    let believed = Master::believe(master.pid.unsigned_abs()).map_err(|refusal| refusal.to_string())?;
    let configuration = configuration(&believed).map_err(|refusal| refusal.to_string())?;
    if !is_born_after(&own, configuration.changed_ns)? {
        return Err("a file of it was changed after this worker had begun".to_owned());
    }
    let groups = groups(&configuration);
    let servers: usize = groups.iter().map(|group| group.servers.len().max(1)).sum();
    if servers > budget::GROUP_SERVERS {
        return Err(format!("it has more than {} servers", budget::GROUP_SERVERS));
    }
    if groups.iter().any(|group| group.name.len() > budget::GROUP_NAME) {
        return Err("a group's name is longer than any is".to_owned());
    }
    let workers = siblings(&own, &master, &configuration)?;
    Ok(Configured {
        workers,
        groups,
        counts_statuses: counts_statuses(&configuration.directives),
        gaps: configuration.gaps.told(),
    })
}

/// The processes that run by the same configuration.
fn siblings(own: &Stat, master: &Stat, configuration: &Configuration) -> Result<Vec<u32>, String> {
    let mut workers = vec![own.pid.unsigned_abs()];
    if own.pid == master.pid {
        return Ok(workers);
    }
    for pid in pids().map_err(|error| format!("/proc cannot be listed: {error}"))? {
        let Some(stat) = stat_of(pid)? else { continue };
        let is_sibling = stat.ppid == master.pid && stat.comm == own.comm && stat.pid != own.pid;
        if is_sibling
            && is_born_after(&stat, configuration.changed_ns)?
            && workers.len() < budget::GROUP_SERVERS
        {
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

/// Whether a process was born after a moment of the wall clock (ns since 1970).
fn is_born_after(stat: &Stat, ns: i64) -> Result<bool, String> {
    let per_second = i64::try_from(procfs::ticks_per_second()).unwrap_or(0);
    if per_second == 0 {
        return Err("this kernel does not say how it counts time".to_owned());
    }
    let ticks = i64::try_from(stat.starttime).unwrap_or(i64::MAX);
    let since_boot = ticks.saturating_mul(1_000_000_000 / per_second).saturating_add(TICK_NS);
    Ok(clock::booted_ns().saturating_add(since_boot) >= ns)
}
