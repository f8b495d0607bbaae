//! Joins records into whole exchanges. An exchange that nginx closed unfinished waits for what nginx does next, and where nginx's word cannot
//! be heard, one that may have stalled also for what becomes of the worker's end. Pure: it reads no clock, the caller gives the time.

mod client;
mod deadlines;
mod exchange;
mod hop;
mod idle;
mod lines;
mod next_act;
mod reached;
mod remembered;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
mod words;

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use hop::Hops;
use idle::IdleCloses;
use lines::Lines;
use reached::Reached;
use remembered::Remembered;
use wire::{Action, ExchangeRecord, Hop, NextAction, NginxEnd, WordOf, WorkerEnd, nginx_flag};
use words::Words;

pub use exchange::{Exchange, Next};
pub use hop::Outer;
pub use words::Said;
#[cfg(test)]
pub(crate) use words::Source;

use crate::model::{
    cause::Cause,
    inquiry::{About, Found as Answer, Inquiry},
    record::Record,
    stream::Logged,
    upstream::Upstream,
    verdict::Alike,
};

/// How long an exchange waits for what follows it, in ns. A thread that stays idle for so long had nothing to say to a
/// client, or said it in a way that no socket shows. On a host with more work than time, nginx has come to it after more than 1 s.
pub const PATIENCE_NS: u64 = 3_000_000_000;

/// Names a connection: nginx's socket and when it connected.
pub type Name = (u64, u64);

/// Something that became whole.
#[derive(Clone, Debug)]
pub enum Whole {
    /// An exchange.
    Exchange(Box<Exchange>),
    /// The end of a worker's part in an exchange that nginx had given up.
    WorkerOutlived(Box<WorkerOutlived>),
    /// A word that is about no exchange that was seen.
    Said(Box<Said>),
}

/// What a worker did after nginx gave its exchange up.
#[derive(Clone, Debug)]
pub struct WorkerOutlived {
    /// nginx's own address in the exchange, as its verdict has it.
    pub local: Option<SocketAddr>,
    /// nginx's pid.
    pub nginx: u32,
    /// Where the exchange went.
    pub upstream: Upstream,
    /// The worker's end.
    pub worker: WorkerEnd,
}

/// Exchanges that are not complete yet, and what is remembered of others.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Each in a place of its own: as many as a burst has are not kept room for.
    waiting: HashMap<Name, Box<Waiting>>,
    /// By deadline, and at the same one in the order in which they came: a replay has other names for sockets.
    by_deadline: BTreeMap<(u64, u64), Name>,
    came: u64,
    words: Words,
    lines: Lines,
    /// The connect of each thread that failed at once, about which nginx has yet to say a word.
    refused: Remembered<u32, Name>,
    abandoned: Remembered<Name, Abandoned>,
    retries: Remembered<u64, Retry>,
    answers: Remembered<About, Answer>,
    /// What each thread of nginx closed last.
    closed: Remembered<u32, Name>,
    reached: Reached,
    hops: Hops,
    idle_closes: IdleCloses,
    /// What became whole together with something else.
    freed: Vec<Whole>,
    hurried: u64,
    /// Of what began before (ns, monotonic), records may have been lost.
    loss_ns: u64,
    /// Exchanges that did not wait on for what may have been lost.
    cut_short: u64,
}

#[derive(Debug)]
struct Waiting {
    /// Its place in `by_deadline`.
    place: (u64, u64),
    joined: Exchange,
    /// Its line in nginx's log is still to come.
    awaits_line: bool,
    /// nginx answered the client at once: whether it closes its connection, too, is still to come.
    awaits_end: bool,
    /// The exchange for the same client that nginx closed right before: what nginx does next, it does after both.
    before: Option<Name>,
    /// Whose request it served, as far as that is known from what nginx did next.
    hop: Option<Box<Hop>>,
    /// The exchange whose request it served is over and not whole: what that came to explains this one.
    awaits_outer: bool,
    /// Those that wait for this one so.
    inner: Vec<Name>,
}

