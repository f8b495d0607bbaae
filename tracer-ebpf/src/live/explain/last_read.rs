//! What each thread has read last, and whose request it is busy with: that is what set nginx off when it closes an exchange.
//!
//! nginx reads a request and, in the same turn of its loop, connects for it: so the exchange's client is at the socket that was read last
//! before. Whether a thread has slept since is shown by the kernel's own count of it: what a timer sets off is preceded by sleep.

use aya_ebpf::{macros::map, maps::Array};
use wire::{Client, FAMILY_UNIX, NginxEnd, nginx_flag, tcp_state};

use crate::{
    kernel::{
        memory,
        read::{layout, read},
        sock, task,
    },
    live::{
        entry,
        explain::{doing, listener},
    },
};

/// A power of two.
const PLACES: u64 = 512;

/// One thread's. Threads share places, so each says whose it is; of nginx's, two rarely have the same. In the place of one of those, no
/// other's reads are noted: between nginx's own and what it does for that, any thread may have its turn.
#[repr(C)]
#[derive(Clone, Copy)]
struct Place {
    /// The thread that read last, and in the upper half the remote port of what it read from.
    reader: u64,
    /// What it read from.
    sk: u64,
    /// How often the owner had slept by then.
    slept: u64,
    /// The last thread here that began an exchange, and in the upper half the remote port of `serves`.
    owner: u64,
    /// The client whose exchange the owner has closed since it last read.
    serves: u64,
    /// How often the owner had slept by then.
    closed: u64,
}

#[map]
static LAST_READ: Array<Place> = Array::with_max_entries(PLACES as u32, 0);

/// The place of a thread; those of threads that began together lie apart, or processors would take them from each other.
#[inline(always)]
fn place(thread: u32) -> Option<*mut Place> {
    let number = u64::from(thread).wrapping_mul(37);
    LAST_READ.get_ptr_mut(memory::bounded::<{ PLACES - 1 }>(number) as u32)
}

/// How often the running thread has slept.
#[inline(always)]
fn slept() -> u64 {
    read(task::current_task(), layout!(task_nvcsw))
}

#[inline(always)]
fn joined(thread: u32, port: u16) -> u64 {
    u64::from(port) << 32 | u64::from(thread)
}

/// The running thread was given something by `sk`: bytes, its end, or an error.
#[inline(always)]
pub fn note(sk: u64, remote_port: u16) {
    let thread = task::thread();
    let Some(place) = place(thread) else { return };
    // SAFETY: map memory, aligned; who shares the place may write it meanwhile, which its reader finds out.
    unsafe {
        let owner = (&raw const (*place).owner).read_volatile() as u32;
        if owner != 0 && owner != thread {
            return;
        }
        (&raw mut (*place).reader).write_volatile(joined(thread, remote_port));
        (&raw mut (*place).sk).write_volatile(sk);
        if owner == thread {
            (&raw mut (*place).slept).write_volatile(slept());
            (&raw mut (*place).serves).write_volatile(0);
        }
    }
}

/// Whether [`note`] would say nothing new: no exchange is the running thread's, and it has read from this socket last, too.
#[inline(always)]
pub fn is_noted(sk: u64) -> bool {
    let thread = task::thread();
    let Some(place) = place(thread) else { return false };
    // SAFETY: as above.
    unsafe {
        (&raw const (*place).sk).read_volatile() == sk
            && (&raw const (*place).reader).read_volatile() as u32 == thread
            && (&raw const (*place).owner).read_volatile() as u32 != thread
    }
}

/// What the running thread has read from last; zero where that is not known.
#[inline(always)]
pub fn sock() -> u64 {
    let thread = task::thread();
    let Some(place) = place(thread) else { return 0 };
    // SAFETY: as above.
    let (reader, sk) =
        unsafe { ((&raw const (*place).reader).read_volatile(), (&raw const (*place).sk).read_volatile()) };
    if reader as u32 == thread { sk } else { 0 }
}

/// An exchange begins: the thread does it for the client whose request it has read or, where it has just ended another exchange or read
/// its response, for that one's client.
#[inline(always)]
pub fn begins(nginx: &mut NginxEnd) {
    let thread = task::thread();
    let Some(place) = place(thread) else { return };
    // SAFETY: as above.
    let Place { reader, sk, slept: read_at, owner, serves, closed } = unsafe { place.read_volatile() };
    let is_owner = owner as u32 == thread;
    let now = slept();
    let is_read = reader as u32 == thread && (!is_owner || read_at == now);
    let (mut client, mut port) = (0, 0);
    if is_owner && serves != 0 && closed == now {
        (client, port) = (serves, (owner >> 32) as u16);
    } else if is_read {
        (client, port) = (sk, (reader >> 32) as u16);
        // A response of another exchange, or of the one before on this connection.
        if let Some(other) = entry::find(sk, port) {
            (client, port) = (other.nginx.client.sock, other.nginx.client.peer.port);
        }
    }
    if !is_owner {
        // SAFETY: as above.
        unsafe {
            (&raw mut (*place).owner).write_volatile(joined(thread, 0));
            (&raw mut (*place).serves).write_volatile(0);
            (&raw mut (*place).slept).write_volatile(now);
        }
    }
    nginx.client.sock = client;
    nginx.client.peer.port = port;
    if client != 0 && port == 0 {
        keep_peer(&mut nginx.client);
    }
}

