//! The programs of the object, by the points that they are attached to.

use crate::model::{
    facts::Point::{self, Entry, Return, Tracepoint},
    hook_kind::HookKind,
};

/// The programs of a point, each with what it is attached to.
pub(super) fn programs(kind: HookKind, point: Point) -> Vec<(String, &'static str)> {
    match (kind, point) {
        (HookKind::Function, Return(function)) => vec![(format!("fexit_{function}"), function)],
        (HookKind::Function, Entry(function)) => vec![(format!("fentry_{function}"), function)],
        (HookKind::Kprobe, Return(function)) => {
            vec![(format!("kprobe_{function}"), function), (format!("kretprobe_{function}"), function)]
        }
        (HookKind::Kprobe, Entry(function)) => vec![(format!("kprobe_{function}"), function)],
        (_, Tracepoint(name) | Return(name) | Entry(name)) => vec![(name.to_owned(), name)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_return_by_kprobe_takes_two_programs() {
        let programs = programs(HookKind::Kprobe, Return("tcp_sendmsg"));
        assert_eq!(
            programs,
            [("kprobe_tcp_sendmsg".into(), "tcp_sendmsg"), ("kretprobe_tcp_sendmsg".into(), "tcp_sendmsg")]
        );
    }
}
