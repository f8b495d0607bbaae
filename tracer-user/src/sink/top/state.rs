//! What the screen shows, as it was taken in: counts, and the newest of each kind. Bounded, however much comes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::{accepting::Accepting, rate::Rate};
use crate::{
    model::{
        cause::Cause,
        clock::ClockOffset,
        doing::Look,
        facts::Fact,
        stream::{Depth, Entry, What},
        upstream::Upstream,
        verdict::{Confidence, Delayed, Note, Process, Summary, Verdict, WorkerOutlived},
    },
    roots::{Kinds, MOST_KINDS},
    sample::Crew,
};

/// Room for the texts of the failures that are kept, in bytes.
const MOST_TEXT: usize = 16 << 20;

/// Waits of connections that are kept for each listener.
const MOST_WAITS: usize = 512;

/// Deaths, words, workers: what comes on top pushes out the oldest, or is not told apart.
const MOST: usize = 512;

/// Notices that are kept.
const MOST_NOTICES: usize = 100;

/// What was found of a worker is of now for so long (ns): looks come once a second.
const LOOK_HOLDS: u64 = 2_500_000_000;

/// Failures of one cause, with one upstream, of which is equally sure.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// How many.
    pub total: u64,
    /// The last one, in ns since 1970.
    pub last_ns: i64,
    /// When they were.
    pub rate: Rate,
}

/// A failure that is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Counts from the first one.
    pub number: u64,
    /// What it is.
    pub verdict: Verdict,
    /// What is searched when one types, in small letters.
    search: String,
}

impl Kept {
    /// Whether it has this text anywhere, in small letters.
    pub fn has(&self, text: &str) -> bool {
        text.is_empty() || self.search.contains(text)
    }
}

/// A listener's accept queue.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// Connections that wait; none where nobody looked.
    pub depth: Option<u32>,
    /// How many may.
    pub limit: u32,
    /// The most that did.
    pub deepest: u32,
    /// Looks that found it full.
    pub full: u64,
    /// Exchanges that failed because it was full.
    pub failed: u64,
    /// Exchanges that succeeded late because a SYN was dropped.
    pub late: u64,
    /// Exchanges that waited in it until nginx gave up.
    pub unaccepted: u64,
    /// How long the last ones waited in it, in microseconds, of exchanges that were emitted.
    waits: VecDeque<u64>,
}

impl Queue {
    /// The median wait and the one that 1 of 100 exceeds, in microseconds; none where none is known.
    pub fn waits(&self) -> Option<(u64, u64)> {
        let mut sorted: Vec<_> = self.waits.iter().copied().collect();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get((sorted.len().checked_sub(1)?) * percent / 100).copied();
        Some((at(50)?, at(99)?))
    }
}

/// A worker that died, or was told to stop.
#[derive(Clone, Debug)]
pub struct Death {
    /// When its exchange ended, in ns since 1970.
    pub unix_ns: i64,
    /// Where it served.
    pub upstream: Upstream,
    /// Who.
    pub worker: Process,
    /// Of which signal; none where it ended of itself.
    pub signal: Option<String>,
    /// Who sent it.
    pub killer: Option<Process>,
}

/// What slow workers were found doing last.
#[derive(Clone, Debug)]
pub struct Slow {
    at_ns: u64,
    /// In the past tense.
    pub doing: String,
}

/// Workers of one upstream, as far as failures name them.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// Those that had exchanges that failed.
    pub workers: BTreeSet<u32>,
    /// Failures in which a worker had the exchange.
    pub failures: u64,
}

/// An nginx process.
#[derive(Clone, Debug, Default)]
pub struct Nginx {
    /// Its failures.
    pub failures: u64,
    /// What it was heard to say of these.
    pub words: u64,
}

/// A master process, of nginx or of a pool, as it was found last.
#[derive(Clone, Debug)]
pub struct Master {
    /// Its pid.
    pub pid: i32,
    /// Its name.
    pub comm: String,
    /// How many workers it has.
    pub workers: usize,
    /// Where it listens; none where that could not be seen.
    pub listeners: Option<Vec<String>>,
}

