//! How an exchange ends: what nginx leaves of it, and whether it succeeded.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use wire::{FAMILY_UNIX, NginxEnd, nginx_flag, tcp_state};

use crate::{
    kernel::{
        read::{filter, layout, read},
        sock, task,
    },
    live::{
        entry::unix_path,
        explain::{doing, last_read, word},
        maps::{OpenExchange, UNIX_UPSTREAMS, UPSTREAMS, add, count},
    },
};

/// How an exchange ended for nginx.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Plainly well: nothing is left to emit.
    Well,
    /// Well, but over a connection that took more than one SYN, which is emitted.
    Late,
    /// Otherwise.
    Failed,
    /// The network ended it after its handshake. It is over for nginx only when it meets the error: until then it may still read all of a
    /// response that came before a reset. So that is emitted when nginx closes the socket.
    Broken,
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

/// Whether nothing is left to emit: the response was read and then the connection closed, by either end, by
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

/// nginx's end of a TCP exchange leaves one state for another, which ends it: writes down how.
#[inline(always)]
pub fn of_tcp(exchange: &mut OpenExchange, sk: u64, old_state: u8, new_state: u8) -> Ending {
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
        return Ending::Broken;
    }
    if !ends(exchange).0 {
        Ending::Failed
    } else if exchange.nginx.syn_retransmits != 0 {
        Ending::Late
    } else {
        Ending::Well
    }
}

/// nginx closes a socket that the network had ended. An error that nobody has taken (`sock_error` clears it) has harmed
/// nobody.
#[inline(always)]
pub fn of_broken(exchange: &mut OpenExchange, sk: u64) -> Ending {
    let (error, ended_ns) = (exchange.nginx.error, exchange.nginx.ended_ns);
    let met = exchange.nginx.errno != 0 || read::<u32>(sk, layout!(sk_err)) == 0;
    exchange.nginx.unread = sock::unread(sk);
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
    if well { Ending::Well } else { Ending::Failed }
}

/// Writes down that an end ended. Returns whether it succeeded, and when.
#[inline(always)]
pub fn ends(exchange: &mut OpenExchange) -> (bool, u64) {
    let now = note_end(&mut exchange.nginx);
    let well = exchange.nginx.word_ns == 0 && ended_well(exchange, now);
    let is_cut = note_upgraded(exchange, well);
    count!(exchanges, u64::from(exchange.nginx.exchange));
    count_upstream(exchange);
    (well && !is_cut, now)
}

/// The same of one whose connection did not come about: where it is emitted from there is no room on the stack for more.
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
    let is_own = nginx.nginx.tgid == task::process();
    if nginx.error == 0
        && is_own
        && let Some(exit_code) = task::current_exit()
    {
        nginx.flags |= nginx_flag::CLOSER_EXITING;
        nginx.exit_code = exit_code;
    }
    // What the network ends may end in any thread's time.
    if nginx.error == 0 || nginx.upstream.family == FAMILY_UNIX {
        if !is_own {
            nginx.flags |= nginx_flag::CLOSED_LATE;
            return now;
        }
        let is_of_module = nginx.flags & nginx_flag::OF_MODULE != 0;
        let word_ns = word::of_close(nginx.connect_ns, nginx.last_received_ns, is_of_module);
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
