//! Whether an exchange costs more where there is more of everything: open upstream connections, listeners.
//!
//! They are made by a thread named nginx, which to why502 is nginx, as nothing else opens ten thousand of them at once on request.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use anyhow::{Context, Result, ensure};
use nix::sys::prctl;

use crate::figure::{emit, progress};
use crate::hooks::{Cost, cost, emit_totals};
use crate::load::{Load, Slice};
use crate::stage::{Stage, connect_redis};
use crate::tool::Tool;

/// How many connections are open and idle.
const CONNECTIONS: [usize; 3] = [10, 1_000, 10_000];
/// How many listeners there are.
const LISTENERS: [usize; 3] = [1, 100, 1_000];
/// Slices at each size.
const SLICES: usize = 3;

/// Measures the cost of an exchange at each size.
pub(crate) fn measure(stage: &Stage) -> Result<()> {
    for count in CONNECTIONS {
        at(stage, &format!("open_connections_{count}"), count, || connections(count))?;
    }
    for count in LISTENERS {
        at(stage, &format!("listeners_{count}"), count, || listeners(count))?;
    }
    Ok(())
}

/// Measures an exchange's cost while what `crowd` has made is there.
fn at<T: Send>(
    stage: &Stage,
    case: &str,
    count: usize,
    crowd: impl FnOnce() -> Result<T> + Send,
) -> Result<()> {
    progress(&format!("{case}: BPF run time per exchange"));
    let running = Tool::Why502.start(&stage.watched(Load::Tcp)?)?;
    let kept = stage.namespace.run(|| {
        prctl::set_name(c"nginx")?;
        crowd()
    })?;
    let Slice { rate, mut requests, .. } = Load::Tcp.slice(stage, None)?;
    for _ in 0..SLICES {
        let Cost { exchanges, hooks } = cost(stage, &running, Load::Tcp, rate)?;
        emit_totals(case, exchanges, &hooks)?;
        requests += exchanges;
    }
    // They must be there to the end, or nothing has grown.
    drop(kept);
    let summary = running.stop()?.summary()?;
    let [exchanges, untracked] =
        ["exchanges", "untracked"].map(|field| summary[field].as_f64().unwrap_or(0.0));
    ensure!(
        exchanges >= requests + count as f64,
        "{count} of the crowd and {requests} requests, but {summary}"
    );
    emit(case, "why502", "untracked", untracked)
}

/// Connections to one upstream, each of which has had one exchange and is kept.
fn connections(count: usize) -> Result<Vec<TcpStream>> {
    let mut connections = Vec::new();
    for _ in 0..count {
        let mut connection = connect_redis()?;
        connection.write_all(b"PING\r\n").context("asking Redis")?;
        let mut answer = [0; 7];
        connection.read_exact(&mut answer).context("waiting for Redis")?;
        ensure!(&answer == b"+PONG\r\n", "Redis answers {:?}", String::from_utf8_lossy(&answer));
        connections.push(connection);
    }
    Ok(connections)
}

/// Listeners, to each of which there is one connection that has had one exchange.
fn listeners(count: usize) -> Result<Vec<(TcpListener, TcpStream, TcpStream)>> {
    let mut all = Vec::new();
    for _ in 0..count {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening")?;
        let mut client = TcpStream::connect(listener.local_addr()?).context("connecting")?;
        let (mut server, _) = listener.accept()?;
        client.write_all(b"?")?;
        server.read_exact(&mut [0])?;
        server.write_all(b"!")?;
        client.read_exact(&mut [0])?;
        all.push((listener, client, server));
    }
    Ok(all)
}
