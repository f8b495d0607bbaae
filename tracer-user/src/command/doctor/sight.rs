//! Which facts are seen here, by which hook, and since when.

use std::collections::BTreeMap;

use wire::{Filters, Layout, MISSING};

use crate::{
    load::{HookPlan, Scope, Tracer},
    model::{facts::Fact, failure::Failure, hook_kind::HookKind},
};

/// How a fact is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// By this source, from the start.
    Always(String),
    /// By this source, from when it is needed.
    OnDemand(String),
    /// Not at all, for this reason.
    Never(String),
}

/// Something that proves a cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A fact.
    Fact(Fact),
    /// A reset for which no socket was there, as a closed port sends it.
    ResetWithoutSocket,
    /// A packet that a netfilter rule drops.
    NetfilterDrop,
    /// A packet that reverse path filtering drops.
    ReversePathDrop,
    /// A packet whose next hop does not answer on its link.
    NeighbourDrop,
    /// A handshake's last packet that a full accept queue drops.
    OverflowDrop,
    /// The end of a unix socket whose process dies.
    UnixRelease,
}

/// What hooks see on the running kernel.
#[derive(Clone, Debug)]
pub struct Sight {
    facts: BTreeMap<Fact, How>,
    layout: Layout,
    listeners: usize,
    reads_words_late: bool,
    /// Of each nginx, why it is not heard, if so.
    heard: BTreeMap<i32, Result<(), String>>,
}

impl Sight {
    /// Attaches every hook for real, the ones on system calls and in each `nginx` too, and detaches them again.
    ///
    /// # Errors
    /// [`Failure::CannotTrace`] where this host cannot be traced.
    pub fn now(only: &[HookKind], words: bool, nginx: &[i32]) -> Result<Self, Failure> {
        let mut tracer = Tracer::start(&nothing(only, words))?;
        let heard = nginx.iter().map(|pid| (*pid, tracer.try_hear(pid.unsigned_abs()))).collect();
        let plan = tracer.plan().clone();
        let on_demand = match tracer.trace_system_calls() {
            Ok(true) => Ok(tracer.plan().clone()),
            Ok(false) => Ok(plan.clone()),
            Err(Failure::CannotTrace(reason)) => Err(reason),
            Err(failure) => return Err(failure),
        };
        let facts = facts(&plan, &on_demand);
        Ok(Self {
            facts,
            layout: *tracer.layout(),
            listeners: tracer.listeners(),
            reads_words_late: tracer.reads_words_late(),
            heard,
        })
    }

    /// Whether what this nginx says is heard, by which source, or why not; none of what is no nginx.
    pub fn hears(&self, pid: i32) -> Option<Result<&str, &str>> {
        let source = match self.facts.get(&Fact::Words) {
            Some(How::Always(source)) => source.as_str(),
            _ => "",
        };
        Some(self.heard.get(&pid)?.as_ref().map(|()| source).map_err(String::as_str))
    }

    /// Each fact, and how it is seen.
    pub fn facts(&self) -> impl Iterator<Item = (Fact, &How)> {
        self.facts.iter().map(|(fact, how)| (*fact, how))
    }

    /// How many sockets listen on this host.
    pub fn listeners(&self) -> usize {
        self.listeners
    }

    /// Whether a proof can be had: from the start, from when it is needed, or never.
    pub fn of(&self, proof: Proof) -> Seen {
        let kernel_has = |number: u32| number != MISSING && self.fact(Fact::PacketDrops) == Seen::Always;
        let seen = |is_seen| if is_seen { Seen::Always } else { Seen::Never };
        match proof {
            Proof::Fact(fact) => self.fact(fact),
            // Where the tracepoint gives no reason, it is silent about resets without a socket.
            Proof::ResetWithoutSocket => seen(match self.facts.get(&Fact::ResetsSent) {
                Some(How::Always(source)) => {
                    !source.starts_with("raw_tp/") || self.layout.reset_reason_arg != MISSING
                }
                Some(How::OnDemand(_) | How::Never(_)) | None => false,
            }),
            Proof::NetfilterDrop => seen(kernel_has(self.layout.drop_netfilter)),
            Proof::ReversePathDrop => seen(kernel_has(self.layout.drop_rpfilter)),
            Proof::NeighbourDrop => seen(kernel_has(self.layout.drop_neighbour)),
            Proof::OverflowDrop => seen(kernel_has(self.layout.drop_listen_overflow)),
            // A dying process makes no system call.
            Proof::UnixRelease => seen(self.fact(Fact::UnixSockets) == Seen::Always),
        }
    }

