//! The command that is run when evidence was written: its words are the configuration's, and no shell sees them.

use std::{
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// How many may wait for their turn.
const WAITING: usize = 8;

/// How long one may run.
const LIMIT: Duration = Duration::from_secs(60);

/// How often to look whether it has ended.
const PAUSE: Duration = Duration::from_millis(100);

/// Runs commands one after the other, in a thread of its own: the event loop waits for none.
#[derive(Debug)]
pub(super) struct Hook(SyncSender<(Vec<String>, PathBuf)>);

impl Hook {
    /// Begins to wait for files.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) fn start() -> anyhow::Result<Self> {
        let (send, receive) = sync_channel(WAITING);
        let started = thread::Builder::new().name("hook".to_owned()).spawn(move || run_all(&receive));
        started.context("the hook cannot be run")?;
        Ok(Self(send))
    }

    /// Runs a command with a file's name as its last word, once those before it have ended.
    pub(super) fn run(&self, words: &[String], file: &Path) {
        if words.is_empty() {
            return;
        }
        match self.0.try_send((words.to_vec(), file.to_owned())) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                crate::notice!("the hook is not run for {}: {WAITING} wait for it already", file.display());
            }
            Err(TrySendError::Disconnected(_)) => {
                crate::notice!("the hook is not run for {}: its thread has ended", file.display());
            }
        }
    }
}

fn run_all(files: &Receiver<(Vec<String>, PathBuf)>) {
    for (words, file) in files {
        match run(&words, &file, LIMIT) {
            Ok(Some(status)) if status.success() => {}
            Ok(Some(status)) => crate::notice!("the hook ended with {status} for {}", file.display()),
            Ok(None) => {
                crate::notice!(
                    "the hook was ended for {}: it took longer than {} s",
                    file.display(),
                    LIMIT.as_secs()
                );
            }
            Err(error) => crate::notice!("the hook cannot be run for {}: {error}", file.display()),
        }
    }
}

/// Runs one to its end, which comes within `limit`; how it ended, or nothing if it had to be ended.
fn run(words: &[String], file: &Path, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let [program, arguments @ ..] = words else { return Err(io::Error::other("it has no words")) };
    let mut child = Command::new(program)
        .args(arguments)
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // Only this process speaks for the service.
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .process_group(0)
        .spawn()?;
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begun.elapsed() >= limit {
            return end(&mut child).map(|()| None);
        }
        thread::sleep(PAUSE);
    }
}

/// Ends a command and what it has started.
fn end(child: &mut Child) -> io::Result<()> {
    killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL)?;
    child.wait().map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_files_name_is_one_word_whatever_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let (file, copy) = (folder.path().join("a $(touch b); 'c"), folder.path().join("copy"));
        fs::write(&file, "evidence").unwrap();
        let to = format!("--target-directory={}", folder.path().join("to").display());
        fs::create_dir(folder.path().join("to")).unwrap();
        let status = run(&words(&["/bin/cp", &to]), &file, LIMIT).unwrap().unwrap();
        assert!(status.success() && !copy.exists());
        assert_eq!(fs::read(folder.path().join("to").join(file.file_name().unwrap())).unwrap(), b"evidence");
        assert!(run(&words(&["/no/such/program"]), &file, LIMIT).is_err());
    }

    #[test]
    fn one_that_does_not_end_is_ended_with_all_that_it_started() {
        let words = words(&["/bin/sh", "-c", "sleep 1000 & wait"]);
        assert!(run(&words, Path::new("x"), Duration::from_millis(50)).unwrap().is_none());
    }
}
