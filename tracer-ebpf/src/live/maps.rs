//! The maps. All are bounded, and what finds no room is counted in [`Stats`]: [`crate::kernel::put`]. Where anybody can fill one, it is rows of
//! places ([`crate::kernel::recent`]), in which it shows that something was pushed out. Whatever touches one exchange alone marks it
//! (`FACTS_LOST`, `Origin::Lost`), and its verdict is incomplete; the others are not.
//!
//! | map | who fills it | when it is full | what that touches |
//! |---|---|---|---|
//! | `EXCHANGES`, `CONNECTING` | nginx | `untracked` | such exchanges have no verdict |
//! | `HANDSHAKES`, `ALIASES` | nginx | `workers_untracked` | all verdicts of that time |
//! | `WORKERS`, `VISITORS` | workers that nginx gave up, clients of the listeners asked for | `workers_untracked` | the same |
//! | `BY_PORT` (a place for each port) | nginx | `ALIASES` takes it | |
//! | `JOINING`, `WAITING` (rows) | nginx | `WAITING`, then `HANDSHAKES` takes it | |
//! | `AWAITING`, `BROKEN` | nginx | `acts_unkept`, marked | timeouts and clients that left |
//! | `PROCESSES` | processes that took up an exchange, and their parents | `processes_unkept`; on a unix socket whose end is not seen itself, marked | deaths |
//! | `ENDED` (queue) | those that end | the oldest is forgotten | as above, if nginx has not closed by then |
//! | `SIGNALS` | whoever may signal a worker | `signals_unkept`, marked | who sent what a worker died of or stopped for |
//! | `BESIDE` (rows) | whoever signals anybody | the oldest goes; a worker's own signal has no sender then, marked | the same, of a worker's first exchange |
//! | `RESETS` (rows) | whoever has a connection refused | the oldest goes; `packets_unkept`, marked | refused, reset |
//! | `DROPS`, `DROPS_BESIDE` (rows) | whoever sends packets that are dropped | the same | connect timeouts, full queues |
//! | `CLOSED`, `UNIX_CLOSED` (LRU) | whoever closes a listener | the oldest goes | no verdict: who listened before where nobody does |
//! | `MEMBERS` (LRU) | processes that took up an exchange, and whoever signals them | `members_unkept` | no verdict: the unit or container of one that has ended |
//! | `ABANDONED`, `HOLDERS` | workers that nginx gave up | `afterwards_unkept` | no verdict: how long they went on |
//! | `UNIX_PATHS` (a place for each path) | nginx | `untracked` | exchanges over further paths have no verdict |
//! | `UPSTREAMS`, `UNIX_UPSTREAMS` | nginx | `upstreams_unkept` | no verdict: counts by upstream |
//! | `PEERS` | nginx, at connections that address translation moved | `translations_unkept` | looks at a queue elsewhere: a listener that is not found may be there, marked |
//! | `CALLS` (LRU) | every thread that calls a hooked function | its return finds nothing: `returns_missed` | all verdicts of that time |
//! | `RECEIVES` | threads of nginx's, where only kprobes see them | `returns_missed` | the same |
//! | `FOREIGN` (LRU) | processes that write to nginx's log | who wrote nothing for longest goes | which binary is not heard for a while |
//! | `LAST_READ` (a place for each thread's number) | anybody | another thread's is gone, which shows | what set nginx off: inferred, or no verdict |
//! | `SEEN`, `READ`, `PORTS` | anybody | an event is seen twice, a socket looked up once more | nothing |

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use wire::{Attached, Endpoint, PATH_LEN, RING_BYTES, Stats, WorkerEnd, gate, shown};

pub use wire::OpenExchange;

use crate::kernel::address::ListenerKey;

/// Names a connection: a socket's address is used again, its time of connecting is not.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ConnectionId {
    pub sock: u64,
    pub connect_ns: u64,
}

