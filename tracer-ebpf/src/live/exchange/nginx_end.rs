//! nginx's end of an exchange.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use wire::{FAMILY_UNIX, Icmp, MISSING, NginxEnd, nginx_flag, tcp_state};

use crate::{
    kernel::{
        ports::watch_port,
        read::{Plain, filter, layout, read},
        recent::Found,
        sock::{self, Common},
        task, trust,
        verified_once::verified_once,
    },
    live::{
        emit::tell,
        entry::{self, handshake, joined, share, unix_path},
        exchange::worker_end,
        explain::{doing, drops, last_read, listener, resets, word},
        fallback,
        maps::{
            ConnectionId, EMPTY_EXCHANGE, EXCHANGES, OpenExchange, UNIX_UPSTREAMS, UPSTREAMS, add, attached,
            count,
        },
        scope,
        transport::connect,
    },
};

const IPPROTO_TCP: u16 = 6;
const EAGAIN: i32 = 11;

/// connect was called on `sk` just now: the destination is set, the local port and the sequence numbers are not yet. Returns nginx's end if this
/// begins an exchange of ours: [`look_first`] is to follow.
#[inline(always)]
pub fn connects<'a>(sk: u64, now: u64) -> Option<&'a mut NginxEnd> {
    let task = task::current();
    if !scope::is_asked_for(&task) {
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
    worker_end::is_unread(sk);
    last_read::begins(nginx);
    watch_port(upstream.port);
    Some(nginx)
}

/// Looks at the listener's queues before the first SYN.
#[inline(always)]
pub fn look_first(nginx: &mut NginxEnd, sk: u64, now: u64) {
    nginx.listener_first = listener::view(sk, nginx.net, &nginx.upstream, now);
    nginx.flags &= !(nginx_flag::QUEUE_FULL_AT_CONNECT | nginx_flag::SYN_QUEUE_FULL_AT_CONNECT);
    if listener::is_full(&nginx.listener_first) {
        nginx.flags |= nginx_flag::QUEUE_FULL_AT_CONNECT;
    }
    if listener::syn_queue_is_full(&nginx.listener_first) {
        nginx.flags |= nginx_flag::SYN_QUEUE_FULL_AT_CONNECT;
    }
    if listener::may_be_left_out(&nginx.listener_first) {
        nginx.flags |= nginx_flag::LISTENER_LEFT_OUT;
    }
}

verified_once! {
    /// Looks at the queues that `sk` connects to once more.
    fn look_again(sk: u64, now: u64) = looks_again(sk, now);
    /// Reads what the kernel itself keeps of both ends of the TCP exchange whose end of nginx's `sk` is.
    fn take_account(sk: u64) = takes_account(sk);
}

#[inline(always)]
fn looks_again(sk: u64, now: u64) {
    let Some(OpenExchange { nginx, .. }) = entry::of(sk) else { return };
    nginx.listener_last = listener::view(sk, nginx.net, &nginx.upstream, now);
    if listener::may_be_left_out(&nginx.listener_last) {
        nginx.flags |= nginx_flag::LISTENER_LEFT_OUT;
    }
}

#[inline(always)]
fn takes_account(sk: u64) {
    let Some(OpenExchange { nginx, .. }) = entry::of(sk) else { return };
    look_again(sk, nginx.ended_ns);
    if let Some(exchange) = entry::of(sk) {
        account(&mut exchange.nginx, sk);
        look_at_worker(exchange);
    }
}

/// The SYN is about to be made (`tcp_connect`): the look at the queues when connect was called is a moment old by now.
#[inline(always)]
pub fn syn_goes_out(sk: u64) {
    if let Some(OpenExchange { nginx, .. }) = entry::find(sk, sock::ports(sk).0) {
        // SAFETY: the helper takes nothing.
        look_first(nginx, sk, unsafe { bpf_ktime_get_ns() });
    }
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

/// The SYN goes out again: looks at the listener's queue at this moment.
#[inline(always)]
pub fn syn_sent_again(sk: u64) {
    let Some(OpenExchange { nginx, .. }) = entry::find(sk, sock::ports(sk).0) else { return };
    nginx.syn_retransmits += 1;
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    look_again(sk, now);
    let Some(OpenExchange { nginx, .. }) = entry::of(sk) else { return };
    if !listener::is_full(&nginx.listener_last) {
        nginx.flags &= !nginx_flag::QUEUE_FULL_AT_CONNECT;
    }
    if !listener::syn_queue_is_full(&nginx.listener_last) {
        nginx.flags &= !nginx_flag::SYN_QUEUE_FULL_AT_CONNECT;
    }
}

/// A reset arrived.
#[inline(always)]
pub fn reset_received(sk: u64) {
    if let Some(OpenExchange { nginx, .. }) = entry::find(sk, sock::ports(sk).0) {
        nginx.flags |= nginx_flag::RESET_RECEIVED;
    }
}

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
/// socket, and left an error for nginx to ask for (`sk_err_soft`). All that kernels before 5.19 tell of it.
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

#[inline(always)]
fn keep_error(nginx: &mut NginxEnd, ret: i32) {
    if ret < 0 && ret != -EAGAIN {
        nginx.errno = -ret as u16;
    }
}

/// nginx's send returned `ret`, now or at another moment. Bytes sent after bytes read begin the connection's next exchange.
/// Returns whether this was an end of ours.
#[inline(always)]
pub fn sends(sk: u64, remote_port: u16, ret: i32, ns: Option<u64>) -> bool {
    let Some(OpenExchange { nginx, .. }) = entry::find(sk, remote_port) else { return false };
    if ret <= 0 {
        keep_error(nginx, ret);
        return true;
    }
    if word::is_said() {
        // nginx gives it up already: what it sends a TLS upstream now is a goodbye, and no request.
        return true;
    }
    // SAFETY: the helper takes nothing.
    let now = ns.unwrap_or_else(|| unsafe { bpf_ktime_get_ns() });
    if nginx.flags & nginx_flag::READ_LAST != 0 {
        nginx.flags &= !(nginx_flag::READ_LAST | nginx_flag::PEEKED);
        nginx.exchange += 1;
        nginx.idle_since_ns = nginx.last_received_ns;
        nginx.first_sent_ns = 0;
        nginx.first_received_ns = 0;
        nginx.last_received_ns = 0;
        nginx.sent = 0;
        nginx.received = 0;
        last_read::begins(nginx);
    }
    if nginx.first_sent_ns == 0 {
        nginx.first_sent_ns = now;
    }
    nginx.last_sent_ns = now;
    nginx.sent += ret as u64;
    true
}

/// nginx's receive returned `ret`. Returns whether this was an end of ours.
#[inline(always)]
pub fn receives(sk: u64, remote_port: u16, ret: i32, is_peek: bool) -> bool {
    let Some(OpenExchange { nginx, .. }) = entry::find(sk, remote_port) else { return false };
    if is_peek {
        if nginx.flags & nginx_flag::READ_LAST != 0 {
            nginx.flags |= nginx_flag::PEEKED;
        }
        return true;
    }
    if ret <= 0 {
        if ret == 0 {
            nginx.flags |= nginx_flag::END_READ;
        }
        keep_error(nginx, ret);
        return true;
    }
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    nginx.flags |= nginx_flag::READ_LAST;
    if nginx.first_received_ns == 0 {
        nginx.first_received_ns = now;
    }
    nginx.last_received_ns = now;
    nginx.received += ret as u64;
    true
}

/// The largest goodbye, in bytes: a TLS close_notify with any cipher.
const GOODBYE: u64 = 96;

/// Whether what was sent last was no request but a goodbye: nginx sends a TLS upstream a close_notify after it has read the whole
/// response, and closes at once. Where that was sent for a client, and nginx has not read from the upstream since it last slept, a request was.
#[inline(always)]
fn said_goodbye(nginx: &NginxEnd, now: u64) -> bool {
    const NOT_OF_UPSTREAM: u32 = nginx_flag::CLIENT_READ | nginx_flag::OTHER_READ | nginx_flag::NOTHING_READ;
    let is_request = nginx.client.sock != 0 && nginx.flags & NOT_OF_UPSTREAM != 0;
    nginx.exchange > 1
        && !is_request
        && nginx.flags & nginx_flag::READ_LAST == 0
        && nginx.received == 0
        && nginx.first_sent_ns == nginx.last_sent_ns
        && nginx.sent <= GOODBYE
        && now - nginx.last_sent_ns < u64::from(filter!(settle_ms)) * 1_000_000
}

/// Whether nothing is left to tell: the response was read and then the connection closed, by either end, by
/// processes that live on, and the connection came about at the first SYN. Whatever ends a connection that nginx kept
/// for later harms nobody.
#[inline(always)]
fn ended_well(exchange: &OpenExchange, now: u64) -> bool {
    let nginx = &exchange.nginx;
    if nginx.flags & nginx_flag::PEEKED != 0 {
        return true;
    }
    let settled = u64::from(filter!(settle_ms)) * 1_000_000;
    let by_living = nginx.error == 0
        && nginx.flags & nginx_flag::CLOSER_EXITING == 0
        && (exchange.worker.exiting == 0 || exchange.worker.exit_code & 0x7f == 0);
    let answered = nginx.flags & nginx_flag::READ_LAST != 0;
    let peer_closed = nginx.old_state == tcp_state::CLOSE_WAIT && nginx.new_state == tcp_state::LAST_ACK;
    // What a client's bytes had nginx close, the client cancelled.
    let at_once = nginx.old_state == tcp_state::ESTABLISHED
        && nginx.new_state == tcp_state::FIN_WAIT1
        && nginx.flags & nginx_flag::CLIENT_READ == 0
        && now - nginx.last_received_ns < settled;
    by_living && (answered && (peer_closed || at_once) || said_goodbye(nginx, now))
}

/// This end of a TCP exchange ended. Returns whether it was an end of ours.
///
/// What the network ends after the handshake is over for nginx only when it meets the error: until then it may still
/// read all of a response that came before a reset. So that is told when nginx closes the socket.
#[inline(always)]
pub fn ended(sk: u64, remote_port: u16, old_state: u8, new_state: u8) -> bool {
    let Some(exchange) = entry::find(sk, remote_port) else { return false };
    let nginx = &mut exchange.nginx;
    nginx.old_state = old_state;
    nginx.new_state = new_state;
    // Set before the state changes by tcp_reset and the timers, not by a closing process.
    nginx.error = read(sk, layout!(sk_err));
    // Taken by whoever asked for it, and nginx gives up then.
    if nginx.error == 0
        && old_state == tcp_state::SYN_SENT
        && nginx.icmp.errno != 0
        && read::<u32>(sk, layout!(sk_err_soft)) == 0
    {
        nginx.error = nginx.icmp.errno;
    }
    if nginx.error != 0 && old_state != tcp_state::SYN_SENT {
        // SAFETY: the helper takes nothing.
        nginx.ended_ns = unsafe { bpf_ktime_get_ns() };
        let id = ConnectionId { sock: sk, connect_ns: nginx.connect_ns };
        take_account(sk);
        fallback::await_close(id);
        return true;
    }
    let well = ends(exchange).0;
    if well && exchange.nginx.syn_retransmits == 0 {
        forget(exchange, sk);
        return true;
    }
    take_account(sk);
    if let Some(exchange) = entry::of(sk) {
        worker_end::outlives(&exchange.worker);
    }
    tell(sk, well);
    if let Some(exchange) = entry::of(sk) {
        forget(exchange, sk);
    }
    true
}

/// nginx closes a socket that the network had ended. An error that nobody has taken (`sock_error` clears it) has harmed
/// nobody.
#[inline(always)]
pub fn closes_broken(id: ConnectionId) {
    let Some(exchange) = EXCHANGES.get_ptr_mut(id.sock) else { return };
    // SAFETY: preallocated map memory; the connection's name is checked at once.
    let exchange = unsafe { &mut *exchange };
    if exchange.nginx.connect_ns != id.connect_ns {
        return;
    }
    let (error, ended_ns) = (exchange.nginx.error, exchange.nginx.ended_ns);
    let met = exchange.nginx.errno != 0 || read::<u32>(id.sock, layout!(sk_err)) == 0;
    exchange.nginx.unread = sock::unread(id.sock);
    // So that the exit of the closer is looked at in any case.
    exchange.nginx.error = 0;
    let (mut well, _) = ends(exchange);
    let nginx = &mut exchange.nginx;
    if met {
        nginx.error = error;
        nginx.ended_ns = ended_ns;
        well = nginx.flags & nginx_flag::PEEKED != 0 && nginx.word_ns == 0;
    } else if nginx.flags & nginx_flag::READ_LAST != 0 && nginx.unread == 0 {
        well = nginx.word_ns == 0;
    }
    if !well {
        worker_end::outlives(&exchange.worker);
        tell(id.sock, false);
    }
    if let Some(exchange) = entry::of(id.sock) {
        forget(exchange, id.sock);
    }
}

#[inline(always)]
fn look_at_worker(exchange: &mut OpenExchange) {
    let OpenExchange { nginx, worker, .. } = exchange;
    if worker_end::is_open(worker) {
        worker_end::look(worker, nginx.ended_ns);
        nginx.worker_retransmits = read(worker.sock, layout!(total_retrans));
        note_worker(nginx, worker.has_socket != 0);
    }
}

#[inline(always)]
fn forget(exchange: &OpenExchange, sk: u64) {
    if exchange.nginx.worker_sock == 0 && exchange.nginx.handshake != 0 {
        handshake::forget(exchange.nginx.handshake);
    }
    joined::forget(exchange);
    let _gone = EXCHANGES.remove(sk);
}

/// Writes down that an end ended. Returns whether it ended plainly well, and when.
#[inline(always)]
pub fn ends(exchange: &mut OpenExchange) -> (bool, u64) {
    let now = note_end(&mut exchange.nginx);
    let well = exchange.nginx.word_ns == 0 && ended_well(exchange, now);
    let is_cut = note_upgraded(exchange, well);
    count!(exchanges, u64::from(exchange.nginx.exchange));
    count_upstream(exchange);
    (well && !is_cut, now)
}

/// The same of one whose connection did not come about: where it is told from there is no room on the stack for more.
#[inline(always)]
pub fn ends_unconnected(exchange: &mut OpenExchange) {
    note_end(&mut exchange.nginx);
    count!(exchanges, u64::from(exchange.nginx.exchange));
    count_upstream(exchange);
}

/// Notes when an end ended, who closed it, what nginx said of it and what set nginx off. Returns when.
#[inline(always)]
fn note_end(nginx: &mut NginxEnd) -> u64 {
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    nginx.ended_ns = now;
    if nginx.error == 0
        && let Some(exit_code) = task::current_exit()
    {
        nginx.flags |= nginx_flag::CLOSER_EXITING;
        nginx.exit_code = exit_code;
    }
    // What the network ends may end in any thread's time.
    if nginx.error == 0 || nginx.upstream.family == FAMILY_UNIX {
        let word_ns = word::of_close(nginx.connect_ns, nginx.flags & nginx_flag::OF_MODULE != 0);
        if word_ns != 0 {
            nginx.word_ns = word_ns;
        }
        last_read::ends(nginx);
    }
    now
}

/// Writes down that the connection was upgraded, if that matters. What was passed on either way since then was no exchange for itself.
/// Returns whether its worker died with it.
#[inline(always)]
fn note_upgraded(exchange: &mut OpenExchange, well: bool) -> bool {
    let nginx = &mut exchange.nginx;
    let is_worth_a_look = !well || nginx.exchange > 1 || exchange.worker.exiting != 0;
    // What the network ends may end in any process's time, whose memory is another.
    if !is_worth_a_look
        || nginx.established_ns == 0
        || nginx.nginx.tgid != task::process()
        || nginx.flags & (nginx_flag::CLOSER_EXITING | nginx_flag::PEEKED) != 0
        || !(doing::is_upgraded(exchange.connection) || doing::has_handlers_of_upgraded(exchange.connection))
    {
        return false;
    }
    nginx.flags |= nginx_flag::UPGRADED;
    if nginx.exchange > 1 {
        nginx.exchange = 1;
        nginx.first_sent_ns = 0;
        nginx.first_received_ns = 0;
        if nginx.upstream.family != FAMILY_UNIX {
            nginx.sent = sock::bytes_sent(nginx.sock);
            nginx.received = read::<u64>(nginx.sock, layout!(bytes_received))
                .saturating_sub(u64::from(sock::unread(nginx.sock)));
        }
    }
    exchange.worker.exiting != 0
}

#[inline(always)]
fn count_upstream(OpenExchange { nginx, path, .. }: &OpenExchange) {
    if filter!(counts_upstreams) == 0 {
        return;
    }
    let by = u64::from(nginx.exchange);
    match unix_path::of(*path) {
        Some(path) => add(&UNIX_UPSTREAMS, path, by),
        None => add(&UPSTREAMS, &nginx.upstream, by),
    }
}

/// What it keeps of nginx's.
#[inline(always)]
fn account(nginx: &mut NginxEnd, sk: u64) {
    nginx.local = sock::local(sk);
    nginx.netns = read(nginx.net, layout!(net_inum));
    nginx.arrived = read(sk, layout!(bytes_received));
    nginx.unread = sock::unread(sk);
    nginx.retransmits = read(sk, layout!(total_retrans));
    let snd_una: u32 = read(sk, layout!(snd_una));
    nginx.unacked = read::<u32>(sk, layout!(write_seq)).wrapping_sub(snd_una);
    note_blocked(nginx, sk);
    if attached().is_some_and(|attached| attached.own_resets != 0) {
        nginx.flags |= nginx_flag::OWN_RESETS_SEEN;
    }
    // In SYN_SENT the first unacknowledged byte is the SYN itself.
    let isn = if nginx.handshake == 0 { snd_una } else { (nginx.handshake >> 32) as u32 - 1 };
    let first = if nginx.old_state == tcp_state::SYN_SENT { isn } else { isn.wrapping_add(1) };
    let mut is_lost = false;
    match resets::of_packet(first, nginx.connect_ns) {
        Found::It(reset) => nginx.reset = reset,
        Found::MaybePushedOut if nginx.flags & nginx_flag::RESET_RECEIVED != 0 => {
            nginx.flags &= !nginx_flag::OWN_RESETS_SEEN;
            is_lost = true;
        }
        Found::MaybePushedOut | Found::Nothing => {}
    }
    match drops::of_handshake(isn, nginx.connect_ns) {
        Found::It(dropped) => nginx.dropped = dropped,
        // Of a connection that came to a worker, nothing was dropped that matters.
        Found::MaybePushedOut if nginx.worker_sock == 0 => is_lost = true,
        Found::MaybePushedOut | Found::Nothing => {}
    }
    if is_lost {
        nginx.flags |= nginx_flag::FACTS_LOST;
        count!(packets_unkept, 1);
    }
    if nginx.handshake != 0 {
        look_for_lost(nginx, sk);
    }
}

/// Looks for what became of packets that did not come through, though the connection was made. In a function of its own, for its room on the
/// stack.
#[inline(never)]
fn look_for_lost(nginx: &mut NginxEnd, sk: u64) {
    let next: u32 = read(sk, layout!(rcv_nxt));
    if layout!(out_of_order) != MISSING
        && layout!(out_of_order_last) != MISSING
        && layout!(skb_end_seq) != MISSING
        && read::<u64>(sk, layout!(out_of_order)) != 0
    {
        let last: u64 = read(sk, layout!(out_of_order_last));
        if last != 0 {
            let end: u32 = read(last, layout!(skb_cb) + layout!(skb_end_seq));
            nginx.gap = end.wrapping_sub(next);
        }
    }
    nginx.refused_ns = resets::without_socket(next, nginx.connect_ns);
    nginx.lost_in = drops::of_packet(next, nginx.connect_ns);
    nginx.lost_out = drops::of_packet(read(sk, layout!(snd_una)), nginx.connect_ns);
}

/// Whether nginx still had something to send.
#[inline(always)]
pub fn note_blocked(nginx: &mut NginxEnd, sk: u64) {
    if sock::wants_room(sk) {
        nginx.flags |= nginx_flag::SEND_BLOCKED;
    }
}

/// The worker's end was open when nginx's end ended.
#[inline(always)]
pub fn note_worker(nginx: &mut NginxEnd, has_socket: bool) {
    nginx.flags |= nginx_flag::WORKER_OPEN;
    if has_socket {
        nginx.flags |= nginx_flag::WORKER_ACCEPTED;
    }
}
