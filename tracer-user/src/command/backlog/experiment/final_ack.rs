//! What a full queue does to the end of a handshake.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::{
    Finding,
    arena::{Client, Listener, counters, set, until},
};
use crate::model::words::{count, span};

/// One more than this fit; but of unfinished handshakes without SYN cookies only as many on old kernels (5.10).
const BACKLOG: i32 = 3;

/// Handshakes that begin while there is room, and end when there is none: the last place goes to the first of them.
fn late_clients(listener: &Listener) -> Result<(Vec<Client>, Vec<Client>)> {
    set("net.ipv4.tcp_syncookies", 0)?;
    let fillers = connected(listener, BACKLOG as usize)?;
    fillers.iter().try_for_each(Client::send)?;
    until("the first connections to be queued", || {
        Ok(listener.sockets(&[procfs::net::TcpState::Established])? == BACKLOG as usize)
    })?;
    let late = connected(listener, BACKLOG as usize)?;
    let before = counters()?.overflows;
    late.iter().try_for_each(Client::send)?;
    let dropped = late.len() as u64 - 1;
    until("the ends of handshakes to be dropped", || Ok(counters()?.overflows - before >= dropped))?;
    Ok((fillers, late))
}

fn connected(listener: &Listener, count: usize) -> Result<Vec<Client>> {
    let clients = (0..count).map(|_| Ok(listener.connect()?.0)).collect::<Result<Vec<_>>>()?;
    until("clients to believe to be connected", || Ok(clients.iter().all(Client::is_in)))?;
    Ok(clients)
}

pub(super) fn trial() -> Result<Vec<Finding>> {
    Ok(vec![dropped()?, reset()?])
}

fn dropped() -> Result<Finding> {
    set("net.ipv4.tcp_abort_on_overflow", 0)?;
    let listener = Listener::deferring(BACKLOG)?;
    let (_fillers, late) = late_clients(&listener)?;
    let victims = &late[1..];
    let believe = victims.iter().filter(|client| client.is_in()).count();
    let mut waiting = 0;
    let mut errors = 0;
    for client in victims {
        waiting += client.unacknowledged()?;
        errors += usize::from(client.error()?.is_some());
    }
    let start = Instant::now();
    for _ in 0..=BACKLOG {
        listener.accept()?;
    }
    until("the data to be acknowledged", || {
        let left: Result<Vec<i32>> = victims.iter().map(Client::unacknowledged).collect();
        Ok(left?.into_iter().all(|bytes| bytes == 0))
    })?;
    let took = span(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    Ok(Finding {
        claim: "A client that believes to be connected is connected",
        holds: believe == 0,
        measured: format!(
            "tcp_abort_on_overflow=0: {believe} of {} whose handshake ended at a full queue believed it, {errors} met an error, and {} \
             that they sent were not acknowledged; with room again they were, after {took}",
            victims.len(),
            count(u64::from(waiting.unsigned_abs()), "byte"),
        ),
    })
}

fn reset() -> Result<Finding> {
    set("net.ipv4.tcp_abort_on_overflow", 1)?;
    let listener = Listener::deferring(BACKLOG)?;
    let (_fillers, late) = late_clients(&listener)?;
    let mut errors = Vec::new();
    until("the resets", || {
        for client in &late[1..] {
            errors.extend(client.error()?);
        }
        Ok(errors.len() >= late.len() - 1)
    })?;
    let error = errors.first().context("no reset")?;
    Ok(Finding {
        claim: "tcp_abort_on_overflow resets those whose handshake ends at a full queue",
        holds: errors.iter().all(|error| *error == nix::errno::Errno::ECONNRESET),
        measured: format!("tcp_abort_on_overflow=1: {} of {} met {error:?}", errors.len(), late.len() - 1),
    })
}
