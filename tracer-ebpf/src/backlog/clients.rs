//! Who has connected lately, where the client is on this host.

use aya_ebpf::{macros::map, maps::Array};
use wire::{Task, accept_queue::Key};

use crate::{
    backlog::{listener, maps::count},
    kernel::{
        memory,
        recent::{self, Found, Row},
    },
};

/// Who has connected to a port that somebody listens on. One that is pushed out has no name.
#[map]
static CLIENTS: Array<Row<Client>> = Array::with_max_entries(MASK as u32 + 1, 0);
const MASK: u64 = 4_095;

/// Clients that met a full queue and whose end is over: what their kernels still send, a FIN first, is of no further connection.
#[map]
static OVER: Array<Row<Key>> = Array::with_max_entries(OVER_MASK as u32 + 1, 0);
const OVER_MASK: u64 = 255;

/// For so long one that is over may still be heard of: its FIN goes out again (ns).
const LATELY_NS: u64 = 60_000_000_000;

/// A client that connected lately.
#[repr(C)]
#[derive(Clone, Copy)]
struct Client {
    key: Key,
    task: Task,
}

/// A number for a key. Two keys may have the same: what is found is compared.
#[inline(always)]
fn number(key: &Key) -> u64 {
    let [a, b, c, d] = key.addr;
    let addr = u64::from(a ^ c) << 32 | u64::from(b ^ d);
    (addr ^ u64::from(key.port) << 16 ^ u64::from(key.listener_port)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[inline(always)]
fn is_same(one: *const Key, other: &Key) -> bool {
    // SAFETY: map memory that is a value of the type.
    let one = unsafe { &*one };
    memory::is_same(&one.addr, &other.addr)
        && one.port == other.port
        && one.listener_port == other.listener_port
}

#[inline(always)]
pub fn connected(key: &Key, task: &Task) {
    let client = Client { key: *key, task: *task };
    recent::note::<_, MASK>(&CLIENTS, number(key), listener::now(), &client);
    recent::forget::<_, OVER_MASK>(&OVER, number(key));
}

/// The end of a client that had connected is over.
#[inline(always)]
pub fn ended(key: &Key) {
    recent::note::<_, OVER_MASK>(&OVER, number(key), listener::now(), key);
}

/// Who connected under this key lately, if it is on this host.
#[inline(always)]
pub fn of(key: &Key) -> Option<Task> {
    let task = |client: *const Client| {
        // SAFETY: map memory that is a value of the type.
        unsafe { is_same(&raw const (*client).key, key).then(|| (*client).task) }
    };
    match recent::find_with::<_, _, MASK>(&CLIENTS, number(key), 1, 1, task) {
        Found::It(task) => task,
        Found::MaybePushedOut | Found::Nothing => None,
    }
}

/// Whether what this client's kernel sends is of a connection that is over. Where that is not known any more it is taken to be, and
/// counted.
#[inline(always)]
pub fn is_over(key: &Key) -> bool {
    let lately_ns = listener::now().saturating_sub(LATELY_NS);
    match recent::find_with::<_, _, OVER_MASK>(&OVER, number(key), 1, lately_ns, |over| is_same(over, key)) {
        Found::It(is_same) => is_same,
        Found::MaybePushedOut => {
            count!(clients_unkept, 1);
            true
        }
        Found::Nothing => false,
    }
}