/// A connection whose thread's next act is awaited.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Awaited {
    pub id: ConnectionId,
    pub closed_ns: u64,
    pub turned_to: u64,
    pub word_ns: u64,
    /// The client to whom an answer is no act yet, but what follows it; zero for none.
    pub client: u64,
    /// Bytes of that answer.
    pub answered: u64,
    /// Whether whose request the exchange served needs no act to show: zero or one.
    pub is_client_known: u64,
}

/// The newest listener on an address, and another one that shares it, or zero.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Listener {
    pub sock: u64,
    pub other: u64,
}

/// An address that a listener was looked for at, while others had found no room.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sought {
    /// All zeroes as long as none was found.
    pub listener: Listener,
    /// How many times userspace had begun to show the listeners when it was looked for first.
    pub since: u64,
}

/// The other end of a connection whose nginx is on another host.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Visitor {
    pub handshake: u64,
    pub peer: Endpoint,
    pub reserved: u32,
}

/// A connect call that has not returned.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Connecting {
    pub start_ns: u64,
    pub fd: u64,
    /// Of a TCP connect; its family is `FAMILY_UNIX` for the other kind.
    pub upstream: Endpoint,
    pub path: [u8; PATH_LEN],
}

/// Records for userspace.
#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Open exchanges by nginx's socket. Userspace sets the size before loading.
#[map]
pub static EXCHANGES: HashMap<u64, OpenExchange> = HashMap::with_max_entries(16_384, 0);

/// Open worker ends that are part of no open exchange, by their socket: nginx is on another host, or has given them up.
#[map]
pub static WORKERS: HashMap<u64, WorkerEnd> = HashMap::with_max_entries(16_384, 0);

/// Listeners by address, as many as `backlog` watches. One beyond them is looked up when an upstream is there ([`SOUGHT`]).
#[map]
pub static LISTENERS: HashMap<ListenerKey, Listener> = HashMap::with_max_entries(4_096, 0);

/// Addresses at which no listener was found while others had found no room, and what was found there later.
#[map]
pub static SOUGHT: LruHashMap<ListenerKey, Sought> = LruHashMap::with_max_entries(1_024, 0);

/// How complete the known listeners are, see [`shown`].
#[map]
pub static SHOWN: Array<u64> = Array::with_max_entries(shown::LEN, 0);

/// Where connections to an address that is not this namespace's own ended up last, on this host.
#[map]
pub static PEERS: HashMap<ListenerKey, ListenerKey> = HashMap::with_max_entries(1_024, 0);

/// How often one found no room there.
pub const PEERS_LEFT_OUT: Counter = Counter(gate::ATTACHED + 6);

/// The upstreams the user asked for; a port alone has the unspecified address. Userspace sets the size before loading.
#[map]
pub static WANTED: HashMap<Endpoint, u32> = HashMap::with_max_entries(1_024, 0);

/// The unix upstreams the user asked for; if for none, the sockets that are nobody's upstream. Sized likewise.
#[map]
pub static NAMED_PATHS: HashMap<[u8; PATH_LEN], u32> = HashMap::with_max_entries(256, 0);

/// The listeners whose connections are emitted though nginx is on another host; a port alone has the unspecified address. Sized
/// likewise.
#[map]
pub static SERVED: HashMap<Endpoint, u32> = HashMap::with_max_entries(256, 0);

/// Who connected to them, by the worker's socket.
#[map]
pub static VISITORS: HashMap<u64, Visitor> = HashMap::with_max_entries(16_384, 0);

/// Exchanges that have ended, by upstream. Next to nothing where they are not to be counted.
#[map]
pub static UPSTREAMS: HashMap<Endpoint, u64> = HashMap::with_max_entries(1_024, 0);

/// The same by unix socket.
#[map]
pub static UNIX_UPSTREAMS: HashMap<[u8; PATH_LEN], u64> = HashMap::with_max_entries(256, 0);

/// Connections closed unfinished, by the thread that closed them.
#[map]
pub static AWAITING: HashMap<u32, Awaited> = HashMap::with_max_entries(1_024, 0);

/// Connections that the network ended and that nginx has not closed yet, by nginx's socket.
#[map]
pub static BROKEN: HashMap<u64, u64> = HashMap::with_max_entries(16_384, 0);

