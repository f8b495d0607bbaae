//! The flight recorder: the last minutes in memory, to be written when something happens.

use std::{collections::VecDeque, io::Write as _, path::PathBuf, time::Duration};

use anyhow::Context as _;

use super::{configured::Configurations, file::FRAME_NS, naming::Naming};
use crate::{
    evidence::{Encoder, Frame, Frames, Header, Line},
    model::{
        clock::ClockOffset,
        stream::{Counts, Entry, What},
    },
};

/// Bytes of compressed evidence that are kept at most: so much as a hundred failures a second leave in an hour.
pub const MOST_BYTES: usize = 24 << 20;

/// The last minutes.
pub struct Window {
    naming: Naming,
    header: Header,
    configurations: Configurations,
    encoder: Encoder,
    last_ns: u64,
    kept: VecDeque<Kept>,
    /// Bytes in `kept`.
    bytes: usize,
    open: Frames,
    /// Where the open frame begins.
    begun: Option<Begin>,
    counts: Counts,
    clock_offset: ClockOffset,
    now_ns: u64,
    /// It was reported that less than was asked for fits.
    is_short: bool,
    /// Frames were forgotten since the last file.
    has_gap: bool,
    /// Files that were written.
    written: u32,
    /// How often nothing was written, because all the files were.
    declined: u64,
}

/// What became of what is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is in this file.
    File(PathBuf),
    /// There is nothing.
    Nothing,
    /// It stays in memory: as many files as may be are written.
    Declined,
}

/// Where a frame begins.
#[derive(Clone, Copy, Debug)]
struct Begin {
    at_ns: u64,
    counts: Counts,
    clock_offset: ClockOffset,
}

struct Kept {
    begin: Begin,
    end_ns: u64,
    frame: Frame,
}

impl Window {
    /// Keeps `last`, and writes to files of these names.
    pub fn new(
        naming: Naming,
        last: Duration,
        header: Header,
        clock_offset: ClockOffset,
        encoder: Encoder,
    ) -> Self {
        Self {
            naming,
            header,
            configurations: Configurations::default(),
            encoder,
            last_ns: u64::try_from(last.as_nanos()).unwrap_or(u64::MAX),
            kept: VecDeque::new(),
            bytes: 0,
            open: Frames::default(),
            begun: None,
            counts: Counts::default(),
            clock_offset,
            now_ns: 0,
            is_short: false,
            has_gap: false,
            written: 0,
            declined: 0,
        }
    }

    /// Takes in an entry.
    pub fn add(&mut self, entry: &Entry) {
        self.now_ns = self.now_ns.max(entry.at_ns);
        self.begun.get_or_insert(Begin {
            at_ns: entry.at_ns,
            counts: self.counts,
            clock_offset: self.clock_offset,
        });
        match &entry.what {
            What::Sources(sources) => self.header.set_sources(sources),
            What::Counts(counts) => self.counts = *counts,
            What::Clock(clock_offset) => self.clock_offset = *clock_offset,
            _ => {}
        }
        self.configurations.add(entry, &self.encoder);
        if let Err(error) = self.open.add(&self.encoder.line(entry)) {
            crate::notice!("a line of evidence could not be kept: {error}");
        }
        if self.open.is_full() {
            self.complete();
        }
    }

    /// Completes a frame that is old enough, and forgets what is too old, at `now` (ns, monotonic).
    pub fn pause(&mut self, now: u64) {
        self.now_ns = self.now_ns.max(now);
        if self.begun.is_some_and(|begin| begin.at_ns + FRAME_NS <= now) {
            self.complete();
        }
        let oldest_ns = self.now_ns.saturating_sub(self.last_ns);
        while self.kept.front().is_some_and(|kept| kept.end_ns < oldest_ns) {
            self.forget();
        }
        while self.bytes > MOST_BYTES {
            self.forget();
            let first = self.kept.front().map_or(self.now_ns, |kept| kept.begin.at_ns);
            if !std::mem::replace(&mut self.is_short, true) {
                crate::notice!(
                    "{} MiB hold no more than the last {} s at the moment: so much is kept",
                    MOST_BYTES >> 20,
                    (self.now_ns - first) / 1_000_000_000
                );
            }
        }
    }

    fn forget(&mut self) {
        if let Some(kept) = self.kept.pop_front() {
            self.bytes -= kept.frame.bytes.len();
            self.has_gap = true;
        }
    }

    fn complete(&mut self) {
        let Some(begin) = self.begun.take() else { return };
        match self.open.complete() {
            Ok(Some(frame)) => {
                self.bytes += frame.bytes.len();
                self.kept.push_back(Kept { begin, end_ns: self.now_ns, frame });
            }
            Ok(None) => {}
            Err(error) => crate::notice!("a second of evidence could not be kept: {error}"),
        }
    }

    /// Writes what is kept, and keeps it no longer. Before the end that is declined once as many files as may be
    /// are written.
    ///
    /// # Errors
    /// If the file cannot be written; then everything is kept.
    pub fn write(&mut self, is_end: bool) -> anyhow::Result<Written> {
        if !self.naming.may_write(self.written) && !is_end {
            self.declined += 1;
            return Ok(Written::Declined);
        }
        self.complete();
        let Some(first) = self.kept.front() else { return Ok(Written::Nothing) };
        let part =
            self.header.part + u64::from(self.written > 0) + u64::from(self.has_gap && self.written > 0);
        let header =
            self.header.of_part(part, first.begin.at_ns, first.begin.counts, first.begin.clock_offset);
        let mut frames = Frames::default();
        frames.add(&Line::Header(Box::new(header)))?;
        self.configurations.lines(first.begin.at_ns).try_for_each(|line| frames.add(line))?;
        let header = frames.complete()?.map(|frame| frame.bytes).unwrap_or_default();
        let (path, mut file) = self.naming.create()?;
        let whole =
            [header.as_slice()].into_iter().chain(self.kept.iter().map(|kept| kept.frame.bytes.as_slice()));
        if let Err(error) = whole.into_iter().try_for_each(|bytes| file.write_all(bytes)) {
            // Half a file would only be taken for a whole one.
            let removed = std::fs::remove_file(&path);
            return Err(anyhow::Error::from(removed.err().unwrap_or(error)))
                .with_context(|| format!("{} cannot be written", path.display()));
        }
        self.header.part = part;
        self.written += 1;
        self.naming.is_written();
        self.has_gap = false;
        self.kept.clear();
        self.bytes = 0;
        self.is_short = false;
        Ok(Written::File(path))
    }

    /// Calls the files to come so.
    pub fn rename(&mut self, naming: Naming) {
        self.naming = naming;
    }

    /// How often nothing was written, because as many files as may be were written before.
    pub fn declined(&self) -> u64 {
        self.declined
    }

    /// When [`Window::pause`] is to be called (ns, monotonic).
    pub fn wake_ns(&self) -> Option<u64> {
        self.begun.map(|begin| begin.at_ns + FRAME_NS)
    }
}
