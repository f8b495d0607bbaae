//! Unix upstreams that are in use and not watched: userspace learns of them.

use wire::{Attached, FAMILY_UNIX, Task};

use crate::{
    kernel::{
        read::{layout, read},
        sock, task, trust,
    },
    live::maps::{attached, count},
};

/// Whether the peer of this unix socket is bound to a path (a listener's children share its address).
#[inline(always)]
fn has_path(peer: u64) -> bool {
    let address: u64 = read(peer, layout!(unix_addr));
    address != 0 && read::<u8>(address, layout!(unix_address_name) + 2) != 0
}

/// Whether this may be a process of ours that is connected to a unix socket's path, which is not watched.
#[inline(always)]
pub fn may_be_upstream(task: &Task, sk: u64) -> bool {
    let is_watched = |attached: &Attached| attached.unix_release != 0 || attached.system_calls != 0;
    read::<u16>(sk, layout!(family)) == FAMILY_UNIX
        && !attached().is_some_and(is_watched)
        && task::has_wanted_name(task)
        && sock::is_stream(sk)
        && has_path(read(sk, layout!(unix_peer)))
}

/// A process of ours sent on a socket without a port that is not watched: userspace learns that unix upstreams are in
/// use.
#[inline(always)]
pub fn notice(sk: u64) {
    let task = task::current();
    if read::<u16>(sk, layout!(family)) != FAMILY_UNIX
        || !task::is_asked_for(&task)
        || !has_path(read(sk, layout!(unix_peer)))
    {
        return;
    }
    if trust::is_trusted(&task) {
        count!(unix_seen, 1);
    } else {
        count!(unix_strangers, 1);
    }
}
