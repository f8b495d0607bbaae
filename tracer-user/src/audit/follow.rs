//! Follows a log that grows, is renamed away, or is truncated.
//!
//! By looking a few times a second: a rotated file must be read on until nginx has let go of it, which no notification
//! shows, and what a look costs is one call for each file.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::procfs::host::open_given;

/// nginx goes on writing to a file that was renamed until it is told to open its logs again. One that has not grown for this
/// long is let go.
const RETIREMENT: Duration = Duration::from_secs(600);

/// Renamed files that are kept in sight at a time.
const MAX_RETIRED: usize = 16;

/// More than any line of nginx's (2 KiB).
const LONGEST_LINE: usize = 64 * 1024;

/// What is read at one look at most, so that a flood of debug lines does not keep the verdicts waiting.
const MOST_AT_ONCE: u64 = 32 * 1024 * 1024;

/// How much of what was read last is remembered, to recognise a truncated file that has grown again.
const MARK: usize = 128;

/// A log, whatever file is behind its path at the time.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    current: Option<Reading>,
    retired: Vec<Reading>,
    /// The path without its links, by which the current file was found.
    way: Option<PathBuf>,
    /// That path if it is another one since [`Follower::take_turn`] was asked.
    turn: Option<PathBuf>,
}

/// One file, read up to a position.
#[derive(Debug)]
pub struct Reading {
    file: File,
    identity: (u64, u64),
    position: u64,
    /// The last bytes before the position.
    mark: Vec<u8>,
    /// The beginning of a line whose end has not been written yet.
    partial: Vec<u8>,
    /// Beginnings that were too long to be kept.
    dropped: u64,
    grown: Instant,
}

impl Follower {
    /// Begins at the end of the file, or waits for the file if there is none yet.
    ///
    /// # Errors
    /// If there is something that cannot be read, or that is no regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut follower =
            Self { path: path.to_owned(), current: None, retired: Vec::new(), way: None, turn: None };
        if let Some(mut reading) = follower.open_current()? {
            reading.skip()?;
            follower.current = Some(reading);
        }
        Ok(follower)
    }

    /// How many pieces of lines were passed over since this was asked last, for they were longer than any line.
    pub fn take_dropped(&mut self) -> u64 {
        self.retired.iter_mut().chain(&mut self.current).map(Reading::take_dropped).sum()
    }

    /// The path that is followed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path has led to a file so far.
    pub fn is_open(&self) -> bool {
        self.current.is_some()
    }

    /// Where a link leads to by now that has led elsewhere before. What is there is followed, since that is what was asked for.
    pub fn take_turn(&mut self) -> Option<PathBuf> {
        self.turn.take()
    }

    /// Hands out every whole line that was added since.
    ///
    /// # Errors
    /// If a file cannot be read; the next call tries again.
    pub fn read(&mut self, on_line: &mut impl FnMut(&str)) -> io::Result<()> {
        for reading in &mut self.retired {
            reading.read(on_line)?;
        }
        self.retired.retain(|reading| reading.grown.elapsed() < RETIREMENT);
        if let Some(current) = &mut self.current {
            current.read(on_line)?;
        }
        if self.has_moved()? {
            if let Some(mut old) = self.current.take() {
                old.grown = Instant::now();
                self.retired.push(old);
            }
            let surplus = self.retired.len().saturating_sub(MAX_RETIRED);
            self.retired.drain(..surplus);
            self.current = self.open_current()?;
            if let Some(current) = &mut self.current {
                current.read(on_line)?;
            }
        }
        Ok(())
    }

    /// Whether the path leads to another file by now. While it leads nowhere, the old one is all there is.
    fn has_moved(&self) -> io::Result<bool> {
        let there = there(fs::metadata(&self.path))?;
        let current = self.current.as_ref().map(|reading| reading.identity);
        Ok(there.is_some_and(|there| current != Some(identity(&there))))
    }

    fn open_current(&mut self) -> io::Result<Option<Reading>> {
        let Some(file) = there(open_given(&self.path))? else { return Ok(None) };
        if let Some(way) = there(fs::canonicalize(&self.path))? {
            let before = self.way.replace(way.clone());
            self.turn = before.is_some_and(|before| before != way).then_some(way).or(self.turn.take());
        }
        Ok(Some(Reading::of(file)?))
    }
}

impl Reading {
    /// Begins at the beginning of a file.
    ///
    /// # Errors
    /// If the file cannot be asked what it is.
    pub fn of(file: File) -> io::Result<Self> {
        let identity = identity(&file.metadata()?);
        Ok(Self {
            file,
            identity,
            position: 0,
            mark: Vec::new(),
            partial: Vec::new(),
            dropped: 0,
            grown: Instant::now(),
        })
    }

    /// Goes on at the end of the file: what was written so far is not handed out.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn skip(&mut self) -> io::Result<()> {
        self.position = self.file.metadata()?.len();
        self.partial.clear();
        self.mark_position()
    }

    /// How many bytes were added since, as far as they are still there.
    ///
    /// # Errors
    /// If the file cannot be asked.
    pub fn behind(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len().saturating_sub(self.position))
    }

    /// How many pieces of lines were passed over since this was asked last, for they were longer than any line.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// When it has last grown.
    pub fn grown(&self) -> Instant {
        self.grown
    }

    /// Hands out every whole line that was added since.
    ///
    /// # Errors
    /// If the file cannot be read; the next call tries again.
    pub fn read(&mut self, on_line: &mut impl FnMut(&str)) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        if length == self.position {
            return Ok(());
        }
        if self.was_truncated(length)? {
            (self.position, self.partial) = (0, Vec::new());
        }
        let most = self.position + MOST_AT_ONCE;
        let mut buffer = vec![0; 64 * 1024];
        while self.position < most {
            let read = match self.file.read_at(&mut buffer, self.position) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.position += read as u64;
            self.take(&buffer[..read], on_line);
        }
        self.grown = Instant::now();
        self.mark_position()
    }

    fn take(&mut self, bytes: &[u8], on_line: &mut impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) if self.partial.is_empty() => on_line(&String::from_utf8_lossy(end)),
                Some(end) => {
                    self.partial.extend_from_slice(end);
                    on_line(&String::from_utf8_lossy(&self.partial));
                    self.partial.clear();
                }
                None => self.partial.extend_from_slice(piece),
            }
        }
        if self.partial.len() > LONGEST_LINE {
            self.partial.clear();
            self.dropped += 1;
        }
    }

    /// Whether the file was truncated since: it is shorter, or what stood before the position no longer does.
    fn was_truncated(&self, length: u64) -> io::Result<bool> {
        Ok(length < self.position || self.before_position()? != self.mark)
    }

    fn mark_position(&mut self) -> io::Result<()> {
        self.mark = self.before_position()?;
        Ok(())
    }

    fn before_position(&self) -> io::Result<Vec<u8>> {
        let start = self.position.saturating_sub(MARK as u64);
        let mut bytes = vec![0; usize::try_from(self.position - start).unwrap_or(MARK)];
        match self.file.read_exact_at(&mut bytes, start) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
            result => result.map(|()| bytes),
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// None for what does not exist.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests;
