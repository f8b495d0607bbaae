//! Which programs have standby instances, what those are called, and the body that the instances of one share.

use std::collections::HashSet;

use wire::bodies;

use super::programs::programs;
use crate::model::facts::{Fact, Source};

/// With the hooks on system calls: it sees the unix exchanges of a process that dies, and which program it is attached to.
pub(super) const UNIX_ENDS: (&str, &str) = ("unix_ends_exit", "sched_process_exit");

/// The programs that must see everything, with what they are attached to; each has two standby instances.
pub(super) fn having_standby() -> impl Iterator<Item = (String, &'static str)> {
    let sources = Fact::ALL.iter().flat_map(|fact| fact.row().sources);
    let programs = sources
        .flat_map(|source| source.standby.iter().flat_map(|point| programs(source.kind, *point)))
        .chain([(UNIX_ENDS.0.to_owned(), UNIX_ENDS.1)]);
    let mut known = HashSet::new();
    programs.filter(move |(program, _)| known.insert(program.clone()))
}

pub(super) const STANDBY: [&str; 2] = ["2", "3"];

/// The first of those that share a body, and that body.
pub(super) const FIRST: &str = "1";
pub(super) const BODY: &str = "body";

/// Where the body is that the instances of a program share.
pub(super) struct Body {
    pub(super) map: &'static str,
    pub(super) place: u32,
}

pub(super) fn body_of(program: &str) -> Option<Body> {
    let in_map = |map, bodies: &[&str]| bodies::place(bodies, program).map(|place| Body { map, place });
    in_map("BODIES", &bodies::OF_RAW_TRACEPOINTS)
        .or_else(|| in_map("SYSTEM_CALL_BODIES", &bodies::OF_SYSTEM_CALLS))
}

/// The program of which this is an instance that takes turns, or it is itself.
pub(in crate::load) fn program_of(instance: &str) -> &str {
    let program = instance.strip_suffix(FIRST).and_then(|program| program.strip_suffix('_'));
    program.filter(|program| body_of(program).is_some()).unwrap_or(instance)
}

/// Whether nothing is lost when this program is left out: it only looks again, or it is a standby instance, and another has seen it.
pub(in crate::load) fn is_dispensable(program: &str) -> bool {
    let second_looks = Fact::ALL.iter().map(|fact| fact.row()).filter(|row| row.is_second_look);
    let mut sources = second_looks.flat_map(|row| row.sources);
    let is_of = |source: &Source| {
        let mut programs = source.points.iter().flat_map(|point| programs(source.kind, *point));
        programs.any(|(name, _)| name == program)
    };
    sources.any(is_of) || is_standby(program)
}

/// Whether this is a standby instance of a program.
fn is_standby(program: &str) -> bool {
    let first =
        program.rsplit_once('_').and_then(|(first, number)| STANDBY.contains(&number).then_some(first));
    first.is_some_and(|first| having_standby().any(|(name, _target)| first == name))
}

/// The standby instances of a program, in their order; none if it has none.
pub(super) fn standby_of(program: &str) -> Vec<String> {
    let has_standby = having_standby().any(|(name, _target)| name == program);
    STANDBY.iter().filter(|_| has_standby).map(|number| format!("{program}_{number}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standby_instances_are_told_from_the_first() {
        assert!(is_standby("sock_send_length_2") && is_standby("fentry_unix_release_sock_3"));
        for name in ["sock_send_length", "fentry_unix_release_sock", "sock_send_length_4", "mark_victim_2"] {
            assert!(!is_standby(name), "{name}");
        }
    }

    #[test]
    fn what_only_looks_again_is_dispensable() {
        assert!(is_dispensable("fentry_tcp_connect") && is_dispensable("kprobe_tcp_connect"));
        assert!(!is_dispensable("inet_sock_set_state") && is_dispensable("inet_sock_set_state_3"));
    }
}
