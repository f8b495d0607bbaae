//! Files that the user names. They are the user's to choose, but a pipe or a device there must neither hang nor fill the memory.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::Identity;

/// More than any file that configures a pool has.
const LIMIT: u64 = 1024 * 1024;

/// Opens a regular file that the user has named, whatever is at its path by the time it is opened.
///
/// # Errors
/// If it cannot be opened, or is no regular file.
pub(crate) fn open_given(path: &Path) -> io::Result<File> {
    let is_file = |metadata: &fs::Metadata| match metadata.is_file() {
        true => Ok(()),
        false => Err(io::Error::other("it is no regular file")),
    };
    // To open a device may do something already; a pipe would wait for its writer.
    is_file(&fs::metadata(path)?)?;
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    is_file(&file.metadata()?)?;
    Ok(file)
}

/// Reads a small text file that the user has named.
///
/// # Errors
/// If it cannot be read, is no regular file, or is too large.
pub(crate) fn read_given(path: &Path) -> io::Result<(String, Identity)> {
    let mut file = open_given(path)?;
    let identity = Identity::from(&file.metadata()?);
    let mut bytes = Vec::new();
    file.by_ref().take(LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LIMIT {
        return Err(io::Error::other(format!("it has more than {} KiB", LIMIT / 1024)));
    }
    Ok((String::from_utf8_lossy(&bytes).into_owned(), identity))
}

#[cfg(test)]
mod tests {
    use nix::{sys::stat::Mode, unistd::mkfifo};
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn what_never_ends_is_refused() {
        let folder = TempDir::new().unwrap();
        let pipe = folder.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        assert!(read_given(&pipe).unwrap_err().to_string().contains("no regular file"));
        assert!(read_given(Path::new("/dev/zero")).unwrap_err().to_string().contains("no regular file"));
        let sparse = folder.path().join("sparse");
        File::create(&sparse).unwrap().set_len(2 << 30).unwrap();
        assert!(read_given(&sparse).unwrap_err().to_string().contains("more than 1024 KiB"));
        let file = folder.path().join("file");
        fs::write(&file, "[www]").unwrap();
        assert_eq!(read_given(&file).unwrap().0, "[www]");
    }
}
