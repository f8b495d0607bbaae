//! How many connections fit.

use anyhow::Result;
use procfs::net::TcpState;

use super::{
    Finding,
    arena::{Listener, inside, set},
};

/// Clients beyond what fits, in each round.
const BEYOND: usize = 6;

pub(super) fn backlog_and_one() -> Result<Vec<Finding>> {
    let mut parts = Vec::new();
    let mut holds = true;
    for backlog in [0, 1, 4, 16] {
        let count = backlog as usize + 1 + BEYOND;
        let (v4, v6) = (Listener::v4(backlog)?, Listener::v6(backlog)?);
        let (in4, in6) = (inside(&v4.crowd(count)?), inside(&v6.crowd(count)?));
        holds &= in4 == backlog as usize && in6 == backlog as usize;
        parts.push(if in4 == in6 {
            format!("{backlog}: {in4}")
        } else {
            format!("{backlog}: {in4} (IPv6: {in6})")
        });
    }
    Ok(vec![Finding {
        claim: "A backlog of N lets N connections wait",
        holds,
        measured: format!("connections that fit for a backlog of {}", parts.join(", ")),
    }])
}

pub(super) fn cookies() -> Result<Vec<Finding>> {
    const BACKLOG: i32 = 4;
    // 2: a cookie for every SYN.
    set("net.ipv4.tcp_syncookies", 2)?;
    let listener = Listener::v4(BACKLOG)?;
    let clients = listener.crowd(BACKLOG as usize + 1 + BEYOND)?;
    let fit = inside(&clients);
    Ok(vec![Finding {
        claim: "SYN cookies let clients in when the accept queue is full",
        holds: fit > BACKLOG as usize + 1,
        measured: format!(
            "with a cookie for every SYN (tcp_syncookies=2), {fit} of {} clients got into a backlog of {BACKLOG}",
            clients.len()
        ),
    }])
}

pub(super) fn grows() -> Result<Vec<Finding>> {
    const BACKLOG: i32 = 4;
    const CLIENTS: usize = 300;
    let listener = Listener::v4(BACKLOG)?;
    let clients = listener.crowd(CLIENTS)?;
    let established = listener.sockets(&[TcpState::Established])?;
    let half_open = listener.sockets(&[TcpState::SynRecv, TcpState::NewSynRecv])?;
    Ok(vec![Finding {
        claim: "With a full queue, established connections on the server grow without bound",
        holds: established > BACKLOG as usize + 1,
        measured: format!(
            "after {} clients the server had {established} established and {half_open} half-open connections (backlog {BACKLOG})",
            clients.len()
        ),
    }])
}
