//! What a process's BPF programs have run, as the kernel counts while it is asked to.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use rig::process::Pid;

use crate::process;

mod empty;

/// Enough to average over interrupts.
const RUNS_OF_EMPTY: u32 = 200_000;

/// For as long as this lives, the kernel counts.
pub(crate) struct Counting(#[expect(dead_code, reason = "closing it ends the counting")] OwnedFd);

/// Begins to count the run time of every BPF program of this host. That itself costs, so nothing else is measured meanwhile.
pub(crate) fn count() -> Result<Counting> {
    enable_stats(Stats::RunTime)
        .map(Counting)
        .context("the kernel cannot count BPF run time (it has been able to since 5.8)")
}

/// What the counting itself adds to each run, in nanoseconds: the run time of a program that does nothing.
pub(crate) fn floor_ns() -> Result<f64> {
    let _counting = count()?;
    let program = empty::load()?;
    empty::run(&program, RUNS_OF_EMPTY)?;
    let ours = of(std::process::id().cast_signed())?;
    let Runs { count, ns } =
        ours.values().copied().find(|runs| runs.count > 0).context("the empty program's runs")?;
    Ok(ns as f64 / count as f64)
}

/// How often something ran, and for how long.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Runs {
    /// Runs.
    pub(crate) count: u64,
    /// Nanoseconds in all of them.
    pub(crate) ns: u64,
}

impl Runs {
    /// What has come since.
    pub(crate) fn since(self, before: Runs) -> Runs {
        Runs { count: self.count - before.count, ns: self.ns - before.ns }
    }
}

/// The runs of a process's programs, by the tracepoint each hangs on, or else by its own name. Copies are counted with their original.
pub(crate) fn of(pid: Pid) -> Result<BTreeMap<String, Runs>> {
    let descriptors = process::descriptors(pid)?;
    let tracepoints: BTreeMap<&str, &str> = descriptors
        .iter()
        .filter_map(|fields| Some((fields.get("prog_id")?.as_str(), fields.get("tp_name")?.as_str())))
        .collect();
    let names: BTreeMap<u32, String> = loaded_programs()
        .filter_map(Result::ok)
        .map(|program| (program.id(), program.name_as_str().unwrap_or("?").to_owned()))
        .collect();
    let mut by_id = BTreeMap::new();
    for fields in &descriptors {
        if let (Some(id), Some(count), Some(ns)) =
            (fields.get("prog_id"), fields.get("run_cnt"), fields.get("run_time_ns"))
        {
            by_id.insert(id.as_str(), Runs { count: count.parse()?, ns: ns.parse()? });
        }
    }
    let mut by_name: BTreeMap<String, Runs> = BTreeMap::new();
    for (id, runs) in by_id {
        let name = match tracepoints.get(id) {
            Some(name) => (*name).to_owned(),
            None => names.get(&id.parse()?).cloned().unwrap_or_else(|| format!("program {id}")),
        };
        let sum = by_name.entry(name).or_default();
        *sum = Runs { count: sum.count + runs.count, ns: sum.ns + runs.ns };
    }
    Ok(by_name)
}
