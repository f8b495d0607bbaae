//! nginx before nginx: the client of one is the other's end of an exchange.

use tracer_ebpf::{FAMILY_UNIX, Header, Hop, Kind};

use crate::{
    kernel,
    maps::{ConnectionId, EXCHANGES, PATHS, RING, WORKERS, count},
};

/// After the exchange `id` was closed, nginx acts on `sk`: tells whose worker's end that is, if an open exchange's.
#[inline(always)]
pub fn tell(id: ConnectionId, sk: u64) {
    // SAFETY: copied out at once.
    let Some((outer_sock, outer_connect_ns)) =
        (unsafe { WORKERS.get(sk) }).map(|worker| (worker.nginx_sock, worker.connect_ns))
    else {
        return;
    };
    let Some(outer) = EXCHANGES.get_ptr(outer_sock) else { return };
    // SAFETY: preallocated map memory; the connection's name is checked at once.
    let outer = unsafe { &(*outer).nginx };
    if outer.connect_ns != outer_connect_ns {
        return;
    }
    let Some(mut entry) = RING.reserve::<Hop>(0) else {
        count!(lost, 1);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is exactly one record; all of it is cleared first.
    unsafe {
        kernel::clear(record);
        (*record).header = Header { kind: Kind::Hop as u32, len: size_of::<Hop>() as u32 };
        (*record).sock = id.sock;
        (*record).connect_ns = id.connect_ns;
        (*record).outer_sock = outer_sock;
        (*record).outer_connect_ns = outer_connect_ns;
        (*record).asked_ns = outer.first_sent_ns;
        (*record).answered_ns = outer.first_received_ns;
        kernel::fill(&raw mut (*record).nginx, &raw const outer.nginx);
        kernel::fill(&raw mut (*record).upstream, &raw const outer.upstream);
        if outer.upstream.family == FAMILY_UNIX {
            if let Some(path) = PATHS.get(outer_sock) {
                kernel::fill(&raw mut (*record).path, &raw const *path);
            }
        } else {
            (*record).local = kernel::local(outer_sock);
        }
    }
    entry.submit(0);
}
