//! nginx before nginx: the client of one is the other's end of an exchange.

use wire::{Header, Hop, Kind};

use crate::{
    kernel::{memory, sock},
    live::{
        entry::{joined, unix_path},
        maps::{ConnectionId, OpenExchange, RING, count},
    },
};

/// The exchange `id` was closed that served the client at `sk` or, where its client is not known, after which nginx acts on `sk`: emits whose
/// worker's end that is, if an open exchange's.
#[inline(never)]
pub fn emit(id: ConnectionId, sk: u64) {
    let Some(OpenExchange { nginx: outer, path, .. }) = joined::exchange_of(sk, sock::ports(sk).0) else {
        return;
    };
    let Some(mut entry) = RING.reserve::<Hop>(0) else {
        count!(lost, 1);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is exactly one record; all of it is cleared first.
    unsafe {
        memory::clear(record);
        (*record).header = Header { kind: Kind::Hop as u32, len: size_of::<Hop>() as u32 };
        (*record).sock = id.sock;
        (*record).connect_ns = id.connect_ns;
        (*record).outer_sock = outer.sock;
        (*record).outer_connect_ns = outer.connect_ns;
        (*record).asked_ns = outer.first_sent_ns;
        (*record).answered_ns = outer.first_received_ns;
        memory::fill(&raw mut (*record).nginx, &raw const outer.nginx);
        memory::fill(&raw mut (*record).upstream, &raw const outer.upstream);
        match unix_path::of(*path) {
            Some(path) => memory::fill(&raw mut (*record).path, path),
            None => sock::fill_local(&raw mut (*record).local, outer.sock),
        }
    }
    entry.submit(0);
}
