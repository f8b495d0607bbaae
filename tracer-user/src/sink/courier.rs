//! What hands records on in a thread of its own, so that the event loop never waits for a receiver: a queue with a bound, further tries
//! with growing pauses, and the count of what was not taken.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::time::ClockId;

use super::{
    Sink,
    drops::{Drops, Reason},
    record::Record,
};
use crate::model::{
    clock,
    failure::Failure,
    verdict::{Summary, Verdict},
    words::count,
};

/// The first pause after a failed try, and the longest; in between each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The longest that a receiver may ask to be left alone for.
const LONGEST_ASKED: Duration = Duration::from_secs(600);

/// What waits when the run is over has so long to be taken.
const END: Duration = Duration::from_secs(4);

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was taken, but for so many that the receiver refused.
    Taken { but: usize },
    /// The receiver refuses all of it, for this reason, and would do so again.
    Refused(String),
    /// It was not taken, for this reason, and is to be tried again: after this time, if the receiver says one.
    Later { why: String, after: Option<Duration> },
}

/// What knows how a receiver is spoken to. It runs in the courier's thread and may wait for a few seconds.
pub(super) trait Carrier: Send + 'static {
    /// The most records that it takes at a time.
    const BATCH: usize;
    /// How long a record may wait for others to go with it.
    const LINGER: Duration;

    /// Tries to hand records over: at least one, at most [`Carrier::BATCH`].
    fn carry(&mut self, records: &[Record]) -> Fate;

    /// When it is to be called without any; never, if none.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// It is due, or the run is over and all records have been taken.
    fn turn(&mut self) {}
}

/// A sink whose records are handed on by a thread of its own.
#[derive(Debug)]
pub(super) struct Courier {
    mail: Arc<Mail>,
    /// Says that the thread has ended.
    ended: Receiver<()>,
}

/// What the event loop and the thread share.
#[derive(Debug)]
struct Mail {
    /// Whom it is for, as a sentence calls it.
    to: String,
    drops: Arc<Drops>,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Debug)]
struct State {
    queue: VecDeque<Record>,
    /// As many may wait.
    most: usize,
    /// When the oldest of them came.
    since: Instant,
    /// Those that the thread has taken out, and that the receiver has not.
    carried: usize,
    taken: u64,
    /// The run is over; by then all is to be done.
    ends: Option<Instant>,
}

enum Next {
    Batch(Vec<Record>),
    Turn,
    Over,
}

impl Courier {
    /// Starts a thread of this name, for a receiver that is called so; `most` records may wait for it.
    ///
    /// # Errors
    /// If there can be no thread.
    pub(super) fn start<C: Carrier>(
        name: &str,
        to: String,
        most: usize,
        drops: &Arc<Drops>,
        mut carrier: C,
    ) -> anyhow::Result<Self> {
        let state =
            State { queue: VecDeque::new(), most, since: Instant::now(), carried: 0, taken: 0, ends: None };
        let mail =
            Arc::new(Mail { to, drops: Arc::clone(drops), state: Mutex::new(state), news: Condvar::new() });
        let (ending, ended) = channel();
        let shared = Arc::clone(&mail);
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // Dropped at the end, also by a panic.
                let _ending = ending;
                shared.work(&mut carrier);
            })
            .with_context(|| format!("verdicts cannot be sent to {}", mail.to))?;
        Ok(Self { mail, ended })
    }
}

impl Sink for Courier {
    fn verdict(&mut self, verdict: &Verdict) -> io::Result<()> {
        self.mail.put(Record::of(verdict, clock::now(ClockId::CLOCK_REALTIME)));
        Ok(())
    }

    fn end(self: Box<Self>, _: &Summary) -> Result<(), Failure> {
        let ends = Instant::now() + END;
        self.mail.lock().ends = Some(ends);
        self.mail.news.notify_one();
        // One that hangs is left behind: the process ends.
        if self.ended.recv_timeout(END) == Err(RecvTimeoutError::Timeout) {
            crate::notice!("{} did not answer before the end", self.mail.to);
        }
        let mut state = self.mail.lock();
        let left = state.carried + std::mem::take(&mut state.queue).len();
        self.mail.drops.add(Reason::Unsent, left);
        let missing = self.mail.drops.sum();
        crate::notice!("{} went to {}, {missing} did not", count(state.taken, "verdict"), self.mail.to);
        Ok(())
    }
}

