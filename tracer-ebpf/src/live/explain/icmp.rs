//! ICMP messages that answer a SYN.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use wire::{Icmp, MISSING};

use crate::{
    kernel::{
        read::{Plain, layout, read},
        sock,
    },
    live::{
        entry,
        maps::{EXCHANGES, OpenExchange},
    },
};

/// Of `struct sock_extended_err`: the errno and where it is from.
#[repr(C)]
#[derive(Clone, Copy)]
struct ExtendedError {
    errno: u32,
    origin: u8,
    kind: u8,
    code: u8,
    pad: u8,
}

impl Plain for ExtendedError {}

/// An error was queued on `sk`: an ICMP message that answers its SYN is, with its type and code (since 5.19), before it ends
/// the connection or, while connect still holds the socket, becomes a soft error that nginx asks for.
#[inline(always)]
pub fn error_reported(sk: u64) {
    const FROM_ICMP: u8 = 2;
    const FROM_ICMP6: u8 = 3;
    let Some(OpenExchange { nginx, .. }) = entry::find(sk, sock::ports(sk).0) else { return };
    let queue = sk.wrapping_add(u64::from(layout!(sk_error_queue)));
    // The queue is a ring through its head; its second pointer is to the newest entry.
    let newest: u64 = read(queue, 8);
    if nginx.handshake != 0 || newest == queue || layout!(extended_err) == MISSING {
        return;
    }
    let error: ExtendedError = read(newest, layout!(skb_cb) + layout!(extended_err));
    if error.origin == FROM_ICMP || error.origin == FROM_ICMP6 {
        nginx.icmp = Icmp {
            // SAFETY: the helper takes nothing.
            ns: unsafe { bpf_ktime_get_ns() },
            errno: error.errno,
            is_v6: u16::from(error.origin == FROM_ICMP6),
            kind: error.kind,
            code: error.code,
        };
    }
}

/// connect returns, and an ICMP message may have answered the SYN already: it could not end the connection while connect held the
/// socket, and left an error for nginx to ask for (`sk_err_soft`). All that kernels before 5.19 show of it.
#[inline(always)]
pub fn may_be_answered(sk: u64) {
    let error: u32 = read(sk, layout!(sk_err_soft));
    if error == 0 {
        return;
    }
    // SAFETY: preallocated map memory.
    if let Some(exchange) = EXCHANGES.get_ptr_mut(sk).map(|exchange| unsafe { &mut *exchange })
        && exchange.nginx.icmp.ns == 0
    {
        exchange.nginx.icmp.errno = error;
    }
}
