//! Where the entries of open exchanges are, and how each end of a connection finds its own.

pub mod handshake;
pub mod joined;
pub mod reader;
pub mod share;
pub mod unix_path;

use crate::{
    kernel::ports::port_is_watched,
    live::maps::{ConnectionId, EXCHANGES, OpenExchange},
};

/// The open exchange whose end of nginx's `sk` is.
#[inline(always)]
pub fn of<'a>(sk: u64) -> Option<&'a mut OpenExchange> {
    // SAFETY: preallocated map memory.
    EXCHANGES.get_ptr_mut(sk).map(|exchange| unsafe { &mut *exchange })
}

/// The same, if the peer's port is one of ours: most sockets are told apart by that alone.
#[inline(always)]
pub fn find<'a>(sk: u64, remote_port: u16) -> Option<&'a mut OpenExchange> {
    if !port_is_watched(remote_port) {
        return None;
    }
    of(sk)
}

/// Whether `sk` is nginx's end of an open exchange.
#[inline(always)]
pub fn is_ours(sk: u64) -> bool {
    // SAFETY: only tested for presence.
    unsafe { EXCHANGES.get(sk) }.is_some()
}

/// When the exchange began whose first bytes were sent on `sk` just now; none if they were not its first.
#[inline(always)]
pub fn just_began(sk: u64) -> Option<u64> {
    // SAFETY: copied out at once.
    let nginx = unsafe { &EXCHANGES.get(sk)?.nginx };
    (nginx.exchange > 1 && nginx.first_sent_ns == nginx.last_sent_ns).then_some(nginx.first_sent_ns)
}

/// Whether this very connection is still watched.
#[inline(always)]
pub fn is_open(id: ConnectionId) -> bool {
    // SAFETY: only looked at.
    unsafe { EXCHANGES.get(id.sock) }.is_some_and(|exchange| exchange.nginx.connect_ns == id.connect_ns)
}

/// Stands for unix sockets among the watched ports.
pub const NO_PORT: u16 = 0;
