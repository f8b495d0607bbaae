//! What the screen shows, as it was taken in: counts, and the newest of each kind. Bounded, however much comes.

mod failures;
mod queues;
mod workers;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

pub use failures::{Kept, Row};
pub use queues::Queue;
pub use workers::{Death, Master, Pool, Slow};

use super::accepting::Accepting;
use crate::{
    model::{
        cause::Cause,
        clock::ClockOffset,
        facts::Fact,
        stream::{Entry, What},
        upstream::Upstream,
        verdict::{Confidence, Note, Summary, Verdict, WorkerOutlived},
    },
    roots::{Kinds, MOST_KINDS},
    sample::Crew,
};

/// Deaths, words, workers: what comes on top pushes out the oldest, or is not told apart.
const MOST: usize = 512;

/// Notices that are kept.
const MOST_NOTICES: usize = 100;

/// An nginx process.
#[derive(Clone, Debug, Default)]
pub struct Nginx {
    /// Its failures.
    pub failures: u64,
    /// What it was heard to say of these.
    pub words: u64,
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

    fn word(&mut self, level: &'static str, message: &str) {
        let key = (level, message.to_owned());
        if self.words.contains_key(&key) || self.words.len() < MOST_KINDS {
            *self.words.entry(key).or_default() += 1;
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
}

#[cfg(test)]
mod tests {
    use super::{failures::MOST_TEXT, *};
    use crate::{
        model::{doing::Look, stream::Depth},
        sink::samples,
    };

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
