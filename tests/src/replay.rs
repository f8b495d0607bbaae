//! Evidence, taken in again: it emits what live tracing emitted, and so does evidence made of it.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tempfile::NamedTempFile;

use crate::process;
use crate::tracer::binary;

/// Checks that a replay of this evidence, and a replay of that replay, emit these lines of live tracing, line by line. Audits
/// and the requests of clients are live tracing's own.
pub fn emits_the_same(evidence: &Path, live: &[String]) -> Result<()> {
    let is_lives_own =
        |line: &&str| [r#""type":"audit""#, r#""type":"answer""#].iter().any(|own| line.contains(own));
    let live: Vec<&str> = live.iter().map(String::as_str).filter(|line| !is_lives_own(line)).collect();
    same(&live, &report(evidence, "json")?).context("a replay tells something else")?;
    let mut again = NamedTempFile::with_prefix("why502-evidence-")?;
    again.write_all(&report(evidence, "evidence")?)?;
    same(&live, &report(again.path(), "json")?).context("a replay of a replay tells something else")
}

/// What `why502 report` makes of a file.
pub fn report(evidence: &Path, format: &str) -> Result<Vec<u8>> {
    let mut command = process::command(binary()?);
    command.args(["report", "-o", format, "-"]).stdin(File::open(evidence)?).stderr(Stdio::piped());
    let output = command.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && stderr.is_empty(), "why502 report: {}: {stderr}", output.status);
    Ok(output.stdout)
}

fn same(live: &[&str], replayed: &[u8]) -> Result<()> {
    let replayed: Vec<&str> = std::str::from_utf8(replayed)?.lines().collect();
    for (number, (live, replayed)) in live.iter().zip(&replayed).enumerate() {
        ensure!(live == replayed, "line {}:\nlive     {live}\nreplayed {replayed}", number + 1);
    }
    ensure!(live.len() == replayed.len(), "{} lines live, {} replayed", live.len(), replayed.len());
    Ok(())
}
