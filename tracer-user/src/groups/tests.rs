use super::*;
use crate::{
    model::verdict::{Process, Word},
    sink::samples,
};

const BEGUN: u64 = 1_000 * SECOND;
const WORKER: u32 = 7;

fn said(after_s: u64, connection: u64) -> Said {
    Said {
        ns: BEGUN + after_s * SECOND,
        thread: WORKER,
        nginx: Process { pid: WORKER, comm: "nginx".to_owned() },
        level: 4,
        errno: 0,
        connection,
        format: "no live upstreams".to_owned(),
        subject: String::new(),
        number: 0,
        doing: "connecting to upstream".to_owned(),
        is_of_session: false,
        of: None,
        source: crate::ledger::Source::Heard,
        found: None,
    }
}

fn address(port: u16) -> Upstream {
    Upstream::Inet(([127, 0, 0, 1], port).into())
}

fn server(port: u16) -> Server {
    let limits = Limits { max_fails: 1, fail_timeout_s: 10 };
    Server { place: Place::At(address(port)), limits, is_down: false, has_max_conns: false, is_watched: true }
}

fn group(name: &str, servers: &[Server]) -> Group {
    Group { name: name.to_owned(), is_shared: false, servers: servers.to_vec() }
}

/// What is remembered where these groups are configured, and `failures` have come: by worker, port, and seconds.
fn groups(all: &[Group], failures: &[(u32, u16, u64)]) -> Groups {
    let mut groups = Groups::default();
    groups.was_blind(BEGUN - 60 * SECOND);
    groups.learn(Configured { workers: vec![WORKER, 8], groups: all.to_vec(), ..Configured::default() });
    for (pid, port, after_s) in failures {
        let word = Word { level: "error", errno: None, message: String::new(), doing: None, connection: 1 };
        let verdict = Verdict {
            nginx: Process { pid: *pid, comm: String::new() },
            upstream: address(*port),
            word: Some(word),
            ..samples::killed()
        };
        groups.failed(&verdict, BEGUN + after_s * SECOND);
    }
    groups
}

fn name(all: &[Group], failures: &[(u32, u16, u64)]) -> Result<(String, bool), Unnamed> {
    let Outage { group, is_sure, .. } = groups(all, failures).outage(&said(20, 2));
    group.map(|group| (group, is_sure))
}

#[test]
fn the_group_is_the_one_all_of_whose_servers_have_failed() {
    let all = [group("a", &[server(1), server(2)]), group("b", &[server(1), server(3)])];
    assert_eq!(name(&all, &[(WORKER, 1, 15), (WORKER, 2, 18)]), Ok(("a".to_owned(), true)));
    // Too long ago, or another worker's.
    assert_eq!(name(&all, &[(WORKER, 1, 8), (WORKER, 2, 18)]), Err(Unnamed::NoneFits));
    assert_eq!(name(&all, &[(8, 1, 15), (WORKER, 2, 18)]), Err(Unnamed::NoneFits));
    let shared = [Group { is_shared: true, ..all[0].clone() }];
    assert_eq!(name(&shared, &[(8, 1, 15), (WORKER, 2, 18)]), Ok(("a".to_owned(), true)));
}

#[test]
fn where_several_groups_fit_none_is_named() {
    let failures = [(WORKER, 1, 15), (WORKER, 2, 15), (WORKER, 3, 15)];
    let a = group("a", &[server(1), server(2)]);
    assert_eq!(name(&[a.clone(), group("b", &[server(1), server(3)])], &failures), Err(Unnamed::SeveralFit));
    // Nobody but nginx knows which addresses a name has.
    let named = Server { place: Place::Named(3), ..server(3) };
    assert_eq!(name(&[a.clone(), group("localhost:3", &[named])], &failures), Err(Unnamed::SeveralFit));
    // Nor how many connections there are.
    let full = Server { has_max_conns: true, ..server(9) };
    assert_eq!(name(&[a.clone(), group("b", &[full])], &failures), Err(Unnamed::SeveralFit));
    // One server alone is asked whatever happens.
    assert_eq!(name(&[a, group("b", &[server(3)])], &failures), Ok(("a".to_owned(), true)));
}

#[test]
fn a_server_that_never_is_left_alone_was_tried_for_this_very_request() {
    let limits = Limits { max_fails: 0, fail_timeout_s: 10 };
    let all = [group("a", &[Server { limits, ..server(1) }, server(2)])];
    let failures = [(WORKER, 1, 20), (WORKER, 2, 15)];
    assert_eq!(groups(&all, &failures).outage(&said(20, 2)).group, Err(Unnamed::NoneFits));
    assert_eq!(groups(&all, &failures).outage(&said(20, 1)).group, Ok("a".to_owned()));
}

#[test]
fn what_may_have_failed_unseen_makes_it_less_sure() {
    let all = [group("a", &[server(1), server(2)]), group("b", &[server(3), server(4)])];
    let failures = [(WORKER, 1, 15), (WORKER, 2, 18)];
    let mut blind = groups(&all, &failures);
    blind.was_blind(BEGUN + 12 * SECOND);
    assert!(!blind.outage(&said(20, 2)).is_sure);
    // Where there is no other group it does not matter.
    let mut blind = groups(&all[..1], &failures);
    blind.was_blind(BEGUN + 12 * SECOND);
    assert!(blind.outage(&said(20, 2)).is_sure);
}

#[test]
fn each_server_has_its_last_failure_before_the_word_whatever_comes_first() {
    let down = Server { is_down: true, ..server(3) };
    let all = [group("a", &[server(1), server(2), down])];
    let mut groups = groups(&all, &[(WORKER, 1, 12), (WORKER, 1, 21), (WORKER, 2, 18)]);
    let servers = groups.outage(&said(20, 2)).servers;
    let ago: Vec<_> = servers.iter().map(|one| one.failed.map(|failed| failed.ago_ns / SECOND)).collect();
    assert_eq!(ago, [Some(8), Some(2), None]);
    assert!(servers[2].is_down);
}

#[test]
fn where_the_configuration_is_not_known_the_last_failures_are_named() {
    let mut groups = groups(&[], &[(8, 1, 19), (WORKER, 2, 15), (WORKER, 3, 5)]);
    let Outage { servers, .. } = groups.outage(&said(20, 2));
    assert_eq!(servers.iter().map(|one| one.upstream.clone()).collect::<Vec<_>>(), [address(2)]);
    assert!(servers[0].limits.is_none());
}

#[test]
fn the_oldest_failures_are_forgotten_and_those_within_an_hour_counted() {
    let failures: Vec<_> = (0..=u16::MAX).map(|port| (WORKER, port, 1)).collect();
    let mut groups = groups(&[], &failures);
    groups.settle(BEGUN + 2 * SECOND);
    assert_eq!(groups.forgotten(), failures.len() as u64 - budget::FAILED_SERVERS as u64);
}
