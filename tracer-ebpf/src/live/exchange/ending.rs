//! How an exchange ends: what nginx leaves of it, and whether that went plainly well.

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
