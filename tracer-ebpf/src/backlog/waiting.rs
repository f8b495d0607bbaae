//! Connections that wait in accept queues.

use aya_ebpf::{macros::map, maps::Array};

use crate::{
    backlog::maps::count,
    kernel::recent::{self, Found, Row},
};

/// Connections in accept queues, by their socket. One that leaves unseen is pushed out in time.
#[map]
static WAITING: Array<Row<Waiting>> = Array::with_max_entries(MASK as u32 + 1, 0);
const MASK: u64 = 16_383;

/// A connection that waits to be accepted.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Waiting {
    pub listener: u64,
    pub queued_ns: u64,
}

/// The kernel's allocator aligns sockets by 64 bytes.
#[inline(always)]
fn name(child: u64) -> u64 {
    child >> 6
}

/// `child` has entered the queue of a listener.
#[inline(always)]
pub fn begins(child: u64, listener: u64, now: u64) {
    recent::note::<_, MASK>(&WAITING, name(child), now, &Waiting { listener, queued_ns: now });
}

/// `child` has left its queue. None where it was not seen to enter it; where it may have been, that is counted.
#[inline(always)]
pub fn ends(child: u64) -> Option<Waiting> {
    match recent::find::<_, MASK>(&WAITING, name(child), 1, 1) {
        Found::It(waiting) => {
            recent::forget::<_, MASK>(&WAITING, name(child));
            Some(waiting)
        }
        Found::MaybePushedOut => {
            count!(waits_unkept, 1);
            None
        }
        Found::Nothing => None,
    }
}
