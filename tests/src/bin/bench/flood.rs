//! What it costs to hear nginx while its log is flooded by lines of no upstream.
//!
//! Hearing is compared with not hearing (`--no-uprobe`), both watched and both flooded, in alternating order. Each slice begins with the
//! tracer's start, so it is over before why502 would step back: this is what the flood costs at its worst. The flood is logged to
//! `/dev/null`, so that nobody reads it instead.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::figure::{emit, progress};
use crate::load::{Load, Slice};
use crate::stage::{FILES, Stage};
use crate::tool::{Running, Tool};

/// Missing files asked for per second.
const RATE: u32 = 5_000;
/// Its name among the figures.
const CASE: &str = "flood_of_404s";

/// Pairs of slices of FastCGI over TCP, one heard and one not.
pub(crate) fn measure(stage: &Stage, pairs: usize) -> Result<()> {
    progress(&format!("{CASE}: {RATE} per second beside FastCGI over TCP, {pairs} pairs"));
    for pair in 0..pairs {
        let order = if pair % 2 == 0 {
            [Tool::Why502Unheard, Tool::Why502]
        } else {
            [Tool::Why502, Tool::Why502Unheard]
        };
        let mut rates = [0.0; 2];
        for tool in order {
            let running = tool.start(&stage.watched(Load::Tcp)?)?;
            rates[usize::from(tool == Tool::Why502)] = flooded(stage)?.rate;
            Running::stop(running)?;
        }
        let [unheard, heard] = rates;
        emit(CASE, Tool::Why502.name(), "throughput_ratio", heard / unheard)?;
    }
    Ok(())
}

/// One slice of the load, and of the flood.
fn flooded(stage: &Stage) -> Result<Slice> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| stage.namespace.run(|| paced(&is_over)));
        let slice = Load::Tcp.slice(stage, None);
        is_over.store(true, Ordering::Relaxed);
        let rate = flood.join().map_err(|_| anyhow!("the flood panicked"))??;
        emit(CASE, Tool::Why502.name(), "foreign_per_s", rate)?;
        slice
    })
}

/// Asks for missing files, evenly over the time. Returns how many a second it came to.
fn paced(is_over: &AtomicBool) -> Result<f64> {
    const AT_ONCE: u32 = RATE / 1_000;
    let request = "HEAD /missing HTTP/1.1\r\nHost: bench\r\n\r\n".repeat(AT_ONCE as usize);
    let mut stream = TcpStream::connect(("127.0.0.1", FILES)).context("connecting to nginx")?;
    stream.set_nodelay(true)?;
    let (started, mut millisecond, mut asked) = (Instant::now(), 0, 0.0);
    while !is_over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(millisecond).saturating_sub(started.elapsed()));
        stream.write_all(request.as_bytes())?;
        answers(&mut stream, AT_ONCE)?;
        millisecond += 1;
        asked += f64::from(AT_ONCE);
    }
    Ok(asked / started.elapsed().as_secs_f64())
}

/// Takes so many answers, which have no bodies.
fn answers(stream: &mut TcpStream, count: u32) -> Result<()> {
    let (mut text, mut buffer) = (String::new(), [0; 4_096]);
    while text.matches("\r\n\r\n").count() < count as usize {
        let length = stream.read(&mut buffer)?;
        ensure!(length > 0, "nginx closed the flood's connection: {text}");
        text += std::str::from_utf8(&buffer[..length])?;
    }
    ensure!(text.matches("HTTP/1.1 404 ").count() == count as usize, "no missing files: {text}");
    Ok(())
}
