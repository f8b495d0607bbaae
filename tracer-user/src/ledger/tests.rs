use tracer_ebpf::{Action, nginx_flag, tcp_state};

use super::{samples::*, *};

fn exchange(record: Exchange) -> Record {
    Record::Exchange(Box::new(record))
}

fn joined(whole: Option<Whole>) -> Joined {
    match whole {
        Some(Whole::Exchange(joined)) => *joined,
        other => panic!("no whole exchange: {other:?}"),
    }
}

#[test]
fn an_exchange_waits_for_what_nginx_does_next() {
    let mut ledger = Ledger::default();
    let record = given_up(1_000);
    assert!(ledger.take(exchange(record)).is_none());
    let whole = joined(ledger.take(aftermath(&record, Action::Sent, tcp_state::ESTABLISHED)));
    assert!(whole.nginx_gave_up() && whole.client_had_left().is_none());
    assert!(ledger.next_deadline().is_none(), "nothing is left waiting");
}

#[test]
fn patience_ends_at_its_moment_and_not_before() {
    let mut ledger = Ledger::default();
    ledger.take(exchange(given_up(1_000)));
    let deadline = ledger.next_deadline().unwrap();
    assert_eq!(deadline, at(1_000) + PATIENCE_NS);
    assert!(ledger.overdue(deadline).is_empty());
    assert_eq!(ledger.overdue(deadline + 1).len(), 1);
    assert!(ledger.overdue(u64::MAX).is_empty());
}

#[test]
fn an_aftermath_of_another_connection_completes_nothing() {
    let mut ledger = Ledger::default();
    let record = given_up(1_000);
    ledger.take(exchange(record));
    let mut other = record;
    other.nginx.connect_ns += 1;
    assert!(ledger.take(aftermath(&other, Action::Sent, tcp_state::ESTABLISHED)).is_none());
}

#[test]
fn a_retry_belongs_to_the_same_request() {
    let mut ledger = Ledger::default();
    let first = connecting(1, 111);
    ledger.take(exchange(first));
    let Record::Aftermath(mut connected, action) = aftermath(&first, Action::Connected, tcp_state::CLOSE)
    else {
        panic!("no aftermath");
    };
    connected.other_sock = 77;
    let first = joined(ledger.take(Record::Aftermath(connected.clone(), action)));
    let mut second = connecting(5, 111);
    second.nginx.sock = 77;
    second.nginx.connect_ns = connected.ns;
    second.nginx.flags = 0;
    let second = joined(ledger.take(exchange(second)));
    assert!(first.request.is_some());
    assert_eq!(first.request, second.request);
}

#[test]
fn a_later_use_of_the_socket_is_no_retry() {
    let mut ledger = Ledger::default();
    let first = connecting(1, 111);
    ledger.take(exchange(first));
    ledger.take(aftermath(&first, Action::Connected, tcp_state::CLOSE));
    let mut later = connecting(5, 111);
    later.nginx.sock = 0xffff_8880_0000_4000;
    later.nginx.connect_ns = at(60_000);
    later.nginx.flags = 0;
    assert_eq!(joined(ledger.take(exchange(later))).request, None);
}

#[test]
fn a_worker_that_goes_on_is_told_once() {
    let mut ledger = Ledger::default();
    let record = given_up(1_000);
    ledger.take(exchange(record));
    ledger.take(aftermath(&record, Action::Sent, tcp_state::ESTABLISHED));
    let Some(Whole::Afterwards(after)) = ledger.take(gone(&record, 5_000)) else { panic!("nothing is told") };
    assert_eq!(after.worker.ended_ns - after.worker.abandoned_ns, 4_000_000_000);
    assert!(ledger.take(gone(&record, 5_000)).is_none());
}

#[test]
fn what_may_have_stalled_waits_for_the_workers_end_too() {
    for (gone_ms, in_turn) in [(60_001, true), (61_700, false)] {
        let mut ledger = Ledger::default();
        let mut record = given_up(60_000);
        record.nginx.flags |= nginx_flag::READ_LAST;
        record.nginx.received = 300;
        ledger.take(exchange(record));
        assert!(ledger.take(aftermath(&record, Action::Sent, tcp_state::ESTABLISHED)).is_none());
        let whole = joined(ledger.take(gone(&record, gone_ms)));
        assert_eq!(whole.worker_closed_in_turn(), in_turn, "{gone_ms}");
    }
}

#[test]
fn the_memory_of_what_was_told_is_bounded() {
    let mut remembered = Remembered::default();
    for key in 0..2 * budget::REMEMBERED_EXCHANGES {
        remembered.put(key, key);
    }
    assert_eq!(remembered.entries.len(), budget::REMEMBERED_EXCHANGES);
    assert_eq!(remembered.take(&0), None);
    assert_eq!(
        remembered.take(&(2 * budget::REMEMBERED_EXCHANGES - 1)),
        Some(2 * budget::REMEMBERED_EXCHANGES - 1)
    );
}
