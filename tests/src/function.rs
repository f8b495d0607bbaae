//! The text of a running program's function, as it stands in memory: where a breakpoint would be.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use object::{Object, ObjectSymbol};
use procfs::process::{MMapPath, Process};

use crate::process::Pid;

/// How much of it is looked at, in bytes.
const LENGTH: usize = 16;

/// The first bytes of a function that the program of a process exports.
pub fn text(pid: Pid, name: &str) -> Result<[u8; LENGTH]> {
    // Also of a program that has been replaced, or that is in another mount namespace.
    let program = fs::read(PathBuf::from(format!("/proc/{pid}/exe"))).context("reading the program")?;
    let program = object::File::parse(program.as_slice()).context("a program")?;
    let symbol = program.dynamic_symbols().find(|symbol| symbol.name() == Ok(name));
    let address = symbol.with_context(|| format!("the program has no {name}"))?.address();
    let process = Process::new(pid)?;
    let exe = process.stat()?.comm;
    let maps = process.maps().context("where the program lies")?;
    let first = maps.iter().find(|map| map.offset == 0 && matches!(&map.pathname, MMapPath::Path(_)));
    let base = first.with_context(|| format!("{exe} lies nowhere"))?.address.0;
    let mut text = [0; LENGTH];
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    memory.read_exact_at(&mut text, base + address).with_context(|| format!("reading {name} of {exe}"))?;
    Ok(text)
}