/// A unix socket has no port: its peer names the connection.
#[inline(always)]
fn keep_peer(client: &mut Client) {
    let peer: u64 = read(client.sock, layout!(unix_peer));
    (client.peer.addr[0], client.peer.addr[1]) = (peer as u32, (peer >> 32) as u32);
}

/// The running thread closes an exchange: notes what it was given last, and that it is busy with this client.
#[inline(always)]
pub fn ends(nginx: &mut NginxEnd) {
    let thread = task::thread();
    let Some(place) = place(thread) else { return };
    // SAFETY: as above.
    let Place { reader, sk, slept: read_at, owner, .. } = unsafe { place.read_volatile() };
    if owner as u32 != thread || reader as u32 != thread {
        return;
    }
    let now = slept();
    nginx.flags |= if read_at != now {
        nginx_flag::NOTHING_READ
    } else if sk == nginx.sock {
        nginx_flag::UPSTREAM_READ
    } else if sk == nginx.client.sock {
        nginx_flag::CLIENT_READ
    } else {
        nginx_flag::OTHER_READ
    };
    // SAFETY: as above.
    unsafe {
        (&raw mut (*place).owner).write_volatile(joined(thread, nginx.client.peer.port));
        (&raw mut (*place).serves).write_volatile(nginx.client.sock);
        (&raw mut (*place).closed).write_volatile(now);
    }
}

/// A thread sleeps in other places, too, than where it waits for events: closing a socket waits for a lock that all processes share
/// (`epmutex` in `eventpoll_release_file`, fs/eventpoll.c, before 6.4). Where nginx's memory shows that no timer went off, that was it, and
/// what the thread had read last may be what set it off, and is noted besides; of a client that has left, its state says so, and a worker
/// that has to go has other reasons.
#[inline(always)]
pub fn slept_meanwhile(nginx: &mut NginxEnd) {
    const NO_TIMER: u32 = nginx_flag::NOTHING_READ | nginx_flag::UNTIMED;
    if nginx.flags & NO_TIMER != NO_TIMER
        || nginx.flags & (nginx_flag::SHUTTING_DOWN | nginx_flag::CLIENT_ENDED) != 0
        || nginx.client.state != tcp_state::ESTABLISHED
    {
        return;
    }
    let read = sock();
    nginx.flags |= if read == nginx.sock {
        nginx_flag::UPSTREAM_READ
    } else if read == nginx.client.sock {
        nginx_flag::CLIENT_READ
    } else {
        nginx_flag::OTHER_READ
    };
}

/// nginx itself knows for whose request it made the exchange that it closes, also where it has read from others since it read that: from a
/// resolver, or while the request had to wait.
#[inline(never)]
pub fn ask_nginx(nginx: &mut NginxEnd, connection: u64) {
    if nginx.nginx.tid != task::thread() {
        return;
    }
    let client = doing::client_of(connection);
    if client == 0 || client == nginx.client.sock || client == nginx.sock {
        return;
    }
    nginx.client.sock = client;
    nginx.client.peer.port = sock::ports(client).0;
    if nginx.client.peer.port == 0 {
        keep_peer(&mut nginx.client);
    }
    if nginx.flags & (nginx_flag::CLIENT_READ | nginx_flag::OTHER_READ) != 0 {
        nginx.flags &= !(nginx_flag::CLIENT_READ | nginx_flag::OTHER_READ);
        nginx.flags |= if sock() == client { nginx_flag::CLIENT_READ } else { nginx_flag::OTHER_READ };
    }
}

/// Looks at the client's socket as nginx closes the exchange. What is not a client's any more, or never was one, is forgotten.
#[inline(always)]
pub fn look_at_client(nginx: &mut NginxEnd) {
    let client = &mut nginx.client;
    if client.sock == 0 {
        return;
    }
    let is_unix = client.peer.port == 0;
    let is_same = sock::has_socket(client.sock)
        && if is_unix {
            let peer: u64 = read(client.sock, layout!(unix_peer));
            u64::from(client.peer.addr[1]) << 32 | u64::from(client.peer.addr[0]) == peer
                && read::<u16>(client.sock, layout!(family)) == FAMILY_UNIX
        } else {
            sock::ports(client.sock).0 == client.peer.port && listener::has_made(client.sock)
        };
    if !is_same {
        // SAFETY: all zeroes are no client.
        unsafe { memory::clear(client) };
        return;
    }
    if is_unix {
        memory::unspecify(&mut client.peer.addr);
        client.peer.family = FAMILY_UNIX;
        client.state = unix_state(client.sock);
    } else {
        client.peer = sock::remote(client.sock);
        client.state = read(client.sock, layout!(state));
    }
    if sock::wants_room(client.sock) {
        nginx.flags |= nginx_flag::CLIENT_BLOCKED;
    }
}

/// The state of a unix socket, as TCP would call it.
#[inline(always)]
fn unix_state(sk: u64) -> u8 {
    if read::<u32>(sk, layout!(sk_err)) != 0 {
        tcp_state::CLOSE
    } else if sock::has_peer_closed(sk) {
        tcp_state::CLOSE_WAIT
    } else {
        tcp_state::ESTABLISHED
    }
}
