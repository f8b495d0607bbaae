//! Evidence on disk: frame after frame, in files of bounded size, however full the disk is.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::configured::Configurations;
use crate::{
    evidence::{Encoder, Frames, Header, Line},
    file::{self, Identity},
    model::{
        clock::{ClockOffset, monotonic_ns},
        failure::Failure,
        stream::{Counts, Entry, Loss, LossReason, What},
    },
};

/// A frame is completed when it is this old (ns): so much is lost at most.
pub(super) const FRAME_NS: u64 = 1_000_000_000;

/// How many names in a row may be taken by others.
pub(super) const MOST_TAKEN: u32 = 1_000;

/// How many files there are, and how large they get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A file that has so many bytes is followed by the next one.
    pub size: u64,
    /// How many older ones are kept.
    pub keep: u32,
}

/// A recording that goes on.
pub struct Recording {
    path: PathBuf,
    rotation: Option<Rotation>,
    encoder: Encoder,
    header: Header,
    configurations: Configurations,
    /// After the last entry of the file before (ns, monotonic), if there is one.
    begins_ns: u64,
    frames: Frames,
    /// When the open frame was begun (ns, monotonic), if one is.
    begun_ns: Option<u64>,
    file: File,
    identity: Identity,
    /// The file's bytes, all of them whole frames.
    size: u64,
    /// The older files of this recording, the youngest first: by what numbers they go, and which ones they are.
    older: VecDeque<(u32, Identity)>,
    /// The file is large enough, and no next one could be begun.
    is_stuck: bool,
    /// Lines that could not be written.
    unwritten: u64,
    /// The disk was full at the last try.
    is_failing: bool,
    counts: Counts,
    clock_offset: ClockOffset,
    at_ns: u64,
}

impl Recording {
    /// Begins a file, which nobody else may read.
    ///
    /// # Errors
    /// If it or a name that a rotation takes is there already, or it cannot be written.
    pub fn create(
        path: &Path,
        rotation: Option<Rotation>,
        header: Header,
        clock_offset: ClockOffset,
        encoder: Encoder,
    ) -> Result<Self, Failure> {
        are_free(path, rotation.map_or(0, |rotation| rotation.keep))?;
        let (file, identity) = begin(path)?;
        let mut recording = Self {
            path: path.to_owned(),
            rotation,
            encoder,
            header,
            configurations: Configurations::default(),
            begins_ns: 0,
            frames: Frames::default(),
            begun_ns: None,
            file,
            identity,
            size: 0,
            older: VecDeque::new(),
            is_stuck: false,
            unwritten: 0,
            is_failing: false,
            counts: Counts::default(),
            clock_offset,
            at_ns: 0,
        };
        recording.write(&[]).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(recording)
    }

    /// Writes a whole frame. A file begins with the header.
    fn write(&mut self, frame: &[u8]) -> io::Result<()> {
        if self.size == 0 {
            let mut frames = Frames::default();
            frames.add(&Line::Header(Box::new(self.header.clone())))?;
            self.configurations.lines(self.begins_ns).try_for_each(|line| frames.add(line))?;
            let header = frames.complete()?.map(|frame| frame.bytes).unwrap_or_default();
            self.file.write_all(&header)?;
            self.size = header.len() as u64;
        }
        self.file.write_all(frame)?;
        self.size += frame.len() as u64;
        Ok(())
    }

    /// Takes in an entry. What cannot be written is counted, and reported.
    pub fn add(&mut self, entry: &Entry) {
        match &entry.what {
            What::Sources(sources) => self.header.set_sources(sources),
            What::Counts(counts) => self.counts = *counts,
            What::Clock(clock_offset) => self.clock_offset = *clock_offset,
            _ => {}
        }
        self.configurations.add(entry, &self.encoder);
        self.at_ns = entry.at_ns;
        if self.begun_ns.is_none() {
            let now = monotonic_ns();
            self.begun_ns = Some(now);
            if self.unwritten > 0 {
                let loss = Loss { ns: now, reason: LossReason::Unwritten, count: self.unwritten };
                self.add_line(&Entry { at_ns: entry.at_ns, what: What::Loss(loss) });
            }
        }
        self.add_line(entry);
        if self.frames.is_full() {
            self.complete();
        }
    }

    fn add_line(&mut self, entry: &Entry) {
        if let Err(error) = self.frames.add(&self.encoder.line(entry)) {
            self.fails(1, &error);
        }
    }

    /// Completes a frame that is old enough at `now` (ns, monotonic).
    pub fn pause(&mut self, now: u64) {
        if self.due_ns().is_some_and(|due| due <= now) {
            self.complete();
        }
    }

    /// When the open frame is to be completed (ns, monotonic).
    pub fn due_ns(&self) -> Option<u64> {
        self.begun_ns.map(|begun| begun + FRAME_NS)
    }

    /// Ends the recording; returns how many lines could not be written.
    pub fn finish(mut self) -> u64 {
        self.complete();
        self.unwritten
    }

