//! What a process costs by itself: its time on a processor, its memory, and the kernel's memory for its maps.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use rig::process::Pid;

/// Memory in MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// What is resident now.
    pub(crate) resident: f64,
    /// The most that ever was.
    pub(crate) peak: f64,
    /// What the kernel has set aside for its BPF maps.
    pub(crate) maps: f64,
}

/// Nanoseconds that all of its threads have run on a processor: finer than the hundredths of a second of /proc/PID/stat.
pub(crate) fn cpu_ns(pid: Pid) -> Result<u64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("the threads of {pid}"))?;
    let mut total = 0;
    for task in tasks {
        let path = task?.path().join("schedstat");
        // A thread may have ended meanwhile.
        let text = fs::read_to_string(path).unwrap_or_default();
        total += text.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(total)
}

/// Its memory.
pub(crate) fn memory(pid: Pid) -> Result<Memory> {
    let process = procfs::process::Process::new(pid)?;
    let status = process.status()?;
    let mib = |kib: Option<u64>| kib.map(|kib| kib as f64 / 1024.0).context("a process without memory");
    let maps: BTreeMap<String, f64> = descriptors(pid)?
        .into_iter()
        .filter_map(|fields| Some((fields.get("map_id")?.clone(), fields.get("memlock")?.parse().ok()?)))
        .collect();
    Ok(Memory {
        resident: mib(status.vmrss)?,
        peak: mib(status.vmhwm)?,
        maps: maps.values().sum::<f64>() / 1024.0 / 1024.0,
    })
}

/// What the kernel says of each of its descriptors, by name.
pub(crate) fn descriptors(pid: Pid) -> Result<Vec<BTreeMap<String, String>>> {
    let entries =
        fs::read_dir(format!("/proc/{pid}/fdinfo")).with_context(|| format!("the files of {pid}"))?;
    let mut all = Vec::new();
    for entry in entries {
        // It may have been closed meanwhile.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        all.push(fields.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect());
    }
    Ok(all)
}
