//! Texts that are recorded kernel by kernel (`tests/golden`), and held against what the running one shows.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The folder of golden texts: this checkout's, or where `cargo xtask vm` put them.
pub fn recorded() -> PathBuf {
    env::var_os("RIG_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("golden"), PathBuf::from)
}

/// The name of the running kernel's text of a kind. Kernels of one release differ in whether functions can be hooked.
fn name(kind: &str) -> Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let release: Vec<&str> = release.trim().splitn(3, '.').collect();
    let kprobes = Path::new("/sys/bus/event_source/devices/kprobe").exists();
    let hooks = if kprobes { "" } else { "-tracepoints" };
    let arch = if cfg!(target_arch = "aarch64") { "-arm64" } else { "" };
    let minor = release.get(1).context("a kernel release has two numbers")?;
    Ok(format!("{kind}-{}.{minor}{arch}{hooks}.txt", release[0]))
}

/// Succeeds if this is the text of its kind that is recorded of the running kernel. With `RENEW` it is recorded, here or, in a guest, where
/// `cargo xtask vm` finds it.
pub fn is_as_recorded(kind: &str, text: &str) -> Result<()> {
    let name = name(kind)?;
    let path = recorded().join(&name);
    if env::var_os("RENEW").is_some() {
        let renewed = env::var_os("RIG_RENEWED").map_or_else(recorded, PathBuf::from);
        fs::create_dir_all(&renewed)?;
        fs::write(renewed.join(name), text)?;
    } else if let Ok(recorded) = fs::read_to_string(&path) {
        ensure!(text == recorded, "{}:\n{recorded}\nnow:\n{text}", path.display());
    } else {
        // Whoever runs this has a kernel of his own; the machines that we make have known ones.
        ensure!(env::var_os("RIG_GOLDEN").is_none(), "no golden text for this kernel: {}", path.display());
        eprintln!("no golden text for this kernel: {}", path.display());
    }
    Ok(())
}
