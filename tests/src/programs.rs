//! The BPF programs and maps that a process holds: what the kernel counts of them, and whether it still has them after the process.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};

use crate::process::{Pid, files_info};
use crate::wait;

/// What a process holds of BPF, by the kernel's ids.
#[derive(Debug)]
pub struct Programs {
    programs: Vec<u32>,
    maps: Vec<u32>,
}

impl Programs {
    /// Takes them from the descriptors of a process that has some.
    pub fn of(pid: Pid) -> Result<Programs> {
        let mut held = Programs { programs: Vec::new(), maps: Vec::new() };
        for fields in files_info(pid)? {
            let number = |name| fields.get(name)?.parse::<u32>().ok();
            held.programs.extend(number("prog_id"));
            held.maps.extend(number("map_id"));
        }
        ensure!(
            !held.programs.is_empty() && !held.maps.is_empty(),
            "process {pid} holds no program or no map: {held:?}"
        );
        Ok(held)
    }

    /// Waits until the kernel has none of them any more: it frees them a little after the process is gone.
    pub fn wait_gone(&self) -> Result<()> {
        wait::until_true("programs and maps to go", || {
            let mut loaded = loaded_programs();
            let mut mapped = aya::maps::loaded_maps();
            let one_left = loaded
                .any(|program| program.is_ok_and(|program| self.programs.contains(&program.id())))
                || mapped.any(|map| map.is_ok_and(|map| self.maps.contains(&map.id())));
            Ok(!one_left)
        })
    }
}

/// For as long as this lives, the kernel counts.
#[derive(Debug)]
pub struct Counting(#[expect(dead_code, reason = "closing it ends the counting")] OwnedFd);

/// Begins to count how often every BPF program of this host runs, and for how long. That itself costs, so nothing else is measured meanwhile.
pub fn count() -> Result<Counting> {
    enable_stats(Stats::RunTime)
        .map(Counting)
        .context("the kernel cannot count BPF run time (it has been able to since 5.8)")
}

/// How often something ran, and for how long.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Runs {
    /// Runs.
    pub count: u64,
    /// Nanoseconds in all of them.
    pub ns: u64,
}

impl Runs {
    /// What has come since.
    pub fn since(self, before: Runs) -> Runs {
        Runs { count: self.count - before.count, ns: self.ns - before.ns }
    }
}

/// The runs of a process's programs, by the tracepoint each hangs on, or else by its own name. Copies are counted with their original.
pub fn runs(pid: Pid) -> Result<BTreeMap<String, Runs>> {
    let descriptors = files_info(pid)?;
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
