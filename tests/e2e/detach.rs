//! What attaching costs, and what detaching leaves behind.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::process::Pid;
use rig::{Programs, Tracer, wait};

fn pinned() -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir("/sys/fs/bpf").into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// The processor time that a process has taken, which is its own however busy the machine is.
fn taken(pid: Pid) -> Result<Duration> {
    let stat = procfs::process::Process::new(pid)?.stat()?;
    Ok(Duration::from_secs(stat.utime + stat.stime) / u32::try_from(procfs::ticks_per_second())?)
}

#[test]
fn attaching_takes_under_two_seconds_of_a_processor_and_detaching_leaves_nothing() -> Result<()> {
    let before = pinned();
    let mut fastest = Duration::MAX;
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let tracer = Tracer::start(&["--comm", "nobody-at-all"])?;
        fastest = fastest.min(taken(tracer.pid())?);
        let held = Programs::of(tracer.pid())?;
        tracer.signal(signal)?;
        ensure!(tracer.end()?.status.success() == (signal != Signal::SIGKILL), "{signal}");
        held.wait_gone().with_context(|| format!("after {signal}"))?;
    }
    ensure!(pinned() == before, "pinned: {:?}", pinned());
    // The best of three: a busy machine's caches are cold.
    ensure!(fastest < wait::patience() * Duration::from_secs(2), "attaching took {fastest:?} at best");
    Ok(())
}
