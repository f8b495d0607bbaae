use super::*;
use crate::{
    audit::{
        line::{Failure, Line},
        matching::{LATE, ORDERED, fit},
    },
    model::{cause::Cause, upstream::Upstream},
};

/// 2026-11-20T11:39:26 UTC, in s.
const START: i64 = 1_795_174_766;

const REFUSED: &str = "connect() failed (111: Connection refused) while connecting to upstream";
const RESET: &str =
    "recv() failed (104: Connection reset by peer) while reading response header from upstream";
const TIMED_OUT: &str =
    "upstream timed out (110: Connection timed out) while reading response header from upstream";
const TOO_BIG: &str = "upstream sent too big header while reading response header from upstream";

/// A line of worker 7, `ms` after the start.
fn logged(ms: i64, text: &str, upstream: &str) -> Logged {
    let line = format!(
        "2026/11/20 11:39:26 [error] 7#7: *1 {text}, client: 127.0.0.1, server: , upstream: \"http://{upstream}/\""
    );
    let failure = Line::parse(&line).unwrap().failure.unwrap();
    let at = (START + ms.div_euclid(1_000)) * SECOND;
    Logged { at, since: START * SECOND + ms * 1_000_000, failure, line, counts: true }
}

/// A verdict on worker 7.
fn explained(ms: i64, cause: Cause, upstream: &str) -> Explained {
    let at = START * SECOND + ms * 1_000_000;
    let upstream = match upstream.strip_prefix("unix:") {
        Some(path) => Upstream::Unix(path.trim_end_matches(':').into()),
        None => Upstream::Inet(upstream.parse().unwrap()),
    };
    Explained {
        at,
        since: at,
        logged_pid: 7,
        pid: 7,
        upstream,
        cause,
        errno: None,
        error_log: None,
        counts: true,
    }
}

const A: &str = "127.0.0.1:80";
const B: &str = "[::1]:80";
const UNIX: &str = "unix:/run/x.sock:";

/// Counts of explained, unexplained, unlogged.
fn outcome(lines: Vec<Logged>, verdicts: Vec<Explained>) -> (u64, usize, usize) {
    let mut pairing = Pairing::default();
    lines.into_iter().for_each(|line| pairing.line(line));
    verdicts.into_iter().for_each(|verdict| pairing.verdict(verdict));
    let complete = pairing.is_complete();
    let settled = pairing.finish();
    assert_eq!(complete, settled.unexplained.is_empty() && settled.unlogged.is_empty());
    (settled.explained, settled.unexplained.len(), settled.unlogged.len())
}

#[test]
fn each_line_finds_the_verdict_of_its_worker_upstream_kind_and_moment() {
    let refused = || explained(500, Cause::RefusedNoListener, A);
    assert_eq!(outcome(vec![logged(500, REFUSED, A)], vec![refused()]), (1, 0, 0));
    assert_eq!(outcome(vec![logged(500, REFUSED, B)], vec![refused()]), (0, 1, 1));
    assert_eq!(outcome(vec![logged(500, RESET, A)], vec![refused()]), (0, 1, 1));
    assert_eq!(outcome(vec![logged(11_000, REFUSED, A)], vec![refused()]), (0, 1, 1));
    assert_eq!(outcome(vec![logged(-10_000, REFUSED, A)], vec![refused()]), (0, 1, 1));
    let elsewhere = Explained { logged_pid: 8, ..refused() };
    assert_eq!(outcome(vec![logged(500, REFUSED, A)], vec![elsewhere]), (0, 1, 1));
}

#[test]
fn a_verdict_is_nobodys_twice() {
    let refused = || explained(500, Cause::RefusedNoListener, A);
    assert_eq!(outcome(vec![logged(500, REFUSED, A); 2], vec![refused()]), (1, 1, 0));
    assert_eq!(outcome(vec![logged(500, REFUSED, A)], vec![refused(), refused()]), (1, 0, 1));
}

#[test]
fn a_verdict_may_lie_ten_seconds_from_its_line_either_way() {
    for (ms, fits) in
        [(-10_001, false), (-10_000, true), (0, true), (999, true), (10_000, true), (10_001, false)]
    {
        let outcome = outcome(vec![logged(0, REFUSED, A)], vec![explained(ms, Cause::RefusedNoListener, A)]);
        assert_eq!(outcome, if fits { (1, 0, 0) } else { (0, 1, 1) }, "{ms}");
    }
}

