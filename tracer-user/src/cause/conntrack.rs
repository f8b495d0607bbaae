//! A full table of connections: netfilter drops what would be a new one, and no rule has a part in it.

use super::{Cause, Finding};
use crate::{
    ledger::Exchange,
    model::{
        inquiry::{Conntrack, Found},
        words::count,
    },
};

/// nginx's handshake was dropped by netfilter while the table was full (`__nf_conntrack_alloc`, net/netfilter/nf_conntrack_core.c). A rule
/// may have dropped it all the same, which nobody sees.
pub(super) fn full(exchange: &Exchange, packets: &str, after: &str) -> Option<Finding> {
    let Some(Found::Conntrack(table)) = &exchange.found else { return None };
    if !table.is_full() {
        return None;
    }
    let Conntrack { entries, max, drops, risen } = table;
    let dropped = match risen {
        Some(risen) => format!("{} for it since it was looked at before", count(*risen, "packet")),
        None => format!("{} for it so far", count(*drops, "packet")),
    };
    Some(Finding::inferred(
        Cause::ConnectConntrackFull,
        format!(
            "Netfilter on this host dropped {packets} of nginx's handshake with {}, while its table of connections was full: {entries} of \
             {max}, and it has dropped {dropped}. nginx gave up after {after}.",
            exchange.upstream()
        ),
        "net.netfilter.nf_conntrack_max, and what fills the table (`conntrack -L`, `conntrack -S`): `dmesg` says \"nf_conntrack: table full, \
         dropping packet\". Connections that need no tracking can be exempted (notrack).",
    ))
}
