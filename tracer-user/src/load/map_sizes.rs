//! How many entries the kernel side's maps have.

use std::collections::HashSet;

use aya::EbpfLoader;

use super::{scope::Scope, wanted::NO_UPSTREAMS};
use crate::model::hook_kind::HookKind;

/// The map that is to hold one entry for each open exchange.
const PER_EXCHANGE: &str = "EXCHANGES";

/// The table of handshakes whose worker's end has not appeared, as have all where the upstreams are on other hosts: so many places for each open
/// exchange, in rows of eight, that less than a fortieth of them find none in their row.
const HANDSHAKES: &str = "WAITING";

/// How many rows those are, a power of two.
pub(super) const fn handshake_rows(max_open: u32) -> u32 {
    max_open.div_ceil(5).next_power_of_two()
}

/// The map that holds those which find none, which is larger than they are many.
const CROWDED_HANDSHAKES: &str = "HANDSHAKES";

/// The map that holds one entry for each connection that the network has ended and nginx has not closed yet, which it does in the next turn
/// of its loop: half as many. Those beyond are counted and marked (`acts_unkept`).
const PER_BROKEN: &str = "BROKEN";

/// The map that holds one entry for each worker's end that has none of nginx's: [`MOST_GIVEN_UP`] of those that nginx gave up and that are still
/// open; and where connections of nginx on other hosts are asked for, one for each of them. Those beyond are counted (`workers_untracked`).
const PER_LONE_WORKER: &str = "WORKERS";

/// How many worker's ends that nginx gave up are followed to their own end.
const MOST_GIVEN_UP: u32 = 2_048;

/// The map that holds one entry for each open exchange from a port that another has, too: few do, unless nginx has more connections than ports.
/// Those beyond are counted (`workers_untracked`).
const PER_SHARED_PORT: &str = "ALIASES";

/// How many such there may be.
const MOST_SHARED_PORTS: u32 = 4_096;

/// The maps that hold one entry for each call that a kprobe saw begin and a kretprobe is to see return.
const PER_CALL: [&str; 2] = ["CALLS", "RECEIVES"];

/// Entries of a map that nobody fills.
const UNUSED: u32 = 64;

/// The map that holds one entry for each connection to the listeners asked for.
const PER_VISITOR: &str = "VISITORS";

/// The maps that count exchanges by upstream, which not everybody asks for.
const PER_UPSTREAM: [&str; 2] = ["UPSTREAMS", "UNIX_UPSTREAMS"];

/// Gives each map the room that it takes.
pub(super) fn set(loader: &mut EbpfLoader<'_>, scope: &Scope, useless: &HashSet<HookKind>) {
    loader.map_max_entries(PER_EXCHANGE, scope.max_open);
    loader.map_max_entries(HANDSHAKES, handshake_rows(scope.max_open));
    loader.map_max_entries(CROWDED_HANDSHAKES, (scope.max_open / 16).max(UNUSED));
    loader.map_max_entries(PER_BROKEN, scope.max_open.div_ceil(2));
    let (visitors, lone) = match scope.listeners.is_empty() {
        true => (UNUSED, scope.max_open.min(MOST_GIVEN_UP)),
        false => (scope.max_open, scope.max_open),
    };
    loader.map_max_entries(PER_VISITOR, visitors).map_max_entries(PER_LONE_WORKER, lone);
    loader.map_max_entries(PER_SHARED_PORT, scope.max_open.min(MOST_SHARED_PORTS));
    for (map, entries) in [
        ("WANTED", scope.upstreams.len()),
        ("NAMED_PATHS", scope.paths.len().max(NO_UPSTREAMS.len())),
        ("SERVED", scope.listeners.len()),
    ] {
        loader.map_max_entries(map, u32::try_from(entries).unwrap_or(u32::MAX).max(UNUSED));
    }
    if scope.filters.counts_upstreams == 0 {
        for map in PER_UPSTREAM {
            loader.map_max_entries(map, UNUSED);
        }
    }
    if useless.contains(&HookKind::Kprobe) {
        for map in PER_CALL {
            loader.map_max_entries(map, UNUSED);
        }
    }
}
