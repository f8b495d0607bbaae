//! What limits a backlog.

use anyhow::Result;

use super::{
    Finding,
    arena::{Listener, inside, set},
};

const SOMAXCONN: &str = "net.core.somaxconn";
const LOW: u32 = 8;
const ASKED: i32 = 1_000;
const CLIENTS: usize = 40;

pub(super) fn somaxconn_caps() -> Result<Vec<Finding>> {
    set(SOMAXCONN, LOW)?;
    let fit = inside(&Listener::v4(ASKED)?.crowd(CLIENTS)?);
    let fit_all = inside(&Listener::v4(-1)?.crowd(CLIENTS)?);
    Ok(vec![Finding {
        claim: "The backlog is what the application asks for",
        holds: fit > LOW as usize + 1,
        measured: format!(
            "with somaxconn {LOW}, listen({ASKED}) let {fit} connections wait, and listen(-1) {fit_all}: the smaller one counts"
        ),
    }])
}

pub(super) fn raised_later() -> Result<Vec<Finding>> {
    set(SOMAXCONN, LOW)?;
    let listener = Listener::v4(ASKED)?;
    set(SOMAXCONN, 4_096)?;
    let clients = listener.crowd(CLIENTS)?;
    let before = inside(&clients);
    listener.listen(ASKED)?;
    let more = listener.crowd(CLIENTS)?;
    let after = before + inside(&more);
    Ok(vec![Finding {
        claim: "A larger somaxconn takes effect at once",
        holds: before > LOW as usize + 1,
        measured: format!(
            "raised from {LOW} to 4096 under a listener, {before} connections fit as before; once listen was called again, {after} were in"
        ),
    }])
}
