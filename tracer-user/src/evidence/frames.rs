//! Compressed frames: each is whole, so that a file is readable up to its last one, however it ends.

use std::io::{self, Write};

use zstd::stream::write::Encoder;

use super::Line;

/// The compression level: the fastest but two. Evidence repeats itself, and shrinks to about a twentieth.
const LEVEL: i32 = 3;

/// A frame is completed when it holds this many bytes before compression, however little time has passed.
const MOST: usize = 1 << 20;

/// The decompression window's size in bits: a reader needs no more memory than this.
pub(super) const WINDOW_BITS: u32 = 20;

/// Makes frames of lines.
#[derive(Default)]
pub struct Frames {
    open: Option<Encoder<'static, Vec<u8>>>,
    /// Bytes and lines in the open frame.
    bytes: usize,
    lines: u64,
    text: Vec<u8>,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// How many lines are in it.
    pub lines: u64,
}

impl Frames {
    /// Adds a line to the open frame.
    ///
    /// # Errors
    /// If memory for the compression cannot be had.
    pub fn add(&mut self, line: &Line) -> io::Result<()> {
        self.text.clear();
        serde_json::to_writer(&mut self.text, line)?;
        self.text.push(b'\n');
        let open = match &mut self.open {
            Some(open) => open,
            None => {
                let mut encoder = Encoder::new(Vec::new(), LEVEL)?;
                encoder.window_log(WINDOW_BITS)?;
                encoder.include_checksum(true)?;
                self.open.insert(encoder)
            }
        };
        open.write_all(&self.text)?;
        self.bytes += self.text.len();
        self.lines += 1;
        Ok(())
    }

    /// Whether the open frame holds so much that it is to be completed.
    pub fn is_full(&self) -> bool {
        self.bytes >= MOST
    }

    /// Completes the open frame, if there is one.
    ///
    /// # Errors
    /// If memory for the compression cannot be had.
    pub fn complete(&mut self) -> io::Result<Option<Frame>> {
        let Some(open) = self.open.take() else { return Ok(None) };
        let frame = Frame { bytes: open.finish()?, lines: std::mem::take(&mut self.lines) };
        self.bytes = 0;
        Ok(Some(frame))
    }
}
