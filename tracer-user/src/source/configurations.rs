//! The one reader of nginx's configuration while tracing goes on: a thread of its own, for a file of root's may lie where reading it takes
//! for ever. Whoever wants to know something asks it, and waits only so long.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::masters::{Masters, UnixUpstreams};
use crate::{args::Trace, model::budget, procfs::host::nginx::master_of, source::scope};

/// How long an answer is waited for: much longer than reading files takes.
const PATIENCE: Duration = Duration::from_secs(2);

/// The same once an answer was late.
const LESS_PATIENCE: Duration = Duration::from_millis(100);

/// After all processes were looked through, so many times as long passes before the next look.
const SHARE: u32 = 20;

type Question = Box<dyn FnOnce(&mut Reader) + Send>;

/// Asks the thread that reads configurations.
#[derive(Debug)]
pub(super) struct Configurations {
    questions: SyncSender<Question>,
    /// What is found of unix upstreams later than it was asked for.
    unix: mpsc::Receiver<UnixUpstreams>,
    asked: u64,
    answered: Arc<AtomicU64>,
    patience: Duration,
    /// The number of the question that was not answered in time.
    late: Option<u64>,
}

/// What runs in the thread.
pub(super) struct Reader {
    pub(super) masters: Masters,
    args: Trace,
    unix: mpsc::Sender<UnixUpstreams>,
    /// All that run are to be looked at, and from when on they may be.
    is_all_asked: bool,
    all_due: Instant,
}

impl Configurations {
    /// Starts the thread.
    ///
    /// # Errors
    /// If there can be none.
    pub(super) fn begin(args: &Trace) -> io::Result<Self> {
        let (questions, asked) = sync_channel::<Question>(budget::BEGUN);
        let (found, unix) = mpsc::channel(budget::BEGUN);
        let mut reader = Reader {
            masters: Masters::default(),
            args: args.clone(),
            unix: found,
            is_all_asked: false,
            all_due: Instant::now(),
        };
        let answered = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&answered);
        thread::Builder::new()
            .name("configurations".to_owned())
            .spawn(move || reader.answer(&asked, &counter))?;
        Ok(Self { questions, unix, asked: 0, answered, patience: PATIENCE, late: None })
    }

    /// The answer, unless it takes too long: then the question is answered for nobody. That is reported once.
    pub(super) fn ask<T: Send + 'static>(
        &mut self,
        question: impl FnOnce(&mut Masters) -> T + Send + 'static,
    ) -> Option<T> {
        if self.late.is_some_and(|number| self.answered.load(Ordering::Relaxed) < number) {
            return None;
        }
        self.late = None;
        let (reply, answer) = sync_channel(1);
        let is_asked = self.put(Box::new(move |reader| {
            // Nobody waits any more: it was reported that it is late.
            let _too_late = reply.send(question(&mut reader.masters));
        }));
        match answer.recv_timeout(if is_asked { self.patience } else { Duration::ZERO }) {
            Ok(answer) => Some(answer),
            Err(_) => {
                self.is_late();
                None
            }
        }
    }

    fn is_late(&mut self) {
        if self.patience == PATIENCE {
            crate::notice!(
                "nginx's configuration is not read within {} s (is it on a file system that hangs?): until it is, what depends on it is \
                 not known, and verdicts are inferred",
                PATIENCE.as_secs()
            );
        }
        self.patience = LESS_PATIENCE;
        self.late = Some(self.asked);
    }

    /// Returns whether there was room.
    fn put(&mut self, question: Question) -> bool {
        let is_put = !matches!(self.questions.try_send(question), Err(TrySendError::Full(_)));
        self.asked += u64::from(is_put);
        is_put
    }

    /// A process has begun, or is to read its configuration again: what that says of unix upstreams is given by [`Self::next_unix`].
    /// Returns whether it is looked at: not if too many do so at a time.
    pub(super) fn begins(&mut self, pid: u32) -> bool {
        self.put(Box::new(move |reader| reader.begins(pid)))
    }

    /// What these say of unix upstreams is given by [`Self::next_unix`]. Returns whether they are looked at.
    pub(super) fn look_later(&mut self, pids: Vec<u32>) -> bool {
        self.put(Box::new(move |reader| {
            let found = reader.masters.unix_upstreams(pids);
            reader.found(found);
        }))
    }

    /// What else is found of unix upstreams.
    pub(super) async fn next_unix(&mut self) -> Option<UnixUpstreams> {
        self.unix.recv().await
    }
}

impl Reader {
    fn answer(&mut self, questions: &Receiver<Question>, answered: &AtomicU64) {
        loop {
            if self.is_all_asked && self.all_due <= Instant::now() {
                self.look_at_all();
            }
            let question = match self.is_all_asked {
                true => questions.recv_timeout(self.all_due.saturating_duration_since(Instant::now())),
                false => questions.recv().map_err(RecvTimeoutError::from),
            };
            match question {
                Ok(question) => {
                    question(self);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// One that becomes a daemon has gone by now, and left a child behind: then all are looked at.
    fn begins(&mut self, pid: u32) {
        let found = self.masters.unix_upstreams([pid]);
        self.is_all_asked |= found == UnixUpstreams::None && master_of(pid).is_none();
        self.found(found);
    }

    fn look_at_all(&mut self) {
        self.is_all_asked = false;
        let began = Instant::now();
        let found = match scope::running(&self.args) {
            Ok(pids) => self.masters.unix_upstreams(pids),
            Err(error) => UnixUpstreams::Unknown(format!("/proc cannot be listed: {error}")),
        };
        self.all_due = Instant::now() + began.elapsed() * SHARE;
        self.found(found);
    }

    fn found(&mut self, found: UnixUpstreams) {
        if found != UnixUpstreams::None && self.unix.try_send(found).is_err() {
            // Too much of it was not taken yet, or it does not matter any more.
            self.is_all_asked = !self.unix.is_closed();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command};

    #[test]
    fn a_file_that_hangs_holds_up_nobody_for_long_and_what_comes_later_is_answered_again() {
        let Command::Live(live) = Args::parse_from(["why502", "live"]).command else { panic!() };
        let mut configurations = Configurations::begin(&live.trace).unwrap();
        assert_eq!(configurations.ask(|_| 1), Some(1));
        let (hangs, ends) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let (hung, ended) = (Arc::clone(&hangs), Arc::clone(&ends));
        assert_eq!(
            configurations.ask(move |_| {
                hung.wait();
                ended.wait();
                2
            }),
            None
        );
        hangs.wait();
        // Not even asked, as long as the thread hangs.
        assert_eq!(configurations.ask(|_| 3), None);
        assert_eq!(configurations.asked, 2);
        ends.wait();
        while configurations.answered.load(Ordering::Relaxed) < 2 {
            thread::yield_now();
        }
        assert_eq!(configurations.ask(|_| 4), Some(4));
    }
}
