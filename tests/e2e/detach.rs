//! What attaching costs, and what detaching leaves behind.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::{Programs, Tracer, wait};

fn pinned() -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir("/sys/fs/bpf").into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

#[test]
fn attaching_takes_under_two_seconds_and_detaching_leaves_nothing() -> Result<()> {
    let before = pinned();
    let mut fastest = Duration::MAX;
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let start = Instant::now();
        let tracer = Tracer::start(&["--comm", "nobody-at-all"])?;
        fastest = fastest.min(start.elapsed());
        let held = Programs::of(tracer.pid())?;
        tracer.signal(signal)?;
        ensure!(tracer.end()?.status.success() == (signal != Signal::SIGKILL), "{signal}");
        held.wait_gone().with_context(|| format!("after {signal}"))?;
    }
    ensure!(pinned() == before, "pinned: {:?}", pinned());
    // The best of three: this machine may be busy.
    ensure!(fastest < wait::patience() * Duration::from_secs(2), "attaching took {fastest:?} at best");
    Ok(())
}
