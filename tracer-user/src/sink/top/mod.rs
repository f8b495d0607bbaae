//! The incident on one screen. The sink only counts, and keeps the newest of each kind ([`state`]); a thread of its own reads keys and
//! draws, ten times a second at most, so that a slow terminal keeps nobody waiting.

mod accepting;
mod choice;
mod copy;
mod keys;
mod picture;
mod rate;
mod screen;
mod state;
mod view;

use std::{
    fs,
    io::{self, Stdout},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossterm::event::{self, Event, KeyEventKind};
use ratatui::{Terminal, backend::CrosstermBackend};

use self::{
    choice::{Choice, View},
    keys::Act,
};
use super::{
    Sink,
    evidence::{Window, Written},
};
use crate::{
    model::{
        clock::{ClockOffset, monotonic_ns, nanoseconds},
        failure::Failure,
        stream::Entry,
        verdict::{Delayed, Note, Summary, Verdict, WorkerOutlived},
        words::{count, span},
    },
    sample::crews,
    terminal::{self, Diversion},
};

pub use accepting::Attach;
pub use picture::pictures;
pub use screen::is_there;
pub use state::{Master, State};

/// The time between two frames, unless a key is pressed.
const FRAME: Duration = Duration::from_millis(100);

/// The time between two looks at the figures of the whole run, and at workers.
const PERIOD: Duration = Duration::from_secs(1);

/// How long the screen's thread may take to end: a terminal that has stopped taking anything may hold it up for ever.
const PATIENCE: Duration = Duration::from_secs(1);

/// How it begins.
pub struct Beginning {
    /// The clocks' offset.
    pub clock_offset: ClockOffset,
    /// The hook that hears nginx; none where none does.
    pub hears_by: Option<String>,
    /// The masters of nginx and of php-fpm.
    pub masters: Vec<Master>,
    /// Whether it is this host, as it is now.
    pub is_live: bool,
    /// How many failures are kept.
    pub keep: usize,
}

impl Beginning {
    /// What the screen shows then.
    pub fn state(self) -> State {
        let Self { clock_offset, hears_by, masters, is_live, keep } = self;
        let mut state = State::new(keep, clock_offset, is_live);
        (state.hears_by, state.masters) = (hears_by, masters);
        state
    }
}

/// The screen.
pub struct Top {
    shared: Arc<Shared>,
    /// The evidence of the last minutes; none where a file is looked at, which has it.
    window: Option<Window>,
    thread: Option<JoinHandle<io::Result<()>>>,
    flushed_ns: u64,
    summed_ns: u64,
    notices: Option<Diversion>,
}

/// What both threads know.
struct Shared {
    state: Mutex<State>,
    /// The user wants to leave, or the run is over.
    is_over: AtomicBool,
    /// The user wants the evidence to be written.
    is_to_save: AtomicBool,
    /// What has become of that.
    answer: Mutex<Option<String>>,
    /// Workers, or nginx's processes, are on the screen.
    shows_processes: AtomicBool,
    /// Accept queues are on the screen.
    shows_queues: AtomicBool,
    is_faulty: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self) -> MutexGuard<'_, Option<String>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Top {
    /// Takes the terminal, which must be one, and draws on it from now on. What is said on standard error is shown there, and said again
    /// once the terminal is given back. On this host `live` has the evidence of the last minutes, and the hooks for accept queues. `is_faulty`
    /// lets the key ! be a fault, for the tests.
    ///
    /// # Errors
    /// If the terminal does not let itself be taken.
    pub fn start(state: State, live: Option<(Window, Attach)>, is_faulty: bool) -> io::Result<Self> {
        let (window, attach) = live.unzip();
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            is_over: AtomicBool::new(false),
            is_to_save: AtomicBool::new(false),
            answer: Mutex::new(None),
            shows_processes: AtomicBool::new(false),
            shows_queues: AtomicBool::new(false),
            is_faulty,
        });
        let theirs = Arc::clone(&shared);
        let notices = terminal::divert(move |lines| theirs.state().notice(lines));
        let terminal = screen::take()?;
        let theirs = Arc::clone(&shared);
        let has_evidence = window.is_some();
        let thread = thread::Builder::new().name("screen".to_owned()).spawn(move || {
            let drawn = draw(&theirs, terminal, has_evidence);
            theirs.is_over.store(true, Ordering::SeqCst);
            drawn
        })?;
        if let Some(attach) = attach {
            let theirs = Arc::clone(&shared);
            thread::Builder::new().name("processes".to_owned()).spawn(move || look_at_processes(&theirs))?;
            let theirs = Arc::clone(&shared);
            let queues = thread::Builder::new().name("queues".to_owned());
            queues.spawn(move || accepting::watch(&theirs, &attach))?;
        }
        let now = monotonic_ns();
        Ok(Self {
            shared,
            window,
            thread: Some(thread),
            flushed_ns: now,
            summed_ns: now,
            notices: Some(notices),
        })
    }

    /// Writes the evidence of the last minutes, and says what became of it.
    fn save(&mut self) {
        let said = match self.window.as_mut().map(|window| window.write(false)) {
            Some(Ok(Written::File(path))) => {
                format!("wrote {}: `why502 report {}` reads it", path.display(), path.display())
            }
            Some(Ok(Written::Nothing)) => "there is nothing to be written yet".to_owned(),
            Some(Ok(Written::Declined)) => {
                "nothing was written: there are as many files as one run writes".to_owned()
            }
            Some(Err(error)) => format!("{error:#}; it is kept in memory"),
            None => "what you see is in a file already".to_owned(),
        };
        *self.shared.answer() = Some(said);
    }

    /// Gives the terminal back, and says what there was to be said. Does so once.
    fn leave(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.shared.is_over.store(true, Ordering::SeqCst);
        let end = Instant::now() + PATIENCE;
        while !thread.is_finished() && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        let drawn = match thread.is_finished() {
            true => thread.join().unwrap_or_else(|_| Err(io::Error::other("the screen's thread has failed"))),
            // It holds the terminal, which takes nothing any more.
            false => Ok(()),
        };
        screen::give_back();
        self.notices = None;
        let state = self.shared.state();
        for line in &state.notices {
            terminal::complain(&format!("{line}\n"));
        }
        if state.is_live {
            let Summary { exchanges, failures, elapsed_ns, lost, .. } = &state.sums;
            let failures = count(failures.iter().map(|(_, count)| count).sum(), "failure");
            let lost = if *lost > 0 { format!("; {} lost", count(*lost, "record")) } else { String::new() };
            crate::notice!(
                "watched {failures}, {} in {}{lost}",
                count(*exchanges, "exchange"),
                span(*elapsed_ns)
            );
        }
        drawn
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        // What could be said of an error was said, or somebody panics.
        let _ = self.leave();
    }
}

