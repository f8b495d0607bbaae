//! What a process costs by itself: its time on a processor, its memory, and the kernel's memory for its maps.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use procfs::process::{MMapPath, Process, Status};
use rig::process::{Pid, files_info};

/// Memory in MiB. The pages of a BPF map that the process has mapped are among `maps` and nowhere else: a ring buffer's data are
/// mapped twice, one after the other, and resident so twice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// What is resident now.
    pub(crate) resident: f64,
    /// The most that was since [`begin_peak`].
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

/// How the kernel names the mappings of BPF maps.
const MAPPED: &str = "anon_inode:bpf-map";

/// Begins to take its peak anew, once its start is over. Returns the most that was resident until now, in MiB.
pub(crate) fn begin_peak(pid: Pid) -> Result<f64> {
    let until_now = mib(Process::new(pid)?.status()?.vmhwm)?;
    // proc(5): 5 sets the peak to what is resident now.
    fs::write(format!("/proc/{pid}/clear_refs"), "5").with_context(|| format!("the peak of {pid}"))?;
    Ok(until_now)
}

/// Its memory.
pub(crate) fn memory(pid: Pid) -> Result<Memory> {
    let process = Process::new(pid)?;
    let Status { vmrss, vmhwm, .. } = process.status()?;
    let is_map = |path: &MMapPath| matches!(path, MMapPath::Path(path) if path == Path::new(MAPPED));
    let mappings = process.smaps()?;
    let mapped = mappings.iter().filter(|mapping| is_map(&mapping.pathname));
    let mapped = mapped.filter_map(|mapping| mapping.extension.map.get("Rss")).sum::<u64>();
    let maps: BTreeMap<String, f64> = files_info(pid)?
        .into_iter()
        .filter_map(|fields| Some((fields.get("map_id")?.clone(), fields.get("memlock")?.parse().ok()?)))
        .collect();
    let mapped = mapped as f64 / MIB;
    Ok(Memory {
        resident: mib(vmrss)? - mapped,
        peak: mib(vmhwm)? - mapped,
        maps: maps.values().sum::<f64>() / MIB,
    })
}

/// A mebibyte in bytes.
const MIB: f64 = 1024.0 * 1024.0;

fn mib(kib: Option<u64>) -> Result<f64> {
    kib.map(|kib| kib as f64 / 1024.0).context("a process without memory")
}
