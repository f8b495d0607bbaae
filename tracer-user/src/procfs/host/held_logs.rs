//! The files that a master holds open to append to: its logs, wherever they are by now.
//!
//! They are the very files that nginx writes to. No path is followed, so that no link that somebody has put in a log's place leads
//! anywhere: what nginx itself has not opened is not read.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    os::fd::OwnedFd,
};

use nix::{
    fcntl::{OFlag, openat},
    sys::stat::{Mode, SFlag, fstat},
};

use super::{
    Identity, Master, Refusal,
    root::{kind, own, reopen},
};

/// A file that a master appends to.
#[derive(Debug)]
pub(crate) struct HeldLog {
    /// Which file it is.
    pub identity: Identity,
    /// To be read.
    pub file: File,
}

impl Master {
    /// The regular files that it has open for appending, each once, and no more than `most`; those that `is_known` are not opened
    /// again, but for their identity. Returns them, the identities of the known ones, and how many were left out.
    ///
    /// # Errors
    /// If it has ended, or its descriptors cannot be looked at.
    pub fn held_logs(
        &self,
        most: usize,
        is_known: impl Fn(Identity) -> bool,
    ) -> Result<(Vec<HeldLog>, Vec<Identity>, usize), Refusal> {
        let (mut new, mut known, mut left_out) = (Vec::<HeldLog>::new(), Vec::new(), 0);
        let folder = self.folder("fd")?;
        for entry in std::fs::read_dir(own(&folder)).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let path = std::path::Path::new("fd").join(&name);
            // The link of procfs's own leads to the file that is open, not to its name.
            let node = match openat(self.process(), &path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
                Ok(node) => node,
                // It was closed meanwhile.
                Err(nix::errno::Errno::ENOENT) => continue,
                Err(errno) => return Err(failed(errno.into())),
            };
            let stat = fstat(&node).map_err(|errno| failed(errno.into()))?;
            if kind(&stat) != SFlag::S_IFREG || !self.appends(&name)? {
                continue;
            }
            let identity = Identity::from(&stat);
            if is_known(identity) {
                known.push(identity);
            } else if new.iter().all(|log| log.identity != identity) {
                if new.len() == most {
                    left_out += 1;
                    continue;
                }
                new.push(HeldLog { identity, file: reopen(&node).map_err(failed)? });
            }
        }
        Ok((new, known, left_out))
    }

    /// Whether it opened this descriptor to write at the end only, as nginx does its logs (`ngx_conf_open_file`, src/core/ngx_conf_file.c).
    fn appends(&self, descriptor: &std::ffi::OsStr) -> Result<bool, Refusal> {
        let path = std::path::Path::new("fdinfo").join(descriptor);
        let info: OwnedFd =
            match openat(self.process(), &path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
                Ok(info) => info,
                Err(nix::errno::Errno::ENOENT) => return Ok(false),
                Err(errno) => return Err(failed(errno.into())),
            };
        for line in BufReader::new(File::from(info)).lines() {
            let line = line.map_err(failed)?;
            if let Some(flags) = line.strip_prefix("flags:") {
                let flags = i32::from_str_radix(flags.trim(), 8).unwrap_or_default();
                return Ok(flags & libc::O_APPEND != 0 && flags & libc::O_ACCMODE == libc::O_WRONLY);
            }
        }
        Ok(false)
    }
}

fn failed(error: std::io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => Refusal::Changed,
        _ => Refusal::Process { what: "fd", error: error.to_string() },
    }
}
