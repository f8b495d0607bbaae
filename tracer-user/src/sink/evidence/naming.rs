//! What the files of a flight recorder are called, and how many there may be.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use jiff::Timestamp;

use super::file::{MOST_TAKEN, numbered};
use crate::file;

/// What a dated file's name begins and ends with.
const DATED: (&str, &str) = ("why502-", ".zst");

/// What stands between them, with a 9 for each digit.
const FORM: &str = "99999999T999999.999999Z";

/// The names of a flight recorder's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// `FILE`, `FILE.1` and so on, of which only the end makes one more than so many.
    Numbered {
        /// The first one.
        path: PathBuf,
        /// The number of the next one: higher where names were taken.
        next: u32,
        /// How many may be written before the end.
        most: u32,
    },
    /// In a folder, by the time at which they are written (`why502-20261120T113926.123456Z.zst`); the oldest is removed for a new one.
    Dated {
        /// The folder.
        directory: PathBuf,
        /// How many there are at most.
        keep: u32,
    },
}

impl Naming {
    /// Numbered ones.
    pub fn numbered(path: &Path, most: u32) -> Self {
        Self::Numbered { path: path.to_owned(), next: 0, most }
    }

    /// Dated ones, in a folder that is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn dated(directory: &Path, keep: u32) -> anyhow::Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.with_context(|| format!("{} cannot be made", directory.display()))?;
        Ok(Self::Dated { directory: directory.to_owned(), keep })
    }

    /// Whether one more may be written after so many.
    pub(super) fn may_write(&self, written: u32) -> bool {
        match self {
            Self::Numbered { most, .. } => written < *most,
            Self::Dated { .. } => true,
        }
    }

    /// The next file. A name that others have taken meanwhile is passed over, and that is reported.
    pub(super) fn create(&mut self) -> anyhow::Result<(PathBuf, File)> {
        for _ in 0..MOST_TAKEN {
            let path = self.name();
            match file::create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if let Self::Numbered { next, .. } = self {
                        crate::notice!(
                            "{} is there and not of this recording: it is passed over",
                            path.display()
                        );
                        *next += 1;
                    }
                }
                made => {
                    let file = made.with_context(|| format!("{} cannot be made", path.display()))?;
                    return Ok((path, file));
                }
            }
        }
        anyhow::bail!("{} and the names after it are taken: move them away", self.name().display())
    }

    fn name(&self) -> PathBuf {
        match self {
            Self::Numbered { path, next, .. } => numbered(path, *next),
            Self::Dated { directory, .. } => {
                let (start, end) = DATED;
                // To the microsecond: a name that is taken is another one at the next try.
                directory.join(format!("{start}{}{end}", Timestamp::now().strftime("%Y%m%dT%H%M%S.%6fZ")))
            }
        }
    }

    /// A file was written whole: the oldest ones beyond what is kept go.
    pub(super) fn is_written(&mut self) {
        match self {
            Self::Numbered { next, .. } => *next += 1,
            Self::Dated { directory, keep } => {
                if let Err(error) = remove_oldest(directory, *keep as usize) {
                    crate::notice!(
                        "evidence in {} beyond the last {keep} files stays: {error}",
                        directory.display()
                    );
                }
            }
        }
    }
}

fn remove_oldest(directory: &Path, keep: usize) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let is_ours = entry.file_name().to_str().is_some_and(is_dated);
        if is_ours && entry.file_type()?.is_file() {
            files.push(entry.path());
        }
    }
    // Their names are in the order of time.
    files.sort();
    let beyond = files.len().saturating_sub(keep);
    files.iter().take(beyond).try_for_each(fs::remove_file)
}

/// Whether a file is called as one of these: nothing else in the folder is touched.
fn is_dated(name: &str) -> bool {
    let (start, end) = DATED;
    let time = name.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
    time.is_some_and(|time| {
        let is_form =
            |(letter, form): (u8, u8)| if form == b'9' { letter.is_ascii_digit() } else { letter == form };
        time.len() == FORM.len() && time.bytes().zip(FORM.bytes()).all(is_form)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dated_files_are_kept_up_to_their_number_and_others_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut naming = Naming::dated(&folder.path().join("a/b"), 2).unwrap();
        let directory = folder.path().join("a/b");
        for name in [
            "why502-20200101T000000.000000Z.zst",
            "why502-mine.zst",
            "notes",
            "why502-20200101T000000.000000Z.zst.bak",
        ] {
            fs::write(directory.join(name), "").unwrap();
        }
        fs::create_dir(directory.join("why502-20200101T000001.000000Z.zst")).unwrap();
        let mut made = Vec::new();
        for _ in 0..4 {
            made.push(naming.create().unwrap().0);
            naming.is_written();
        }
        assert!(
            made[..2].iter().all(|path| !path.exists()) && made[2..].iter().all(|path| path.exists()),
            "{made:?}"
        );
        assert!(!directory.join("why502-20200101T000000.000000Z.zst").exists());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2 + 3 + 1);
    }

    #[test]
    fn only_names_of_its_own_are_dated() {
        assert!(is_dated("why502-20261120T113926.123456Z.zst"));
        for name in [
            "",
            "why502-.zst",
            "why502-20261120T113926Z.zst",
            "why502-2026112aT113926.123456Z.zst",
            "why502-20261120T113926.12345é.zst",
        ] {
            assert!(!is_dated(name), "{name}");
        }
    }
}
