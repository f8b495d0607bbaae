//! What attaching costs, and what detaching leaves behind.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::{Tracer, wait};

/// The ids of the BPF programs and maps that a process holds, from its descriptors.
fn held(pid: i32) -> Result<(Vec<u32>, Vec<u32>)> {
    let (mut programs, mut maps) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may be closed meanwhile.
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        for line in info.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            match (name, value.trim().parse()) {
                ("prog_id", Ok(id)) => programs.push(id),
                ("map_id", Ok(id)) => maps.push(id),
                _ => {}
            }
        }
    }
    Ok((programs, maps))
}

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
        let (programs, maps) = held(tracer.pid())?;
        ensure!(!programs.is_empty() && !maps.is_empty(), "no program and no map is attached?");
        tracer.signal(signal)?;
        ensure!(tracer.end()?.status.success() == (signal != Signal::SIGKILL), "{signal}");
        // The kernel frees them a little later.
        wait::until_true("programs and maps to go", || {
            let mut loaded = aya::programs::loaded_programs();
            let mut mapped = aya::maps::loaded_maps();
            let one_left = loaded
                .any(|program| program.is_ok_and(|program| programs.contains(&program.id())))
                || mapped.any(|map| map.is_ok_and(|map| maps.contains(&map.id())));
            Ok(!one_left)
        })
        .with_context(|| format!("after {signal}"))?;
    }
    ensure!(pinned() == before, "pinned: {:?}", pinned());
    // The best of three: this machine may be busy.
    ensure!(fastest < wait::patience() * Duration::from_secs(2), "attaching took {fastest:?} at best");
    Ok(())
}
