//! Lines in a file that goes on: appended to, begun anew when it is large, opened anew when asked. What cannot be written is counted.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context as _, bail};

use super::evidence::{Rotation, numbered};

/// A file of lines. Each write is of whole lines; none fails: a disk that is full ends no tracing.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    rotation: Rotation,
    /// None while it cannot be opened.
    file: Option<File>,
    size: u64,
    lost: Arc<AtomicU64>,
    /// The last try failed, which was said.
    is_failing: bool,
}

impl Lines {
    /// Appends to a file, which only its owner may read if it is made. Lines that are lost are added to `lost`.
    ///
    /// # Errors
    /// If it cannot be opened, or is anything but a file.
    pub fn open(path: &Path, rotation: Rotation, lost: &Arc<AtomicU64>) -> anyhow::Result<Self> {
        let (file, size) = open(path)?;
        let (path, file) = (path.to_owned(), Some(file));
        Ok(Self { path, rotation, file, size, lost: Arc::clone(lost), is_failing: false })
    }

    /// The file is large enough: the older ones move up, and a new one is begun.
    fn rotate(&mut self) -> anyhow::Result<()> {
        let renamed = |from: &Path, to: &Path| match fs::rename(from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("{} cannot be renamed", from.display()))
            }
            _ => Ok(()),
        };
        if self.rotation.keep == 0 {
            fs::remove_file(&self.path)
                .with_context(|| format!("{} cannot be removed", self.path.display()))?;
        }
        for number in (0..self.rotation.keep).rev() {
            renamed(&numbered(&self.path, number), &numbered(&self.path, number + 1))?;
        }
        let (file, size) = open(&self.path)?;
        (self.file, self.size) = (Some(file), size);
        Ok(())
    }

    fn try_write(&mut self, lines: &[u8]) -> anyhow::Result<()> {
        if self.file.is_none() {
            let (file, size) = open(&self.path)?;
            (self.file, self.size) = (Some(file), size);
        }
        if self.size > 0 && self.size.saturating_add(lines.len() as u64) > self.rotation.size {
            self.rotate()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        if let Err(error) = file.write_all(lines) {
            // Half a line would spoil the next one.
            let cut = file.set_len(self.size);
            return Err(cut.err().unwrap_or(error))
                .with_context(|| format!("{} cannot be written", self.path.display()));
        }
        self.size += lines.len() as u64;
        Ok(())
    }
}

impl Write for Lines {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        match self.try_write(lines) {
            Ok(()) if std::mem::take(&mut self.is_failing) => {
                let lost = self.lost.load(Ordering::Relaxed);
                crate::notice!("{} is written again; {lost} lines are missing in it", self.path.display());
            }
            Ok(()) => {}
            Err(error) => {
                self.lost
                    .fetch_add(lines.iter().filter(|byte| **byte == b'\n').count() as u64, Ordering::Relaxed);
                if !std::mem::replace(&mut self.is_failing, true) {
                    crate::notice!("{error:#}. Tracing goes on, and the lines are counted that are missing");
                }
            }
        }
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open(path: &Path) -> anyhow::Result<(File, u64)> {
    let opened = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        // A pipe that nobody reads would be waited for.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let file = opened.with_context(|| format!("{} cannot be opened", path.display()))?;
    let metadata = file.metadata().with_context(|| format!("{} cannot be looked at", path.display()))?;
    if !metadata.is_file() {
        bail!("{} is no file that lines could be appended to", path.display());
    }
    Ok((file, metadata.len()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const ROTATION: Rotation = Rotation { size: 10, keep: 2 };

    #[test]
    fn a_file_goes_on_where_it_ended_and_is_followed_by_the_next_when_it_is_large() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let lost = Arc::default();
        for lines in ["one\n", "two\n"] {
            Lines::open(&path, ROTATION, &lost).unwrap().write_all(lines.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        let mut lines = Lines::open(&path, ROTATION, &lost).unwrap();
        for text in ["three\n", "four\n", "five, a long one\n", "six\n"] {
            lines.write_all(text.as_bytes()).unwrap();
        }
        let read = |number| fs::read_to_string(numbered(&path, number)).unwrap();
        assert_eq!([read(0), read(1), read(2)], ["six\n", "five, a long one\n", "four\n"]);
        assert_eq!((fs::read_dir(folder.path()).unwrap().count(), lost.load(Ordering::Relaxed)), (3, 0));
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_written_again_once_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let lost = Arc::default();
        let mut lines = Lines::open(&path, Rotation { keep: 1, ..ROTATION }, &lost).unwrap();
        lines.write_all(b"one\ntwo\n").unwrap();
        // Something has taken the name that the older file is to get.
        fs::create_dir(numbered(&path, 1)).unwrap();
        lines.write_all(b"three\nfour\n").unwrap();
        assert_eq!(
            (lost.load(Ordering::Relaxed), fs::read_to_string(&path).unwrap()),
            (2, "one\ntwo\n".to_owned())
        );
        fs::remove_dir(numbered(&path, 1)).unwrap();
        lines.write_all(b"five\n").unwrap();
        assert_eq!(
            (lost.load(Ordering::Relaxed), fs::read_to_string(&path).unwrap()),
            (2, "five\n".to_owned())
        );
    }

    #[test]
    fn no_link_is_followed_and_no_pipe_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (link, pipe) = (folder.path().join("link"), folder.path().join("pipe"));
        symlink("/etc/passwd", &link).unwrap();
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [link.as_path(), pipe.as_path(), folder.path(), Path::new("/dev/null")] {
            assert!(Lines::open(path, ROTATION, &Arc::default()).is_err(), "{}", path.display());
        }
    }
}
