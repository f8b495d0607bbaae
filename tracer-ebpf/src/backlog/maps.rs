//! The maps. All are bounded, and what finds no room is counted in [`Stats`]: [`crate::kernel::put`].
//!
//! | map | who fills it | when it is full | what that touches |
//! |---|---|---|---|
//! | `LISTENERS`, `GROUPS` | whoever listens | `listeners_untracked` | such listeners are not emitted |
//! | `VICTIMS` | whoever meets a full queue | `victims_untracked` | they are counted, not named |
//! | `CONNECTING` | whoever connects to a port that somebody listens on | `clients_unkept` | a victim has no name |
//! | `CLIENTS` (rows) | the same | the oldest goes | the same |
//! | `OVER` (rows) | victims whose clients have gone | the oldest goes; where it may have been there, `clients_unkept` | a drop that is no victim's is not emitted as one |
//! | `UNIX_CALLS` | whoever connects to a path | `returns_missed` | how that connect ended |
//! | `WAITING` (rows) | whoever is queued | who waits longest goes; `waits_unkept` | its wait is not measured |
//! | `COUNTED` (LRU) | packets in a network namespace | the namespace's count is read anew | the next packet is judged by the queue's depth |
//! | `PATHS` (LRU) | whoever listens on a path | the oldest goes | its listener is found by socket only |

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use wire::{
    PATH_LEN, Task,
    accept_queue::{Attached, Key, Listener, MAX_LISTENERS, MAX_VICTIMS, RING_BYTES, Stats, Victim},
};

use crate::kernel::address::ListenerKey;

/// Listeners that share an address (SO_REUSEPORT) and can be told apart.
pub const GROUP: usize = 64;

/// The listeners on one address.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Group {
    /// How many slots were ever in use.
    pub used: u64,
    /// The listeners; zero in a free slot.
    pub socks: [u64; GROUP],
}

/// A unix connect that has not returned.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Connecting {
    pub start_ns: u64,
    pub sock: u64,
    /// The listener, or zero if it is not known.
    pub listener: u64,
    /// One if the queue was full at the start.
    pub met_full: u64,
}

/// One processor's counters of one network namespace.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CounterKey {
    pub net: u64,
    pub cpu: u64,
}

/// Only says where each processor's own data are.
#[map]
pub static ANCHOR: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// What such a counter of ListenOverflows was when the last packet was done with.
#[map]
pub static COUNTED: LruHashMap<CounterKey, u64> = LruHashMap::with_max_entries(16_384, 0);

/// Records for userspace.
#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Listeners by socket.
#[map]
pub static LISTENERS: HashMap<u64, Listener> = HashMap::with_max_entries(MAX_LISTENERS, 0);

/// TCP listeners by address.
#[map]
pub static GROUPS: HashMap<ListenerKey, Group> = HashMap::with_max_entries(2 * MAX_LISTENERS, 0);

/// Connections that met a full queue and whose fate is open.
#[map]
pub static VICTIMS: HashMap<Key, Victim> = HashMap::with_max_entries(MAX_VICTIMS, 0);

/// Who connects to a port that somebody listens on, by socket, until the handshake is over on the client's side.
#[map]
pub static CONNECTING: HashMap<u64, Task> = HashMap::with_max_entries(16_384, 0);

/// Unix connects under way, by thread.
#[map]
pub static UNIX_CALLS: HashMap<u32, Connecting> = HashMap::with_max_entries(4_096, 0);

/// Where to, by thread.
#[map]
pub static UNIX_PATHS: LruHashMap<u32, [u8; PATH_LEN]> = LruHashMap::with_max_entries(4_096, 0);

/// What userspace attached.
#[map]
static ATTACHED: Array<Attached> = Array::with_max_entries(1, 0);

/// The same.
#[inline(always)]
pub fn attached() -> Option<&'static Attached> {
    ATTACHED.get(0)
}

/// Counters.
#[map]
pub static STATS: Array<Stats> = Array::with_max_entries(1, 0);

/// Never written: what new entries are made from, for they are too large for the stack.
#[map]
pub static EMPTY_LISTENER: Array<Listener> = Array::with_max_entries(1, 0);

/// The same for groups.
#[map]
pub static EMPTY_GROUP: Array<Group> = Array::with_max_entries(1, 0);

/// Adds to one counter.
macro_rules! count {
    ($field:ident, $by:expr) => {
        if let Some(stats) = $crate::backlog::maps::STATS.get_ptr_mut(0) {
            // SAFETY: the entry lives as long as the map.
            unsafe { $crate::kernel::memory::add(&raw mut (*stats).$field, $by) };
        }
    };
}
pub(crate) use count;
