//! Ctrl-C and its like: noted here, acted upon between two polls of a child, so that what must be undone is.

use std::{
    process::{Child, Command, ExitStatus},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use signal_hook::flag;

/// How long a child may take to end once it was told to, where more would be too much.
const GRACE: Duration = Duration::from_secs(5);

static SIGNAL: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// From now on a signal that asks to end is noted instead of ending this process at once.
pub(crate) fn watch() -> Result<()> {
    let noted = SIGNAL.get_or_init(Arc::default);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        flag::register_usize(signal as i32, Arc::clone(noted), signal as usize)
            .with_context(|| format!("{signal} cannot be watched for"))?;
    }
    Ok(())
}

/// The signal that asked this process to end, if one came.
pub(crate) fn noted() -> Option<Signal> {
    let number = SIGNAL.get()?.load(Ordering::SeqCst);
    Signal::try_from(i32::try_from(number).ok()?).ok()
}

/// What to do with a child when this process is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnSignal {
    /// Pass it on.
    Pass,
    /// Let the child finish first: dpkg, say, would leave packages half installed.
    Finish,
}

/// How a child ended.
pub(crate) enum End {
    /// By itself.
    Exited(ExitStatus),
    /// It was stopped because it took too long.
    TimedOut,
    /// It ended, but meanwhile this process was asked to end.
    Interrupted(Signal),
}

/// A child in a process group of its own. Terminals signal only the group in front, which is ours: we pass it on, to all of the child's
/// group, whether the signal came from a terminal or from `kill`.
pub(crate) struct Group(Child);

impl Group {
    /// Starts the command.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let child = command.process_group(0).spawn();
        Ok(Self(child.with_context(|| format!("{} cannot be started", command.get_program().display()))?))
    }

    /// The child's standard output, if it is piped and was not yet taken.
    pub(crate) fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.0.stdout.take()
    }

    /// Waits for the child's end, at most for `limit`, and calls `tick` several times a second meanwhile.
    pub(crate) fn wait(
        mut self,
        on_signal: OnSignal,
        limit: Option<Duration>,
        mut tick: impl FnMut(Duration),
    ) -> Result<End> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(noted().map_or(End::Exited(status), End::Interrupted));
            }
            if let (Some(signal), OnSignal::Pass) = (noted(), on_signal) {
                self.stop(signal, false)?;
                return Ok(End::Interrupted(signal));
            }
            if limit.is_some_and(|limit| started.elapsed() > limit) {
                self.stop(Signal::SIGTERM, true)?;
                return Ok(End::TimedOut);
            }
            tick(started.elapsed());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks the whole group to end, or insists on it, and waits until it has.
    fn stop(&mut self, signal: Signal, insist: bool) -> Result<()> {
        let group = Pid::from_raw(i32::try_from(self.0.id())?);
        // The group may have ended by itself just now.
        let _ = killpg(group, signal);
        let asked = Instant::now();
        while self.0.try_wait()?.is_none() {
            if insist && asked.elapsed() > GRACE {
                let _ = killpg(group, Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_takes_too_long_is_stopped_with_its_children() -> Result<()> {
        let started = Instant::now();
        // The shell waits for a child of its own, which only a signal to the group reaches.
        let group = Group::spawn(Command::new("sh").args(["-c", "sleep 60; exit 0"]))?;
        let end = group.wait(OnSignal::Pass, Some(Duration::from_millis(200)), |_| ())?;
        assert!(matches!(end, End::TimedOut));
        assert!(started.elapsed() < GRACE);
        Ok(())
    }

    #[test]
    fn a_child_that_ends_shows_its_status() -> Result<()> {
        let end =
            Group::spawn(Command::new("sh").args(["-c", "exit 3"]))?.wait(OnSignal::Pass, None, |_| ())?;
        assert!(matches!(end, End::Exited(status) if status.code() == Some(3)));
        Ok(())
    }
}
