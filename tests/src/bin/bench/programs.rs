//! What the counting of run time itself costs.

use anyhow::{Context, Result};
use rig::programs::{Runs, count, runs};

mod empty;

/// Enough to average over interrupts.
const RUNS_OF_EMPTY: u32 = 200_000;

/// What the counting itself adds to each run, in nanoseconds: the run time of a program that does nothing.
pub(crate) fn floor_ns() -> Result<f64> {
    let _counting = count()?;
    let program = empty::load()?;
    empty::run(&program, RUNS_OF_EMPTY)?;
    let ours = runs(std::process::id().cast_signed())?;
    let Runs { count, ns } =
        ours.values().copied().find(|runs| runs.count > 0).context("the empty program's runs")?;
    Ok(ns as f64 / count as f64)
}