impl Waiting {
    /// Whether nothing that is still to come belongs to it.
    fn is_whole(&self) -> bool {
        let Self { place: _, joined, awaits_line, awaits_end, before: _, hop: _, awaits_outer, inner: _ } =
            self;
        let awaits_act = matches!(joined.next_action, Next::NotSeen);
        let awaits_worker = joined.depends_on_worker()
            && joined.has(nginx_flag::WORKER_OPEN | nginx_flag::NEXT_ACTION_FOLLOWS)
            && joined.worker.is_none_or(|worker| worker.ended_ns == 0);
        !awaits_line && !awaits_act && !awaits_end && !awaits_worker && !awaits_outer
    }
}

#[derive(Debug)]
struct Abandoned {
    local: Option<SocketAddr>,
    nginx: u32,
    upstream: Upstream,
}

/// nginx tries the next upstream for a request, on a socket that is known before its own exchange ends.
#[derive(Debug)]
struct Retry {
    ns: u64,
    request: u64,
    /// The client's connection, as nginx numbers it.
    client: Option<u64>,
}

impl Ledger {
    /// Takes in one record; gives back what it makes whole, if anything.
    pub fn take(&mut self, record: Record) -> Option<Whole> {
        match record {
            Record::Exchange(exchange) => self.exchange(&exchange),
            Record::NextAction(next_action, action) => self.next_action(&next_action, action),
            Record::Hop(hop) => {
                let waiting = self.waiting.get_mut(&(hop.sock, hop.connect_ns))?;
                waiting.hop = Some(hop);
                None
            }
            Record::WorkerGone(gone) => self.worker_gone(&gone.worker),
            // Only together with evidence of nginx's host is it part of an exchange.
            Record::Served(_) => None,
            Record::Word(word) => self.word(&word),
        }
    }

    /// Takes in what was looked up about the failure that comes next.
    pub fn learn(&mut self, Inquiry { about, found }: Inquiry) {
        self.answers.put(about, found);
    }

    fn exchange(&mut self, exchange: &ExchangeRecord) -> Option<Whole> {
        let mut joined = Exchange::new(exchange);
        joined.found = self.answers.take(&About::Exchange(joined.name()));
        joined.reached_ns = self.reached.take(&joined);
        if let Some(Retry { request, client, .. }) = self.retried_by(&joined) {
            (joined.request, joined.retried_for) = (Some(request), client);
        }
        if joined.nginx.word_ns != 0 {
            let (thread, word_ns) = (joined.nginx.nginx.tid, joined.nginx.word_ns);
            match self.words.claim(thread, word_ns, joined.nginx.connect_ns) {
                Some(said) => joined.said = said,
                None => joined.nginx.word_ns = 0,
            }
        }
        if joined.has(nginx_flag::CLOSED_LATE) && joined.nginx.word_ns == 0 {
            let NginxEnd { connect_ns, last_received_ns, ended_ns, nginx, .. } = &joined.nginx;
            let from_ns = (*connect_ns).max(*last_received_ns);
            if let Some(said) = self.words.claim_late(nginx.tid, from_ns, *ended_ns) {
                joined.nginx.word_ns = said.ns;
                joined.said = vec![said];
            }
        }
        self.hops.ended(&joined);
        let awaits_line = !joined.has(nginx_flag::ENDED_WELL) && self.lines.are_awaited(&joined);
        if !awaits_line && !joined.has(nginx_flag::NEXT_ACTION_FOLLOWS) {
            return Some(self.complete(joined));
        }
        if awaits_line {
            self.lines.wait(&joined);
        }
        let name = joined.name();
        let before = self.closed_right_before(&joined);
        if joined.has(nginx_flag::NEXT_ACTION_FOLLOWS) {
            self.closed.put(joined.nginx.nginx.tid, name);
        }
        if joined.failed_at_once() {
            self.refused.put(joined.nginx.nginx.tid, name);
        }
        self.came += 1;
        let place = (joined.nginx.ended_ns.saturating_add(PATIENCE_NS), self.came);
        self.by_deadline.insert(place, name);
        let waiting = Waiting {
            place,
            joined,
            awaits_line,
            awaits_end: false,
            before,
            hop: None,
            awaits_outer: false,
            inner: Vec::new(),
        };
        if let Some(same) = self.waiting.insert(name, Box::new(waiting)) {
            self.by_deadline.remove(&same.place);
        }
        while let Some(joined) = self.crowded_out() {
            let whole = self.complete(joined);
            self.freed.push(whole);
        }
        None
    }

