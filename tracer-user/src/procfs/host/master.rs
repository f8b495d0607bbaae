//! Which master processes are believed: root's own, whose program only root could have put there.

use std::{
    fs::{File, metadata, read_link},
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    panic::resume_unwind,
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, openat},
    sched::{CloneFlags, setns},
    sys::stat::{FileStat, Mode, fstat},
};
use procfs::{
    FromRead,
    process::{Stat, Status},
};

use super::{Identity, Refusal, Root, is_ours, root::own};
use crate::confine;

// Names in a process's folder.
const PROGRAM: &str = "exe";
const COMMAND_LINE: &str = "cmdline";
const USERS: &str = "ns/user";
const NETWORK: &str = "ns/net";

/// Much more than a command line of a server's has.
const LONGEST: u64 = 128 * 1024;

/// A master process that is believed.
#[derive(Debug)]
pub(crate) struct Master {
    /// Its pid.
    pub pid: u32,
    /// Its folder in /proc: that very process's, not that of whoever has its pid.
    process: OwnedFd,
    executable: File,
    command_line: Vec<u8>,
    root: Root,
}

impl Master {
    /// Believes a process whose user is root, in our own user namespace, and whose executable is root's and nobody else may write. It
    /// is asked twice, so that it was all that at the same time.
    ///
    /// The executable is judged as the file that it is; the folders above it do not matter to a file that is found without them.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn believe(pid: u32) -> Result<Self, Refusal> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let process = nix::fcntl::open(format!("/proc/{pid}").as_str(), flags, Mode::empty());
        let process = process.map_err(failed("folder"))?;
        is_roots(&process)?;
        let program = open(&process, PROGRAM, OFlag::O_PATH)?;
        let stat = stat_of(&program)?;
        is_trusted(&stat)?;
        let executable = File::open(own(&program)).map_err(failed(PROGRAM))?;
        let command_line = command_line(&process)?;
        let root = Root::new(open(&process, "root", OFlag::O_PATH | OFlag::O_DIRECTORY)?);
        is_roots(&process)?;
        let now = stat_of(&open(&process, PROGRAM, OFlag::O_PATH)?)?;
        if Identity::from(&now) != Identity::from(&stat) {
            return Err(Refusal::Changed);
        }
        Ok(Self { pid, process, executable, command_line, root })
    }

    /// Its command line, or the title that it has given itself.
    pub(super) fn command_line(&self) -> &[u8] {
        &self.command_line
    }

    /// Its executable.
    pub(super) fn executable(&self) -> &File {
        &self.executable
    }

    /// The files as it sees them.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// An absolute path in its root, from one that it was started with.
    pub(super) fn absolute(&self, path: &Path) -> Result<PathBuf, Refusal> {
        if path.is_absolute() {
            return Ok(path.to_owned());
        }
        // As a link each reads as it is seen from our own root, or from the top of its own mounts.
        let (folder, root) = (self.link("cwd")?, self.link("root")?);
        let inside = folder.strip_prefix(root).map_err(|_| Refusal::CommandLine)?;
        Ok(Path::new("/").join(inside).join(path))
    }

    /// Its folder in /proc.
    pub(super) fn process(&self) -> &OwnedFd {
        &self.process
    }

    /// A folder within that.
    pub(super) fn folder(&self, name: &'static str) -> Result<OwnedFd, Refusal> {
        open(&self.process, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY)
    }

    fn link(&self, name: &'static str) -> Result<PathBuf, Refusal> {
        let folder = open(&self.process, name, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        read_link(own(&folder)).map_err(failed(name))
    }

    /// Runs `work` in its network namespace, which must have this number, and which is entered only if it is not our own.
    ///
    /// # Errors
    /// If it lives in another one, or it cannot be entered.
    pub fn in_network<T: Send>(&self, number: u32, work: impl FnOnce() -> T + Send) -> Result<T, Refusal> {
        let there = file(&self.process, NETWORK)?;
        let of_there = there.metadata().map_err(failed(NETWORK))?.ino();
        if of_there != u64::from(number) {
            return Err(Refusal::Elsewhere);
        }
        if metadata("/proc/thread-self/ns/net").map_err(failed(NETWORK))?.ino() == of_there {
            return Ok(work());
        }
        let inside = || {
            setns(&there, CloneFlags::CLONE_NEWNET).map_err(failed(NETWORK))?;
            Ok(work())
        };
        confine::apart(inside).unwrap_or_else(|panic| resume_unwind(panic))
    }
}

fn failed<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> Refusal {
    move |error| {
        let error = error.into();
        match error.raw_os_error() {
            // So ends every access to the folder of a process that has ended.
            Some(libc::ENOENT | libc::ESRCH) => Refusal::Changed,
            _ => Refusal::Process { what, error: error.to_string() },
        }
    }
}

