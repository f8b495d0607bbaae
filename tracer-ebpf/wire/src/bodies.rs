//! The bodies that instances of a program share: which there are, and where each is in its map.

/// Those of raw tracepoints, by the program that has standby instances; the map is `BODIES`.
pub const OF_RAW_TRACEPOINTS: [&str; 12] = [
    "inet_sk_error_report",
    "inet_sock_set_state",
    "kfree_skb",
    "sched_process_exit",
    "signal_generate",
    "sock_recv_length",
    "sock_send_length",
    "tcp_destroy_sock",
    "tcp_receive_reset",
    "tcp_retransmit_skb",
    "tcp_send_reset",
    "unix_ends_exit",
];

/// Those of system calls; a map takes programs of one kind, and so they have one of their own: `SYSTEM_CALL_BODIES`.
pub const OF_SYSTEM_CALLS: [&str; 3] = ["sys_enter_close", "sys_enter_connect", "sys_exit_connect"];

/// Where a program's body is in its map; none of a program that has none.
pub const fn place(bodies: &[&str], program: &str) -> Option<u32> {
    let mut place = 0;
    while place < bodies.len() {
        if are_equal(bodies[place].as_bytes(), program.as_bytes()) {
            return Some(place as u32);
        }
        place += 1;
    }
    None
}

const fn are_equal(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}