impl Mail {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, record: Record) {
        let mut state = self.lock();
        if state.queue.len() >= state.most {
            drop(state);
            return self.drops.add(Reason::QueueFull, 1);
        }
        if state.queue.is_empty() {
            state.since = Instant::now();
        }
        state.queue.push_back(record);
        drop(state);
        self.news.notify_one();
    }

    fn work<C: Carrier>(&self, carrier: &mut C) {
        let mut is_failing = false;
        loop {
            match self.next::<C>(carrier.due()) {
                Next::Turn => carrier.turn(),
                Next::Batch(batch) => {
                    if !self.hand_over(carrier, &batch, &mut is_failing) {
                        return;
                    }
                }
                Next::Over => return carrier.turn(),
            }
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, until: Option<Instant>) -> MutexGuard<'a, State> {
        match until {
            None => self.news.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now());
                self.news.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// Waits for what is to be done next.
    fn next<C: Carrier>(&self, due: Option<Instant>) -> Next {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            let goes = (!state.queue.is_empty()).then(|| state.since + C::LINGER);
            let is_full = state.queue.len() >= C::BATCH.min(state.most);
            if goes.is_some_and(|goes| goes <= now || is_full || state.ends.is_some()) {
                let length = state.queue.len().min(C::BATCH);
                let batch: Vec<_> = state.queue.drain(..length).collect();
                state.carried = length;
                return Next::Batch(batch);
            }
            if state.ends.is_some() {
                return Next::Over;
            }
            if due.is_some_and(|due| due <= now) {
                return Next::Turn;
            }
            state = self.wait(state, [goes, due].into_iter().flatten().min());
        }
    }

    /// Tries until the batch was taken or refused; returns whether that came before the end.
    fn hand_over<C: Carrier>(&self, carrier: &mut C, batch: &[Record], is_failing: &mut bool) -> bool {
        let (mut pause, mut was_last) = (FIRST_PAUSE, false);
        loop {
            let refused = match carrier.carry(batch) {
                Fate::Taken { but } => but.min(batch.len()),
                Fate::Refused(why) => {
                    if !std::mem::replace(is_failing, true) {
                        crate::notice!(
                            "{} refuses verdicts: {why}. They are counted, and not sent again",
                            self.to
                        );
                    }
                    self.settle(0, batch.len());
                    return true;
                }
                Fate::Later { why, after } => {
                    if !std::mem::replace(is_failing, true) {
                        let most = self.lock().most;
                        crate::notice!(
                            "{} takes no verdicts: {why}. {} wait for it at most; those beyond are counted, and lost to it",
                            self.to,
                            most
                        );
                    }
                    let asked = after.map(|after| after.min(LONGEST_ASKED));
                    // Spread, so that hosts that lost their collector together do not come back together.
                    let own = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
                    if !self.pause(asked.unwrap_or(own), asked.is_some(), &mut was_last, carrier) {
                        return false;
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            self.settle(batch.len() - refused, refused);
            if std::mem::take(is_failing) {
                crate::notice!("{} takes verdicts again; {} are missing there", self.to, self.drops.sum());
            }
            return true;
        }
    }

    fn settle(&self, taken: usize, refused: usize) {
        let mut state = self.lock();
        state.carried = 0;
        state.taken += taken as u64;
        self.drops.add(Reason::Refused, refused);
    }

    /// Waits for a time before the next try; returns whether there is to be one. When the run ends there is one more, at once, unless the
    /// receiver asked for a time that ends before.
    fn pause<C: Carrier>(
        &self,
        time: Duration,
        is_asked: bool,
        was_last: &mut bool,
        carrier: &mut C,
    ) -> bool {
        let until = Instant::now() + time;
        let mut state = self.lock();
        loop {
            if state.ends.is_some_and(|ends| !is_asked || until >= ends) {
                return !std::mem::replace(was_last, true);
            }
            let now = Instant::now();
            if now >= until {
                return true;
            }
            if carrier.due().is_some_and(|due| due <= now) {
                drop(state);
                carrier.turn();
                state = self.lock();
                continue;
            }
            state = self.wait(state, Some(carrier.due().map_or(until, |due| due.min(until))));
        }
    }
}

#[cfg(test)]
mod tests;