/// What the screen shows.
#[derive(Clone, Debug)]
pub struct State {
    most: usize,
    clock_offset: ClockOffset,
    at_ns: u64,
    next: u64,
    bytes: usize,
    /// Whether it is this host, as it is now.
    pub is_live: bool,
    /// Nothing more comes.
    pub is_over: bool,
    /// What the run amounts to so far.
    pub sums: Summary,
    /// Failures by upstream, cause and confidence.
    pub rows: BTreeMap<(Upstream, Cause, Confidence), Row>,
    /// The same by cause and upstream, for what lies behind many.
    pub kinds: Kinds,
    /// Exchanges by upstream, well or not.
    pub exchanges: BTreeMap<Upstream, u64>,
    /// The newest failures, the newest last.
    pub failures: VecDeque<Arc<Kept>>,
    /// Accept queues.
    pub queues: BTreeMap<Upstream, Queue>,
    /// What the hooks for accept queues see.
    pub accepting: Accepting,
    /// Workers by upstream.
    pub pools: BTreeMap<Upstream, Pool>,
    /// Which upstream a worker serves.
    serves: BTreeMap<u32, Upstream>,
    /// What slow workers were found doing.
    slow: BTreeMap<u32, Slow>,
    /// Workers that died, the newest last.
    pub deaths: VecDeque<Death>,
    /// Requests that workers went on with for nobody.
    pub for_nobody: u64,
    /// nginx's processes that were seen.
    pub nginx: BTreeMap<u32, Nginx>,
    /// The files that nginx's processes run, as far as they are known.
    pub binaries: BTreeMap<u32, String>,
    /// What nginx said, and how often: the level and the message.
    pub words: BTreeMap<(&'static str, String), u64>,
    /// Words that nginx said of no failure.
    pub notes: u64,
    /// The hook that hears nginx; none where none does.
    pub hears_by: Option<String>,
    /// Whether nginx's error log is read in its place.
    pub reads_log: bool,
    /// Masters, as they were found last.
    pub masters: Vec<Master>,
    /// Pools of workers of this host, as they were found last; none where nobody looked.
    pub crews: Vec<Crew>,
    /// What would have been said on standard error.
    pub notices: VecDeque<String>,
}

impl State {
    /// Keeps the newest failures, `most` of them.
    pub fn new(most: usize, clock_offset: ClockOffset, is_live: bool) -> Self {
        Self {
            most,
            clock_offset,
            at_ns: 0,
            next: 0,
            bytes: 0,
            is_live,
            is_over: false,
            sums: Summary::default(),
            rows: BTreeMap::new(),
            kinds: Kinds::default(),
            exchanges: BTreeMap::new(),
            failures: VecDeque::new(),
            queues: BTreeMap::new(),
            accepting: Accepting::default(),
            pools: BTreeMap::new(),
            serves: BTreeMap::new(),
            slow: BTreeMap::new(),
            deaths: VecDeque::new(),
            for_nobody: 0,
            nginx: BTreeMap::new(),
            binaries: BTreeMap::new(),
            words: BTreeMap::new(),
            notes: 0,
            hears_by: None,
            reads_log: false,
            masters: Vec::new(),
            crews: Vec::new(),
            notices: VecDeque::new(),
        }
    }

    /// The stream's own time, in ns since 1970.
    pub fn now(&self) -> i64 {
        self.clock_offset.0.saturating_add_unsigned(self.at_ns)
    }

    /// Lets the stream's time pass (ns, monotonic).
    pub fn advance(&mut self, at_ns: u64) {
        self.at_ns = self.at_ns.max(at_ns);
    }

    /// Takes in an entry of the stream.
    pub fn entry(&mut self, entry: &Entry) {
        self.advance(entry.at_ns);
        match &entry.what {
            What::Clock(clock_offset) => self.clock_offset = *clock_offset,
            What::Sources(sources) => {
                self.hears_by = sources.has(Fact::Words).then(|| sources.name(Fact::Words).to_owned());
            }
            What::Upstream(counts)
                if self.exchanges.contains_key(&counts.upstream) || self.exchanges.len() < MOST_KINDS =>
            {
                self.exchanges.insert(counts.upstream.clone(), counts.exchanges);
            }
            What::Depth(depth) => self.depth(depth),
            What::Look(look) => self.look(look),
            What::Following(following) => self.reads_log = following.is_followed,
            What::End => self.is_over = true,
            _ => {}
        }
    }

    fn depth(&mut self, seen: &Depth) {
        let Some(queue) = self.queue(&seen.listener) else { return };
        queue.depth = Some(seen.depth);
        queue.limit = seen.limit;
        queue.deepest = queue.deepest.max(seen.depth);
        queue.full += u64::from(seen.depth > seen.limit);
    }

    fn look(&mut self, look: &Look) {
        let oldest = self.at_ns.saturating_sub(LOOK_HOLDS);
        self.slow.retain(|_, slow| slow.at_ns >= oldest);
        if self.slow.len() < MOST {
            let slow = Slow { at_ns: self.at_ns, doing: look.doing.in_words() };
            self.slow.insert(look.pid.cast_unsigned(), slow);
        }
    }

