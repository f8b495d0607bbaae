//! Hand-made records for tests.

use wire::{
    Action, Endpoint, ExchangeRecord, FAMILY_INET, ListenerView, NextAction, Reset, Task, WorkerEnd,
    WorkerGone, nginx_flag, tcp_state,
};
use zerocopy::FromZeros;

use crate::model::{from_wire::comm_bytes, record::Record};

/// When nginx connected, in ns.
pub(crate) const CONNECT: u64 = 1_000_000_000_000;
const SOCK: u64 = 0xffff_8880_0000_1000;
const WORKER_SOCK: u64 = 0xffff_8880_0000_2000;

/// A thread that is its process's first.
pub(crate) fn task(tgid: u32, name: &str) -> Task {
    Task { tgid, tid: tgid, comm: comm_bytes(name) }
}

/// An IPv4 address and port.
pub(crate) fn endpoint(last: u8, port: u16) -> Endpoint {
    let words = [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([127, 0, 0, last])];
    Endpoint { addr: words, port, family: FAMILY_INET }
}

/// `ms` milliseconds after connect, in ns.
pub(crate) fn at(ms: u64) -> u64 {
    CONNECT + ms * 1_000_000
}

/// An exchange that nginx is connecting for.
pub(crate) fn connecting(after_ms: u64, error: u32) -> ExchangeRecord {
    let mut record = ExchangeRecord::new_zeroed();
    let nginx = &mut record.nginx;
    nginx.sock = SOCK;
    nginx.connect_ns = CONNECT;
    nginx.ended_ns = at(after_ms);
    nginx.exchange = 1;
    nginx.error = error;
    nginx.nginx = task(24945, "nginx");
    nginx.local = endpoint(1, 52654);
    nginx.upstream = endpoint(1, 19001);
    (nginx.old_state, nginx.new_state) = (tcp_state::SYN_SENT, tcp_state::CLOSE);
    nginx.flags = nginx_flag::NEXT_ACTION_FOLLOWS;
    record
}

/// An exchange whose request was sent and accepted by a worker of this host, ended by nginx after `after_ms`.
pub(crate) fn given_up(after_ms: u64) -> ExchangeRecord {
    let mut record = connecting(after_ms, 0);
    let nginx = &mut record.nginx;
    nginx.established_ns = at(0) + 45_000;
    nginx.first_sent_ns = at(0) + 52_000;
    nginx.last_sent_ns = nginx.first_sent_ns;
    nginx.sent = 552;
    nginx.worker_sock = WORKER_SOCK;
    (nginx.old_state, nginx.new_state) = (tcp_state::ESTABLISHED, tcp_state::FIN_WAIT1);
    nginx.flags |= nginx_flag::WORKER_OPEN | nginx_flag::WORKER_ACCEPTED;
    record.worker = worker();
    record.worker.abandoned_ns = record.nginx.ended_ns;
    record
}

/// A worker's end that was accepted and is open.
pub(crate) fn worker() -> WorkerEnd {
    let mut worker = WorkerEnd::new_zeroed();
    worker.sock = WORKER_SOCK;
    worker.nginx_sock = SOCK;
    worker.connect_ns = CONNECT;
    worker.created_ns = at(0) + 50_000;
    worker.accepted_ns = at(0) + 60_000;
    worker.has_socket = 1;
    worker.worker = task(24940, "php-fpm8.2");
    worker
}

/// An exchange whose worker a signal ended `after_ms` after connect, with bytes unread.
pub(crate) fn killed(after_ms: u64, signal: u32) -> ExchangeRecord {
    let mut record = given_up(after_ms);
    record.nginx.error = 104;
    record.nginx.new_state = tcp_state::CLOSE;
    record.nginx.flags = nginx_flag::RESET_RECEIVED | nginx_flag::NEXT_ACTION_FOLLOWS;
    let worker = &mut record.worker;
    worker.abandoned_ns = 0;
    worker.ended_ns = at(after_ms);
    (worker.old_state, worker.new_state) = (tcp_state::ESTABLISHED, tcp_state::CLOSE);
    worker.unread = 8;
    worker.closer = worker.worker;
    worker.exiting = 1;
    worker.exit_code = signal;
    worker.signal.ns = at(after_ms) - 2_000_000;
    worker.signal.number = signal;
    worker.signal.sender = task(24938, "php-fpm8.2");
    record
}

/// A look at the listener.
pub(crate) fn queue(depth: u32, limit: u32) -> ListenerView {
    ListenerView {
        sock: 0xffff_8880_0000_3000,
        ns: CONNECT,
        depth,
        limit,
        shared: 1,
        ..ListenerView::default()
    }
}

/// A reset this host sent because no socket took the SYN.
pub(crate) fn reset_without_socket() -> Reset {
    Reset { ns: CONNECT + 9_000, reason: 1, without_socket: 1, ..Reset::default() }
}

/// What nginx does after the exchange of this record.
pub(crate) fn next_action(of: &ExchangeRecord, action: Action, old_state: u8) -> Record {
    let mut next_action = NextAction::new_zeroed();
    next_action.sock = of.nginx.sock;
    next_action.connect_ns = of.nginx.connect_ns;
    next_action.ns = of.nginx.ended_ns + 30_000;
    next_action.other_sock = 0xffff_8880_0000_4000;
    next_action.action = action as u32;
    next_action.old_state = u32::from(old_state);
    next_action.peer = endpoint(1, 40000);
    Record::NextAction(Box::new(next_action), action)
}

/// The late end of the worker of this record.
pub(crate) fn gone(of: &ExchangeRecord, after_ms: u64) -> Record {
    let mut gone = WorkerGone::new_zeroed();
    gone.worker = of.worker;
    gone.worker.ended_ns = at(after_ms);
    gone.worker.closer = gone.worker.worker;
    (gone.worker.old_state, gone.worker.new_state) = (tcp_state::CLOSE_WAIT, tcp_state::LAST_ACK);
    Record::WorkerGone(Box::new(gone))
}