impl Sink for Top {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.shared.state().entry(entry);
        if let Some(window) = &mut self.window {
            window.add(entry);
        }
        Ok(())
    }

    fn verdict(&mut self, verdict: &Verdict) -> io::Result<()> {
        self.shared.state().verdict(verdict);
        Ok(())
    }

    fn delayed(&mut self, delayed: &Delayed) -> io::Result<()> {
        self.shared.state().delayed(delayed);
        Ok(())
    }

    fn worker_outlived(&mut self, outlived: &WorkerOutlived) -> io::Result<()> {
        self.shared.state().worker_outlived(outlived);
        Ok(())
    }

    fn note(&mut self, note: &Note) -> io::Result<()> {
        self.shared.state().note(note);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let now = monotonic_ns();
        self.flushed_ns = now;
        if let Some(window) = &mut self.window {
            window.pause(now);
        }
        if self.shared.is_to_save.swap(false, Ordering::SeqCst) {
            self.save();
        }
        // It is finished without having said so if it has failed.
        let is_finished = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        if is_finished || self.shared.is_over.load(Ordering::SeqCst) {
            self.leave()?;
            // As if the reader of a pipe had gone: he has what he wanted.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut state = self.shared.state();
        if state.is_live {
            state.advance(now);
        }
        Ok(())
    }

    fn wake_ns(&self) -> Option<u64> {
        // So soon a key has its effect.
        Some(self.flushed_ns.saturating_add(nanoseconds(FRAME)))
    }

    fn sums_ns(&self) -> Option<u64> {
        Some(self.summed_ns.saturating_add(nanoseconds(PERIOD)))
    }

    fn so_far(&mut self, sums: &Summary) -> io::Result<()> {
        self.summed_ns = monotonic_ns();
        self.shared.state().sums = sums.clone();
        Ok(())
    }

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        self.so_far(summary)
    }

    fn end(mut self: Box<Self>, _: &Summary) -> Result<(), Failure> {
        terminal::written(self.leave())
    }
}