/// Opens something in a process's folder.
fn open(process: &OwnedFd, name: &'static str, flags: OFlag) -> Result<OwnedFd, Refusal> {
    openat(process, name, flags | OFlag::O_CLOEXEC, Mode::empty()).map_err(failed(name))
}

fn file(process: &OwnedFd, name: &'static str) -> Result<File, Refusal> {
    Ok(open(process, name, OFlag::O_RDONLY)?.into())
}

fn parsed<T: FromRead>(process: &OwnedFd, name: &'static str) -> Result<T, Refusal> {
    let unread = |error: procfs::ProcError| Refusal::Process { what: name, error: error.to_string() };
    T::from_read(file(process, name)?).map_err(unread)
}

fn stat_of(program: &OwnedFd) -> Result<FileStat, Refusal> {
    fstat(program).map_err(failed(PROGRAM))
}

/// Whether each of its users is root, in our own user namespace.
fn is_roots(process: &OwnedFd) -> Result<(), Refusal> {
    let status: Status = parsed(process, "status")?;
    let users = [status.ruid, status.euid, status.suid, status.fuid];
    if let Some(foreign) = users.into_iter().find(|uid| !is_ours(*uid)) {
        return Err(Refusal::ForeignUser(foreign));
    }
    let theirs = file(process, USERS)?.metadata().map_err(failed(USERS))?;
    let ours = metadata("/proc/self/ns/user").map_err(failed(USERS))?;
    if theirs.ino() == ours.ino() { Ok(()) } else { Err(Refusal::ForeignUserNamespace) }
}

fn is_trusted(program: &FileStat) -> Result<(), Refusal> {
    if !is_ours(program.st_uid) {
        return Err(Refusal::ForeignExecutable(program.st_uid));
    }
    if program.st_mode & (Mode::S_IWGRP | Mode::S_IWOTH).bits() != 0 {
        return Err(Refusal::WritableExecutable);
    }
    Ok(())
}

/// The bytes of its command line, each argument or the whole title followed by a zero.
fn command_line(process: &OwnedFd) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    let read = file(process, COMMAND_LINE)?.take(LONGEST + 1).read_to_end(&mut bytes);
    read.map_err(failed(COMMAND_LINE))?;
    let stat: Stat = parsed(process, "stat")?;
    // A title that fills all the room that there was for arguments and environment may have been longer.
    let room = stat.env_end.zip(stat.arg_start).map_or(0, |(end, start)| end.saturating_sub(start));
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 2);
    let is_title = bytes.starts_with(b"nginx: ") || bytes.starts_with(b"php-fpm: ");
    let is_cut = is_title && used >= room;
    if bytes.len() as u64 > LONGEST || is_cut { Err(Refusal::CommandLineCut) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{Permissions, copy, set_permissions},
        os::unix::fs::PermissionsExt as _,
        process::{Child, Command, Stdio},
    };

    use tempfile::TempDir;

    use super::*;

    struct Running(Child);

    impl Running {
        /// A process whose executable has these permissions.
        fn with_mode(folder: &TempDir, mode: u32) -> Self {
            let program = folder.path().join(format!("nginx-{mode:o}"));
            copy("/bin/sleep", &program).unwrap();
            set_permissions(&program, Permissions::from_mode(mode)).unwrap();
            Self(Command::new(program).arg("1000").stdin(Stdio::null()).spawn().unwrap())
        }

        fn believe(&self) -> Result<Master, Refusal> {
            Master::believe(self.0.id())
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[test]
    fn whose_program_others_may_write_is_not_believed() {
        let folder = TempDir::new().unwrap();
        assert!(Running::with_mode(&folder, 0o755).believe().is_ok());
        for mode in [0o775, 0o757] {
            let refusal = Running::with_mode(&folder, mode).believe().unwrap_err();
            assert!(matches!(refusal, Refusal::WritableExecutable), "{refusal}");
        }
    }

    #[test]
    fn an_executable_of_another_users_is_not_believed() {
        let mut program = stat_of(&File::open("/bin/sleep").unwrap().into()).unwrap();
        assert!(is_trusted(&program).is_ok());
        program.st_uid = 65_534;
        assert!(matches!(is_trusted(&program), Err(Refusal::ForeignExecutable(65_534))));
    }

    #[test]
    fn who_has_ended_is_nobody_even_if_his_pid_is_anothers() {
        let folder = TempDir::new().unwrap();
        let running = Running::with_mode(&folder, 0o755);
        let master = running.believe().unwrap();
        assert_eq!(master.absolute(Path::new("/a/b")).unwrap(), Path::new("/a/b"));
        assert_eq!(master.absolute(Path::new("a")).unwrap(), std::env::current_dir().unwrap().join("a"));
        drop(running);
        assert!(matches!(is_roots(&master.process), Err(Refusal::Changed)));
        assert!(matches!(Master::believe(u32::MAX / 2), Err(Refusal::Changed)));
    }
}
