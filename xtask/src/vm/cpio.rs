//! Archives that the kernel unpacks as its first root: cpio in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
//! Several in one file are unpacked one over the other.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};

/// The type bits of `st_mode`.
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive that is being written. Everything in it is root's.
pub(crate) struct Archive {
    to: BufWriter<File>,
    /// What is in it; each path once, without a slash before it.
    paths: BTreeSet<String>,
}

impl Archive {
    /// Begins one.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(Self { to: BufWriter::new(file), paths: BTreeSet::new() })
    }

    /// Adds a folder, and those it is in.
    pub(crate) fn folder(&mut self, path: &Path) -> Result<()> {
        let name = name(path)?;
        if name.is_empty() || self.paths.contains(&name) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.folder(parent)?;
        }
        self.entry(name, FOLDER | 0o755, &[], (0, 0))
    }

    /// Adds a copy of a file. A second one under the same path is none.
    pub(crate) fn file(&mut self, path: &Path, source: &Path, mode: u32) -> Result<()> {
        if self.paths.contains(&name(path)?) {
            return Ok(());
        }
        let content = fs::read(source).with_context(|| format!("{} cannot be read", source.display()))?;
        self.content(path, &content, mode)
    }

    /// Adds a file with this content.
    pub(crate) fn content(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        self.place(path, FILE | mode, content, (0, 0))
    }

    /// Adds a symbolic link, where nothing is yet.
    pub(crate) fn link(&mut self, path: &Path, to: &Path) -> Result<()> {
        if self.paths.contains(&name(path)?) {
            return Ok(());
        }
        self.place(path, LINK | 0o777, to.as_os_str().as_encoded_bytes(), (0, 0))
    }

    /// Adds a character device.
    pub(crate) fn device(&mut self, path: &Path, major: u32, minor: u32) -> Result<()> {
        self.place(path, CHARACTER_DEVICE | 0o600, &[], (major, minor))
    }

    /// Writes the end.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.entry("TRAILER!!!".to_owned(), 0, &[], (0, 0))?;
        Ok(self.to.flush()?)
    }

    fn place(&mut self, path: &Path, mode: u32, content: &[u8], device: (u32, u32)) -> Result<()> {
        if let Some(parent) = path.parent() {
            self.folder(parent)?;
        }
        self.entry(name(path)?, mode, content, device)
    }

    fn entry(&mut self, name: String, mode: u32, content: &[u8], (major, minor): (u32, u32)) -> Result<()> {
        const HEADER: usize = 110;
        let number = u32::try_from(self.paths.len())?;
        let (size, name_size) = (u32::try_from(content.len())?, u32::try_from(name.len() + 1)?);
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let fields = [number, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        self.to.write_all(b"070701")?;
        for field in fields {
            write!(self.to, "{field:08x}")?;
        }
        self.to.write_all(name.as_bytes())?;
        self.to.write_all(&[0])?;
        self.pad(HEADER + name.len() + 1)?;
        self.to.write_all(content)?;
        self.pad(content.len())?;
        self.paths.insert(name);
        Ok(())
    }

    /// Fills up to a multiple of four bytes.
    fn pad(&mut self, written: usize) -> Result<()> {
        Ok(self.to.write_all(&[0; 3][..written.next_multiple_of(4) - written])?)
    }
}

/// A path as archives have it.
fn name(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(text.trim_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_headers_names_and_padding() -> Result<()> {
        let path = std::env::temp_dir().join(format!("why502-cpio-{}", std::process::id()));
        let mut archive = Archive::create(&path)?;
        archive.content(Path::new("/etc/x"), b"hello", 0o644)?;
        archive.link(Path::new("/etc/y"), Path::new("x"))?;
        archive.finish()?;
        let bytes = fs::read(&path)?;
        fs::remove_file(path)?;
        assert_eq!(bytes.len() % 4, 0);
        // A folder for the file to be in, first.
        assert_eq!(&bytes[..14], b"07070100000000");
        assert_eq!(&bytes[14..22], b"000041ed");
        assert_eq!(&bytes[110..114], b"etc\0");
        assert_eq!(&bytes[116..122], b"070701");
        assert_eq!(&bytes[130..138], b"000081a4");
        assert_eq!(&bytes[226..236], b"etc/x\0hell");
        assert!(bytes.windows(8).any(|window| window == b"0000a1ff"));
        assert!(bytes.windows(11).any(|window| window == b"TRAILER!!!\0"));
        Ok(())
    }
}
