//! How much is read of one process's configuration at most.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use super::Refusal;

/// More than any file of a configuration has.
const FILE_BYTES: u64 = 1024 * 1024;

/// A host with thousands of sites may have as much.
const ALL_BYTES: u64 = 16 * 1024 * 1024;

const FILES: usize = 8_192;

/// Names in folders that a pattern is looked for in.
const NAMES: usize = 65_536;

/// Words of directives; what holds them takes a hundred bytes each at most.
const WORDS: usize = 500_000;

const TIME: Duration = Duration::from_secs(5);

/// What may still be read of a configuration, however it was made to include more.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: u64,
    files: usize,
    names: usize,
    words: usize,
    end: Instant,
    /// When the newest of the files was changed last (ns since 1970), its name and its owner included.
    changed_ns: i64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            bytes: ALL_BYTES,
            files: FILES,
            names: NAMES,
            words: WORDS,
            end: Instant::now() + TIME,
            changed_ns: 0,
        }
    }
}

impl Budget {
    /// Takes a file of a size.
    pub(super) fn file(&mut self, path: &Path, size: u64) -> Result<(), Refusal> {
        self.time()?;
        if size > FILE_BYTES {
            return Err(Refusal::TooLarge { path: path.to_owned(), limit: FILE_BYTES });
        }
        self.files = self.files.checked_sub(1).ok_or(Refusal::TooManyFiles(FILES))?;
        self.bytes = self.bytes.checked_sub(size).ok_or(Refusal::TooMuch(ALL_BYTES))?;
        Ok(())
    }

    /// Takes when a file was changed last.
    pub(super) fn changed(&mut self, ns: i64) {
        self.changed_ns = self.changed_ns.max(ns);
    }

    /// When the newest of all files was changed last (ns since 1970).
    pub(super) fn changed_ns(&self) -> i64 {
        self.changed_ns
    }

    /// Takes a name of a folder.
    pub(super) fn name(&mut self) -> Result<(), Refusal> {
        self.names = self.names.checked_sub(1).ok_or(Refusal::TooManyNames(NAMES))?;
        self.time()
    }

    /// Takes words of a directive.
    pub(super) fn words(&mut self, count: usize) -> Result<(), Refusal> {
        self.words = self.words.checked_sub(count).ok_or(Refusal::TooManyWords(WORDS))?;
        Ok(())
    }

    fn time(&self) -> Result<(), Refusal> {
        if Instant::now() > self.end { Err(Refusal::TooSlow(TIME)) } else { Ok(()) }
    }
}
