//! Evidence on disk: frame after frame, in files of bounded size, however full the disk is.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{
    clock::monotonic_ns,
    evidence::{Encoder, Frames, Header, Line},
    failure::Failure,
    stream::{Counts, Distance, Entry, Loss, LossReason, What},
};

/// A frame is completed when it is this old (ns): so much is lost at most.
pub(super) const FRAME_NS: u64 = 1_000_000_000;

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
    frames: Frames,
    /// When the open frame was begun (ns, monotonic), if one is.
    begun_ns: Option<u64>,
    file: File,
    /// The file's bytes, all of them whole frames.
    size: u64,
    /// Lines that could not be written.
    unwritten: u64,
    /// The disk was full at the last try.
    is_failing: bool,
    counts: Counts,
    distance: Distance,
    at_ns: u64,
}

impl Recording {
    /// Begins a file, which nobody else may read.
    ///
    /// # Errors
    /// If it is there already, or cannot be written.
    pub fn create(
        path: &Path,
        rotation: Option<Rotation>,
        header: Header,
        distance: Distance,
        encoder: Encoder,
    ) -> Result<Self, Failure> {
        let mut recording = Self {
            path: path.to_owned(),
            rotation,
            encoder,
            header,
            frames: Frames::default(),
            begun_ns: None,
            file: create(path).with_context(|| match path.exists() {
                true => format!("{} is there already: take another name, or remove it", path.display()),
                false => format!("{} cannot be made", path.display()),
            })?,
            size: 0,
            unwritten: 0,
            is_failing: false,
            counts: Counts::default(),
            distance,
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
            let header = frames.complete()?.map(|frame| frame.bytes).unwrap_or_default();
            self.file.write_all(&header)?;
            self.size = header.len() as u64;
        }
        self.file.write_all(frame)?;
        self.size += frame.len() as u64;
        Ok(())
    }

    /// Takes in an entry. What cannot be written is counted, and told.
    pub fn add(&mut self, entry: &Entry) {
        match &entry.what {
            What::Sources(sources) => self.header.set_sources(sources),
            What::Counts(counts) => self.counts = *counts,
            What::Clock(distance) => self.distance = *distance,
            _ => {}
        }
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
        if self.wake_ns().is_some_and(|due| due <= now) {
            self.complete();
        }
    }

    /// When the open frame is to be completed (ns, monotonic).
    pub fn wake_ns(&self) -> Option<u64> {
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
        // The line that tells of the lines before is none of them.
        let lines = frame.lines - u64::from(self.unwritten > 0).min(frame.lines);
        match self.write(&frame.bytes) {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    eprintln!(
                        "why502: {} is written again; {} lines of evidence are missing in it, and it says so",
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
            eprintln!(
                "why502: {} cannot be written: {error}. Tracing goes on, and recording as soon as it can",
                self.path.display()
            );
        }
    }

    /// Goes on in a new file, if this one is large enough.
    fn rotate(&mut self) {
        let Some(Rotation { size, keep }) = self.rotation.filter(|rotation| self.size >= rotation.size)
        else {
            return;
        };
        let shifted = (0..keep).rev().try_for_each(|number| {
            match fs::rename(numbered(&self.path, number), numbered(&self.path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        });
        let next = shifted.and_then(|()| match keep {
            0 => fs::remove_file(&self.path),
            _ => Ok(()),
        });
        match next.and_then(|()| create(&self.path)) {
            Ok(file) => {
                self.file = file;
                self.size = 0;
                self.header =
                    self.header.of_part(self.header.part + 1, self.at_ns, self.counts, self.distance);
                // So that no file is ever without its header, unless the disk is full.
                if let Err(error) = self.write(&[]) {
                    self.fails(0, &error);
                }
            }
            Err(error) => {
                let size = size.saturating_mul(2);
                self.rotation = Some(Rotation { size, keep });
                eprintln!("why502: {} cannot be rotated and grows on: {error}", self.path.display());
            }
        }
    }
}

/// A new file that only its owner may read.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn seek(file: &mut File, to: u64) -> io::Result<()> {
    io::Seek::seek(file, io::SeekFrom::Start(to)).map(drop)
}

/// `FILE`, `FILE.1`, `FILE.2`: the higher the older.
pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    match number {
        0 => path.to_owned(),
        number => {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            name.into()
        }
    }
}
