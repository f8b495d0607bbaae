use super::*;
use crate::sink::samples;

const SECOND: u64 = 1_000_000_000;

fn at(text: &str) -> Upstream {
    Upstream::Inet(text.parse().unwrap())
}

fn sight() -> Sight {
    Sight { clock_offset: 0, hears: true, is_narrowed: false }
}

fn verdict(unix_ns: u64, status: u16, upstream: &str) -> Verdict {
    Verdict {
        unix_ns: unix_ns.cast_signed(),
        status: Some(status),
        upstream: at(upstream),
        ..samples::killed()
    }
}

fn answer(ns: u64, status: u16, tries: Option<&[(&str, u16)]>) -> Answer {
    let tries = tries.map(|tries| {
        tries
            .iter()
            .map(|(upstream, status)| Try { upstream: Some(at(upstream)), status: Some(*status) })
            .collect()
    });
    Answer { ns, within_ns: SECOND, status, tries, rule: None, request: None }
}

fn kinds(matching: &mut Matching, sight: Sight) -> Vec<(u16, Kind, u64)> {
    matching.settle(u64::MAX, sight);
    let answers = matching.summary().unwrap();
    answers.counts.into_iter().map(|((status, kind), count)| (status, kind, count)).collect()
}

#[test]
fn each_answer_is_tied_to_one_verdict_or_reported_as_what_it_was() {
    let mut matching = Matching::default();
    matching.failed(&verdict(10 * SECOND, 502, "10.0.0.1:80"));
    // This was tried first, and the next server answered by itself.
    matching.failed(&verdict(20 * SECOND, 502, "10.0.0.1:80"));
    matching.take(answer(10 * SECOND, 502, Some(&[("10.0.0.1:80", 502)])), 0);
    matching.take(answer(10 * SECOND, 502, Some(&[("10.0.0.1:80", 502)])), 0);
    matching.take(answer(20 * SECOND, 503, Some(&[("10.0.0.1:80", 502), ("10.0.0.2:80", 503)])), 0);
    matching.take(answer(20 * SECOND, 502, Some(&[("10.0.0.1:80", 502)])), 0);
    matching.take(answer(30 * SECOND, 503, Some(&[])), 0);
    matching.take(answer(30 * SECOND, 503, Some(&[("10.0.0.2:80", 500)])), 0);
    assert_eq!(
        kinds(&mut matching, sight()),
        [
            (502, Kind::Explained, 1),
            (502, Kind::Upstream, 2),
            (503, Kind::Upstream, 1),
            (503, Kind::Rule, 1),
            (503, Kind::Rewritten, 1)
        ]
    );
}

#[test]
fn the_only_rule_of_a_status_is_named_unless_something_may_have_been_missed() {
    let by_rule = |sight| {
        let mut matching = Matching::default();
        matching.take(Answer { rule: Some(Kind::LimitReq), ..answer(30 * SECOND, 503, Some(&[])) }, 0);
        kinds(&mut matching, sight)
    };
    assert_eq!(by_rule(sight()), [(503, Kind::LimitReq, 1)]);
    assert_eq!(by_rule(Sight { hears: false, ..sight() }), [(503, Kind::Rule, 1)]);
}

#[test]
fn an_error_page_of_a_failure_is_explained_by_it() {
    let mut matching = Matching::default();
    matching.failed(&verdict(10 * SECOND, 502, "10.0.0.1:80"));
    matching.take(answer(10 * SECOND, 503, Some(&[("10.0.0.1:80", 502)])), 0);
    assert_eq!(kinds(&mut matching, sight()), [(503, Kind::Explained, 1)]);
}

#[test]
fn where_the_log_says_nothing_of_upstreams_time_and_status_tie() {
    let mut matching = Matching::default();
    matching.failed(&verdict(10 * SECOND, 504, "10.0.0.1:80"));
    matching.take(answer(10 * SECOND, 502, None), 0);
    matching.take(answer(10 * SECOND, 504, None), 0);
    matching.take(answer(15 * SECOND, 504, None), 0);
    assert_eq!(
        kinds(&mut matching, sight()),
        [(502, Kind::Unknown, 1), (504, Kind::Explained, 1), (504, Kind::Unknown, 1)]
    );
}

#[test]
fn what_may_have_failed_unseen_is_not_called_the_upstreams_own() {
    let one = || answer(10 * SECOND, 502, Some(&[("10.0.0.1:80", 502)]));
    let mut matching = Matching::default();
    matching.was_blind((10 * SECOND).cast_signed());
    matching.take(one(), 0);
    assert_eq!(kinds(&mut matching, sight()), [(502, Kind::Unknown, 1)]);
    let mut matching = Matching::default();
    matching.take(one(), 0);
    assert_eq!(kinds(&mut matching, Sight { hears: false, ..sight() }), [(502, Kind::Unknown, 1)]);
}

#[test]
fn an_answer_waits_for_its_verdict_and_no_more_are_kept_than_fit() {
    let mut matching = Matching::default();
    matching.take(answer(10 * SECOND, 502, Some(&[("10.0.0.1:80", 502)])), 10 * SECOND);
    matching.settle(11 * SECOND, sight());
    matching.failed(&verdict(10 * SECOND, 502, "10.0.0.1:80"));
    assert_eq!(kinds(&mut matching, sight()), [(502, Kind::Explained, 1)]);
    for _ in 0..2 * budget::ANSWERED {
        matching.take(answer(10 * SECOND, 503, Some(&[])), 10 * SECOND);
        matching.settle(10 * SECOND, sight());
    }
    assert_eq!(matching.waiting.len(), budget::ANSWERED);
}