#[test]
fn errnos_must_agree_and_a_broken_pipe_is_a_reset() {
    let met = |errno: &str| Explained {
        errno: Some(errno.to_owned()),
        ..explained(0, Cause::ResetWorkerKilled, A)
    };
    assert_eq!(outcome(vec![logged(0, RESET, A)], vec![met("ECONNRESET")]), (1, 0, 0));
    assert_eq!(outcome(vec![logged(0, RESET, A)], vec![met("EPIPE")]), (1, 0, 0));
    assert_eq!(outcome(vec![logged(0, RESET, A)], vec![met("ETIMEDOUT")]), (0, 1, 1));
}

#[test]
fn an_icmp_message_that_answers_the_syn_may_be_met_in_the_first_receive() {
    let line = "recv() failed (113: No route to host) while reading response header from upstream";
    let met =
        |errno: &str| Explained { errno: Some(errno.to_owned()), ..explained(0, Cause::RefusedNoRoute, A) };
    assert_eq!(outcome(vec![logged(0, line, A)], vec![met("EHOSTUNREACH")]), (1, 0, 0));
    assert_eq!(outcome(vec![logged(0, line, A)], vec![met("ENETUNREACH")]), (0, 1, 1));
}

#[test]
fn a_predicted_text_finds_its_line_first() {
    let other = RESET.replace("reading response header from upstream", "sending request to upstream");
    let expected = Explained { error_log: Some(RESET.to_owned()), ..explained(900, Cause::ResetByRemote, A) };
    let mut pairing = Pairing::default();
    pairing.line(logged(0, RESET, A));
    pairing.line(logged(0, &other, A));
    pairing.verdict(explained(100, Cause::ResetByRemote, A));
    pairing.verdict(expected);
    let waiting = &pairing.workers[&7];
    assert_eq!(pairs(&waiting.logged, &waiting.verdicts, END).count, 2);
    // The older verdict alone would take the older line.
    let pairs = pairs(&waiting.logged, &waiting.verdicts, START * SECOND + 500_000_000 + ORDERED);
    assert_eq!(pairs.lines, [true, false]);
}

#[test]
fn the_unknown_takes_what_nobody_else_explains() {
    let lines = vec![logged(0, REFUSED, A), logged(0, TIMED_OUT, A), logged(0, TOO_BIG, A)];
    let verdicts = vec![
        explained(0, Cause::NotEnoughFacts, A),
        explained(10, Cause::RefusedNoListener, A),
        explained(20, Cause::TimeoutSlowWorker, A),
    ];
    assert_eq!(outcome(lines, verdicts), (3, 0, 0));
}

#[test]
fn a_line_that_was_cut_takes_what_is_left_of_its_worker() {
    let mut cut = logged(0, RESET, A);
    cut.failure.upstream = crate::audit::line::Named::CutOff;
    let verdicts = vec![explained(0, Cause::ResetByRemote, B), explained(10, Cause::ResetByRemote, A)];
    assert_eq!(outcome(vec![cut, logged(0, RESET, B)], verdicts), (2, 0, 0));
}

#[test]
fn a_unix_socket_is_recognised_on_every_path() {
    let lines = vec![logged(0, TIMED_OUT, "unix:/run/x.sock"), logged(0, RESET, UNIX)];
    let verdicts =
        vec![explained(0, Cause::ResetWorkerKilled, UNIX), explained(0, Cause::TimeoutNeverAccepted, UNIX)];
    assert_eq!(outcome(lines, verdicts), (2, 0, 0));
}

#[test]
fn what_nginx_never_writes_about_is_not_missed() {
    assert_eq!(
        outcome(vec![], vec![explained(0, Cause::NginxExited, A), explained(0, Cause::NginxKilled, A)]),
        (0, 0, 0)
    );
}

#[test]
fn what_does_not_count_is_no_gap_and_still_explains() {
    let line = || Logged { counts: false, ..logged(0, REFUSED, A) };
    let verdict = || Explained { counts: false, ..explained(0, Cause::RefusedNoListener, A) };
    assert_eq!(outcome(vec![line()], vec![]), (0, 0, 0));
    assert_eq!(outcome(vec![], vec![verdict()]), (0, 0, 0));
    assert_eq!(outcome(vec![line()], vec![explained(0, Cause::RefusedNoListener, A)]), (1, 0, 0));
    assert_eq!(outcome(vec![logged(0, REFUSED, A)], vec![verdict()]), (0, 0, 0));
}

