//! What it was measured on.

use std::{fs, num::NonZero, process::Command, thread};

use anyhow::{Context as _, Result};
use nix::sys::utsname::uname;

/// This machine.
#[derive(Debug)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    nginx: String,
}

impl Machine {
    /// Asks what this one is.
    pub(crate) fn this() -> Result<Self> {
        let info = fs::read_to_string("/proc/cpuinfo").context("/proc/cpuinfo cannot be read")?;
        let cpu = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let cpu = cpu.map_or("an unnamed processor", |(_, name)| name.trim()).to_owned();
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let kernel = uname().context("uname")?.release().to_string_lossy().into_owned();
        let nginx =
            Command::new("nginx").arg("-v").output().context("nginx cannot be asked for its version")?;
        let nginx = String::from_utf8_lossy(&nginx.stderr).trim().to_owned();
        let nginx = nginx.rsplit_once('/').map_or(nginx.clone(), |(_, version)| version.to_owned());
        Ok(Self { cpu, cores, kernel, nginx })
    }

    /// As half a sentence.
    pub(crate) fn shown(&self) -> String {
        let Self { cpu, cores, kernel, nginx } = self;
        let cores = if *cores == 1 { "one core".to_owned() } else { format!("{cores} cores") };
        format!("{cpu}, {cores}, Linux {kernel}, nginx {nginx}")
    }
}
