//! How nginx's word comes to be known: it is heard as nginx says it, or, where that cannot be or has become too dear, read in the error
//! log.

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    time::{Duration, Instant},
};

use wire::WordOf;

use super::logs::{self, Logs};
use crate::{
    args::Trace,
    load::{Binary, Tracer, binary},
    model::{
        budget,
        clock::{monotonic_ns, nanoseconds},
        stream::{Following, Logged, What},
    },
    source::scope,
};

/// For how long a binary is left alone; then again, if its log is still flooded. Where that shows only once it is heard again, for twice as
/// long each time.
const LEFT_ALONE: Duration = Duration::from_secs(10);

/// And for how long at most.
const LONGEST_ALONE: Duration = Duration::from_secs(320);

/// The share of the time that looking for processes may take: one in so many.
const SHARE: u32 = 50;

/// How often processes are looked for.
const LOOKING: Duration = Duration::from_secs(1);

/// How long after a binary is heard or left alone a word may be known from both sides.
const OVERLAP_NS: u64 = 2_000_000_000;

/// What is heard and what is read.
#[derive(Debug)]
pub(super) struct Hearing {
    trace: Trace,
    error_logs: Vec<PathBuf>,
    /// None while nothing is to be read.
    logs: Option<Logs>,
    next_read_ns: u64,
    next_look: Instant,
    /// What each process had said of no upstream when it was looked at last, and when that was.
    foreign: HashMap<u32, u64>,
    foreign_words: u64,
    foreign_since: Instant,
    /// The binaries that are left alone, until when, and for how long in all.
    alone: HashMap<Binary, (Instant, Duration)>,
    /// Those that were, since when they are heard again, and for how long they were not.
    heard_again: HashMap<Binary, (Instant, Duration)>,
    stepped_back: u64,
    /// What was heard since a binary was heard or left alone, for it may be read as well.
    heard: VecDeque<Key>,
    changed_ns: u64,
    is_followed: bool,
    emitted: Following,
    passed_over: u64,
}

/// What makes a word one that was heard and read.
type Key = (u32, u64, u32, [u8; 40]);

fn key(word: &WordOf) -> Key {
    (word.word.tgid, word.word.connection, word.word.errno, word.word.action)
}

impl Hearing {
    /// Begins to read the logs of whatever is not heard of those that run.
    pub(super) fn begin(tracer: &Tracer, trace: &Trace, error_logs: &[PathBuf], running: &[u32]) -> Self {
        let mut hearing = Self {
            trace: trace.clone(),
            error_logs: error_logs.to_vec(),
            logs: None,
            next_read_ns: 0,
            next_look: Instant::now(),
            foreign: HashMap::new(),
            foreign_words: 0,
            foreign_since: Instant::now(),
            alone: HashMap::new(),
            heard_again: HashMap::new(),
            stepped_back: 0,
            heard: VecDeque::new(),
            changed_ns: 0,
            is_followed: false,
            emitted: Following::default(),
            passed_over: 0,
        };
        hearing.follow(tracer, running);
        hearing
    }

    /// Looks for the processes that are not heard, and for their logs.
    fn look(&mut self, tracer: &Tracer) {
        let began = Instant::now();
        let running = self.running();
        self.follow(tracer, &running);
        self.next_look = Instant::now() + (began.elapsed() * SHARE).max(LOOKING);
    }

    fn follow(&mut self, tracer: &Tracer, running: &[u32]) {
        let unheard: Vec<u32> = running.iter().copied().filter(|pid| tracer.is_unheard(*pid)).collect();
        if unheard.is_empty() && tracer.hears_words() {
            self.logs = None;
        } else {
            let logs = self.logs.get_or_insert_with(|| Logs::new(&self.error_logs));
            logs.follow(&unheard);
            logs.look();
        }
        self.is_followed = self.logs.as_ref().is_some_and(Logs::has_any);
    }

    /// The processes of nginx that run now.
    pub(super) fn running(&self) -> Vec<u32> {
        scope::running(&self.trace).unwrap_or_else(|error| {
            crate::notice!("which nginx runs is not known, nor whose error log is to be read: /proc cannot be listed: {error}");
            Vec::new()
        })
    }

    /// A word was heard: it is not to be read as well.
    pub(super) fn heard(&mut self, word: &WordOf) {
        if word.word.ns >= self.changed_ns && word.word.ns - self.changed_ns < OVERLAP_NS {
            self.heard.push_back(key(word));
            if self.heard.len() > budget::WAITING_LINES {
                self.heard.pop_front();
            }
        }
    }

    /// How many lines of logs that may be about an upstream were passed over.
    pub(super) fn passed_over(&self) -> u64 {
        self.passed_over
    }

    /// When the logs are to be read next (ns, monotonic).
    pub(super) fn wake_ns(&self) -> Option<u64> {
        self.logs.as_ref().map(|_| self.next_read_ns)
    }

    /// The logs are to be read at once: the run ends.
    pub(super) fn hurry(&mut self) {
        self.next_read_ns = 0;
    }

    /// What is new in the logs, if it is time.
    pub(super) fn read(&mut self, tracer: &Tracer) -> Vec<What> {
        let now = monotonic_ns();
        let mut news = Vec::new();
        if self.logs.is_some() && now >= self.next_read_ns {
            news.extend(self.lines().into_iter().map(|line| What::Logged(Box::new(line))));
            self.next_read_ns = now.saturating_add(nanoseconds(logs::PERIOD));
            if Instant::now() >= self.next_look {
                self.look(tracer);
            }
        }
        news
    }

