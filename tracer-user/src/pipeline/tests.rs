use wire::{Action, tcp_state};

use super::*;
use crate::{
    ledger::{PATIENCE_NS, samples::*},
    model::{
        doing::{Doing, Look, Target},
        record::Record,
        stream::LossReason,
    },
};

fn record(at_ns: u64, record: Record) -> Entry {
    Entry { at_ns, what: What::Record(record) }
}

fn failed(after_ms: u64) -> Record {
    Record::Exchange(Box::new(killed(after_ms, 15)))
}

fn pipeline(limit: Option<u64>) -> Pipeline {
    Pipeline::new(Start {
        started_ns: CONNECT,
        begins_ns: CONNECT,
        counts: Counts::default(),
        clock_offset: ClockOffset::default(),
        sources: Sources::default(),
        limit,
        is_narrowed: false,
        wanted: Wanted::default(),
    })
}

fn take(pipeline: &mut Pipeline, entry: Entry) -> Vec<Emitted> {
    pipeline.take(entry);
    std::iter::from_fn(|| pipeline.next()).collect()
}

fn advance(pipeline: &mut Pipeline, at_ns: u64) -> Vec<Emitted> {
    pipeline.advance(at_ns);
    std::iter::from_fn(|| pipeline.next()).collect()
}

/// The end of each verdict's exchange, in ms after connect.
fn verdicts(emitted: &[Emitted]) -> Vec<u64> {
    let ended = |emitted: &Emitted| match emitted {
        Emitted::Verdict(verdict) => (verdict.unix_ns.unsigned_abs() - CONNECT) / 1_000_000,
        other => panic!("no verdict: {other:?}"),
    };
    emitted.iter().map(ended).collect()
}

/// Two exchanges that nothing follows, the later one first.
fn waiting() -> [Entry; 2] {
    [20, 10].map(|after_ms| {
        let mut exchange = killed(after_ms, 15);
        exchange.nginx.sock = after_ms;
        record(at(20), Record::Exchange(Box::new(exchange)))
    })
}

#[test]
fn time_passes_with_the_stream_and_what_is_overdue_comes_in_the_order_of_deadlines() {
    let mut live = pipeline(None);
    let mut emitted: Vec<Emitted> = waiting().into_iter().flat_map(|entry| take(&mut live, entry)).collect();
    assert!(emitted.is_empty());
    assert_eq!(live.next_deadline(), Some(at(10) + PATIENCE_NS));
    // Live looks at the clock between two records.
    emitted.extend(advance(&mut live, at(15) + PATIENCE_NS));
    emitted.extend(take(&mut live, record(at(5_000), failed(4_999))));
    emitted.extend(take(&mut live, Entry { at_ns: at(5_000), what: What::End }));
    assert_eq!(verdicts(&emitted), [10, 20, 4_999]);

    let mut replay = pipeline(None);
    let entries = waiting()
        .into_iter()
        .chain([record(at(5_000), failed(4_999)), Entry { at_ns: at(5_000), what: What::End }]);
    let emitted: Vec<Emitted> = entries.flat_map(|entry| take(&mut replay, entry)).collect();
    assert_eq!(verdicts(&emitted), [10, 20, 4_999]);
    assert_eq!(replay.summary(), live.summary());
}

#[test]
fn what_was_there_in_time_counts_however_late_it_is_read() {
    let exchange = killed(10, 15);
    let mut pipeline = pipeline(None);
    // The reader stood still: nothing was known to be missing at the moment that it last knew of.
    take(&mut pipeline, record(at(5), Record::Exchange(Box::new(exchange))));
    let emitted =
        take(&mut pipeline, record(at(5), next_action(&exchange, Action::Sent, tcp_state::ESTABLISHED)));
    assert_eq!(verdicts(&emitted), [10]);
}

#[test]
fn beyond_the_limit_only_failures_are_known() {
    let mut pipeline = pipeline(Some(1));
    for entry in waiting() {
        take(&mut pipeline, entry);
    }
    let emitted = take(&mut pipeline, Entry { at_ns: at(30), what: What::End });
    assert!(matches!(&emitted[..], [Emitted::Verdict(_), Emitted::Withheld(_)]), "{emitted:?}");
    assert_eq!(pipeline.summary().failures.iter().map(|(_, count)| count).sum::<u64>(), 1);
}

#[test]
fn looks_losses_and_the_clock_are_part_of_the_stream() {
    let mut pipeline = pipeline(None);
    let exchange = given_up(1_000);
    let look = Look {
        ns: at(900),
        pid: 24940,
        tid: 24940,
        doing: Doing::Waiting(Target::Lock),
        has_other_threads: false,
        exchanges: vec![((exchange.nginx.sock, exchange.nginx.connect_ns), 1)],
    };
    let loss = Loss { ns: at(1), reason: LossReason::RingFull, count: 3 };
    for what in [What::Look(look), What::Loss(loss), What::Clock(ClockOffset(7))] {
        assert!(take(&mut pipeline, Entry { at_ns: at(900), what }).is_empty());
    }
    take(&mut pipeline, record(at(1_000), Record::Exchange(Box::new(exchange))));
    let emitted =
        take(&mut pipeline, record(at(1_000), next_action(&exchange, Action::Sent, tcp_state::ESTABLISHED)));
    let [Emitted::Verdict(verdict)] = &emitted[..] else { panic!("{emitted:?}") };
    assert_eq!(verdict.confidence.name(), "incomplete");
    assert_eq!(verdict.unix_ns.unsigned_abs(), at(1_000) + 7);
    assert_eq!(verdict.worker.as_ref().and_then(|worker| worker.doing.as_ref()).unwrap().samples, 1);
    assert_eq!(pipeline.summary().lost, 3);
}