    /// What slow workers were found doing just now: the worker, the upstream that it is known to serve, and what it did.
    pub fn slow(&self) -> impl Iterator<Item = (u32, Option<&Upstream>, &str)> {
        let oldest = self.at_ns.saturating_sub(LOOK_HOLDS);
        let new = self.slow.iter().filter(move |(_, slow)| slow.at_ns >= oldest && !self.is_over);
        new.map(|(pid, slow)| (*pid, self.serves.get(pid), slow.doing.as_str()))
    }

    fn queue(&mut self, listener: &Upstream) -> Option<&mut Queue> {
        let is_known = self.queues.contains_key(listener);
        (is_known || self.queues.len() < MOST_KINDS).then(|| self.queues.entry(listener.clone()).or_default())
    }

    /// Takes in a failure.
    pub fn verdict(&mut self, verdict: &Verdict) {
        let mut key = (verdict.upstream.clone(), verdict.cause, verdict.confidence);
        if !self.rows.contains_key(&key) && self.rows.len() >= MOST_KINDS {
            key.0 = Upstream::Unix("(others)".into());
        }
        let row = self.rows.entry(key).or_default();
        row.total += 1;
        row.last_ns = row.last_ns.max(verdict.unix_ns);
        row.rate.add(verdict.unix_ns);
        self.kinds.add(verdict);
        self.of_queue(verdict);
        self.of_worker(verdict);
        if self.nginx.contains_key(&verdict.nginx.pid) || self.nginx.len() < MOST {
            let nginx = self.nginx.entry(verdict.nginx.pid).or_default();
            nginx.failures += 1;
            nginx.words += u64::from(verdict.word.is_some());
        }
        if let Some(word) = &verdict.word {
            self.word(word.level, &word.message);
        }
        self.keep(verdict);
    }

    fn keep(&mut self, verdict: &Verdict) {
        let Verdict { cause, confidence, nginx, upstream, worker, explanation, .. } = verdict;
        let worker = worker.as_ref().map(|worker| &worker.process);
        let worker = worker.map_or_else(String::new, |worker| format!("{} {}", worker.comm, worker.pid));
        let mut search =
            format!("{cause} {upstream} {} {} {worker} {explanation}", confidence.name(), nginx.pid);
        search.make_ascii_lowercase();
        self.bytes += verdict.text_bytes();
        self.failures.push_back(Arc::new(Kept { number: self.next, verdict: verdict.clone(), search }));
        self.next += 1;
        while self.failures.len() > self.most || (self.bytes > MOST_TEXT && self.failures.len() > 1) {
            if let Some(oldest) = self.failures.pop_front() {
                self.bytes -= oldest.verdict.text_bytes();
            }
        }
    }

    fn of_queue(&mut self, verdict: &Verdict) {
        let is_full = verdict.cause.cause() == "accept_queue_overflow";
        let is_unaccepted = verdict.cause == Cause::TimeoutNeverAccepted;
        let moments = &verdict.moments;
        let wait = moments.connected.zip(moments.accepted).map(|(from, to)| to.saturating_sub(from));
        if !is_full && !is_unaccepted && wait.is_none() && verdict.queue.is_none() {
            return;
        }
        let Some(queue) = self.queue(&verdict.upstream) else { return };
        queue.failed += u64::from(is_full);
        queue.unaccepted += u64::from(is_unaccepted);
        if let Some(seen) = verdict.queue {
            queue.limit = seen.limit;
            queue.deepest = queue.deepest.max(seen.depth);
        }
        if let Some(us) = wait {
            if queue.waits.len() == MOST_WAITS {
                queue.waits.pop_front();
            }
            queue.waits.push_back(u64::try_from(us).unwrap_or(0));
        }
    }

    fn of_worker(&mut self, verdict: &Verdict) {
        let Some(worker) = &verdict.worker else { return };
        let pid = worker.process.pid;
        if self.pools.contains_key(&verdict.upstream) || self.pools.len() < MOST_KINDS {
            let pool = self.pools.entry(verdict.upstream.clone()).or_default();
            pool.failures += 1;
            if pool.workers.len() < MOST {
                pool.workers.insert(pid);
            }
        }
        if self.serves.len() >= 8 * MOST {
            self.serves.pop_first();
        }
        self.serves.insert(pid, verdict.upstream.clone());
        let has_died = worker.signal.is_some() || verdict.cause.detail().starts_with("worker_");
        if has_died && !self.deaths.iter().any(|death| death.worker.pid == pid) {
            if self.deaths.len() == MOST {
                self.deaths.pop_front();
            }
            self.deaths.push_back(Death {
                unix_ns: verdict.unix_ns,
                upstream: verdict.upstream.clone(),
                worker: worker.process.clone(),
                signal: worker.signal.clone(),
                killer: verdict.killer.clone(),
            });
        }
    }

