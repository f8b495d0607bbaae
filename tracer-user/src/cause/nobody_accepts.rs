//! Nobody works a queue off: whoever holds the listener stands still or does something else, and nobody serves a connection that came from it. A socket
//! that systemd holds for a service that does not start, a descriptor that a child has inherited, a process that hangs before its accept.

use super::{Cause, Finding};
use crate::{
    ledger::Exchange,
    model::{
        inquiry::{Holder, Queue},
        verdict::{self, Confidence, Process},
        words::{count, span},
    },
};

/// nginx stopped waiting in such a queue, which it had joined at `came_ns`.
pub(super) fn timeout(exchange: &Exchange, came_ns: u64, waited: &str) -> Option<Finding> {
    let queue = exchange.queue()?;
    let confidence = sure(queue, came_ns)?;
    let backlog = exchange.listener().map_or_else(String::new, |view| format!(" (backlog {})", view.limit));
    Some(Finding {
        confidence,
        ..Finding::proven(
            Cause::TimeoutNobodyAccepts,
            format!(
                "Nobody accepts at {}: the connection waited {} in its accept queue{backlog}, until nginx stopped waiting after {waited}. {}",
                exchange.upstream(),
                span(exchange.nginx.ended_ns.saturating_sub(came_ns)),
                who_holds(queue, came_ns),
            ),
            format!(
                "{}. The request still waits there and may be executed later, for nobody.",
                advice(queue)
            ),
        )
    })
}

/// The same finding of a full queue, where it is full because nobody works it off.
pub(super) fn add(exchange: &Exchange, finding: Finding) -> Finding {
    let came_ns = exchange.nginx.connect_ns;
    let Some(queue) = exchange.queue().filter(|queue| sure(queue, came_ns).is_some()) else { return finding };
    Finding {
        explanation: format!(
            "{} Nobody works that queue off. {}",
            finding.explanation,
            who_holds(queue, came_ns)
        ),
        advice: format!("{}; a longer queue would only fill later.", advice(queue)),
        ..finding
    }
}

/// How sure it is that nobody does; none where somebody may.
fn sure(queue: &Queue, came_ns: u64) -> Option<Confidence> {
    if queue.is_served || queue.holders.is_empty() {
        None
    } else if queue.since_ns.is_some_and(|since| since <= came_ns) {
        Some(Confidence::Proven)
    } else {
        // Others may have been taken from before it. Whoever does so holds their connections, unless he is done with them that fast.
        (!queue.has_accepted).then_some(Confidence::Inferred)
    }
}

/// Who holds the listener, and what they do.
fn who_holds(queue: &Queue, came_ns: u64) -> String {
    let Queue { holders, others, since_ns, .. } = queue;
    let since = match since_ns {
        Some(since) if *since <= came_ns => " Its queue shows that none was taken from it in that time.",
        _ => "",
    };
    let alone = if holders.len() == 1 && *others == 0 { " alone" } else { "" };
    let named: Vec<_> = holders
        .iter()
        .map(|Holder { process: Process { pid, comm }, doing }| match doing {
            Some(doing) => format!("{comm} {pid}{alone}, which {}", doing.in_words()),
            None => format!("{comm} {pid}{alone}"),
        })
        .collect();
    let more = match others {
        0 => String::new(),
        others => format!(", and {}", count(u64::from(*others), "more process")),
    };
    format!(
        "The listener is held by {}{more}; no process that could answer has a connection from it.{since}",
        named.join("; ")
    )
}

/// What to look at; without a full stop.
fn advice(queue: &Queue) -> String {
    const SYSTEMD: &str = "systemd";
    let stands_still =
        |holder: &&Holder| holder.doing.as_ref().is_some_and(|doing| doing.is_standing_still());
    let first = |holder: &Holder| format!("{} {}", holder.process.comm, holder.process.pid);
    match queue.holders.as_slice() {
        [one] if one.process.pid == 1 || one.process.comm == SYSTEMD => {
            "the service behind this socket (`systemctl list-sockets`, `systemctl status`): systemd holds the socket for it, and it does not run"
                .to_owned()
        }
        holders => match holders.iter().find(stands_still) {
            Some(still) => format!(
                "who stopped {} (SIGSTOP, a debugger, `docker pause`, a freezer), and `kill -CONT`",
                first(still)
            ),
            None => format!(
                "why {} holds this listener and does not accept: it hangs before its accept loop, or it has inherited the descriptor from a \
                 server that is gone (`ss -lp`)",
                holders.first().map(first).unwrap_or_default()
            ),
        },
    }
}

/// The holders, as a verdict names them.
pub(super) fn holders(exchange: &Exchange, cause: Cause) -> Option<Vec<verdict::Holder>> {
    let is_asked = matches!(
        cause,
        Cause::TimeoutNobodyAccepts
            | Cause::TimeoutNeverAccepted
            | Cause::QueueSynDropped
            | Cause::QueueAckDropped
            | Cause::QueueAborted
            | Cause::QueueUnixFull
    );
    let queue = exchange.queue().filter(|_| is_asked)?;
    let holder = |Holder { process, doing }: &Holder| verdict::Holder {
        process: process.clone(),
        doing: doing.as_ref().map(crate::model::doing::Doing::in_words),
    };
    Some(queue.holders.iter().map(holder).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ledger::samples::{at, connecting},
        model::{
            doing::{Doing, Target},
            inquiry::Found,
        },
    };

    fn queue(comm: &str, doing: Doing) -> Queue {
        let process = Process { pid: 7, comm: comm.to_owned() };
        Queue {
            holders: vec![Holder { process, doing: Some(doing) }],
            others: 0,
            is_served: false,
            since_ns: Some(at(1)),
            has_accepted: true,
        }
    }

    fn found(queue: Queue) -> Option<Finding> {
        let mut joined = Exchange::new(&connecting(5_000, 0));
        joined.found = Some(Found::Queue(queue));
        timeout(&joined, at(2), "5.00 s")
    }

    #[test]
    fn who_holds_it_is_named_with_what_he_does() {
        let asleep = Doing::Waiting(Target::Sleep("nanosleep".into()));
        let finding = found(queue("sleep", asleep.clone())).unwrap();
        assert_eq!(finding.confidence, Confidence::Proven);
        let held = "The listener is held by sleep 7 alone, which slept (nanosleep); no process";
        assert!(finding.explanation.contains(held), "{}", finding.explanation);
        assert!(finding.advice.contains("inherited"));
        let stopped = found(queue("node", Doing::Waiting(Target::Stopped))).unwrap();
        assert!(stopped.advice.contains("who stopped node 7"));
        assert!(found(queue("systemd", asleep)).unwrap().advice.contains("systemctl"));
    }

    #[test]
    fn whoever_may_be_at_work_is_not_said_to_accept_nothing() {
        let doing = Doing::Waiting(Target::Signal);
        let confidence = |change: fn(&mut Queue)| {
            let mut queue = queue("python3", doing.clone());
            change(&mut queue);
            found(queue).map(|finding| finding.confidence)
        };
        assert_eq!(confidence(|queue| queue.is_served = true), None);
        assert_eq!(confidence(|queue| queue.holders.clear()), None);
        assert_eq!(confidence(|queue| queue.since_ns = None), None);
        assert_eq!(confidence(|queue| queue.since_ns = Some(at(3))), None);
        let inferred = |queue: &mut Queue| (queue.since_ns, queue.has_accepted) = (None, false);
        assert_eq!(confidence(inferred), Some(Confidence::Inferred));
    }
}
