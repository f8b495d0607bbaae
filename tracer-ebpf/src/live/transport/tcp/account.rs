//! What the kernel itself keeps of both ends, read when an exchange has failed.

use wire::{MISSING, NginxEnd, nginx_flag, tcp_state};

use crate::{
    kernel::{
        read::{layout, read},
        recent::Found,
        sock,
        verified_once::verified_once,
    },
    live::{
        entry,
        exchange::{nginx_end, worker_end},
        explain::{drops, resets},
        maps::{OpenExchange, attached, count},
        transport::tcp::queue,
    },
};

verified_once! {
    /// Reads what the kernel itself keeps of both ends of the TCP exchange whose end of nginx's `sk` is.
    pub fn take_account(sk: u64) = takes_account(sk);
}

#[inline(always)]
fn takes_account(sk: u64) {
    let Some(OpenExchange { nginx, .. }) = entry::of(sk) else { return };
    queue::look_again(sk, nginx.ended_ns);
    if let Some(exchange) = entry::of(sk) {
        account(&mut exchange.nginx, sk);
        look_at_worker(exchange);
    }
}

#[inline(always)]
fn look_at_worker(exchange: &mut OpenExchange) {
    let OpenExchange { nginx, worker, .. } = exchange;
    if worker_end::is_open(worker) {
        worker_end::look(worker, nginx.ended_ns);
        nginx.worker_retransmits = read(worker.sock, layout!(total_retrans));
        nginx_end::note_worker(nginx, worker.has_socket != 0);
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
    nginx_end::note_blocked(nginx, sk);
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