/// Connect calls under way, by thread. Only while system calls are traced.
#[map]
pub static CONNECTING: HashMap<u32, Connecting> = HashMap::with_max_entries(512, 0);

/// The socket that entered CLOSE last on each CPU's behalf, see [`crate::live::fallback`].
#[map]
pub static LAST_CLOSED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// What nearly every event asks for first: numbers side by side, so that they share a line of each CPU's cache. One of them is
/// [`Attached`], which userspace writes; the others are [`Counter`]s.
#[map]
static GATES: Array<u64> = Array::with_max_entries(gate::LEN, 0);

/// What userspace attached.
#[inline(always)]
pub fn attached() -> Option<&'static Attached> {
    // SAFETY: as large, and any bytes are a value of the type.
    GATES.get_ptr(gate::ATTACHED).map(|attached| unsafe { &*attached.cast::<Attached>() })
}

/// A counter that stands by itself, among [`GATES`].
pub struct Counter(u32);

/// How many ended exchanges' next action is awaited; see [`crate::live::fallback::is_awaited`].
pub const AWAITED: Counter = Counter(gate::ATTACHED + 1);
/// How many words wait for their connection's close; see [`crate::live::explain::word::is_any`].
pub const SPOKEN: Counter = Counter(gate::ATTACHED + 2);
/// How many handshakes found no place in their row; see [`crate::live::entry::handshake`].
pub const CROWDED: Counter = Counter(gate::ATTACHED + 3);
/// How many of nginx's sockets found the place of their port taken; see [`crate::live::entry::joined`].
pub const ALIASED: Counter = Counter(gate::ATTACHED + 4);
/// How many processes hold an end that nginx gave up; see [`crate::live::exchange::abandoned`].
pub const HELD: Counter = Counter(gate::ATTACHED + 5);

/// Counters, for each CPU its own: with one for all, each count would take it from the others.
#[map]
pub static STATS: PerCpuArray<Stats> = PerCpuArray::with_max_entries(1, 0);

/// Never written: what new entries are made from, for they are too large for the stack.
#[map]
pub static EMPTY_EXCHANGE: Array<OpenExchange> = Array::with_max_entries(1, 0);

/// Adds to one counter.
macro_rules! count {
    ($field:ident, $by:expr) => {
        if let Some(stats) = $crate::live::maps::STATS.get_ptr_mut(0) {
            // SAFETY: the entry lives as long as the map.
            unsafe { $crate::kernel::memory::add(&raw mut (*stats).$field, $by) };
        }
    };
}
pub(crate) use count;

/// Whether a counter that stands by itself is not zero: cheap to ask, for nobody else's count takes its memory from this CPU.
#[inline(always)]
pub fn is_any(counter: &Counter) -> bool {
    // SAFETY: a plain look at a counter that others change.
    GATES.get(counter.0).is_some_and(|count| unsafe { core::ptr::read_volatile(count) != 0 })
}

/// Counts so many more there or, with all bits set, one less.
#[inline(always)]
pub fn change(counter: &Counter, by: u64) {
    if let Some(count) = GATES.get_ptr_mut(counter.0) {
        // SAFETY: the entry lives as long as the map.
        unsafe { crate::kernel::memory::add(count, by) };
    }
}

/// One less: all bits set.
pub const LESS: u64 = u64::MAX;

/// Adds to one entry of a map of counters by upstream.
#[inline(always)]
pub fn add<K>(counters: &HashMap<K, u64>, key: &K, by: u64) {
    match counters.get_ptr_mut(key) {
        // SAFETY: preallocated map memory; the instruction is that of `count`.
        Some(counter) => unsafe {
            core::arch::asm!(
                "lock *(u64 *)({counter} + 0) += {by}",
                counter = in(reg) counter,
                by = in(reg) by,
                options(nostack),
            );
        },
        None if counters.insert(key, &by, 0).is_err() => count!(upstreams_unkept, by),
        None => {}
    }
}