/// Reads keys and draws, until it is over.
fn draw(
    shared: &Shared,
    mut terminal: Terminal<CrosstermBackend<Stdout>>,
    has_evidence: bool,
) -> io::Result<()> {
    let mut choice = Choice::default();
    let mut drawn_at = None::<Instant>;
    while !shared.is_over.load(Ordering::SeqCst) {
        let rest = drawn_at.map_or(Duration::ZERO, |at| FRAME.saturating_sub(at.elapsed()));
        if event::poll(rest)? {
            // All that were pressed, and one frame for them.
            while event::poll(Duration::ZERO)? {
                if let Event::Key(key) = event::read()?
                    && key.kind != KeyEventKind::Release
                {
                    let act = keys::press(&mut choice, &shared.state(), key);
                    if !does(act, &mut choice, shared, has_evidence) {
                        return Ok(());
                    }
                }
            }
        }
        if let Some(answer) = shared.answer().take() {
            choice.message = Some(answer);
        }
        let shows_processes = matches!(choice.view, View::Workers | View::Nginx) && choice.help.is_none();
        shared.shows_processes.store(shows_processes, Ordering::SeqCst);
        let shows_queues = choice.view == View::Queues && choice.help.is_none();
        shared.shows_queues.store(shows_queues, Ordering::SeqCst);
        drawn_at = Some(Instant::now());
        terminal.draw(|frame| {
            let paused = choice.paused.take();
            match &paused {
                Some(state) => view::draw(frame, state, &mut choice, true),
                None => view::draw(frame, &shared.state(), &mut choice, false),
            }
            choice.paused = paused;
        })?;
    }
    Ok(())
}

/// Does what a key asks for; `false` for leaving.
fn does(act: Act, choice: &mut Choice, shared: &Shared, has_evidence: bool) -> bool {
    match act {
        Act::Nothing => {}
        Act::Quit => return false,
        Act::Save if has_evidence => {
            choice.message = Some("writing the evidence...".to_owned());
            shared.is_to_save.store(true, Ordering::SeqCst);
        }
        Act::Save => choice.message = Some("what you see is in a file already".to_owned()),
        Act::Copy(verdict, form) => {
            let text = copy::written(&verdict, form, 110);
            let filed = copy::to_file(&text, form);
            let copied = screen::to_clipboard(&text);
            choice.message = Some(match (filed, copied) {
                (Ok(path), Ok(())) => {
                    format!("copied to {}, and to the clipboard if this terminal takes it", path.display())
                }
                (Err(error), _) | (_, Err(error)) => format!("it could not be copied: {error}"),
            });
        }
        #[expect(clippy::panic, reason = "this is how a fault is tried out")]
        Act::Fault if shared.is_faulty => panic!("the key ! was pressed"),
        Act::Fault => {}
    }
    true
}

/// Looks once a second at what workers do and what nginx runs, while that is on the screen.
fn look_at_processes(shared: &Shared) {
    while !shared.is_over.load(Ordering::SeqCst) {
        if !shared.shows_processes.load(Ordering::SeqCst) {
            thread::sleep(FRAME);
            continue;
        }
        let found = crews();
        let mut state = shared.state();
        state.crews = found;
        let masters = state.masters.iter().filter(|master| master.comm == "nginx");
        let pids: Vec<_> =
            masters.map(|master| master.pid.cast_unsigned()).chain(state.nginx.keys().copied()).collect();
        for pid in pids {
            if !state.binaries.contains_key(&pid)
                && let Ok(binary) = fs::read_link(format!("/proc/{pid}/exe"))
            {
                state.binaries.insert(pid, binary.display().to_string());
            }
        }
        drop(state);
        thread::sleep(PERIOD);
    }
}

#[cfg(test)]
mod tests;
