//! From lines to the stream's entries.

use wire::{
    Endpoint, ExchangeRecord, FAMILY_UNIX, Header as RecordHeader, Hop, Kind, NextAction, Served, Word,
    WordOf, WorkerGone,
};
use zerocopy::FromZeros as _;

use super::{
    Header, Line,
    address::Address,
    answers,
    codec::{Bad, Base, Codec, Handshake, Id, Moment, Number, bad},
    ends::{NginxEnd, Stops, Task, WorkerEnd},
    groups,
    header::{number, to_sources},
    line::{Action, ERROR_LOG, UPROBE},
    look::Look,
    member::Member,
    near,
    pressure::Reading,
    tcp_state::State,
    texts::{SocketPath, Text},
    upstream::{upstream as upstream_named, upstream_or_group},
};
use crate::model::{
    answers::Followed,
    budget,
    clock::ClockOffset,
    inquiry::Inquiry,
    near::Near,
    record::Record,
    stranger::{Stranger, Why},
    stream::{Counts, Depth, Entry, Following, Logged, Loss, LossReason, UpstreamCounts, What},
    upstream::Upstream,
};

/// Turns lines into entries.
#[derive(Clone, Debug)]
pub struct Decoder {
    base: Base,
    /// The recording's time never goes back.
    last_ns: u64,
}

impl Decoder {
    /// For the lines after this one.
    ///
    /// # Errors
    /// If a value in it cannot be.
    pub fn after(header: &Header) -> Result<Self, Bad> {
        let base = header.base()?;
        Ok(Self { base, last_ns: base.started_ns })
    }

