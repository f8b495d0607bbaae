//! Packets of handshakes that met a full accept queue.

use wire::{
    Endpoint, FAMILY_INET, FAMILY_INET6, MISSING,
    accept_queue::{Fate, Listener},
};

use crate::{
    backlog::{
        clients, counter, listener,
        maps::{attached, count},
        victim::{self, Stage},
    },
    kernel::{
        memory,
        ports::port_is_watched,
        read::{layout, read},
        sock,
        tcp_header::{ACK, SYN, TcpHeader, tcp_header},
    },
};

const RST: u8 = 4;

/// Whether the function that deals with SYNs is at this address.
#[inline(always)]
fn is_syn_consumer(caller: u64) -> bool {
    let places = counter::places();
    caller >= places.consumer_start && caller < places.consumer_end
}

/// One TCP packet.
struct Packet {
    tcp: TcpHeader,
    source: Endpoint,
    dest: Endpoint,
}

/// Reads a packet's addresses. A mapped IPv4 address has a v4 client's family, whatever the listener was made for.
#[inline(always)]
fn packet(skb: u64) -> Option<Packet> {
    let head: u64 = read(skb, layout!(skb_head));
    let transport = tcp_header(head, skb)?;
    let tcp: TcpHeader = read(head, transport);
    let network = u32::from(read::<u16>(skb, layout!(skb_network_header)));
    let (source_port, dest_port) = (u16::from_be(tcp.source), u16::from_be(tcp.dest));
    let is_v4 = read::<u8>(head, network) >> 4 == 4;
    let (source, dest, family) = if is_v4 {
        (sock::mapped(read(head, network + 12)), sock::mapped(read(head, network + 16)), FAMILY_INET)
    } else {
        (read(head, network + 8), read(head, network + 24), FAMILY_INET6)
    };
    Some(Packet {
        tcp,
        source: Endpoint { addr: source, port: source_port, family },
        dest: Endpoint { addr: dest, port: dest_port, family },
    })
}

/// The network namespace that routed a packet to one of its own sockets.
#[inline(always)]
fn net(skb: u64) -> Option<u64> {
    if layout!(skb_route) == MISSING || layout!(route_device) == MISSING || layout!(device_net) == MISSING {
        return None;
    }
    let route = read::<u64>(skb, layout!(skb_route)) & !7;
    let device: u64 = read(route, layout!(route_device));
    (route != 0 && device != 0).then(|| read(device, layout!(device_net)))
}

/// A SYN meets the full queue of `listener`.
#[inline(always)]
fn syn_dropped(listener: &mut Listener, packet: &Packet) {
    // SAFETY: a counter in a map.
    unsafe { memory::add(&raw mut listener.syn_drops, 1) };
    listener::look(listener, listener::now());
    let key = victim::key(listener.net, &packet.source, packet.dest.port);
    let isn = u32::from_be(packet.tcp.seq);
    let _victim = victim::met_full(listener, &key, &packet.source, isn, Stage::First, || clients::of(&key));
}

/// Whether the packet that a function of the listener has just dealt with met the full queue: this processor has counted it, or,
/// where its count cannot be read, the queue is full.
#[inline(always)]
fn met_full(sock: u64) -> bool {
    counter::has_risen(sock::net(sock)).unwrap_or_else(|| {
        read::<u32>(sock, layout!(sk_ack_backlog)) > read::<u32>(sock, layout!(sk_max_ack_backlog))
    })
}

/// A listener has dealt with a SYN. With a full accept queue the kernel drops it, whatever else holds.
#[inline(always)]
pub fn syn_came(sock: u64, skb: u64) {
    if !met_full(sock) {
        return;
    }
    match (listener::find(sock), packet(skb)) {
        (Some(listener), Some(packet)) => syn_dropped(listener, &packet),
        _ => count!(unattributed, 1),
    }
}

/// Whether a listener is full and has dropped more packets than were counted.
#[inline(always)]
fn has_new_drop(listener: &Listener) -> bool {
    let drops = read::<u32>(listener.sock, layout!(sk_drops));
    listener::is_full(listener) && drops != listener.drops_counted as u32
}

