//! All files that this program makes: nobody else may read them, no link is followed, and nothing is overwritten that is not the
//! user's own file. And those of others that it only names.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, bail};
use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};

/// Which file one is, whatever it is called. The number of an inode is given again once its file is gone, so its time of birth counts
/// as well, where the file system keeps that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    born: Option<SystemTime>,
}

impl From<fs::Metadata> for Identity {
    fn from(metadata: fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino(), born: metadata.created().ok() }
    }
}

impl Identity {
    /// That of an open file.
    ///
    /// # Errors
    /// Of the system.
    pub fn of(file: &File) -> io::Result<Self> {
        Ok(file.metadata()?.into())
    }

    /// Whether the name leads to this file, and not by a link.
    ///
    /// # Errors
    /// Of the system. That nothing has this name is none.
    pub fn is_at(self, path: &Path) -> io::Result<bool> {
        match fs::symlink_metadata(path) {
            Ok(there) => Ok(self == there.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A file that is named by this, and not opened (`O_PATH`): it can be looked at, whatever it is. [`OpenOptions`] would open it in the static
/// program, for musl counts that flag among the ways of access (`O_ACCMODE`), which are not taken from `custom_flags`.
///
/// # Errors
/// Of the system.
pub fn named(path: &Path) -> io::Result<File> {
    Ok(open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?.into())
}

/// A new file that only its owner may read. Whatever has the name already, a link that leads nowhere included, is an error.
///
/// # Errors
/// Of the system.
pub fn create(path: &Path) -> io::Result<File> {
    // O_EXCL follows no link at the name itself; O_NOFOLLOW says so once more where a file system takes O_EXCL lightly.
    OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// What has a name already, in words; none if nothing has.
///
/// # Errors
/// If that cannot be found out.
pub fn taken(path: &Path) -> anyhow::Result<Option<&'static str>> {
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("{} cannot be looked at", path.display())),
    };
    Ok(Some(match there {
        kind if kind.is_symlink() => "as a link, which is not followed",
        kind if kind.is_dir() => "as a directory",
        _ => "already",
    }))
}

/// Refuses a name that is taken.
///
/// # Errors
/// If it is, or if that cannot be found out.
pub fn is_free(path: &Path) -> anyhow::Result<()> {
    match taken(path)? {
        Some(how) => bail!("{} is there {how}: take another name, or remove it", path.display()),
        None => Ok(()),
    }
}

/// Gives a file another name, which must be free.
///
/// # Errors
/// `AlreadyExists` if it is not; others of the system.
pub fn rename_to_free(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // Some file systems know no second names.
        Err(_) => match fs::symlink_metadata(to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::rename(from, to),
            Err(error) => Err(error),
        },
    }
}

/// Writes a whole file, in the place of an older one of the same user's if there is one. It is written beside it and then takes the
/// name, so that whoever reads sees the old or the new one, and no link is followed at any time.
///
/// # Errors
/// If the name is that of anything but such a file, or the file cannot be written.
pub fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("{shown} cannot be looked at")),
        Ok(there) if there.is_symlink() => {
            bail!("{shown} is a link, and none is followed: name the file itself")
        }
        Ok(there) if !there.is_file() => {
            bail!("{shown} is no file that could be replaced: take another name")
        }
        Ok(there) if there.uid() != nix::unistd::geteuid().as_raw() => {
            bail!("{shown} belongs to another user: take another name, or remove it")
        }
        Ok(_) => {}
    }
    let name = path.file_name().with_context(|| format!("{shown} is no name of a file"))?;
    let (beside, mut file) = beside(path, name).with_context(|| format!("{shown} cannot be made"))?;
    let written = file.write_all(bytes).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        if let Err(error) = fs::remove_file(&beside) {
            crate::notice!("{} is left behind: {error}", beside.display());
        }
        return Err(error).with_context(|| format!("{shown} cannot be written"));
    }
    Ok(())
}

/// A new file in the same folder, by a name that nobody has.
fn beside(path: &Path, name: &std::ffi::OsStr) -> io::Result<(PathBuf, File)> {
    let mut number = 0_u32;
    loop {
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{number}", std::process::id()));
        let beside = path.with_file_name(hidden);
        match create(&beside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100 => number += 1,
            made => return made.map(|file| (beside, file)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_file_is_its_owners_and_takes_no_name_that_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.html");
        create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let link = folder.path().join("link");
        symlink(folder.path().join("nowhere"), &link).unwrap();
        for taken in [&path, &link, &folder.path().to_owned()] {
            assert_eq!(create(taken).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert!(is_free(taken).is_err());
        }
        assert!(!folder.path().join("nowhere").exists());
        is_free(&folder.path().join("free")).unwrap();
    }

    #[test]
    fn only_a_file_is_replaced_and_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let [path, other, link] = ["page.html", "other", "link"].map(|name| folder.path().join(name));
        fs::write(&path, "old").unwrap();
        let before = Identity::of(&File::open(&path).unwrap()).unwrap();
        replace(&path, b"new").unwrap();
        assert!(fs::read(&path).unwrap() == b"new" && !before.is_at(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&other, "precious").unwrap();
        symlink(&other, &link).unwrap();
        for refused in [link.as_path(), folder.path(), Path::new("/dev/null")] {
            assert!(replace(refused, b"new").is_err(), "{}", refused.display());
        }
        assert_eq!(fs::read(&other).unwrap(), b"precious");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
    }
}
