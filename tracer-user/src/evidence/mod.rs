//! Evidence: the stream on disk, as JSON Lines in zstd frames, which `zstdcat | jq`, DuckDB and others read as they are.
//!
//! The types here stand apart from the program's own, so that a rename inside never makes a file unreadable. `docs/schema/evidence.json`
//! describes every line; [`VERSION`] rises when a reader of the version before would misread a line.

mod address;
mod answers;
mod codec;
mod decoder;
mod encoder;
mod ends;
mod flags;
mod frames;
mod groups;
mod header;
mod inquiry;
mod line;
mod look;
mod member;
mod names;
mod near;
mod origin;
mod pressure;
mod read;
mod tcp_state;
#[cfg(test)]
mod tests;
mod texts;
mod upstream;

pub use codec::{Bad, LATEST_NS};
pub use decoder::Decoder;
pub use encoder::Encoder;
pub use frames::{Frame, Frames};
pub use header::Header;
pub use line::Line;
pub use names::Names;
pub use read::{MAX_LINE, Reader, Unreadable};

/// The version of the format.
pub const VERSION: u32 = 1;