    /// Records were lost by this moment (ns, monotonic).
    pub fn has_lost(&mut self, ns: u64) {
        self.loss_ns = self.loss_ns.max(ns);
    }

    /// The exchange that the thread closed before this one, if both were for one client and nginx did nothing in between.
    fn closed_right_before(&self, joined: &Exchange) -> Option<Name> {
        let before = *self.closed.get(&joined.nginx.nginx.tid)?;
        let other = &self.waiting.get(&before)?.joined;
        let is_same_turn =
            joined.has(nginx_flag::SAME_TURN) || joined.client_was_given_up() && other.client_was_given_up();
        (is_same_turn && joined.has_client_of(other)).then_some(before)
    }

    /// What nginx did next after it had closed an exchange is what it did next after those that it had closed right before.
    fn share_next_action(&mut self, name: Name) {
        let Some(Waiting { joined, awaits_end, before, .. }) = self.waiting.get(&name).map(Box::as_ref)
        else {
            return;
        };
        let (next_action, awaits_end, mut before) = (joined.next_action, *awaits_end, *before);
        while let Some(earlier) = before
            && let Some(waiting) = self.waiting.get_mut(&earlier)
            && (matches!(waiting.joined.next_action, Next::NotSeen) || waiting.awaits_end)
        {
            // A word that came with it is about the later one.
            waiting.joined.next_action = match next_action {
                Next::Seen { action, what } => Next::Seen { action, what: NextAction { word_ns: 0, ..what } },
                other => other,
            };
            waiting.awaits_end = awaits_end;
            before = waiting.before;
            let whole = self.complete_if_whole(earlier);
            self.freed.extend(whole);
        }
    }

    /// What this exchange retries, if nginx was seen to connect its socket for that.
    fn retried_by(&mut self, joined: &Exchange) -> Option<Retry> {
        let retry = self.retries.take(&joined.nginx.sock)?;
        // It bears the very moment at which the exchange began; a later use of the socket's address is no retry.
        (retry.ns == joined.began_ns()).then_some(retry)
    }

    fn next_action(&mut self, next_action: &NextAction, action: Action) -> Option<Whole> {
        let name = (next_action.sock, next_action.connect_ns);
        let Waiting { joined, hop, awaits_end, .. } = self.waiting.get_mut(&name).map(Box::as_mut)?;
        let is_end = matches!(action, Action::Closed | Action::ShutDown);
        if *awaits_end && !(is_end && joined.is_same_turn_for_client(next_action)) {
            *awaits_end = false;
            self.share_next_action(name);
            return self.complete_if_whole(name);
        }
        *awaits_end = action == Action::Sent
            && joined.has(nginx_flag::CLIENT_READ)
            && joined.is_same_turn_for_client(next_action);
        let mut what = *next_action;
        if what.word_ns != 0 {
            match self.words.claim(joined.nginx.nginx.tid, what.word_ns, what.connect_ns) {
                Some(said) => joined.said.extend(said),
                None => what.word_ns = 0,
            }
        }
        joined.next_action = Next::Seen { action, what };
        self.lines.learn(joined);
        joined.outer = self.hops.outer(joined, hop.as_deref());
        let outer = joined.outer.as_ref().map(|outer| outer.name);
        if action == Action::Connected && next_action.turned_to == 0 {
            joined.check_retry();
            let request = *joined.request.get_or_insert(joined.nginx.connect_ns);
            let client = joined.word().map(|said| said.connection);
            self.retries.put(next_action.other_sock, Retry { ns: next_action.ns, request, client });
        }
        if let Some(outer) = outer.and_then(|outer| self.waiting.get_mut(&outer)) {
            outer.inner.push(name);
            self.waiting.get_mut(&name)?.awaits_outer = true;
        }
        self.share_next_action(name);
        self.complete_if_whole(name)
    }

    fn worker_gone(&mut self, worker: &WorkerEnd) -> Option<Whole> {
        let name = (worker.nginx_sock, worker.connect_ns);
        if let Some(Waiting { joined, .. }) = self.waiting.get_mut(&name).map(Box::as_mut) {
            joined.worker = Some(*worker);
            return self.complete_if_whole(name);
        }
        let Abandoned { local, nginx, upstream } = self.abandoned.take(&name)?;
        Some(Whole::WorkerOutlived(Box::new(WorkerOutlived { local, nginx, upstream, worker: *worker })))
    }

