//! Reading evidence, whatever the bytes are: within bounded memory, to a result or to an error.

use std::io::{BufRead, BufReader, Read};

use serde::Deserialize;
use zstd::stream::read::Decoder as Zstd;

use super::{Decoder, Header, Line, VERSION, codec::Bad, frames::WINDOW_BITS};
use crate::model::stream::Entry;

/// The longest line, in bytes.
pub const MAX_LINE: usize = 4 << 20;

/// The windows of files that others may have compressed again, in bits: `zstd -19` takes 23.
const MAX_WINDOW_BITS: u32 = if WINDOW_BITS > 23 { WINDOW_BITS } else { 23 };

/// How many times its size a file unfolds at most, once it has unfolded to [`HARMLESS`] bytes. Evidence does to about twenty.
const MOST_RATIO: u64 = 1_000;

/// So many bytes do no harm.
const HARMLESS: u64 = 16 << 20;

/// Values in one line: more than the widest look has, which names all the exchanges of one thread.
const MOST_VALUES: usize = 300_000;

/// Why evidence cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is no evidence.
    #[error("this is no evidence of why502: {0}")]
    NotEvidence(String),
    /// A newer program wrote it.
    #[error(
        "this evidence has format version {0}, and this why502 reads up to version {VERSION}: use a newer why502"
    )]
    Newer(u32),
    /// A line cannot be understood.
    #[error("line {number} cannot be understood: {why}")]
    Line {
        /// Which.
        number: u64,
        /// Why.
        why: Bad,
    },
    /// It would take more memory than evidence ever does.
    #[error("line {0} is longer than any line of evidence: this is refused")]
    LongLine(u64),
    /// The same.
    #[error("line {0} holds more values than any line of evidence: this is refused")]
    WideLine(u64),
    /// It was compressed in a way that takes much memory to undo.
    #[error("unfolding this takes more than {} MiB of memory, which no evidence does: this is refused", 1 << (MAX_WINDOW_BITS - 20))]
    Window,
    /// It is made to be large.
    #[error("this unfolds to more than {MOST_RATIO} times its size, which no evidence does: this is refused")]
    Bomb,
}

/// Reads one file of evidence.
pub struct Reader<R: Read> {
    lines: BufReader<Zstd<'static, BufReader<Counted<R>>>>,
    /// Bytes that were unfolded.
    unfolded: u64,
    header: Header,
    decoder: Decoder,
    number: u64,
    line: Vec<u8>,
    cut: Option<String>,
}

/// All that is looked at before the version is known.
#[derive(Deserialize)]
struct Versioned {
    r#type: String,
    v: u32,
}

impl<R: Read> Reader<R> {
    /// Begins with the header.
    ///
    /// # Errors
    /// If there is none that this program can read.
    pub fn new(file: R) -> Result<Self, Unreadable> {
        let none = |error: std::io::Error| Unreadable::NotEvidence(error.to_string());
        let mut zstd = Zstd::new(Counted { file, count: 0 }).map_err(none)?;
        zstd.window_log_max(MAX_WINDOW_BITS).map_err(none)?;
        let mut lines = BufReader::with_capacity(1 << 16, zstd);
        let mut line = Vec::new();
        match next_line(&mut lines, &mut line) {
            Next::Line => {}
            Next::TooLong => return Err(Unreadable::LongLine(1)),
            Next::End => return Err(Unreadable::NotEvidence("it has no first line".to_owned())),
            Next::Cut(why) => return Err(Unreadable::NotEvidence(why)),
        }
        if is_wide(&line) {
            return Err(Unreadable::WideLine(1));
        }
        let none = |error: serde_json::Error| {
            Unreadable::NotEvidence(format!("its first line is no header: {error}"))
        };
        let Versioned { r#type, v } = serde_json::from_slice(&line).map_err(none)?;
        match v {
            _ if r#type != "header" => {
                return Err(Unreadable::NotEvidence("its first line is no header".to_owned()));
            }
            1..=VERSION => {}
            0 => return Err(Unreadable::NotEvidence("it has no version".to_owned())),
            newer => return Err(Unreadable::Newer(newer)),
        }
        let header: Header = serde_json::from_slice(&line).map_err(none)?;
        let decoder = Decoder::after(&header).map_err(|why| Unreadable::Line { number: 1, why })?;
        Ok(Self { lines, unfolded: 0, header, decoder, number: 1, line, cut: None })
    }

    /// The first line.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Why the file ends before its end, if it does: known once the last entry has been read.
    pub fn cut(&self) -> Option<&str> {
        self.cut.as_deref()
    }

    /// The next entry; none at the end, or where the file was cut off.
    ///
    /// # Errors
    /// If the next line is not one.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Unreadable> {
        loop {
            match next_line(&mut self.lines, &mut self.line) {
                Next::Line => {}
                Next::End => return Ok(None),
                Next::TooLong => return Err(Unreadable::LongLine(self.number + 1)),
                // As zstd words `frameParameter_windowTooLarge`.
                Next::Cut(why) if why.contains("too much memory") => return Err(Unreadable::Window),
                Next::Cut(why) => {
                    self.cut = Some(why);
                    return Ok(None);
                }
            }
            self.number += 1;
            self.unfolded += self.line.len() as u64;
            let folded = self.lines.get_ref().get_ref().get_ref().count;
            if self.unfolded > HARMLESS && self.unfolded / MOST_RATIO > folded {
                return Err(Unreadable::Bomb);
            }
            if is_wide(&self.line) {
                return Err(Unreadable::WideLine(self.number));
            }
            let understood = serde_json::from_slice::<Line>(&self.line).map_err(Bad::from);
            let entry = understood.and_then(|line| self.decoder.entry(line));
            match entry.map_err(|why| Unreadable::Line { number: self.number, why })? {
                Some(entry) => return Ok(Some(entry)),
                None => continue,
            }
        }
    }
}

/// Counts what is read.
struct Counted<R> {
    file: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}

/// Whether a line has more values than any: each of them takes many times the memory of its bytes while the line is understood.
fn is_wide(line: &[u8]) -> bool {
    line.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count() > MOST_VALUES
}

enum Next {
    Line,
    End,
    TooLong,
    /// The compressed stream, or the last line, ends in its midst.
    Cut(String),
}

fn next_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> Next {
    line.clear();
    match lines.by_ref().take(MAX_LINE as u64 + 1).read_until(b'\n', line) {
        Ok(0) => Next::End,
        Ok(_) if line.ends_with(b"\n") => Next::Line,
        Ok(_) if line.len() > MAX_LINE => Next::TooLong,
        Ok(_) => Next::Cut("it ends within a line".to_owned()),
        Err(error) => Next::Cut(error.to_string()),
    }
}