    /// The entry of a line; none of a header, which begins a further file of the same recording.
    ///
    /// # Errors
    /// If a value in it cannot be.
    pub fn entry(&mut self, line: Line) -> Result<Option<Entry>, Bad> {
        let base = self.base;
        let (at, what) = match line {
            Line::Header(_) => return Ok(None),
            Line::Exchange { at, nginx, worker, stops, path } => {
                let worker = worker.map(|worker| WorkerEnd::decode(*worker, base)).transpose()?;
                let exchange = ExchangeRecord {
                    header: header::<ExchangeRecord>(Kind::Exchange),
                    nginx: NginxEnd::decode(*nginx, base)?,
                    worker: worker.unwrap_or_default(),
                    stops: stops_of(stops, base)?,
                    path: SocketPath::decode(path, base)?,
                    reserved: 0,
                };
                (at, What::Record(Record::Exchange(Box::new(exchange))))
            }
            Line::Aftermath {
                at,
                sock,
                connect_ns,
                ns,
                closed_ns,
                turned_to,
                other_sock,
                action,
                bytes,
                old_state,
                peer,
                word_ns,
            } => {
                let action = match action {
                    Action::Sent => wire::Action::Sent,
                    Action::Closed => wire::Action::Closed,
                    Action::Connected => wire::Action::Connected,
                    Action::ShutDown => wire::Action::ShutDown,
                };
                let next_action = NextAction {
                    header: header::<NextAction>(Kind::NextAction),
                    sock: Id::decode(sock, base)?,
                    connect_ns: Moment::decode(connect_ns, base)?,
                    ns: Moment::decode(ns, base)?,
                    closed_ns: Moment::decode(closed_ns, base)?,
                    turned_to: Id::decode(turned_to, base)?,
                    other_sock: Id::decode(other_sock, base)?,
                    action: action as u32,
                    bytes,
                    old_state: State::decode(old_state, base)?,
                    peer: Address::decode(peer, base)?,
                    word_ns: Moment::decode(word_ns, base)?,
                };
                (at, What::Record(Record::NextAction(Box::new(next_action), action)))
            }
            Line::Hop {
                at,
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
            } => {
                let hop = Hop {
                    header: header::<Hop>(Kind::Hop),
                    sock: Id::decode(sock, base)?,
                    connect_ns: Moment::decode(connect_ns, base)?,
                    outer_sock: Id::decode(outer_sock, base)?,
                    outer_connect_ns: Moment::decode(outer_connect_ns, base)?,
                    asked_ns: Moment::decode(asked_ns, base)?,
                    answered_ns: Moment::decode(answered_ns, base)?,
                    nginx: Task::decode(nginx, base)?,
                    local: Address::decode(local, base)?,
                    upstream: Address::decode(upstream, base)?,
                    path: SocketPath::decode(path, base)?,
                    reserved: 0,
                };
                (at, What::Record(Record::Hop(Box::new(hop))))
            }
            Line::WorkerGone { at, worker } => {
                let worker = WorkerEnd::decode(*worker, base)?;
                let gone = WorkerGone { header: header::<WorkerGone>(Kind::WorkerGone), worker };
                (at, What::Record(Record::WorkerGone(Box::new(gone))))
            }
            Line::Served { at, handshake, peer, worker, stops } => {
                let served = Served {
                    header: header::<Served>(Kind::Served),
                    handshake: Handshake::decode(handshake, base)?,
                    peer: Address::decode(peer, base)?,
                    reserved: 0,
                    worker: WorkerEnd::decode(*worker, base)?,
                    stops: stops_of(stops, base)?,
                };
                (at, What::Record(Record::Served(Box::new(served))))
            }
            Line::Word {
                at,
                ns,
                connection,
                number,
                nginx,
                level,
                errno,
                subject,
                message,
                r#while,
                source,
                is_of_session,
                upstream: name,
            } => {
                let nginx = Task::decode(nginx, base)?;
                let word = Word {
                    header: header::<WordOf>(Kind::WordOf),
                    ns: Moment::decode(ns, base)?,
                    connection: Number::decode(connection, base)?,
                    number,
                    tgid: nginx.tgid,
                    tid: nginx.tid,
                    level,
                    errno,
                    message: Text::decode(Some(message), base)?,
                    action: Text::decode(r#while, base)?,
                };
                let name = name.as_deref().map(upstream_or_group).transpose()?;
                let is_heard = source == UPROBE;
                let (of, subject) = match name.as_ref().filter(|_| is_heard) {
                    Some(Upstream::Inet(address)) => {
                        (Address::decode(Some(address.to_string()), base)?, subject)
                    }
                    Some(Upstream::Unix(path)) => {
                        let of = Endpoint { family: FAMILY_UNIX, ..Endpoint::default() };
                        (of, Some(path.to_string_lossy().into_owned()))
                    }
                    Some(Upstream::Named(_)) => return Err(bad("what is heard names no group")),
                    None => (Endpoint::default(), subject),
                };
                let word = WordOf {
                    word,
                    comm: nginx.comm,
                    subject: Text::decode(subject, base)?,
                    upstream: of,
                    is_of_session: is_of_session.into(),
                    ..WordOf::new_zeroed()
                };
                match source.as_str() {
                    UPROBE => (at, What::Record(Record::Word(Box::new(word)))),
                    ERROR_LOG => (at, What::Logged(Box::new(Logged { word, upstream: name }))),
                    _ => return Err(bad("no word comes from such a source")),
                }
            }
            Line::Following { at, is_followed, stepped_back } => {
                (at, What::Following(Following { is_followed, stepped_back }))
            }
            Line::Look { at, look } => (at, What::Look(Look::decode(look, base)?)),
            Line::Depth { at, ns, listener, depth, limit } => {
                let ns = Moment::decode(ns, base)?;
                (at, What::Depth(Depth { ns, listener: upstream_named(&listener)?, depth, limit }))
            }
            Line::Loss { at, ns, reason, count } => {
                let reason = LossReason::ALL.iter().find(|(name, _)| *name == reason);
                let (_, reason) = *reason.ok_or_else(|| bad("nothing is lost for such a reason"))?;
                let (ns, count) = (Moment::decode(ns, base)?, Number::decode(count, base)?);
                (at, What::Loss(Loss { ns, reason, count }))
            }
            Line::Counts {
                at,
                exchanges,
                connections,
                untracked,
                strangers,
                upstreams_left_out,
                words_left_out,
            } => {
                let number = |json| Number::decode(json, base);
                let counts = Counts {
                    exchanges: number(exchanges)?,
                    connections: number(connections)?,
                    untracked: number(untracked)?,
                    strangers: number(strangers)?,
                    upstreams_left_out: number(upstreams_left_out)?,
                    words_left_out: number(words_left_out)?,
                };
                (at, What::Counts(counts))
            }
            Line::Stranger { at, pid, uid, exe, why } => {
                let why = Why::ALL.iter().find(|(name, _)| *name == why);
                let (_, why) = *why.ok_or_else(|| bad("nobody is a stranger for such a reason"))?;
                if exe.as_ref().is_some_and(|exe| exe.chars().count() > budget::EXECUTABLE) {
                    return Err(bad("an executable's name is longer than any is kept"));
                }
                (at, What::Stranger(Stranger { pid, uid, exe, why }))
            }
            Line::Upstream { at, ns, upstream: name, exchanges } => {
                let exchanges = Number::decode(exchanges, base)?;
                let (ns, upstream) = (Moment::decode(ns, base)?, upstream_named(&name)?);
                (at, What::Upstream(UpstreamCounts { ns, upstream, exchanges }))
            }
            Line::Sources { at, sources } => (at, What::Sources(to_sources(&sources)?)),
            Line::Clock { at, distance_ns } => {
                let clock_offset =
                    number(&distance_ns).ok_or_else(|| bad("the clocks' offset is no number"))?;
                (at, What::Clock(ClockOffset(clock_offset)))
            }
            Line::Inquiry { at, about, found } => {
                (at, What::Inquiry(Inquiry { about: about.decode(base)?, found: found.decode(base)? }))
            }
            Line::Groups { at, workers, groups, is_narrowed, counts_statuses, gaps } => {
                (at, What::Groups(groups::decode(workers, groups, is_narrowed, counts_statuses, gaps)?))
            }
            Line::Pressure { at, reading } => (at, What::Pressure(Reading::decode(reading, base)?)),
            Line::Member { at, member } => (at, What::Member(Member::decode(member, base)?)),
            Line::Answer { at, ns, within_ns, status, tries, rule } => {
                let ns = Moment::decode(ns, base)?;
                (at, What::Answer(Box::new(answers::decode(ns, within_ns, status, tries, rule.as_deref())?)))
            }
            Line::AccessLogs { at, logs, left_out } => (at, What::AccessLogs(Followed { logs, left_out })),
            Line::Near { at, ns, upstream, from, neighbours, others, closed } => {
                let asked = (upstream_named(&upstream)?, from);
                let ns = Moment::decode(ns, base)?;
                let (neighbours, closed) = (near::neighbours(neighbours)?, near::closed(closed, base)?);
                (at, What::Near(Near { ns, asked, neighbours, others, closed }))
            }
            Line::End { at } => (at, What::End),
        };
        // Null stands for what did not happen, and the recording's own time always is.
        self.last_ns = self.last_ns.max(Moment::decode(Some(at), base)?);
        Ok(Some(Entry { at_ns: self.last_ns, what }))
    }
}

fn stops_of(json: Option<Box<Stops>>, base: Base) -> Result<wire::Stops, Bad> {
    json.map_or_else(|| Ok(wire::Stops::default()), |json| Stops::decode(*json, base))
}

fn header<T>(kind: Kind) -> RecordHeader {
    RecordHeader { kind: kind as u32, len: size_of::<T>() as u32 }
}