    /// Whether lines of nginx's log, where its word is not heard, are to come from now on.
    pub fn follow(&mut self, are_followed: bool) {
        self.lines.follow(are_followed);
    }

    /// Takes in a line of nginx's log; gives back what that makes whole.
    pub fn logged(&mut self, logged: &Logged) -> Option<Whole> {
        let said = self.with_answer(Said::logged(logged));
        self.lines.put(said).map(|said| Whole::Said(Box::new(said)))
    }

    fn complete_if_whole(&mut self, name: Name) -> Option<Whole> {
        let waiting = self.waiting.get_mut(&name)?;
        if waiting.awaits_line && !waiting.joined.said.is_empty() {
            waiting.awaits_line = false;
            self.lines.stop(&waiting.joined);
        }
        if !waiting.is_whole() {
            return None;
        }
        let joined = self.stop_waiting(name)?;
        Some(self.complete(joined))
    }

    /// A word with what was looked up about it.
    fn with_answer(&mut self, said: Said) -> Said {
        let found = self.answers.take(&About::Word { thread: said.thread, ns: said.ns });
        Said { found, ..said }
    }

    fn word(&mut self, word: &WordOf) -> Option<Whole> {
        let said = self.with_answer(Said::new(word));
        if said.is_note() {
            // It waits for nothing: the exchange that it is about goes on.
            return Some(Whole::Said(Box::new(said)));
        }
        if said.is_of_connect()
            && let Some(name) = self.refused.take(&said.thread)
            && let Some(Waiting { joined, .. }) = self.waiting.get_mut(&name).map(Box::as_mut)
            // A connect that found no port leaves no error on the socket.
            && (joined.nginx.error == said.errno || joined.nginx.error == 0)
        {
            joined.said.push(said);
            return self.complete_if_whole(name);
        }
        self.words.put(said, self.loss_ns).map(|said| Whole::Said(Box::new(said)))
    }

    fn stop_waiting(&mut self, name: Name) -> Option<Exchange> {
        let Waiting { place, mut joined, awaits_line, awaits_end: _, before: _, hop, awaits_outer: _, inner } =
            *self.waiting.remove(&name)?;
        self.by_deadline.remove(&place);
        // Of the close of a unix socket nothing may be seen, and then no act of nginx's follows.
        if joined.outer.is_none() {
            joined.outer = self.hops.outer(&joined, hop.as_deref());
        }
        if awaits_line {
            self.lines.stop(&joined);
        }
        for name in inner {
            if let Some(waiting) = self.waiting.get_mut(&name) {
                waiting.awaits_outer = false;
                // Before those that wait for it in turn.
                let place = self.freed.len();
                let whole = self.complete_if_whole(name);
                self.freed.splice(place..place, whole);
            }
        }
        Some(joined)
    }

    /// What an exchange came to, which may explain another one.
    pub fn judged(&mut self, exchange: &Exchange, cause: Cause) {
        self.hops.judged(exchange, cause);
        if cause.detail() == "stale_keepalive" {
            self.idle_closes.put(exchange);
        }
    }

    /// How the idle time after which the upstream closed this exchange's connection compares with those before it.
    pub fn alike(&self, exchange: &Exchange) -> Option<Alike> {
        self.idle_closes.alike(exchange)
    }

    /// What the exchange before another one came to, if it is over and was emitted.
    pub fn cause_of(&self, outer: &Outer) -> Option<Cause> {
        self.hops.cause_of(outer)
    }

    /// What became whole together with what was given back last, and comes after it.
    pub fn freed(&mut self) -> impl Iterator<Item = Whole> {
        self.freed.drain(..)
    }

    fn complete(&mut self, mut joined: Exchange) -> Whole {
        joined.check_retry();
        let is_open = joined.worker.is_some_and(|worker| worker.ended_ns == 0);
        if is_open && !joined.has(nginx_flag::ENDED_WELL) {
            let abandoned = Abandoned {
                local: joined.local(),
                nginx: joined.nginx.nginx.tgid,
                upstream: joined.upstream(),
            };
            self.abandoned.put(joined.name(), abandoned);
        }
        Whole::Exchange(Box::new(joined))
    }
}
