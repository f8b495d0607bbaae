//! A connection that met a full accept queue, and its fate. Pure.

use std::{net::SocketAddr, time::Duration};

use wire::{
    FAMILY_UNIX,
    accept_queue::{Fate, STRANGER, Victim},
};
use zerocopy::try_transmute;

use crate::model::{
    from_wire::{address, process},
    upstream::Upstream,
    verdict::Process,
};

const ETIMEDOUT: u32 = 110;

/// Where a connection met the full queue first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its SYN was dropped.
    Syn,
    /// The end of its handshake was dropped: the client believes to be connected.
    FinalAck,
    /// connect of a unix socket was refused, or had to wait.
    Unix,
}

/// How its attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It entered the queue in the end.
    GotIn,
    /// The client's kernel stopped trying (ETIMEDOUT).
    TimedOut,
    /// It was reset.
    Reset,
    /// The client's process closed the socket.
    GaveUp,
    /// connect failed at once (unix, EAGAIN).
    Refused,
    /// The client's process got another error.
    Failed,
    /// Nothing more was heard of a client whose own end is not on this host, or was not seen.
    Silent,
    /// It was still trying at the end.
    Waiting,
}

/// One connection that met a full queue.
#[derive(Clone, Debug)]
pub struct Overflow {
    /// The listener's address.
    pub listener: Upstream,
    /// Its network namespace's inode number.
    pub netns: u32,
    /// The client's address; none for a unix socket.
    pub client: Option<SocketAddr>,
    /// The client's process, if it is on this host and was seen.
    pub process: Option<Process>,
    /// Where it met the full queue first.
    pub stage: Stage,
    /// How many of its packets, or unix connects, met the full queue.
    pub attempts: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// The error that the client's process got, if that was seen.
    pub errno: Option<u32>,
    /// When it met the full queue first (ns, monotonic).
    pub first_ns: u64,
    /// From then to its end, or to the last that was heard of it, in ns.
    pub lasted_ns: u64,
    /// Whether it was an exchange of nginx's: its process has the name that was asked for.
    pub is_nginx: bool,
}

impl Overflow {
    /// Who it was, as `ip:port` or `pid:N`.
    pub fn name(&self) -> String {
        match (&self.client, &self.process) {
            (Some(client), _) => client.to_string(),
            (None, Some(process)) => format!("pid:{}", process.pid),
            (None, None) => "unknown".to_owned(),
        }
    }

    /// From what the kernel side says of it; `outcome` for one whose fate it left open.
    pub fn of(
        victim: &Victim,
        listener: &Upstream,
        netns: u32,
        outcome: Option<Outcome>,
        comm: &str,
    ) -> Self {
        let is_unix = victim.client.family == FAMILY_UNIX;
        let process = (victim.task.tgid != 0).then(|| process(&victim.task));
        let stage = match victim {
            _ if is_unix => Stage::Unix,
            Victim { syn_drops: 0, .. } => Stage::FinalAck,
            _ => Stage::Syn,
        };
        let end = if victim.ended_ns == 0 { victim.last_ns } else { victim.ended_ns };
        Self {
            listener: listener.clone(),
            netns,
            client: (!is_unix).then(|| address(&victim.client)),
            is_nginx: victim.task.tid != STRANGER
                && process.as_ref().is_some_and(|process| process.comm == comm),
            process,
            stage,
            attempts: victim.syn_drops + victim.ack_drops,
            outcome: outcome.unwrap_or_else(|| outcome_of(victim)),
            errno: (victim.errno != 0).then_some(victim.errno),
            first_ns: victim.first_ns,
            lasted_ns: end.saturating_sub(victim.first_ns),
        }
    }
}

fn outcome_of(victim: &Victim) -> Outcome {
    let fate: Result<Fate, _> = try_transmute!(victim.fate);
    match fate {
        Ok(Fate::GotIn) => Outcome::GotIn,
        Ok(Fate::Reset) => Outcome::Reset,
        Ok(Fate::Failed) if victim.errno == ETIMEDOUT => Outcome::TimedOut,
        Ok(Fate::Failed) => Outcome::Failed,
        Ok(Fate::ClosedByClient) => Outcome::GaveUp,
        Ok(Fate::Refused) => Outcome::Refused,
        Ok(Fate::Open) | Err(_) => Outcome::Waiting,
    }
}

