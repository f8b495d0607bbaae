//! The files of a recording: each is read from the beginning once its turn comes.

use std::{
    fs::File,
    io::{self, Read, Seek as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::evidence::{Header, Reader};

/// A file of a recording, of which the header has been read.
pub(super) struct Part {
    pub(super) path: PathBuf,
    /// Which file of the recording it is.
    pub(super) number: u64,
    /// Where it begins (ns, monotonic).
    pub(super) begins_ns: u64,
    pub(super) source: Source,
}

/// Where the rest of it comes from.
pub(super) enum Source {
    /// It is read from the beginning once its turn comes, so that only those take memory that are being read.
    File(File),
    /// It is being read, or can be read only once.
    Reader(Box<Reader<Box<dyn Read>>>),
}

/// Opens a file; none for standard input.
pub(super) fn open(path: &Path) -> anyhow::Result<Option<File>> {
    if path.to_str() == Some("-") {
        return Ok(None);
    }
    Ok(Some(File::open(path)?))
}

/// Reads a header, and keeps what is needed for the rest.
pub(super) fn begun(path: &Path, file: Option<File>) -> anyhow::Result<(Header, Part)> {
    let Some(file) = file else { return Part::once(path.to_owned(), Box::new(io::stdin())) };
    if !file.metadata()?.is_file() {
        return Part::once(path.to_owned(), Box::new(file));
    }
    let header = Reader::new(&file)?.header().clone();
    let part = Part::new(path.to_owned(), &header, Source::File(file))?;
    Ok((header, part))
}

pub(super) fn again(mut file: &File) -> anyhow::Result<Reader<&File>> {
    file.rewind()?;
    Ok(Reader::new(file)?)
}

impl Part {
    fn new(path: PathBuf, header: &Header, source: Source) -> anyhow::Result<Self> {
        let start = header.start().context("the first line cannot be understood")?;
        Ok(Self { path, number: header.part, begins_ns: start.begins_ns, source })
    }

    /// Of what can be read only once.
    pub(super) fn once(path: PathBuf, file: Box<dyn Read>) -> anyhow::Result<(Header, Self)> {
        let reader = Box::new(Reader::new(file)?);
        let header = reader.header().clone();
        let part = Self::new(path, &header, Source::Reader(reader))?;
        Ok((header, part))
    }

    /// What reads the rest of it.
    pub(super) fn reader(&mut self) -> anyhow::Result<&mut Reader<Box<dyn Read>>> {
        if let Source::File(file) = &self.source {
            let mut file = file.try_clone()?;
            file.rewind()?;
            let file: Box<dyn Read> = Box::new(file);
            self.source = Source::Reader(Box::new(Reader::new(file)?));
        }
        match &mut self.source {
            Source::Reader(reader) => Ok(reader),
            Source::File(_) => anyhow::bail!("it cannot be read"),
        }
    }
}

pub(super) fn shown(path: &Path) -> String {
    match path.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => path.display().to_string(),
    }
}