/// `caller` consumes a packet. A SYN that a listener has dealt with ends like this in `tcp_rcv_state_process`, dropped or not:
/// it was dropped if this processor has counted an overflow, or, where its count cannot be read, if the queue is full and the
/// listener's count of drops has risen.
#[inline(always)]
pub fn consumed(skb: u64, caller: u64) {
    if !is_syn_consumer(caller) {
        return;
    }
    let Some(packet) = packet(skb) else { return };
    if packet.tcp.flags & (SYN | ACK | RST) != SYN || !port_is_watched(packet.dest.port) {
        return;
    }
    let Some(net) = net(skb) else { return };
    let has_risen = counter::has_risen(net);
    if has_risen == Some(false) {
        return;
    }
    let Some(group) = listener::group(net, &packet.dest) else { return };
    let mut listener = listener::first(group, |listener| has_new_drop(listener));
    if listener.is_none() && has_risen == Some(true) {
        // Another processor has made room since.
        listener = listener::first(group, |_| true);
    }
    if let Some(listener) = listener {
        // SAFETY: a counter in a map.
        unsafe { memory::add(&raw mut listener.drops_counted, 1) };
        syn_dropped(listener, &packet);
    }
}

/// The end of a handshake met the full queue of `listener`.
#[inline(always)]
fn ack_dropped(listener: &mut Listener, packet: &Packet) {
    // SAFETY: counters in a map.
    unsafe {
        memory::add(&raw mut listener.ack_drops, 1);
        memory::add(&raw mut listener.drops_counted, 1);
    }
    listener::look(listener, listener::now());
    let key = victim::key(listener.net, &packet.source, packet.dest.port);
    let isn = u32::from_be(packet.tcp.seq).wrapping_sub(1);
    let _victim =
        victim::met_full(listener, &key, &packet.source, isn, Stage::FinalAck, || clients::of(&key));
    let aborts = layout!(net_abort_on_overflow) != MISSING
        && read::<u8>(listener.net, layout!(net_abort_on_overflow)) != 0;
    if aborts {
        victim::ended(&key, Fate::Reset, 0);
    }
}

/// The packet that ends a handshake came to a listener, which made `child` of it, or nothing.
#[inline(always)]
pub fn handshake_ended(sock: u64, skb: u64, child: u64) {
    // Asked in any case, so that no count is left for the next packet.
    let met_full = met_full(sock);
    if child != 0 || !met_full {
        return;
    }
    match (listener::find(sock), packet(skb)) {
        (Some(listener), Some(packet)) => ack_dropped(listener, &packet),
        _ => count!(unattributed, 1),
    }
}

/// The same for a listener's IPv6 operations, which hand IPv4 packets to the other ones.
#[inline(always)]
pub fn handshake_ended_v6(sock: u64, skb: u64, child: u64) {
    let head: u64 = read(skb, layout!(skb_head));
    if read::<u8>(head, u32::from(read::<u16>(skb, layout!(skb_network_header)))) >> 4 == 6 {
        handshake_ended(sock, skb, child);
    }
}

/// A packet is dropped, which `sock` would have received if the kernel says so. The reason shows a full queue where the kernel
/// has one for it, or else the processor's own count; of the first packet on a processor, a full queue and the listener's count of
/// drops.
#[inline(always)]
pub fn dropped(skb: u64, reason: u32, sock: u64) {
    if attached().is_some_and(|attached| attached.handshake_drops != 0) {
        return;
    }
    let Some(packet) = packet(skb) else { return };
    if !port_is_watched(packet.dest.port) {
        return;
    }
    let known = listener::find(sock);
    let net = match &known {
        Some(listener) => listener.net,
        None => net(skb).unwrap_or(0),
    };
    let has_risen = if net == 0 { Some(false) } else { counter::has_risen(net) };
    let is_named = reason != MISSING && reason == layout!(drop_listen_overflow);
    let is_certain = is_named || has_risen == Some(true);
    if !is_certain && (has_risen == Some(false) || packet.tcp.flags & (SYN | ACK | RST) != ACK) {
        return;
    }
    let listener = known.or_else(|| {
        let group = listener::group(net, &packet.dest)?;
        listener::first(group, |listener| listener::is_full(listener))
            .or_else(|| listener::first(group, |_| true))
    });
    match listener {
        Some(listener) if is_certain || has_new_drop(listener) => ack_dropped(listener, &packet),
        None if is_certain => count!(unattributed, 1),
        _ => {}
    }
}