    fn complete(&mut self) {
        self.begun_ns = None;
        let frame = match self.frames.complete() {
            Ok(Some(frame)) => frame,
            Ok(None) => return,
            Err(error) => return self.fails(0, &error),
        };
        // The line that counts the lines before is none of them.
        let lines = frame.lines - u64::from(self.unwritten > 0).min(frame.lines);
        if self.is_stuck {
            self.rotate();
        }
        if self.is_stuck && self.rotation.is_some_and(|rotation| self.size >= rotation.size.saturating_mul(2))
        {
            return self.fails(lines, &io::Error::other("it is twice as large as it should get"));
        }
        match self.write(&frame.bytes) {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    crate::notice!(
                        "{} is written again; {} lines of evidence are missing in it, and it says so",
                        self.path.display(),
                        self.unwritten
                    );
                }
                self.unwritten = 0;
                self.rotate();
            }
            Err(error) => {
                // What was written of the frame is of no use, and in the way of the next one.
                let cut = self.file.set_len(self.size).and_then(|()| seek(&mut self.file, self.size));
                self.fails(lines, &cut.err().unwrap_or(error));
            }
        }
    }

    fn fails(&mut self, lines: u64, error: &io::Error) {
        self.unwritten += lines;
        if !std::mem::replace(&mut self.is_failing, true) {
            crate::notice!(
                "{} cannot be written: {error}. Tracing goes on, and recording as soon as it can",
                self.path.display()
            );
        }
    }

    /// Goes on in a new file, if this one is large enough. Where that cannot be, this one grows on to twice its size.
    fn rotate(&mut self) {
        let Some(Rotation { keep, .. }) = self.rotation.filter(|rotation| self.size >= rotation.size) else {
            return;
        };
        match self.make_room(keep).and_then(|()| begin(&self.path)) {
            Ok((file, identity)) => {
                (self.file, self.identity, self.size) = (file, identity, 0);
                self.is_stuck = false;
                self.begins_ns = self.at_ns.saturating_add(1);
                self.header =
                    self.header.of_part(self.header.part + 1, self.at_ns, self.counts, self.clock_offset);
                // So that no file is ever without its header, unless the disk is full.
                if let Err(error) = self.write(&[]) {
                    self.fails(0, &error);
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_stuck, true) {
                    crate::notice!(
                        "the next file cannot be begun, so the last one grows on, to twice its size: {error:#}"
                    );
                }
            }
        }
    }

    /// Makes the file an older one, if it still has its name. Only files of this recording are moved or removed: what else has got
    /// one of their names stays, and is passed over.
    fn make_room(&mut self, keep: u32) -> anyhow::Result<()> {
        let mut older = VecDeque::new();
        for (number, identity) in std::mem::take(&mut self.older) {
            // Others may have taken it away.
            if is_at(identity, &numbered(&self.path, number))? {
                older.push_back((number, identity));
            }
        }
        self.older = older;
        if !is_at(self.identity, &self.path)? {
            return Ok(());
        }
        while self.older.len() as u64 >= u64::from(keep)
            && let Some((number, _)) = self.older.pop_back()
        {
            remove(&numbered(&self.path, number))?;
        }
        if keep == 0 {
            return remove(&self.path);
        }
        let mut before = u32::MAX;
        for (number, _) in self.older.iter_mut().rev() {
            *number = move_up(&self.path, *number, before)?;
            before = *number;
        }
        let number = move_up(&self.path, 0, before)?;
        self.older.push_front((number, self.identity));
        Ok(())
    }
}

/// Gives the file with a number the next higher one that is free, before that of the next older file.
fn move_up(path: &Path, from: u32, before: u32) -> anyhow::Result<u32> {
    let old = numbered(path, from);
    for number in (from.saturating_add(1)..before).take(MOST_TAKEN as usize) {
        let new = numbered(path, number);
        match file::rename_to_free(&old, &new) {
            Ok(()) => return Ok(number),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let (old, new) = (old.display(), new.display());
                return Err(error).with_context(|| format!("{old} cannot be renamed to {new}"));
            }
        }
    }
    bail!("{} is there and not of this recording: move it away", numbered(path, from + 1).display())
}

fn is_at(identity: Identity, path: &Path) -> anyhow::Result<bool> {
    identity.is_at(path).with_context(|| format!("{} cannot be looked at", path.display()))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    fs::remove_file(path).with_context(|| format!("{} cannot be removed", path.display()))
}

fn begin(path: &Path) -> anyhow::Result<(File, Identity)> {
    let file = match file::create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            file::is_free(path)?;
            return Err(error.into());
        }
        made => made.with_context(|| format!("{} cannot be made", path.display()))?,
    };
    let identity = Identity::of(&file).with_context(|| format!("{} cannot be looked at", path.display()))?;
    Ok((file, identity))
}

/// Whether files can be made there: `FILE`, and up to `FILE.last`.
///
/// # Errors
/// If one of the names is taken.
pub fn are_free(path: &Path, last: u32) -> anyhow::Result<()> {
    (0..=last).try_for_each(|number| file::is_free(&numbered(path, number)))
}

fn seek(file: &mut File, to: u64) -> io::Result<()> {
    io::Seek::seek(file, io::SeekFrom::Start(to)).map(drop)
}

/// `FILE`, `FILE.1`, `FILE.2`: the higher the older.
pub(in crate::sink) fn numbered(path: &Path, number: u32) -> PathBuf {
    match number {
        0 => path.to_owned(),
        number => {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            name.into()
        }
    }
}
