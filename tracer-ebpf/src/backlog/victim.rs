//! Connections that met a full accept queue.

use wire::{
    Endpoint, Header, Task,
    accept_queue::{Fate, Key, Kind, Listener, Victim, VictimEnded},
};

use crate::{
    backlog::{
        clients, listener,
        maps::{RING, STATS, VICTIMS, count},
    },
    kernel::{
        address::is_global,
        put::put,
        read::{layout, read},
    },
};

/// Names the attempt of `client` to connect to a port, in a network namespace.
#[inline(always)]
pub fn key(net: u64, client: &Endpoint, listener_port: u16) -> Key {
    let mut addr = client.addr;
    if !is_global(&addr) {
        addr[0] = read(net, layout!(net_inum));
    }
    Key { addr, port: u32::from(client.port), listener_port: u32::from(listener_port) }
}

/// Whether any victim's fate is open.
#[inline(always)]
pub fn any() -> bool {
    STATS.get(0).is_some_and(|stats| stats.open != 0)
}

/// Where a connection met the full queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// At its SYN, or at a unix connect.
    First,
    /// At the end of the handshake.
    FinalAck,
}

/// An attempt met a full queue; none if it is over already. `isn` is the SYN's sequence number; `task` says whose it is.
#[inline(always)]
pub fn met_full<'a>(
    listener: &Listener,
    key: &Key,
    client: &Endpoint,
    isn: u32,
    stage: Stage,
    task: impl FnOnce() -> Option<Task>,
) -> Option<&'a mut Victim> {
    let now = listener::now();
    let known = VICTIMS.get_ptr_mut(key).is_some_and(|victim| {
        // SAFETY: preallocated map memory.
        let victim = unsafe { &*victim };
        victim.listener == listener.sock && (stage == Stage::FinalAck || victim.isn == isn)
    });
    if !known {
        // A client that uses its port again has given up what it had begun with it.
        ended(key, Fate::ClosedByClient, 0);
        if stage == Stage::FinalAck && clients::is_over(key) {
            return None;
        }
        // Whole from the start: userspace may read it at any moment.
        let new = Victim {
            listener: listener.sock,
            listener_since_ns: listener.since_ns,
            first_ns: now,
            last_ns: now,
            syn_drops: u32::from(stage == Stage::First),
            ack_drops: u32::from(stage == Stage::FinalAck),
            client: *client,
            isn,
            task: task().unwrap_or_default(),
            ..Victim::default()
        };
        if !put!(VICTIMS, key, new, victims_untracked) {
            return None;
        }
        count!(open, 1);
        return find(key);
    }
    let victim = find(key)?;
    victim.last_ns = now;
    match stage {
        Stage::First => victim.syn_drops += 1,
        Stage::FinalAck => victim.ack_drops += 1,
    }
    Some(victim)
}

/// The open victim of this name.
#[inline(always)]
pub fn find<'a>(key: &Key) -> Option<&'a mut Victim> {
    // SAFETY: preallocated map memory.
    VICTIMS.get_ptr_mut(key).map(|victim| unsafe { &mut *victim })
}

/// Names the process behind a victim, unless that is known.
#[inline(always)]
pub fn name(victim: &mut Victim, task: &Task) {
    if victim.task.tgid == 0 {
        victim.task = *task;
    }
}

/// A victim's fate is known: emits it, unless userspace has taken it in meanwhile. Whoever removes it emits it.
#[inline(always)]
pub fn ended(key: &Key, fate: Fate, errno: u32) {
    let Some(victim) = find(key) else { return };
    victim.fate = fate as u32;
    victim.errno = errno;
    victim.ended_ns = listener::now();
    let Some(mut entry) = RING.reserve::<VictimEnded>(0) else {
        if forgotten(key) {
            count!(lost, 1);
        }
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is exactly one record; every byte of it is written here.
    unsafe {
        (*record).header = Header { kind: Kind::VictimEnded as u32, len: size_of::<VictimEnded>() as u32 };
        (*record).victim = *victim;
    }
    if forgotten(key) {
        entry.submit(0);
    } else {
        entry.discard(0);
    }
}

/// It is no victim any more, or never was. Returns whether it was one until now.
#[inline(always)]
pub fn forgotten(key: &Key) -> bool {
    let was_open = VICTIMS.remove(key).is_ok();
    if was_open {
        count!(open, u64::MAX);
    }
    was_open
}
