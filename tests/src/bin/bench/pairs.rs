//! What watching costs: slices of the same load, one watched and one not, in pairs.
//!
//! A machine's speed drifts within seconds, so only neighbours are compared; and the order alternates (unwatched, watched; watched,
//! unwatched), so that a drift works for either as often as against it.

use std::time::Instant;

use anyhow::Result;

use crate::figure::{emit, note, progress};
use crate::load::{Load, Slice};
use crate::process;
use crate::stage::Stage;
use crate::tool::{Running, Tool};

/// Pairs for why502 in every case.
pub(crate) fn of_why502(stage: &Stage, pairs: usize) -> Result<()> {
    let loads = [Load::Tcp, Load::Unix, Load::Kept, Load::Refused, Load::Unrelated];
    loads.into_iter().try_for_each(|load| compare(stage, Tool::Why502, load, pairs))
}

/// Pairs for what a user would otherwise run.
pub(crate) fn of_other_tools(stage: &Stage, pairs: usize) -> Result<()> {
    for tool in [Tool::Tcpdump, Tool::Strace, Tool::Bpftrace] {
        if let Err(error) = tool.start(&stage.watched(Load::Tcp)?).and_then(Running::stop) {
            progress(&format!("{} does not work here: {error:#}", tool.name()));
            note(Load::Tcp.name(), tool.name(), &format!("does not work here: {error}"))?;
            continue;
        }
        compare(stage, tool, Load::Tcp, pairs)?;
    }
    Ok(())
}

fn compare(stage: &Stage, tool: Tool, load: Load, pairs: usize) -> Result<()> {
    let (case, subject) = (load.name(), tool.name());
    progress(&format!("{case}, watched by {subject}: {pairs} pairs"));
    let watched = stage.watched(load)?;
    // Not measured: it warms up, and shows how much a second takes.
    let rate = load.slice(stage, None)?.rate;
    let mut running: Option<Running> = None;
    for pair in 0..pairs {
        let order = if pair % 2 == 0 { [false, true] } else { [true, false] };
        let mut slices: [Option<Slice>; 2] = [None, None];
        for is_watched in order {
            if is_watched && running.is_none() {
                running = Some(tool.start(&watched)?);
            }
            if !is_watched && let Some(ended) = running.take() {
                stop(case, ended)?;
            }
            slices[usize::from(is_watched)] = Some(match &running {
                Some(running) => costed(stage, case, running, load, rate)?,
                None => load.slice(stage, Some(rate))?,
            });
        }
        if let [Some(without), Some(with)] = slices {
            emit(case, subject, "throughput_ratio", with.rate / without.rate)?;
            emit(case, subject, "p50_ratio", with.p50_us / without.p50_us)?;
            emit(case, subject, "p99_ratio", with.p99_us / without.p99_us)?;
            emit(case, subject, "unwatched_per_s", without.rate)?;
            emit(case, subject, "unwatched_p50_us", without.p50_us)?;
            emit(case, subject, "unwatched_p99_us", without.p99_us)?;
        }
    }
    running.map_or(Ok(()), |ended| stop(case, ended))
}

/// One slice, and what share of a processor the watching process took itself meanwhile.
fn costed(stage: &Stage, case: &str, running: &Running, load: Load, rate: f64) -> Result<Slice> {
    let (before, started) = (process::cpu_ns(running.pid())?, Instant::now());
    let slice = load.slice(stage, Some(rate))?;
    let ns = process::cpu_ns(running.pid())?.saturating_sub(before);
    let percent = ns as f64 / started.elapsed().as_nanos() as f64 * 100.0;
    emit(case, running.name(), "cpu_percent", percent)?;
    Ok(slice)
}

/// Ends a tool, and emits what it took.
fn stop(case: &str, running: Running) -> Result<()> {
    let subject = running.name();
    let memory = process::memory(running.pid())?;
    emit(case, subject, "attach_ms", running.attached_in.as_secs_f64() * 1e3)?;
    emit(case, subject, "start_peak_mib", running.start_peak)?;
    emit(case, subject, "resident_mib", memory.resident)?;
    emit(case, subject, "peak_mib", memory.peak)?;
    emit(case, subject, "maps_mib", memory.maps)?;
    let ended = running.stop()?;
    if subject == Tool::Why502.name() {
        emit(case, subject, "lost", ended.summary()?["lost"].as_f64().unwrap_or(f64::NAN))?;
    }
    Ok(())
}