    /// What stands in for a fact that is not seen, or for a part of it.
    pub fn instead(&self, fact: Fact) -> Option<&'static str> {
        if fact == Fact::Words && self.reads_words_late {
            return Some(READ_LATE);
        }
        if self.fact(fact) != Seen::Never {
            return None;
        }
        let is_there = fact != Fact::HandshakeDrops || self.of(Proof::OverflowDrop) == Seen::Always;
        fact.row().instead.filter(|_| is_there)
    }

    fn fact(&self, fact: Fact) -> Seen {
        match self.facts.get(&fact) {
            Some(How::Always(_)) => Seen::Always,
            Some(How::OnDemand(_)) => Seen::OnDemand,
            Some(How::Never(_)) | None => Seen::Never,
        }
    }
}

/// What a program does that may not wait for memory, as it may since Linux 6.0.
pub const READ_LATE: &str = "a text that nginx had not touched before is read just after";

/// Since when something is seen; the better is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// Not at all.
    Never,
    /// While system calls are watched.
    OnDemand,
    /// From the start.
    Always,
}

/// A scope in which no exchange falls.
fn nothing(only: &[HookKind], words: bool) -> Scope {
    let filters = Filters { upstreams: 1, own_pid: std::process::id(), ..Filters::default() };
    Scope {
        words,
        filters,
        upstreams: Vec::new(),
        paths: Vec::new(),
        listeners: Vec::new(),
        connect_errors: false,
        only: only.to_vec(),
        standby: false,
        max_open: 1,
    }
}

/// Sorts out the facts by what attaching has shown: the plan at the start, and the plan with system calls watched or why they
/// cannot be.
fn facts(plan: &HookPlan, on_demand: &Result<HookPlan, String>) -> BTreeMap<Fact, How> {
    let always = plan.sources.iter().map(|(fact, source)| (fact, How::Always(source.to_owned())));
    let missing = plan.missing.iter().map(|(fact, reason)| {
        let by_system_calls = fact.row().system_calls().is_some();
        let how = match on_demand {
            Ok(plan) if plan.sources.has(*fact) => How::OnDemand(plan.sources.name(*fact).to_owned()),
            Err(why) if by_system_calls => How::Never(why.clone()),
            Ok(_) | Err(_) => How::Never(reason.clone()),
        };
        (*fact, how)
    });
    always.chain(missing).collect()
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;
    use crate::model::facts::Sources;

    /// A kernel that lets everything be seen, but for some facts, and those by system calls that `on_demand` names.
    pub fn sight(missing: &[Fact], on_demand: &[Fact]) -> Sight {
        let mut plan = HookPlan::default();
        for &fact in Fact::ALL {
            if missing.contains(&fact) || on_demand.contains(&fact) {
                plan.missing.push((fact, "refused".to_owned()));
            } else {
                plan.sources.set(fact, "fentry/some_function".to_owned());
            }
        }
        let mut sources: Sources = plan.sources.clone();
        for fact in on_demand {
            sources.set(*fact, "tracepoint/syscalls/sys_enter_connect".to_owned());
        }
        let later = Ok(HookPlan { sources, ..plan.clone() });
        let layout = Layout {
            drop_netfilter: 8,
            drop_rpfilter: 9,
            drop_neighbour: 10,
            drop_listen_overflow: 11,
            reset_reason_arg: 2,
            ..Layout::EMPTY
        };
        Sight {
            facts: facts(&plan, &later),
            layout,
            listeners: 0,
            reads_words_late: false,
            heard: BTreeMap::new(),
        }
    }

    /// The same on a kernel whose packet drops have no reasons.
    pub fn without_drop_reasons() -> Sight {
        Sight { layout: Layout::EMPTY, ..sight(&[Fact::HandshakeDrops], &[]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_system_calls_cannot_be_watched_is_said_of_what_they_would_show() {
        let mut plan = HookPlan::default();
        plan.missing.push((Fact::UnixSockets, "refused".to_owned()));
        plan.missing.push((Fact::Accepts, "refused".to_owned()));
        let facts = facts(&plan, &Err("no tracefs".to_owned()));
        assert_eq!(facts[&Fact::UnixSockets], How::Never("no tracefs".to_owned()));
        assert_eq!(facts[&Fact::Accepts], How::Never("refused".to_owned()));
    }

    #[test]
    fn a_tracepoint_without_a_reason_shows_no_reset_of_a_closed_port() {
        let mut sight = samples::sight(&[], &[]);
        assert_eq!(sight.of(Proof::ResetWithoutSocket), Seen::Always);
        sight.layout = Layout::EMPTY;
        assert_eq!(sight.of(Proof::ResetWithoutSocket), Seen::Always, "functions need none");
        sight.facts.insert(Fact::ResetsSent, How::Always("raw_tp/tcp_send_reset".to_owned()));
        assert_eq!(sight.of(Proof::ResetWithoutSocket), Seen::Never);
    }
}
