//! The processes of this host, as /proc lists them.

use std::{fs, io};

use procfs::{ProcError, ProcResult};

/// `ESRCH`: a process that ends while a file of its folder is read.
const GONE: i32 = libc::ESRCH;

/// The pids of all processes. None is opened for that: whoever holds each open runs out of descriptors on a host with many.
///
/// # Errors
/// If /proc cannot be listed.
pub fn pids() -> io::Result<Vec<i32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc")? {
        // What is no number is no process.
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(pids)
}

/// What was found at a process; none if it has gone meanwhile, which is no error.
///
/// # Errors
/// Any other that `found` is.
pub fn still<T>(found: ProcResult<T>) -> ProcResult<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(ProcError::NotFound(_)) => Ok(None),
        Err(ProcError::Io(error, _)) if error.raw_os_error() == Some(GONE) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};

    use procfs::process::Process;

    use super::*;

    #[test]
    fn who_runs_is_listed_and_who_has_gone_is_no_error() {
        assert!(pids().unwrap().contains(&id().cast_signed()));
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = Process::new(child.id().cast_signed()).unwrap();
        assert!(still(process.stat()).unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(still(process.stat()).unwrap().is_none() && still(process.status()).unwrap().is_none());
        assert!(still(Process::new(child.id().cast_signed())).unwrap().is_none());
        assert!(still::<()>(Err(ProcError::PermissionDenied(None))).is_err());
    }
}