    fn word(&mut self, level: &'static str, message: &str) {
        let key = (level, message.to_owned());
        if self.words.contains_key(&key) || self.words.len() < MOST_KINDS {
            *self.words.entry(key).or_default() += 1;
        }
    }

    /// Takes in an exchange that succeeded late.
    pub fn delayed(&mut self, delayed: &Delayed) {
        if let Some(queue) = self.queue(&delayed.upstream) {
            queue.late += 1;
        }
    }

    /// Takes in what a worker did for nobody.
    pub fn worker_outlived(&mut self, _: &WorkerOutlived) {
        self.for_nobody += 1;
    }

    /// Takes in what nginx said of no failure.
    pub fn note(&mut self, note: &Note) {
        self.notes += 1;
        self.word(note.word.level, &note.word.message);
    }

    /// Takes in a line that would have gone to standard error.
    pub fn notice(&mut self, line: &str) {
        if self.notices.len() == MOST_NOTICES {
            self.notices.pop_front();
        }
        self.notices.push_back(line.trim_end().to_owned());
    }

    /// The upstream that a crew serves: as failures of its workers show, or as its master listens, if that is in one place.
    pub fn served_by(&self, crew: &Crew) -> Option<String> {
        let served = crew.workers.iter().find_map(|(pid, _)| self.serves.get(pid));
        served.map(ToString::to_string).or_else(|| {
            let master = self.masters.iter().find(|master| master.pid == crew.master)?;
            match master.listeners.as_deref() {
                Some([one]) => Some(one.clone()),
                _ => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::samples;

    fn state(most: usize) -> State {
        State::new(most, ClockOffset::default(), true)
    }

    #[test]
    fn the_newest_are_kept_and_all_are_counted() {
        let mut state = state(3);
        let verdict = samples::killed();
        for _ in 0..10 {
            state.verdict(&verdict);
        }
        let numbers: Vec<_> = state.failures.iter().map(|kept| kept.number).collect();
        assert_eq!(numbers, [7, 8, 9]);
        let row = &state.rows[&(verdict.upstream.clone(), verdict.cause, verdict.confidence)];
        assert_eq!((row.total, row.rate.within(verdict.unix_ns, 1)), (10, 10));
        assert_eq!(state.deaths.len(), 1);
    }

    #[test]
    fn whatever_comes_takes_bounded_room() {
        let mut state = state(1_000);
        let mut verdict = samples::killed();
        verdict.explanation = "x".repeat(100_000);
        for number in 0..2_000_u32 {
            verdict.upstream = Upstream::Unix(format!("/run/{number}.sock").into());
            verdict.nginx.pid = number;
            if let Some(worker) = &mut verdict.worker {
                worker.process.pid = number;
            }
            state.verdict(&verdict);
            let look = Look {
                ns: 1,
                pid: number.cast_signed(),
                tid: 1,
                doing: crate::model::doing::Doing::Running,
                has_other_threads: false,
                exchanges: Vec::new(),
            };
            state.entry(&Entry { at_ns: 1, what: What::Look(look) });
            state.notice("a line\n");
        }
        assert!(state.failures.len() < 1_000 && state.bytes <= MOST_TEXT);
        assert!(state.rows.len() <= MOST_KINDS + 1 && state.queues.len() <= MOST_KINDS);
        assert!(state.deaths.len() <= MOST && state.nginx.len() <= MOST && state.slow.len() <= MOST);
        assert!(state.notices.len() <= MOST_NOTICES && state.serves.len() <= 8 * MOST);
        let others = state.rows.iter().filter(|((upstream, ..), _)| upstream.to_string() == "(others)");
        assert_eq!(others.map(|(_, row)| row.total).sum::<u64>(), 2_000 - MOST_KINDS as u64);
    }

    #[test]
    fn a_queue_has_its_depth_its_victims_and_its_waits() {
        let mut state = state(10);
        let listener = samples::killed().upstream;
        for depth in [1, 5, 2] {
            let what = What::Depth(Depth { ns: 1, listener: listener.clone(), depth, limit: 4 });
            state.entry(&Entry { at_ns: 1, what });
        }
        let mut verdict = samples::killed();
        for (cause, waited) in [(Cause::TimeoutNeverAccepted, 10), (Cause::QueueSynDropped, 30)] {
            verdict.cause = cause;
            verdict.moments.connected = Some(0);
            verdict.moments.accepted = Some(waited);
            state.verdict(&verdict);
        }
        let queue = &state.queues[&listener];
        assert_eq!((queue.depth, queue.deepest, queue.full), (Some(2), 5, 1));
        assert_eq!((queue.failed, queue.unaccepted, queue.waits()), (1, 1, Some((10, 10))));
    }
}
