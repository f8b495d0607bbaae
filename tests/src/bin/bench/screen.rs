//! Whether `why502 top` keeps drawing while failures come in thousands a second.

use std::fs;

use anyhow::{Context, Result};
use rig::tmux::Tmux;
use rig::{tracer, wait};

use crate::figure::{emit, progress};
use crate::process;
use crate::stage::Stage;
use crate::storm::{MILLISECONDS, RATE, pace};

/// What each frame ends with, as it is drawn: the cursor is hidden.
const FRAME: &str = "\u{1b}[?25l";

/// Measures it in a real terminal.
pub(crate) fn measure(stage: &Stage) -> Result<()> {
    progress(&format!("{RATE} refused exchanges per second, on why502 top's screen"));
    let tmux = Tmux::start(120, 40, &[])?;
    let why502 = tracer::binary()?;
    tmux.line(&format!("cd {}", tmux.folder().display()))?;
    tmux.line(&format!("sh -c 'echo $$ > pid; exec {} top --ready-file ready'", why502.display()))?;
    wait::until_true("why502 top to attach its hooks", || Ok(tmux.folder().join("ready").exists()))?;
    tmux.wait_for("no exchange has failed yet")?;
    let pid = fs::read_to_string(tmux.folder().join("pid"))?.trim().parse().context("a pid")?;
    process::begin_peak(pid)?;
    let drawn = tmux.folder().join("drawn");
    let written = tmux.record(&drawn)?;
    let took = pace(stage)?;
    written.end()?;
    let frames = String::from_utf8_lossy(&fs::read(&drawn)?).matches(FRAME).count();
    let failures = RATE / 1_000 * MILLISECONDS;
    let memory = process::memory(pid)?;
    tmux.press(&["q"])?;
    // What it says at the end: `why502: watched 60000 failures, ...`.
    let said = tmux.wait_for("watched ")?;
    let watched = said.split("watched ").nth(1).and_then(|rest| rest.split(' ').next());
    let watched: f64 = watched.context("no count of failures")?.parse().context("a count of failures")?;
    emit("storm_on_screen", "why502", "told", watched)?;
    emit("storm_on_screen", "why502", "frames_per_s", frames as f64 / took.as_secs_f64())?;
    emit("storm_on_screen", "why502", "failures_per_s", f64::from(failures) / took.as_secs_f64())?;
    emit("storm_on_screen", "why502", "peak_mib", memory.peak)?;
    emit("storm_on_screen", "why502", "maps_mib", memory.maps)
}