#[test]
fn pairs_are_dropped_in_passing_and_latecomers_given_up() {
    let mut pairing = Pairing::default();
    pairing.line(logged(0, REFUSED, A));
    pairing.line(logged(0, RESET, A));
    pairing.verdict(explained(10, Cause::RefusedNoListener, A));
    pairing.verdict(explained(10, Cause::RejectedResponse, A));
    let now = |ms: i64| START * SECOND + ms * 1_000_000;
    let settled = pairing.settle(now(1_000));
    assert_eq!((settled.explained, settled.unexplained.len(), settled.unlogged.len()), (0, 0, 0));
    let settled = pairing.settle(now(6_000));
    assert_eq!((settled.explained, settled.unexplained.len(), settled.unlogged.len()), (1, 0, 0));
    assert_eq!(pairing.workers[&7].logged.len() + pairing.workers[&7].verdicts.len(), 2);
    let settled = pairing.settle(now(10) + PATIENCE + 1);
    assert_eq!((settled.explained, settled.unexplained.len(), settled.unlogged.len()), (0, 1, 1));
    assert!(pairing.workers.is_empty());
}

#[test]
fn whoever_writes_them_no_more_lines_are_kept_than_the_budget_allows_and_the_oldest_go_first() {
    let mut pairing = Pairing::default();
    let one = logged(500, REFUSED, A);
    let fitting = budget::AUDIT_BYTES / one.bytes();
    let count = 2 * fitting;
    for number in 0..count {
        // Each of another process, as the log says.
        let pid = u32::try_from(number).unwrap() % 1_000;
        let (failure, since) = (Failure { pid, ..one.failure.clone() }, one.since + number as i64);
        pairing.line(Logged { since, failure, ..one.clone() });
        assert!(pairing.line_bytes <= budget::AUDIT_BYTES);
    }
    let left: Vec<i64> = pairing.workers.values().flat_map(|one| &one.logged).map(|one| one.since).collect();
    assert!(left.len() > fitting / 2 && left.len() <= fitting, "{} of {fitting}", left.len());
    let (oldest, youngest) = (*left.iter().min().unwrap(), *left.iter().max().unwrap());
    assert_eq!((youngest - oldest + 1, youngest), (left.len() as i64, one.since + count as i64 - 1));
    assert_eq!(pairing.finish().given_up, (count - left.len()) as u64);
}

#[test]
fn verdicts_have_a_budget_of_their_own() {
    let mut pairing = Pairing::default();
    let one = explained(500, Cause::RefusedNoListener, A);
    let count = 2 * budget::AUDIT_BYTES / one.bytes();
    pairing.line(logged(500, REFUSED, A));
    (0..count).for_each(|_| pairing.verdict(one.clone()));
    assert!(pairing.verdict_bytes <= budget::AUDIT_BYTES);
    assert_eq!(pairing.workers[&7].logged.len(), 1);
    let left = pairing.workers[&7].verdicts.len();
    assert_eq!(pairing.settle(0).given_up, (count - left) as u64);
}

#[test]
fn a_line_with_forged_upstreams_takes_the_verdict_that_fits_and_nobody_elses() {
    let forged = |real: &str, lie: &str| {
        let text = logged(500, REFUSED, real).line.replace(
            ", upstream",
            &format!(", request: \"GET /\", upstream: \"http://{lie}/ HTTP/1.0\", upstream"),
        );
        let failure = Line::parse(&text).unwrap().failure.unwrap();
        assert!(failure.upstream.is_ambiguous(), "{text}");
        Logged { failure, line: text, ..logged(500, REFUSED, real) }
    };
    let refused = |upstream| explained(500, Cause::RefusedNoListener, upstream);
    assert_eq!(outcome(vec![forged(A, "10.9.9.9:1")], vec![refused(A)]), (1, 0, 0));
    assert_eq!(outcome(vec![forged(A, "10.9.9.9:1")], vec![refused(B)]), (0, 1, 1));
    // The forger names whom another line is about: each gets its own, whichever comes first.
    let both = || vec![refused(A), refused(B)];
    assert_eq!(outcome(vec![forged(A, B), logged(500, REFUSED, B)], both()), (2, 0, 0));
    assert_eq!(outcome(vec![logged(500, REFUSED, B), forged(A, B)], both()), (2, 0, 0));
    assert_eq!(outcome(vec![forged(B, A), logged(500, REFUSED, A)], both()), (2, 0, 0));
}

