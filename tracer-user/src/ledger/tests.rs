use wire::{Action, nginx_flag, tcp_state};
use zerocopy::FromZeros as _;

use super::{samples::*, *};
use crate::model::{budget, from_wire::address};

fn exchange(record: ExchangeRecord) -> Record {
    Record::Exchange(Box::new(record))
}

fn joined(whole: Option<Whole>) -> Exchange {
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
    let whole = joined(ledger.take(next_action(&record, Action::Sent, tcp_state::ESTABLISHED)));
    assert!(whole.nginx_gave_up() && whole.client_had_left().is_none());
    assert!(ledger.next_deadline().is_none(), "nothing is left waiting");
}

/// What follows it may be what was lost: it is not waited for in numbers that fill the memory. What began later waits as ever.
#[test]
fn few_wait_for_what_may_have_been_lost() {
    let many = budget::WAITING_AFTER_LOSS as u64 + 10;
    let record = |number: u64, ms| {
        let mut record = given_up(1_000 + ms);
        (record.nginx.sock, record.nginx.connect_ns) = (number, at(ms));
        record
    };
    let mut ledger = Ledger::default();
    ledger.has_lost(at(500));
    let mut emitted = Vec::new();
    for (begins, first) in [(0, 1), (501, many + 1)] {
        for number in first..first + many {
            emitted.extend(ledger.take(exchange(record(number, begins))));
            emitted.extend(ledger.freed());
        }
    }
    // Those that began before the loss, the oldest first; the others wait.
    let emitted: Vec<_> = emitted.into_iter().map(|whole| joined(Some(whole)).nginx.sock).collect();
    assert_eq!(emitted, (1..=many).collect::<Vec<_>>());
    assert_eq!((ledger.forgotten(), ledger.hurried()), (many, 0));
    assert_eq!(ledger.drain().len() as u64, many);
}

/// Whether it closes the client's connection as well; what it does for others is nothing of it.
#[test]
fn an_answer_that_follows_at_once_may_be_followed_by_its_client_s_end() {
    let mut record = given_up(1_000);
    record.nginx.flags |= nginx_flag::CLIENT_READ;
    record.nginx.client.sock = 0xffff_8880_0000_4000;
    record.nginx.client.state = tcp_state::ESTABLISHED;
    let answer = || next_action(&record, Action::Sent, tcp_state::ESTABLISHED);
    let later = |action, turned_to| {
        let Record::NextAction(mut what, action) = next_action(&record, action, tcp_state::ESTABLISHED)
        else {
            panic!("no act")
        };
        (what.turned_to, what.bytes) = (turned_to, 400);
        Record::NextAction(what, action)
    };
    let mut ledger = Ledger::default();
    ledger.take(exchange(record));
    assert!(ledger.take(answer()).is_none());
    assert!(joined(ledger.take(later(Action::Closed, 0))).client_was_refused());
    for act in [later(Action::Closed, 1), later(Action::Connected, 0)] {
        ledger.take(exchange(record));
        assert!(ledger.take(answer()).is_none());
        assert!(joined(ledger.take(act)).client_was_answered());
    }
    ledger.take(exchange(record));
    assert!(ledger.take(answer()).is_none());
    assert_eq!(ledger.overdue(u64::MAX).len(), 1);
}

