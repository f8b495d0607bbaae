//! How long the BPF programs run, hook by hook, for an exchange and for what is none of nginx's.

use std::collections::BTreeMap;

use anyhow::Result;
use rig::programs::{Runs, count, runs};

use crate::figure::{emit, progress};
use crate::load::Load;
use crate::programs;
use crate::stage::Stage;
use crate::tool::{Running, Tool};

/// Slices of each load.
const SLICES: usize = 3;

/// Measures every load, and hook by hook.
pub(crate) fn measure(stage: &Stage) -> Result<()> {
    emit("counting", "empty_program", "bpf_ns_per_run", programs::floor_ns()?)?;
    let loads = [Load::Tcp, Load::Unix, Load::Kept, Load::Refused, Load::Unrelated, Load::UnrelatedConnects];
    for load in loads {
        progress(&format!("{}: BPF run time of each hook", load.name()));
        let watched = stage.watched(load)?;
        let running = Tool::Why502.start(&watched)?;
        let rate = load.slice(stage, None)?.rate;
        for _ in 0..SLICES {
            let Cost { exchanges, hooks } = cost(stage, &running, load, rate)?;
            emit_totals(load.name(), exchanges, &hooks)?;
            for (hook, Runs { count, ns }) in hooks.iter().filter(|(_, runs)| runs.count > 0) {
                emit(load.name(), hook, "runs_per_exchange", *count as f64 / exchanges)?;
                emit(load.name(), hook, "ns_per_run", *ns as f64 / *count as f64)?;
                emit(load.name(), hook, "ns_per_exchange", *ns as f64 / exchanges)?;
            }
        }
        running.stop()?;
    }
    Ok(())
}

/// What the programs did in one slice.
pub(crate) struct Cost {
    /// Exchanges, or requests that are none of nginx's.
    pub(crate) exchanges: f64,
    /// By hook.
    pub(crate) hooks: BTreeMap<String, Runs>,
}

/// Loads for one slice while the kernel counts.
pub(crate) fn cost(stage: &Stage, running: &Running, load: Load, rate: f64) -> Result<Cost> {
    let _counting = count()?;
    let before = runs(running.pid())?;
    let exchanges = load.slice(stage, Some(rate))?.requests;
    let after = runs(running.pid())?;
    let hooks = after.into_iter().map(|(hook, runs)| {
        let runs = runs.since(before.get(&hook).copied().unwrap_or_default());
        (hook, runs)
    });
    Ok(Cost { exchanges, hooks: hooks.collect() })
}

/// Emits what all hooks did together.
pub(crate) fn emit_totals(case: &str, exchanges: f64, hooks: &BTreeMap<String, Runs>) -> Result<()> {
    let count: u64 = hooks.values().map(|runs| runs.count).sum();
    let ns: u64 = hooks.values().map(|runs| runs.ns).sum();
    emit(case, "why502", "bpf_runs_per_exchange", count as f64 / exchanges)?;
    emit(case, "why502", "bpf_ns_per_exchange", ns as f64 / exchanges)?;
    if count > 0 {
        emit(case, "why502", "bpf_ns_per_run", ns as f64 / count as f64)?;
    }
    Ok(())
}
