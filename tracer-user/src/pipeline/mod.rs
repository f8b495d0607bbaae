//! From the stream to what is emitted: joins what belongs together, names causes, and counts. Pure: the same stream gives the
//! same, in the same order, wherever and however often it is taken in.

mod placed;

use std::collections::{BTreeMap, VecDeque};

use crate::{
    answers::{Matching, Sight},
    cause::{Context, Outcome, WallClock, attribute, attribute_word, line, note, worker_outlived},
    groups::{Groups, SETTLING_NS},
    ledger::{Exchange, Ledger, Said, Whole},
    model::{
        answers::Answered,
        audit::Unexplained,
        budget,
        cause::Cause,
        cgroup::{Known, Wanted},
        clock::ClockOffset,
        facts::{Fact, Sources},
        stranger::Stranger,
        stream::{Counts, Entry, Following, Loss, Start, What},
        verdict::{Delayed, Note, Summary, Verdict, Words, WorkerOutlived},
    },
    near::Nears,
    pipeline::placed::with_units,
    pressure::{self, Readings},
    sample::Activities,
};

/// What is emitted to the sinks.
#[derive(Clone, Debug)]
pub enum Emitted {
    /// A failed exchange.
    Verdict(Box<Verdict>),
    /// An exchange that succeeded late.
    Delayed(Box<Delayed>),
    /// What a worker did after nginx gave its exchange up.
    WorkerOutlived(Box<WorkerOutlived>),
    /// Something that nginx logs of an upstream and that is no failure.
    Note(Box<Note>),
    /// What a client was answered whose request the user wants to see.
    Answer(Box<Answered>),
    /// A failed exchange that is not emitted any more: the limit was reached before, or the stream had ended.
    Withheld(Box<Verdict>),
}

/// What a stream has come to so far.
#[derive(Debug)]
pub struct Pipeline {
    ledger: Ledger,
    activities: Activities,
    sources: Sources,
    clock_offset: ClockOffset,
    begins_ns: u64,
    now_ns: u64,
    counts_before: Counts,
    counts: Counts,
    strangers: Vec<Stranger>,
    failures: BTreeMap<Cause, u64>,
    groups: Groups,
    nears: Nears,
    words: Words,
    answers: Matching,
    /// Those that are to be shown.
    answered: VecDeque<Answered>,
    delayed: u64,
    ended_early: u64,
    stepped_back: u64,
    /// nginx's error log has been read.
    is_read: bool,
    lost: u64,
    /// Exchanges that began before this moment (ns, monotonic) may lack facts.
    last_loss_ns: u64,
    limit: Option<u64>,
    is_narrowed: bool,
    /// Who the processes are that records name.
    members: Known,
    readings: Readings,
    /// Whose verdicts are emitted.
    wanted: Wanted,
    /// When the tracing was over (ns, the stream's time): an audit may take a moment more.
    ended_ns: Option<u64>,
    /// It is over as soon as all is emitted that is due.
    is_ending: bool,
    /// What has become whole and is not emitted yet. It may be tens of thousands of exchanges, of which a verdict each would fill the
    /// memory.
    due: VecDeque<Whole>,
    /// The entry that is taken in once those are emitted.
    entry: Option<Entry>,
}

impl WallClock for ClockOffset {
    fn unix_ns(&self, monotonic_ns: u64) -> i64 {
        self.0.saturating_add_unsigned(monotonic_ns)
    }
}

impl Pipeline {
    /// Begins where the stream does.
    pub fn new(start: Start) -> Self {
        let Start { started_ns: _, begins_ns, counts, clock_offset, sources, limit, is_narrowed, wanted } =
            start;
        let mut groups = Groups::default();
        groups.was_blind(begins_ns);
        Self {
            ledger: Ledger::default(),
            activities: Activities::default(),
            sources,
            clock_offset,
            begins_ns,
            now_ns: begins_ns,
            counts_before: counts,
            counts,
            strangers: Vec::new(),
            failures: BTreeMap::new(),
            groups,
            nears: Nears::default(),
            words: Words::default(),
            answers: Matching::default(),
            answered: VecDeque::new(),
            delayed: 0,
            ended_early: 0,
            stepped_back: 0,
            is_read: false,
            lost: 0,
            last_loss_ns: 0,
            limit,
            is_narrowed,
            members: Known::default(),
            readings: Readings::default(),
            wanted,
            ended_ns: None,
            is_ending: false,
            due: VecDeque::new(),
            entry: None,
        }
    }

