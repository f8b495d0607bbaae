//! What a full queue does to a SYN.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::errno::Errno;

use super::{
    Finding,
    arena::{Listener, counters, inside, set, until},
};
use crate::model::words::span;

const BACKLOG: i32 = 2;
const FIT: usize = 3;

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether SYNs are refused, without and with tcp_abort_on_overflow.
pub(super) fn refused() -> Result<Vec<Finding>> {
    const BEYOND: usize = 5;
    let mut findings = Vec::new();
    for (abort, claim) in [
        (0, "A full accept queue refuses new connections, which nginx answers with 502"),
        (1, "tcp_abort_on_overflow makes a full queue refuse them"),
    ] {
        set("net.ipv4.tcp_abort_on_overflow", abort)?;
        let listener = Listener::v4(BACKLOG)?;
        let before = counters()?;
        let clients = listener.crowd(FIT + BEYOND)?;
        let dropped = counters()?.since(&before).overflows;
        let mut errors = Vec::new();
        for client in clients.iter().filter(|client| !client.is_in()) {
            errors.extend(client.error()?);
        }
        findings.push(Finding {
            claim,
            holds: !errors.is_empty(),
            measured: format!(
                "tcp_abort_on_overflow={abort}: of {BEYOND} SYNs at a full queue {dropped} were dropped in silence; {} of the clients \
                 met an error",
                errors.len()
            ),
        });
    }
    Ok(findings)
}

/// Whether chance decides who gets in.
pub(super) fn random() -> Result<Vec<Finding>> {
    const ROUNDS: usize = 50;
    const CLIENTS: usize = 10;
    let mut alike = 0;
    for _ in 0..ROUNDS {
        let listener = Listener::v4(BACKLOG)?;
        let clients = listener.crowd(CLIENTS)?;
        let first_in = clients[..FIT].iter().all(|client| client.is_in());
        alike += usize::from(first_in && inside(&clients) == FIT);
    }
    Ok(vec![Finding {
        claim: "A full queue drops SYNs at random",
        holds: alike < ROUNDS,
        measured: format!(
            "in {alike} of {ROUNDS} rounds the first {FIT} of {CLIENTS} clients got in and each of the others was dropped (backlog {BACKLOG})"
        ),
    }])
}

/// When the SYN is sent again.
pub(super) fn schedule() -> Result<Vec<Finding>> {
    const WATCHED: Duration = Duration::from_secs(21);
    let listener = Listener::v4(BACKLOG)?;
    let _fillers = listener.crowd(FIT)?;
    let mut seen = counters()?.overflows;
    let start = Instant::now();
    let (_client, _in_progress) = listener.connect()?;
    let mut moments = Vec::new();
    while start.elapsed() < WATCHED {
        let now = counters()?.overflows;
        if now > seen {
            moments.push(start.elapsed().as_secs_f64());
            seen = now;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let list: Vec<String> = moments.iter().map(|moment| format!("{moment:.1}")).collect();
    // One second, then each wait twice as long as the one before.
    let doubling = [0.0, 1.0, 3.0, 7.0, 15.0];
    let is_doubling = moments.len() == doubling.len()
        && moments.iter().zip(doubling).all(|(moment, at)| (moment - at).abs() < 0.5);
    Ok(vec![Finding {
        claim: "The client sends its SYN again after 1, 3, 7 and 15 s",
        holds: is_doubling,
        measured: format!(
            "within {} s, SYNs came and were dropped at {} s",
            WATCHED.as_secs(),
            list.join(", ")
        ),
    }])
}

/// When the client's kernel stops trying.
pub(super) fn gives_up() -> Result<Vec<Finding>> {
    const RETRIES: u32 = 2;
    set("net.ipv4.tcp_syn_retries", RETRIES)?;
    let has_linear = set("net.ipv4.tcp_syn_linear_timeouts", 0)?;
    let listener = Listener::v4(BACKLOG)?;
    let _fillers = listener.crowd(FIT)?;
    let start = Instant::now();
    let (client, _in_progress) = listener.connect()?;
    let mut error = None;
    until("the client's kernel to stop trying", || {
        error = client.error()?;
        Ok(error.is_some())
    })?;
    let error = error.context("no error")?;
    let linear = if has_linear { " and tcp_syn_linear_timeouts=0" } else { "" };
    Ok(vec![Finding {
        claim: "A client whose SYNs are dropped hangs for ever",
        // Else the wait above would have failed.
        holds: false,
        measured: format!(
            "with tcp_syn_retries={RETRIES}{linear} it was told {error:?} after {}",
            span(nanos(start.elapsed()))
        ),
    }])
}

/// Whether a dropped SYN is a lost connection.
pub(super) fn lost() -> Result<Vec<Finding>> {
    let listener = Listener::v4(BACKLOG)?;
    let _fillers = listener.crowd(FIT)?;
    let before = counters()?.overflows;
    let start = Instant::now();
    let (client, said) = listener.connect()?;
    until("a dropped SYN", || Ok(counters()?.overflows > before))?;
    listener.accept()?;
    let room = start.elapsed();
    until("the client to get in", || Ok(client.is_in()))?;
    Ok(vec![Finding {
        claim: "A connection whose SYN was dropped is lost",
        holds: said.is_err_and(|error| error != Errno::EINPROGRESS),
        measured: format!(
            "there was room {} after the drop; the client was in {} after its first SYN, by the next one",
            span(nanos(room)),
            span(nanos(start.elapsed()))
        ),
    }])
}