/// A packet that is late is not yet one that will not come.
const SLACK: Duration = Duration::from_secs(2);

/// A handshake whose end was dropped is forgotten by the listener's kernel after 63 s (tcp_synack_retries = 5).
const FORGOTTEN: Duration = Duration::from_secs(65);

/// A unix connect that was refused is over; should its process call connect again on the same socket, it does so at once.
const REFUSED_FOR_GOOD: Duration = Duration::from_secs(1);

/// What has become by now (ns, monotonic) of a victim whose fate the kernel side left open; none if it may still get in.
///
/// The wait for the next SYN is never longer than all the waits before and one second (RFC 6298 doubles it, and Linux's linear
/// ones are shorter).
pub(crate) fn judged(victim: &Victim, now_ns: u64) -> Option<Outcome> {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let quiet = now_ns.saturating_sub(victim.last_ns);
    let trying = victim.last_ns.saturating_sub(victim.first_ns);
    if victim.client.family == FAMILY_UNIX {
        let is_refused = victim.fate == Fate::Refused as u32;
        return (is_refused && quiet > nanos(REFUSED_FOR_GOOD)).then_some(Outcome::Refused);
    }
    if victim.ack_drops > 0 {
        return (quiet > nanos(FORGOTTEN)).then_some(Outcome::Silent);
    }
    let next_by = trying + nanos(Duration::from_secs(1) + SLACK);
    (victim.task.tgid == 0 && quiet > next_by).then_some(Outcome::Silent)
}

/// What is to be said at the end of one whose fate is open.
pub(crate) fn at_the_end(victim: &Victim) -> Outcome {
    if victim.fate == Fate::Refused as u32 { Outcome::Refused } else { Outcome::Waiting }
}

#[cfg(test)]
mod tests {
    use wire::{Endpoint, FAMILY_INET, Task};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn victim(family: u16) -> Victim {
        let client = Endpoint { family, ..Endpoint::default() };
        Victim { first_ns: SECOND, last_ns: 8 * SECOND, syn_drops: 4, client, ..Victim::default() }
    }

    #[test]
    fn a_remote_client_is_silent_when_its_next_syn_is_overdue() {
        // SYNs at 0, 1, 3 and 7 s: the next one would come at 15 s.
        let remote = victim(FAMILY_INET);
        assert_eq!(judged(&remote, 16 * SECOND), None);
        assert_eq!(judged(&remote, 19 * SECOND), Some(Outcome::Silent));
    }

    #[test]
    fn a_local_client_shows_its_own_end() {
        let task = Task { tgid: 7, ..Task::default() };
        assert_eq!(judged(&Victim { task, ..victim(FAMILY_INET) }, 100 * SECOND), None);
    }

    #[test]
    fn a_refused_unix_connect_is_emitted_once_it_is_not_repeated() {
        let open = victim(FAMILY_UNIX);
        let refused = Victim { fate: Fate::Refused as u32, ..open };
        assert_eq!((judged(&refused, 8 * SECOND), judged(&open, 100 * SECOND)), (None, None));
        assert_eq!(judged(&refused, 10 * SECOND), Some(Outcome::Refused));
        assert_eq!((at_the_end(&refused), at_the_end(&open)), (Outcome::Refused, Outcome::Waiting));
    }

    #[test]
    fn a_final_ack_is_where_only_the_end_of_the_handshake_was_dropped() {
        let listener = Upstream::Unix("/a".into());
        let late = Victim { syn_drops: 0, ack_drops: 3, ..victim(FAMILY_INET) };
        let entry = Overflow::of(&late, &listener, 1, None, "nginx");
        assert_eq!((entry.stage, entry.attempts, entry.outcome), (Stage::FinalAck, 3, Outcome::Waiting));
        assert_eq!(Overflow::of(&victim(FAMILY_UNIX), &listener, 1, None, "nginx").name(), "unknown");
    }
}