/// What nginx closes for one client in one turn is followed by one act.
#[test]
fn what_nginx_does_next_follows_all_that_it_closed_for_a_client_in_one_turn() {
    let closed = |number: u64, flags, client| {
        let mut record = given_up(1_000 + number);
        record.nginx.sock += number * 64;
        record.nginx.flags |= nginx_flag::CLIENT_READ | flags;
        record.nginx.client.sock = client;
        record.nginx.client.peer.port = 40_000;
        record.nginx.client.state = tcp_state::ESTABLISHED;
        record
    };
    const CLIENT: u64 = 0xffff_8880_0000_4000;
    let together = |second: ExchangeRecord| {
        let first = closed(0, 0, CLIENT);
        let mut ledger = Ledger::default();
        ledger.take(exchange(first));
        ledger.take(exchange(second));
        let act = ledger.take(next_action(&second, Action::ShutDown, tcp_state::ESTABLISHED));
        assert!(joined(act).has_request());
        let freed: Vec<_> = ledger.freed().collect();
        assert!(freed.is_empty() == ledger.next_deadline().is_some());
        freed.into_iter().map(|whole| joined(Some(whole)).client_was_refused()).collect::<Vec<_>>()
    };
    assert_eq!(together(closed(1, nginx_flag::SAME_TURN, CLIENT)), [true]);
    // In another turn, or for another.
    assert!(together(closed(1, 0, CLIENT)).is_empty());
    assert!(together(closed(1, nginx_flag::SAME_TURN, CLIENT + 64)).is_empty());
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
fn a_next_action_of_another_connection_completes_nothing() {
    let mut ledger = Ledger::default();
    let record = given_up(1_000);
    ledger.take(exchange(record));
    let mut other = record;
    other.nginx.connect_ns += 1;
    assert!(ledger.take(next_action(&other, Action::Sent, tcp_state::ESTABLISHED)).is_none());
}

#[test]
fn a_retry_belongs_to_the_same_request() {
    let mut ledger = Ledger::default();
    let first = connecting(1, 111);
    ledger.take(exchange(first));
    let Record::NextAction(mut connected, action) = next_action(&first, Action::Connected, tcp_state::CLOSE)
    else {
        panic!("no next action");
    };
    connected.other_sock = 77;
    let first = joined(ledger.take(Record::NextAction(connected.clone(), action)));
    let mut second = connecting(5, 111);
    second.nginx.sock = 77;
    second.nginx.connect_ns = connected.ns;
    second.nginx.flags = 0;
    let second = joined(ledger.take(exchange(second)));
    assert!(first.request.is_some());
    assert_eq!(first.request, second.request);
}

/// An exchange of one nginx whose worker is another, and one that this other had for it.
fn chain() -> (ExchangeRecord, ExchangeRecord) {
    let mut outer = given_up(1_000);
    outer.worker.worker = task(24_950, "nginx");
    let mut inner = given_up(1_001);
    (inner.nginx.sock, inner.worker.nginx_sock) = (5, 5);
    inner.nginx.connect_ns = at(1);
    inner.nginx.nginx = task(24_950, "nginx");
    (outer, inner)
}

/// What the other does next, on the end of the one's exchange.
fn on_its_client(
    outer: &ExchangeRecord,
    inner: &ExchangeRecord,
    action: Action,
    old_state: u8,
) -> (Box<NextAction>, Action) {
    let Record::NextAction(mut next, action) = next_action(inner, action, old_state) else {
        panic!("no act")
    };
    next.closed_ns = inner.nginx.ended_ns;
    next.other_sock = outer.worker.sock;
    next.peer = outer.nginx.local;
    (next, action)
}

#[test]
fn a_client_that_left_is_the_nginx_whose_exchange_ended_and_its_end_is_waited_for() {
    let (outer, inner) = chain();
    let mut ledger = Ledger::default();
    ledger.take(exchange(outer));
    ledger.take(exchange(inner));
    // On another processor, the inner one may be through first.
    let (next, action) = on_its_client(&outer, &inner, Action::Closed, tcp_state::CLOSE_WAIT);
    assert!(ledger.take(Record::NextAction(next, action)).is_none());
    let first = joined(ledger.take(next_action(&outer, Action::Sent, tcp_state::ESTABLISHED)));
    assert_eq!((first.nginx.sock, first.outer.as_ref()), (outer.nginx.sock, None));
    let second = joined(ledger.freed().next());
    let of = second.outer.unwrap();
    assert_eq!((of.name, of.nginx.pid, of.local), (first.name(), 24_945, first.local()));
    assert!(ledger.next_deadline().is_none());
}

#[test]
fn a_client_that_is_no_end_of_that_exchange_is_not_it() {
    let (outer, inner) = chain();
    let changes: [fn(&mut ExchangeRecord, &mut NextAction); 4] = [
        |outer, _| outer.worker.worker = task(24_940, "php-fpm8.2"),
        |outer, _| outer.worker.worker.tid = 24_951,
        |_, next| next.peer = endpoint(1, 40_001),
        |_, next| next.turned_to = 9,
    ];
    for change in changes {
        let (mut outer, mut ledger) = (outer, Ledger::default());
        let (mut next, action) = on_its_client(&outer, &inner, Action::Closed, tcp_state::CLOSE_WAIT);
        change(&mut outer, &mut next);
        ledger.take(exchange(outer));
        ledger.take(exchange(inner));
        assert_eq!(joined(ledger.take(Record::NextAction(next, action))).outer, None);
    }
}

#[test]
fn an_open_exchange_is_the_outer_one_if_it_had_asked_before_and_had_no_answer_yet() {
    let (outer, inner) = chain();
    let sent = (Action::Sent, tcp_state::ESTABLISHED);
    let closed = (Action::Closed, tcp_state::ESTABLISHED);
    for (is_it, (action, state), asked_ms, answered_ms) in [
        (true, sent, 0, None),
        // It reads the answer while nginx is still sending it.
        (true, sent, 0, Some(1_002)),
        (false, sent, 0, Some(500)),
        (false, sent, 2, None),
        // Nobody closes a client without an answer.
        (false, closed, 0, None),
    ] {
        let mut ledger = Ledger::default();
        ledger.take(exchange(inner));
        let mut hop = Hop::new_zeroed();
        (hop.sock, hop.connect_ns) = (inner.nginx.sock, inner.nginx.connect_ns);
        (hop.outer_sock, hop.outer_connect_ns) = (outer.nginx.sock, outer.nginx.connect_ns);
        (hop.asked_ns, hop.answered_ns) = (at(asked_ms) + 50_000, answered_ms.map_or(0, at));
        (hop.nginx, hop.local, hop.upstream) = (outer.nginx.nginx, outer.nginx.local, outer.nginx.upstream);
        assert!(ledger.take(Record::Hop(Box::new(hop))).is_none());
        let (next, action) = on_its_client(&outer, &inner, action, state);
        let whole = joined(ledger.take(Record::NextAction(next, action)));
        let name = whole.outer.map(|outer| outer.name);
        let right = is_it.then_some((outer.nginx.sock, outer.nginx.connect_ns));
        assert_eq!(name, right, "{asked_ms} {answered_ms:?}");
    }
}

#[test]
fn a_later_use_of_the_socket_is_no_retry() {
    let mut ledger = Ledger::default();
    let first = connecting(1, 111);
    ledger.take(exchange(first));
    ledger.take(next_action(&first, Action::Connected, tcp_state::CLOSE));
    let mut later = connecting(5, 111);
    later.nginx.sock = 0xffff_8880_0000_4000;
    later.nginx.connect_ns = at(60_000);
    later.nginx.flags = 0;
    assert_eq!(joined(ledger.take(exchange(later))).request, None);
}

#[test]
fn a_worker_that_goes_on_is_emitted_once() {
    let mut ledger = Ledger::default();
    let record = given_up(1_000);
    ledger.take(exchange(record));
    ledger.take(next_action(&record, Action::Sent, tcp_state::ESTABLISHED));
    let Some(Whole::WorkerOutlived(after)) = ledger.take(gone(&record, 5_000)) else {
        panic!("nothing is told")
    };
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
        assert!(ledger.take(next_action(&record, Action::Sent, tcp_state::ESTABLISHED)).is_none());
        let whole = joined(ledger.take(gone(&record, gone_ms)));
        assert_eq!(whole.worker_closed_in_turn(), in_turn, "{gone_ms}");
    }
}

