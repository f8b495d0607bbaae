//! Whether anything is lost when failures come in thousands a second.

use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, getsockopt, socket, sockopt};
use serde_json::Value;

use crate::figure::{emit, progress};
use crate::load::Load;
use crate::process;
use crate::stage::{NOBODY, Stage};
use crate::tool::{Running, Tool};

/// Failures per second of the paced storm.
pub(crate) const RATE: u32 = 20_000;
/// How long the paced storm lasts, in milliseconds.
pub(crate) const MILLISECONDS: u32 = 3_000;
/// Its threads, named nginx: to why502 they are nginx, whose own speed depends on the machine.
const THREADS: u32 = 2;
/// Slices of nginx's own storm.
const SLICES: usize = 3;

/// Measures nginx's own storm, as fast as it can, and a paced one.
pub(crate) fn measure(stage: &Stage) -> Result<()> {
    progress("refused exchanges, as fast as nginx can");
    let running = Tool::Why502.start(&stage.watched(Load::Refused)?)?;
    let (started, cpu_ns) = (Instant::now(), process::cpu_ns(running.pid())?);
    let mut failures = 0.0;
    for _ in 0..SLICES {
        failures += Load::Refused.slice(stage, None)?.requests;
    }
    over("storm_of_nginx", running, failures, started.elapsed(), cpu_ns)?;

    progress(&format!("{RATE} refused exchanges per second"));
    let running = Tool::Why502.start(&stage.watched(Load::Refused)?)?;
    let cpu_ns = process::cpu_ns(running.pid())?;
    let took = pace(stage)?;
    over("storm_paced", running, f64::from(RATE / 1_000 * MILLISECONDS), took, cpu_ns)
}

/// Makes the failures of the paced storm; returns how long that took.
pub(crate) fn pace(stage: &Stage) -> Result<Duration> {
    let started = Instant::now();
    thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| stage.namespace.run(paced))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
    })?;
    Ok(started.elapsed())
}

/// Ends why502 and emits what it made of so many failures. Its start had taken `start_ns` of a processor, which no failure costs.
fn over(case: &str, running: Running, failures: f64, took: Duration, start_ns: u64) -> Result<()> {
    let memory = process::memory(running.pid())?;
    let cpu_ns = process::cpu_ns(running.pid())?.saturating_sub(start_ns) as f64;
    let summary = running.stop()?.summary()?;
    let number = |field: &str| -> Result<f64> {
        summary.get(field).and_then(Value::as_f64).with_context(|| format!("no {field} in {summary}"))
    };
    emit(case, "why502", "failures_per_s", failures / took.as_secs_f64())?;
    emit(case, "why502", "failures", failures)?;
    emit(case, "why502", "told", number("failures")?)?;
    emit(case, "why502", "lost", number("lost")?)?;
    emit(case, "why502", "peak_mib", memory.peak)?;
    emit(case, "why502", "maps_mib", memory.maps)?;
    emit(case, "why502", "cpu_us_per_failure", cpu_ns / 1e3 / failures)
}

/// One thread's share of the failures, evenly over the time.
fn paced() -> Result<()> {
    prctl::set_name(c"nginx")?;
    let nobody = SockaddrIn::from(SocketAddrV4::new([127, 0, 0, 1].into(), NOBODY));
    let started = Instant::now();
    for millisecond in 0..MILLISECONDS {
        let due = Duration::from_millis(millisecond.into());
        thread::sleep(due.saturating_sub(started.elapsed()));
        for _ in 0..RATE / THREADS / 1_000 {
            refused(&nobody)?;
        }
    }
    Ok(())
}

/// Connects as nginx does, without waiting, and takes the error.
pub(crate) fn refused(nobody: &SockaddrIn) -> Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let client = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    match connect(client.as_raw_fd(), nobody) {
        Err(Errno::ECONNREFUSED) => return Ok(()),
        Err(Errno::EINPROGRESS) => {}
        other => bail!("connecting to nobody: {other:?}"),
    }
    match getsockopt(&client, sockopt::SocketError)? {
        error if error == Errno::ECONNREFUSED as i32 => Ok(()),
        error => bail!("connecting to nobody gave error {error}"),
    }
}