/// A small generator of numbers, so that a failing case can be run again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as i64).rem_euclid(below)
    }
}

/// The largest number of pairs there can be, by augmenting paths.
fn most_pairs(lines: &[Logged], verdicts: &[Explained]) -> usize {
    fn augment(from: usize, edges: &[Vec<usize>], seen: &mut [bool], holder: &mut [Option<usize>]) -> bool {
        for &line in &edges[from] {
            if !std::mem::replace(&mut seen[line], true)
                && holder[line].is_none_or(|other| augment(other, edges, seen, holder))
            {
                holder[line] = Some(from);
                return true;
            }
        }
        false
    }
    let edges: Vec<Vec<usize>> = verdicts
        .iter()
        .map(|one| {
            let near = |line: &Logged| line.at >= one.at - LATE.behind && line.at <= one.at + LATE.before;
            (0..lines.len()).filter(|at| near(&lines[*at]) && fit(&lines[*at], one).is_some()).collect()
        })
        .collect();
    let mut holder = vec![None; lines.len()];
    (0..verdicts.len())
        .filter(|from| augment(*from, &edges, &mut vec![false; lines.len()], &mut holder))
        .count()
}

#[test]
fn no_other_way_pairs_off_more_of_equal_failures() {
    for seed in 0..2_000 {
        let mut dice = Dice(seed);
        let (lines, verdicts) = (1 + dice.roll(12), 1 + dice.roll(12));
        let span = [3_000, 8_000, 20_000][dice.roll(3) as usize];
        let lines: Vec<_> = (0..lines).map(|_| logged(dice.roll(span), REFUSED, A)).collect();
        let verdicts: Vec<_> =
            (0..verdicts).map(|_| explained(dice.roll(span), Cause::RefusedNoListener, A)).collect();
        let most = most_pairs(&lines, &verdicts) as u64;
        assert_eq!(outcome(lines, verdicts).0, most, "seed {seed}");
    }
}

#[test]
fn a_storm_of_all_kinds_pairs_off_without_a_rest_in_whatever_order_it_comes() {
    const KINDS: [(&str, Cause); 4] = [
        (REFUSED, Cause::RefusedNoListener),
        (RESET, Cause::ResetWorkerKilled),
        (TIMED_OUT, Cause::TimeoutSlowWorker),
        (TOO_BIG, Cause::RejectedResponse),
    ];
    for seed in 0..100 {
        let mut dice = Dice(seed);
        let mut events = Vec::new();
        for _ in 0..400 {
            let ms = dice.roll(30_000);
            let (text, cause) = KINDS[dice.roll(4) as usize];
            let upstream = [A, B, UNIX][dice.roll(3) as usize];
            // The line is read within a while; the verdict, now and then one that knows nothing, comes as it may.
            let cause = if dice.roll(10) == 0 { Cause::NotEnoughFacts } else { cause };
            let line = Logged { since: (START * 1_000 + ms + 200) * 1_000_000, ..logged(ms, text, upstream) };
            events.push((ms + dice.roll(250), Err(line)));
            let end = ms + dice.roll(3) - 1;
            events.push((ms + dice.roll(1_500), Ok(explained(end, cause, upstream))));
        }
        events.sort_by_key(|(ms, _)| *ms);
        let mut pairing = Pairing::default();
        let mut explained = 0;
        for (ms, event) in events {
            match event {
                Ok(verdict) => pairing.verdict(verdict),
                Err(line) => pairing.line(line),
            }
            let settled = pairing.settle((START * 1_000 + ms) * 1_000_000);
            assert!(settled.unexplained.is_empty() && settled.unlogged.is_empty(), "seed {seed}");
            explained += settled.explained;
        }
        assert!(pairing.is_complete(), "seed {seed}");
        assert_eq!(explained + pairing.finish().explained, 400, "seed {seed}");
    }
}