    /// Whether the logs are read, if that has changed.
    pub(super) fn following(&mut self) -> Option<What> {
        let following = Following { is_followed: self.is_followed, stepped_back: self.stepped_back };
        let before = std::mem::replace(&mut self.emitted, following);
        (before != following).then_some(What::Following(following))
    }

    fn lines(&mut self) -> Vec<Logged> {
        let Some(logs) = &mut self.logs else { return Vec::new() };
        let mut lines = logs.read();
        self.passed_over += logs.take_passed_over();
        if !self.heard.is_empty() {
            lines.retain(|line| match self.heard.iter().position(|heard| *heard == key(&line.word)) {
                Some(place) => self.heard.remove(place).is_none(),
                None => true,
            });
            if monotonic_ns().saturating_sub(self.changed_ns) > OVERLAP_NS {
                self.heard.clear();
            }
        }
        lines
    }

    /// To be called about once a second: leaves alone whatever says too much of no upstream, by `foreign_words` of all, and hears again
    /// what no longer does.
    pub(super) fn weigh(&mut self, tracer: &mut Tracer, foreign_words: u64) {
        let elapsed = self.foreign_since.elapsed();
        if elapsed < LOOKING {
            return;
        }
        self.foreign_since = Instant::now();
        // Again, so that it is in every minute of evidence.
        self.emitted = Following::default();
        let most = f64::from(self.trace.word_rate) * elapsed.as_secs_f64();
        let is_too_much = |count: u64| count as f64 >= most;
        let new = foreign_words.saturating_sub(std::mem::replace(&mut self.foreign_words, foreign_words));
        let lines = self.logs.as_mut().map_or(0, Logs::take_lines);
        let too_dear = if is_too_much(new) {
            let mut by_binary = HashMap::<Binary, u64>::new();
            for (pid, count) in self.new_of_each(tracer) {
                // Whoever has ended says nothing more.
                if let Some(binary) = binary(pid) {
                    *by_binary.entry(binary).or_default() += count;
                }
            }
            by_binary.into_iter().filter(|(_, count)| is_too_much(*count)).collect()
        } else {
            Vec::new()
        };
        let is_flooded = is_too_much(lines);
        for (binary, count) in too_dear {
            // What it said before it was left alone counts here still.
            if self.alone.contains_key(&binary) {
                continue;
            }
            self.leave_alone(tracer, binary, (count as f64 / elapsed.as_secs_f64()) as u64);
        }
        let over: Vec<(Binary, Duration)> = self
            .alone
            .iter()
            .filter(|(_, (until, _))| Instant::now() >= *until)
            .map(|(binary, (_, span))| (*binary, *span))
            .collect();
        for (binary, span) in over {
            if is_flooded {
                self.alone.insert(binary, (Instant::now() + LEFT_ALONE, LEFT_ALONE));
            } else {
                self.hear_again(tracer, binary, span);
            }
        }
    }

    /// What each process has said of no upstream since this was asked last.
    fn new_of_each(&mut self, tracer: &Tracer) -> Vec<(u32, u64)> {
        let now: HashMap<u32, u64> = tracer.foreign_words().into_iter().collect();
        let before = std::mem::replace(&mut self.foreign, now);
        let new = self.foreign.iter().map(|(pid, count)| {
            // A process that was forgotten meanwhile is counted anew.
            (*pid, count.checked_sub(before.get(pid).copied().unwrap_or_default()).unwrap_or(*count))
        });
        new.collect()
    }

    fn leave_alone(&mut self, tracer: &mut Tracer, binary: Binary, rate: u64) {
        self.stepped_back += 1;
        self.changed_ns = monotonic_ns();
        self.heard.clear();
        // What is flooded again as soon as it is heard again was flooded all the time.
        let span = match self.heard_again.remove(&binary) {
            Some((since, span)) if since.elapsed() < LEFT_ALONE => (span * 2).min(LONGEST_ALONE),
            _ => LEFT_ALONE,
        };
        self.alone.insert(binary, (Instant::now() + span, span));
        // What is logged from here on is read; what is still heard is known from both, and left out once.
        let running = self.running();
        let logs = self.logs.get_or_insert_with(|| Logs::new(&self.error_logs));
        let its: Vec<u32> = running
            .into_iter()
            .filter(|pid| tracer.is_unheard(*pid) || self::binary(*pid) == Some(binary))
            .collect();
        logs.follow(&its);
        logs.look();
        self.is_followed = logs.has_any();
        if let Err(error) = tracer.listen(binary, false) {
            crate::notice!("nginx cannot be left alone: {error}");
        }
        if self.stepped_back == 1 {
            crate::notice!(
                "nginx logs {rate} lines a second that are about no upstream, which makes hearing it dear (--word-rate): for at least \
                 {} s at a time its error log is read instead, and verdicts of that time are inferred",
                LEFT_ALONE.as_secs()
            );
        }
    }

    fn hear_again(&mut self, tracer: &mut Tracer, binary: Binary, after: Duration) {
        self.alone.remove(&binary);
        self.heard_again.insert(binary, (Instant::now(), after));
        self.changed_ns = monotonic_ns();
        self.heard.clear();
        if let Err(error) = tracer.listen(binary, true) {
            crate::notice!("nginx is not heard again, and its error log is read on: {error}");
        }
        // Its log is read until the next look, a moment later: what was said before this is in it by then.
        self.next_look = Instant::now() + logs::PERIOD * 2;
    }
}
