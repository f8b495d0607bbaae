//! From the stream's entries to lines.

use wire::{ExchangeRecord, Hop, NextAction, Served, Word, WordOf, WorkerGone};

use super::{
    Line, Names,
    address::Address,
    answers,
    codec::{Base, Codec, Context, Handshake, Id, Moment, Number},
    ends::{NginxEnd, Stops, Task, WorkerEnd},
    groups,
    header::of_sources,
    inquiry::{About, Found},
    line::{Action, ERROR_LOG, UPROBE},
    look::Look,
    member::Member,
    near,
    pressure::Reading,
    tcp_state::State,
    texts::{SocketPath, Text},
    upstream::named,
};
use crate::{
    ledger::Said,
    model::{
        answers::Followed,
        groups::Configured,
        inquiry::Inquiry,
        record::Record,
        stranger::Stranger,
        stream::{Counts, Depth, Entry, Following, Logged, Loss, UpstreamCounts, What},
        upstream::Upstream,
    },
};

/// Turns entries into lines.
#[derive(Clone, Debug)]
pub struct Encoder {
    base: Base,
    names: Names,
}

impl Encoder {
    /// For a recording that began at `started_ns` (monotonic).
    pub fn new(started_ns: u64, names: Names) -> Self {
        Self { base: Base { started_ns }, names }
    }

    /// The line of an entry.
    pub fn line(&self, entry: &Entry) -> Line {
        let context = Context { base: self.base, names: &self.names };
        let at = entry.at_ns.cast_signed().wrapping_sub(self.base.started_ns.cast_signed());
        match &entry.what {
            What::Record(Record::Exchange(exchange)) => {
                let ExchangeRecord { header: _, nginx, worker, stops, path, reserved: _ } = exchange.as_ref();
                Line::Exchange {
                    at,
                    nginx: Box::new(NginxEnd::encode(nginx, context)),
                    worker: (worker.sock != 0).then(|| Box::new(WorkerEnd::encode(worker, context))),
                    stops: (worker.ended_ns != 0 || stops.gone.ns != 0)
                        .then(|| Box::new(Stops::encode(stops, context))),
                    path: SocketPath::encode(path, context),
                }
            }
            What::Record(Record::NextAction(next_action, action)) => {
                let NextAction {
                    header: _,
                    sock,
                    connect_ns,
                    ns,
                    closed_ns,
                    turned_to,
                    other_sock,
                    action: _,
                    bytes,
                    old_state,
                    peer,
                    word_ns,
                } = next_action.as_ref();
                Line::Aftermath {
                    at,
                    sock: Id::encode(sock, context),
                    connect_ns: Moment::encode(connect_ns, context),
                    ns: Moment::encode(ns, context),
                    closed_ns: Moment::encode(closed_ns, context),
                    turned_to: Id::encode(turned_to, context),
                    other_sock: Id::encode(other_sock, context),
                    action: match action {
                        wire::Action::Sent => Action::Sent,
                        wire::Action::Closed => Action::Closed,
                        wire::Action::Connected => Action::Connected,
                        wire::Action::ShutDown => Action::ShutDown,
                    },
                    bytes: *bytes,
                    old_state: State::encode(old_state, context),
                    peer: Address::encode(peer, context),
                    word_ns: Moment::encode(word_ns, context),
                }
            }
            What::Record(Record::Hop(hop)) => {
                let Hop {
                    header: _,
                    sock,
                    connect_ns,
                    outer_sock,
                    outer_connect_ns,
                    asked_ns,
                    answered_ns,
                    nginx,
                    local,
                    upstream,
                    path,
                    reserved: _,
                } = hop.as_ref();
                Line::Hop {
                    at,
                    sock: Id::encode(sock, context),
                    connect_ns: Moment::encode(connect_ns, context),
                    outer_sock: Id::encode(outer_sock, context),
                    outer_connect_ns: Moment::encode(outer_connect_ns, context),
                    asked_ns: Moment::encode(asked_ns, context),
                    answered_ns: Moment::encode(answered_ns, context),
                    nginx: Task::encode(nginx, context),
                    local: Address::encode(local, context),
                    upstream: Address::encode(upstream, context),
                    path: SocketPath::encode(path, context),
                }
            }
            What::Record(Record::WorkerGone(gone)) => {
                let WorkerGone { header: _, worker } = gone.as_ref();
                Line::WorkerGone { at, worker: Box::new(WorkerEnd::encode(worker, context)) }
            }
            What::Record(Record::Served(served)) => {
                let Served { header: _, handshake, peer, reserved: _, worker, stops } = served.as_ref();
                Line::Served {
                    at,
                    handshake: Handshake::encode(handshake, context),
                    peer: Address::encode(peer, context),
                    worker: Box::new(WorkerEnd::encode(worker, context)),
                    stops: Some(Box::new(Stops::encode(stops, context))),
                }
            }
            What::Record(Record::Word(word)) => self.word(at, word, UPROBE, Said::new(word).of.as_ref()),
            What::Logged(logged) => {
                let Logged { word, upstream } = logged.as_ref();
                self.word(at, word, ERROR_LOG, upstream.as_ref())
            }
            What::Following(Following { is_followed, stepped_back }) => {
                Line::Following { at, is_followed: *is_followed, stepped_back: *stepped_back }
            }
            What::Look(look) => Line::Look { at, look: Look::encode(look, context) },
            What::Depth(Depth { ns, listener, depth, limit }) => Line::Depth {
                at,
                ns: Moment::encode(ns, context),
                listener: self.upstream(listener),
                depth: *depth,
                limit: *limit,
            },
            What::Loss(Loss { ns, reason, count }) => Line::Loss {
                at,
                ns: Moment::encode(ns, context),
                reason: reason.name().to_owned(),
                count: *count,
            },
            What::Counts(counts) => {
                let Counts {
                    exchanges,
                    connections,
                    untracked,
                    strangers,
                    upstreams_left_out,
                    words_left_out,
                } = *counts;
                Line::Counts {
                    at,
                    exchanges,
                    connections,
                    untracked,
                    strangers,
                    upstreams_left_out,
                    words_left_out,
                }
            }
            What::Stranger(Stranger { pid, uid, exe, why }) => Line::Stranger {
                at,
                pid: *pid,
                uid: *uid,
                exe: exe.as_ref().map(|exe| self.names.path(exe).into_owned()),
                why: why.name().to_owned(),
            },
            What::Upstream(UpstreamCounts { ns, upstream, exchanges }) => Line::Upstream {
                at,
                ns: Moment::encode(ns, context),
                upstream: self.upstream(upstream),
                exchanges: *exchanges,
            },
            What::Sources(sources) => Line::Sources { at, sources: of_sources(sources) },
            What::Clock(clock_offset) => Line::Clock { at, distance_ns: clock_offset.0.to_string() },
            What::Inquiry(Inquiry { about, found }) => {
                let (about, found) = (About::encode(*about, context), Found::encode(found, context));
                Line::Inquiry { at, about, found }
            }
            What::Groups(Configured { workers, groups, is_narrowed, counts_statuses, gaps }) => {
                Line::Groups {
                    at,
                    is_narrowed: *is_narrowed,
                    workers: workers.clone(),
                    groups: groups.iter().map(|group| groups::encode(group, &self.names)).collect(),
                    counts_statuses: *counts_statuses,
                    gaps: groups::gaps(gaps.as_ref(), &self.names),
                }
            }
            What::Pressure(reading) => Line::Pressure { at, reading: Reading::encode(reading, context) },
            What::Member(member) => Line::Member { at, member: Member::encode(member, context) },
            What::Answer(answer) => answers::encode(answer, at, context),
            What::AccessLogs(Followed { logs, left_out }) => {
                Line::AccessLogs { at, logs: *logs, left_out: *left_out }
            }
            What::Near(near) => near::encode(near, at, context),
            What::End => Line::End { at },
        }
    }