/// A line that is about upstream timeouts while nginx waited for a response, and was read `ms` after connect.
fn line(ms: u64) -> Logged {
    let mut word = WordOf::new_zeroed();
    (word.word.ns, word.word.tgid, word.word.level, word.word.errno) = (at(ms), 24945, 4, 110);
    word.word.message[..18].copy_from_slice(b"upstream timed out");
    word.word.action[..37].copy_from_slice(b"reading response header from upstream");
    Logged { word, upstream: Some(Upstream::Inet(address(&endpoint(1, 19001)))) }
}

#[test]
fn a_line_that_fits_several_exchanges_is_about_one_of_them_and_never_emitted_beside_them() {
    let mut ledger = Ledger::default();
    ledger.follow(true);
    // What nginx did after one of them was not seen; of the later ones it was, and one of their clients had left.
    let records = [1, 2, 3, 4].map(|number| {
        let mut record = given_up(1_000 + number);
        record.nginx.sock += number;
        record
    });
    let mut whole = Vec::new();
    for (record, next) in
        records.iter().zip([None, Some(Action::Closed), Some(Action::Sent), Some(Action::Sent)])
    {
        assert!(ledger.take(exchange(*record)).is_none());
        let state = if next == Some(Action::Closed) { tcp_state::CLOSE_WAIT } else { tcp_state::ESTABLISHED };
        whole.extend(next.and_then(|next| ledger.take(next_action(record, next, state))));
    }
    assert!(whole.is_empty(), "each awaits its line");
    for _ in 0..2 {
        assert!(ledger.logged(&line(1_050)).is_none());
    }
    let mut timed_out = Vec::new();
    for whole in ledger.drain() {
        let Whole::Exchange(joined) = whole else { panic!("a line is told beside its exchange: {whole:?}") };
        if joined.word().is_some() {
            timed_out.push(joined.nginx.sock);
        }
    }
    assert_eq!(timed_out, [records[2].nginx.sock, records[3].nginx.sock], "those that nginx gave up");
}

#[test]
fn lines_and_exchanges_that_are_alike_pair_off_whichever_takes_which() {
    for (exchanges, lines) in [(3, 3), (3, 2), (2, 3)] {
        let mut ledger = Ledger::default();
        ledger.follow(true);
        for number in 0..exchanges {
            let mut record = given_up(1_000 + number);
            record.nginx.sock += number;
            ledger.take(exchange(record));
        }
        for _ in 0..lines {
            assert!(ledger.logged(&line(1_050)).is_none());
        }
        let (joined, alone): (Vec<_>, Vec<_>) =
            ledger.drain().into_iter().partition(|whole| matches!(whole, Whole::Exchange(_)));
        let with_word =
            joined.iter().filter(|whole| matches!(whole, Whole::Exchange(joined) if joined.word().is_some()));
        assert_eq!((with_word.count() as u64, joined.len() as u64), (exchanges.min(lines), exchanges));
        assert_eq!(alone.len() as u64, lines.saturating_sub(exchanges));
    }
}
