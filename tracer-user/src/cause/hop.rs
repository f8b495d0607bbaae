//! Where one nginx asks another: for which exchange of the other's this one was.

use super::Cause;
use crate::{ledger, model::verdict};

/// What the verdict says of it.
pub(super) fn outer(outer: &ledger::Outer) -> verdict::Outer {
    let ledger::Outer { name: _, nginx, local, upstream } = outer;
    verdict::Outer { nginx: nginx.clone(), local: *local, upstream: upstream.clone() }
}

/// An explanation, with a sentence on the exchange before, of which `cause` is known if it is over.
pub(super) fn with(explanation: String, exchange: &ledger::Exchange, cause: Option<Cause>) -> String {
    let Some(outer) = &exchange.outer else { return explanation };
    let ended = match cause.map(|cause| cause.cause()) {
        None => "",
        Some("client_abort") => ", whose own client had gone",
        Some("read_timeout" | "send_timeout") => ", which had stopped waiting",
        Some("nginx_exit") => ", which had to end",
        Some(_) => ", which had given up",
    };
    let nginx = format!("{} {}", outer.nginx.comm, outer.nginx.pid);
    let from = outer.local.map_or_else(String::new, |local| format!("from {local} "));
    format!("{explanation} The request came by way of {nginx}, {from}to {}{ended}.", outer.upstream)
}
