//! The lines that a process prints, collected as they come.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::wait;

/// How often to look up from waiting for a line, to see whether waiting is still worth while.
const LOOK_UP: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
struct Collected {
    lines: Vec<String>,
    ended: bool,
}

/// Collects lines in a thread of its own, until the stream ends.
#[derive(Debug)]
pub struct Lines {
    shared: Arc<(Mutex<Collected>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    /// Begins to collect; each line is also handed to `on_line`.
    pub fn collect(
        stream: impl Read + Send + 'static,
        mut on_line: impl FnMut(&str) + Send + 'static,
    ) -> Lines {
        let shared = Arc::new((Mutex::new(Collected::default()), Condvar::new()));
        let theirs = Arc::clone(&shared);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                // A terminal ends with an error.
                let Ok(line) = line else { break };
                on_line(&line);
                lock(&theirs.0).lines.push(line);
                theirs.1.notify_all();
            }
            lock(&theirs.0).ended = true;
            theirs.1.notify_all();
        });
        Lines { shared, reader: Some(reader) }
    }

    /// What has come so far.
    pub fn so_far(&self) -> Vec<String> {
        lock(&self.shared.0).lines.clone()
    }

    /// Waits until `enough` holds for the lines so far; an error if the stream ends first.
    pub fn wait(&self, what: &str, mut enough: impl FnMut(&[String]) -> bool) -> Result<()> {
        self.until(what, |collected| {
            if enough(&collected.lines) {
                return Ok(Some(()));
            }
            if collected.ended {
                bail!("no more output, and still no {what}");
            }
            Ok(None)
        })
    }

    /// All lines, once the stream has ended: what a process wrote comes after the news that it ended.
    pub fn whole(&self) -> Result<Vec<String>> {
        self.until("the end of a process's output", |collected| {
            Ok(collected.ended.then(|| collected.lines.clone()))
        })
    }

    fn until<T>(&self, what: &str, mut found: impl FnMut(&Collected) -> Result<Option<T>>) -> Result<T> {
        let start = Instant::now();
        let mut collected = lock(&self.shared.0);
        loop {
            if let Some(found) = found(&collected)? {
                return Ok(found);
            }
            wait::check(start, what)?;
            collected =
                self.shared.1.wait_timeout(collected, LOOK_UP).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the end of the stream and returns all lines.
    pub fn finish(mut self) -> Result<Vec<String>> {
        if let Some(reader) = self.reader.take() {
            reader.join().map_err(|_| anyhow::anyhow!("the reader of a process's output panicked"))?;
        }
        Ok(self.so_far())
    }
}

fn lock(collected: &Mutex<Collected>) -> MutexGuard<'_, Collected> {
    collected.lock().unwrap_or_else(PoisonError::into_inner)
}
