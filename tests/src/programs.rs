//! The BPF programs and maps that a process holds, and whether the kernel still has them after it.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::process::Pid;
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
        let descriptors = format!("/proc/{pid}/fdinfo");
        for entry in fs::read_dir(&descriptors).context(descriptors)? {
            // A descriptor may be closed meanwhile.
            let info = fs::read_to_string(entry?.path()).unwrap_or_default();
            for line in info.lines() {
                let Some((name, value)) = line.split_once(':') else { continue };
                match (name, value.trim().parse()) {
                    ("prog_id", Ok(id)) => held.programs.push(id),
                    ("map_id", Ok(id)) => held.maps.push(id),
                    _ => {}
                }
            }
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
            let mut loaded = aya::programs::loaded_programs();
            let mut mapped = aya::maps::loaded_maps();
            let one_left = loaded
                .any(|program| program.is_ok_and(|program| self.programs.contains(&program.id())))
                || mapped.any(|map| map.is_ok_and(|map| self.maps.contains(&map.id())));
            Ok(!one_left)
        })
    }
}
