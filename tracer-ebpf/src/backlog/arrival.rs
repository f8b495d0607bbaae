//! Connections over TCP that enter an accept queue.

use wire::{
    MISSING,
    accept_queue::{Fate, Listener},
};

use crate::{
    backlog::{caller, clients, listener, victim},
    kernel::{
        read::{layout, read},
        sock,
    },
};

/// Whether the newest connection in the queue is this one (`inet_csk_reqsk_queue_add` puts it at the tail).
#[inline(always)]
fn has_newest(listener: &Listener, child: u64) -> bool {
    if layout!(accept_tail) == MISSING || layout!(request_child) == MISSING {
        return false;
    }
    read::<u64>(read(listener.sock, layout!(accept_tail)), layout!(request_child)) == child
}

/// The handshake is over, and `child` has entered an accept queue just before: `tcp_child_process` comes after
/// `inet_csk_complete_hashdance`.
#[inline(always)]
pub fn tcp_arrives(child: u64) {
    let local = sock::local(child);
    let Some(group) = listener::group(sock::net(child), &local) else { return };
    let listener = if group.used == 1 {
        listener::first(group, |_| true)
    } else {
        listener::first(group, |listener| has_newest(listener, child)).or_else(|| {
            // Another one came in since.
            listener::first(group, |listener| {
                listener::depth(listener.sock, listener.local.family) > listener.depth
            })
        })
    };
    let Some(listener) = listener else { return };
    listener::arrives(listener, child);
    tcp_got_in(listener, child);
}

/// A connection has entered the queue, maybe after it had met it full. Also learns that nginx uses this listener.
#[inline(always)]
pub fn tcp_got_in(listener: &mut Listener, child: u64) {
    if listener.by_nginx != 0 && !victim::any() {
        return;
    }
    let key = victim::key(sock::net(child), &sock::remote(child), listener.local.port);
    if let Some(task) = clients::of(&key)
        && caller::is_nginx(&task)
    {
        listener.by_nginx = 1;
    }
    if let Some(victim) = victim::find(&key) {
        let isn = read::<u32>(child, layout!(rcv_nxt)).wrapping_sub(1);
        let is_it = victim.ack_drops != 0 || victim.isn == isn;
        victim::ended(&key, if is_it { Fate::GotIn } else { Fate::ClosedByClient }, 0);
    }
}
