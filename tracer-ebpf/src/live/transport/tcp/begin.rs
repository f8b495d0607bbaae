//! How an exchange over TCP begins, and how its two ends find each other.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use wire::NginxEnd;

use crate::{
    kernel::{
        ports::watch_port,
        read::{layout, read},
        sock::{self, Common},
        task, trust,
    },
    live::{
        entry::{self, handshake, joined, reader, share},
        exchange::{served, worker_end},
        explain::{doing, last_read, listener, word},
        maps::{EMPTY_EXCHANGE, EXCHANGES, OpenExchange, count},
        scope,
        transport::connect,
    },
};

const IPPROTO_TCP: u16 = 6;

/// connect was called on `sk` just now: the destination is set, the local port and the sequence numbers are not yet. Returns nginx's end if this
/// begins an exchange of ours: [`super::queue::look_first`] is to follow.
#[inline(always)]
pub fn connects<'a>(sk: u64, now: u64) -> Option<&'a mut NginxEnd> {
    let task = task::current();
    if !task::is_asked_for(&task) {
        return None;
    }
    let common = Common::of(sk);
    if !common.is_inet() || read::<u16>(sk, layout!(sk_protocol)) != IPPROTO_TCP {
        return None;
    }
    if !trust::is_trusted(&task) {
        count!(strangers, 1);
        return None;
    }
    word::forget();
    connect::goes_on(sk);
    let upstream = common.remote();
    if !scope::is_wanted(&upstream) {
        return None;
    }
    count!(connections, 1);
    let empty = EMPTY_EXCHANGE.get(0)?;
    if share::is_used_up(&task) || EXCHANGES.insert(sk, empty, 0).is_err() {
        share::refused(&task);
        return None;
    }
    let exchange = EXCHANGES.get_ptr_mut(sk)?;
    // SAFETY: preallocated map memory, made just above.
    let OpenExchange { nginx, connection, .. } = unsafe { &mut *exchange };
    *connection = doing::connection_of(sk);
    nginx.flags |= doing::purpose(*connection);
    nginx.sock = sk;
    nginx.net = common.net();
    nginx.connect_ns = now;
    nginx.exchange = 1;
    nginx.nginx = task;
    nginx.upstream = upstream;
    reader::forget(sk);
    last_read::begins(nginx);
    watch_port(upstream.port);
    Some(nginx)
}

/// The handshake is over on this side.
#[inline(always)]
pub fn established(sk: u64) {
    let Some(OpenExchange { nginx, .. }) = entry::find(sk, sock::ports(sk).0) else { return };
    // SAFETY: the helper takes nothing.
    nginx.established_ns = unsafe { bpf_ktime_get_ns() };
    let nginx_isn: u32 = read(sk, layout!(snd_nxt));
    let worker_isn: u32 = read(sk, layout!(rcv_nxt));
    nginx.handshake = u64::from(nginx_isn) << 32 | u64::from(worker_isn);
    handshake::awaits(nginx.handshake, sk);
}

/// A listener's new socket is ready to be accepted: joins it to nginx's end by the handshake's sequence numbers.
#[inline(always)]
pub fn child_established(sk: u64) {
    let nginx_isn: u32 = read(sk, layout!(rcv_nxt));
    let worker_isn: u32 = read(sk, layout!(snd_nxt));
    let handshake = u64::from(nginx_isn) << 32 | u64::from(worker_isn);
    if !sock::is_here(sk) {
        return;
    }
    let Some(nginx_sock) = handshake::take(handshake) else {
        served::begins(sk, handshake);
        return;
    };
    let Some(exchange) = EXCHANGES.get_ptr_mut(nginx_sock) else { return };
    // SAFETY: preallocated map memory; that it is of this handshake is checked before anything is written.
    let exchange = unsafe { &mut *exchange };
    if exchange.nginx.handshake != handshake {
        return;
    }
    reader::forget(sk);
    let common = Common::of(sk);
    if !joined::joins(sk, common.remote_port(), exchange) {
        // So that it is not missed again in the end.
        handshake::awaits(handshake, nginx_sock);
        return;
    }
    // SAFETY: the helper takes nothing.
    worker_end::begins(exchange, unsafe { bpf_ktime_get_ns() });
    let OpenExchange { nginx, worker, .. } = exchange;
    worker.local = common.local();
    watch_port(worker.local.port);
    listener::learn(nginx.net, &nginx.upstream, common.net(), &worker.local);
}