    /// Takes in one entry. What is to be emitted because of it comes from [`Pipeline::next`], of which nothing may be left from before.
    pub fn take(&mut self, entry: Entry) {
        self.advance(entry.at_ns);
        self.entry = Some(entry);
    }

    /// Lets time pass until `at_ns` of the stream's own time: what has waited for long enough is to be emitted.
    pub fn advance(&mut self, at_ns: u64) {
        debug_assert!(self.due.is_empty() && self.entry.is_none(), "something is still to be told");
        self.now_ns = self.now_ns.max(at_ns);
        self.due.extend(self.ledger.overdue(at_ns));
        self.groups.settle(at_ns.saturating_sub(SETTLING_NS));
    }

    /// The next thing to be emitted; none once all is. What was overdue before the last entry comes first.
    #[expect(
        clippy::should_implement_trait,
        reason = "there is more after none, once another entry is taken in"
    )]
    pub fn next(&mut self) -> Option<Emitted> {
        loop {
            while let Some(whole) = self.due.pop_front() {
                let emitted = self.emit(whole);
                if emitted.is_some() {
                    return emitted;
                }
            }
            // By now each verdict is known that was due.
            let shown = self.answers.settle(self.now_ns, self.sight());
            self.answered.extend(shown);
            if let Some(answered) = self.answered.pop_front() {
                return Some(Emitted::Answer(Box::new(answered)));
            }
            let Some(entry) = self.entry.take() else {
                if std::mem::take(&mut self.is_ending) {
                    let shown = self.answers.settle(u64::MAX, self.sight());
                    self.answered.extend(shown);
                    self.ended_ns = Some(self.now_ns);
                    continue;
                }
                return None;
            };
            match entry.what {
                What::Record(record) => {
                    self.due.extend(self.ledger.take(record));
                    self.due.extend(self.ledger.freed());
                    let hurried = self.ledger.hurried();
                    if hurried > 0 {
                        self.lost = self.lost.saturating_add(hurried);
                        self.last_loss_ns = self.last_loss_ns.max(self.now_ns);
                    }
                }
                What::Look(look) => self.activities.add(look),
                What::Logged(logged) => self.due.extend(self.ledger.logged(&logged)),
                What::Following(Following { is_followed, stepped_back }) => {
                    self.ledger.follow(is_followed);
                    self.is_read |= is_followed;
                    self.stepped_back = stepped_back;
                }
                What::Loss(Loss { ns, reason, count }) => {
                    self.lost = self.lost.saturating_add(count);
                    self.groups.was_blind(ns);
                    self.answers.was_blind(self.clock_offset.unix_ns(ns));
                    if !reason.is_marked() {
                        self.last_loss_ns = self.last_loss_ns.max(ns);
                        self.ledger.has_lost(ns);
                    }
                }
                What::Counts(counts) => {
                    if counts.untracked > self.counts.untracked {
                        self.groups.was_blind(self.now_ns);
                    }
                    self.counts = counts;
                }
                What::Pressure(reading) => self.readings.add(reading),
                What::Near(near) => self.nears.learn(near),
                What::Member(member) => self.members.learn(self.now_ns, member),
                What::Inquiry(inquiry) => self.ledger.learn(inquiry),
                What::Groups(configured) => self.groups.learn(configured),
                What::Answer(answer) if !self.is_over() => self.answers.take(*answer, self.now_ns),
                What::Answer(_) => {}
                What::AccessLogs(followed) => self.answers.follow(followed),
                What::Stranger(stranger) if self.strangers.len() < budget::STRANGERS => {
                    self.strangers.push(stranger);
                }
                // The tracer itself names no more than that; evidence may be anybody's.
                What::Stranger(_) => {}
                What::Sources(sources) => self.sources = sources,
                What::Clock(clock_offset) => self.clock_offset = clock_offset,
                What::Upstream(_) | What::Depth(_) => {}
                What::End => {
                    self.due.extend(self.ledger.drain());
                    self.is_ending = true;
                }
            }
        }
    }

    fn emit(&mut self, whole: Whole) -> Option<Emitted> {
        match whole {
            Whole::Exchange(mut exchange) => {
                exchange.activity = self.activities.take(&exchange.nginx);
                exchange.near = self.nears.of(&exchange);
                exchange.alike = self.ledger.alike(&exchange);
                self.emit_exchange(&exchange)
            }
            Whole::Said(said) => self.emit_word(&said),
            Whole::WorkerOutlived(_) if self.is_over() => None,
            Whole::WorkerOutlived(end) => {
                let mut after = worker_outlived(&end, &self.clock_offset);
                let worker = after.worker.as_ref();
                after.places = self.members.places(worker.map(|worker| worker.pid), end.worker.ended_ns);
                after.explanation = with_units(after.explanation, &after.places, worker);
                self.wanted.has(&after.places).then(|| Emitted::WorkerOutlived(Box::new(after)))
            }
        }
    }

    fn emit_exchange(&mut self, exchange: &Exchange) -> Option<Emitted> {
        let context = Context {
            clock: &self.clock_offset,
            sources: &self.sources,
            evidence_lost: exchange.nginx.connect_ns <= self.last_loss_ns,
            outer: exchange.outer.as_ref().and_then(|outer| self.ledger.cause_of(outer)),
        };
        let mut outcome = attribute(exchange, &context);
        let is_wanted = self.place(&mut outcome, exchange);
        if let Outcome::Failed(verdict) = &outcome {
            self.groups.failed(verdict, exchange.nginx.ended_ns);
            self.ledger.judged(exchange, verdict.cause);
            self.answers.failed(verdict);
        }
        for said in &exchange.said {
            if !is_wanted {
                self.words.left_out += u64::from(!self.is_over());
                continue;
            }
            self.count_word(said, matches!(outcome, Outcome::Failed(_)));
        }
        match outcome {
            Outcome::Failed(verdict) if self.is_over() || !is_wanted => Some(Emitted::Withheld(verdict)),
            Outcome::Failed(verdict) => {
                *self.failures.entry(verdict.cause).or_default() += 1;
                Some(Emitted::Verdict(verdict))
            }
            Outcome::Delayed(delayed) if !self.is_over() && is_wanted => {
                self.delayed += 1;
                Some(Emitted::Delayed(delayed))
            }
            Outcome::EndedEarly if !self.is_over() => {
                self.ended_early += 1;
                None
            }
            Outcome::Delayed(_) | Outcome::EndedEarly | Outcome::Succeeded => None,
        }
    }

    /// Adds who the processes are; returns whether it is to be emitted.
    fn place(&self, outcome: &mut Outcome, exchange: &Exchange) -> bool {
        let ended_ns = exchange.nginx.ended_ns;
        match outcome {
            Outcome::Failed(verdict) => {
                let at_ns = exchange.worker.map_or(ended_ns, |worker| worker.ended_ns.max(ended_ns));
                placed::place(verdict, &self.members, at_ns);
                pressure::add(verdict, exchange, &self.readings);
                self.wanted.has(&verdict.places)
            }
            Outcome::Delayed(delayed) => {
                pressure::add_to_delayed(delayed, exchange, &self.readings);
                delayed.places = self.members.places([delayed.nginx.pid], ended_ns);
                self.wanted.has(&delayed.places)
            }
            Outcome::Succeeded | Outcome::EndedEarly => true,
        }
    }

    fn emit_word(&mut self, said: &Said) -> Option<Emitted> {
        let context = Context {
            clock: &self.clock_offset,
            sources: &self.sources,
            evidence_lost: said.ns <= self.last_loss_ns,
            outer: None,
        };
        if said.is_foreign() {
            return None;
        }
        if said.is_note() {
            let mut note = note(said, &context);
            note.places = self.members.places([note.nginx.pid], said.ns);
            return (!self.is_over() && self.wanted.has(&note.places)).then(|| {
                self.words.notes += 1;
                Emitted::Note(Box::new(note))
            });
        }
        if said.is_no_live() && !self.groups.may_concern(said) {
            self.words.left_out += u64::from(!self.is_over());
            return None;
        }
        // The connection of any other is not watched: it is older than the tracing, or there was no room for it.
        let verdict = (said.is_of_no_connection() || said.is_logged()).then(|| {
            let outage = said.is_no_live().then(|| self.groups.outage(said));
            let mut verdict = Box::new(attribute_word(said, outage, &context));
            placed::place(&mut verdict, &self.members, said.ns);
            verdict
        });
        let Some(verdict) = verdict else {
            if self.is_narrowed {
                self.words.left_out += u64::from(!self.is_over());
            } else {
                self.count_word(said, false);
            }
            self.groups.was_blind(said.ns);
            return None;
        };
        let is_wanted = self.wanted.has(&verdict.places);
        if is_wanted {
            self.count_word(said, true);
        } else {
            self.words.left_out += u64::from(!self.is_over());
        }
        self.groups.failed(&verdict, said.ns);
        self.answers.failed(&verdict);
        if self.is_over() || !is_wanted {
            return Some(Emitted::Withheld(verdict));
        }
        *self.failures.entry(verdict.cause).or_default() += 1;
        Some(Emitted::Verdict(verdict))
    }

    /// Counts a word about a failure, and lists it if it has no verdict.
    fn count_word(&mut self, said: &Said, is_explained: bool) {
        if self.is_over() {
            return;
        }
        self.words.said += 1;
        if is_explained {
            self.words.explained += 1;
            return;
        }
        self.answers.was_blind(self.clock_offset.unix_ns(said.ns));
        self.words.unexplained.push(Unexplained {
            unix_ns: self.clock_offset.unix_ns(said.ns),
            pid: said.nginx.pid,
            upstream: said.peer().map(|peer| peer.to_string()),
            line: line(said),
        });
    }

    /// By what answers to clients are judged.
    fn sight(&self) -> Sight {
        let hears = self.sources.has(Fact::Words) || self.is_read;
        Sight { clock_offset: self.clock_offset.0, hears, is_narrowed: self.is_narrowed }
    }

    /// Whether nothing is emitted any more: all the failures that were asked for have been, or the stream has ended.
    pub fn is_over(&self) -> bool {
        self.ended_ns.is_some() || self.limit.is_some_and(|limit| self.failures() >= limit)
    }

    /// Looks at slow exchanges of which not all is emitted, for want of room.
    pub fn cut_looks(&self) -> u64 {
        self.activities.left_out()
    }

    /// The failures that were emitted so far.
    pub fn failures(&self) -> u64 {
        self.failures.values().sum()
    }

    /// The stream's own time (ns, monotonic).
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// When [`Pipeline::advance`] next has something (ns, monotonic).
    pub fn next_deadline(&self) -> Option<u64> {
        self.ledger.next_deadline()
    }

    /// What it all amounts to so far.
    pub fn summary(&self) -> Summary {
        Summary {
            elapsed_ns: self.ended_ns.unwrap_or(self.now_ns).saturating_sub(self.begins_ns),
            exchanges: self.counts.exchanges.saturating_sub(self.counts_before.exchanges),
            failures: self.failures.iter().map(|(cause, count)| (*cause, *count)).collect(),
            delayed: self.delayed,
            ended_early: self.ended_early,
            lost: self.lost,
            forgotten: self
                .ledger
                .forgotten()
                .saturating_add(self.activities.left_out())
                .saturating_add(self.groups.forgotten()),
            untracked: self.counts.untracked.saturating_sub(self.counts_before.untracked),
            strangers: self.counts.strangers.saturating_sub(self.counts_before.strangers),
            named_strangers: self.strangers.clone(),
            stepped_back: self.stepped_back,
            system_calls: self.sources.are_system_calls(),
            words: (self.sources.has(Fact::Words) || self.words.said > 0).then(|| {
                let left_out = self.counts.words_left_out.saturating_sub(self.counts_before.words_left_out);
                Words { left_out: self.words.left_out + left_out, ..self.words.clone() }
            }),
            answers: self.answers.summary(),
        }
    }
}

/// Reports looks to a person that were cut.
pub fn report_cut_looks(cut: u64) {
    if cut > 0 {
        crate::notice!(
            "{cut} samples of slow workers found more than fits in memory: what these waited for is not told"
        );
    }
}

#[cfg(test)]
mod tests;