    fn word(&self, at: i64, word: &WordOf, source: &str, upstream: Option<&Upstream>) -> Line {
        let context = Context { base: self.base, names: &self.names };
        let WordOf { word, comm, subject, unread_message: _, unread_action: _, upstream: of, is_of_session } =
            word;
        let Word { header: _, ns, connection, number, tgid, tid, level, errno, message, action } = word;
        let nginx = wire::Task { tgid: *tgid, tid: *tid, comm: *comm };
        // A group is called as its site is.
        let upstream =
            upstream.filter(|upstream| !matches!(upstream, Upstream::Named(_)) || !self.names.is_anonymous());
        Line::Word {
            at,
            ns: Moment::encode(ns, context),
            connection: Number::encode(connection, context),
            number: *number,
            nginx: Task::encode(&nginx, context),
            level: *level,
            errno: *errno,
            // A note's is its upstream's path.
            subject: Text::encode(subject, context).filter(|_| !self.names.is_anonymous() && of.family == 0),
            message: Text::encode(message, context).unwrap_or_default(),
            r#while: Text::encode(action, context),
            source: source.to_owned(),
            is_of_session: *is_of_session != 0,
            upstream: upstream.map(|upstream| self.upstream(upstream)),
        }
    }

    fn upstream(&self, upstream: &Upstream) -> String {
        named(&self.names, upstream)
    }
}
