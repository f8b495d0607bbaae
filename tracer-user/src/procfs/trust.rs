//! Who is believed to be nginx. The name alone is anybody's to take: a user's own program of that name could fill the tables that the
//! real one needs, or make the whole host's system calls be watched.
//!
//! The kernel side believes root's processes and what these have forked. The others are looked at here: an nginx that a service or a
//! container runs without root is believed for its executable, which only root may have written. Whoever is left is a stranger, and
//! reported.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aya::maps::{HashMap, MapData};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, statfs};
use procfs::{
    ProcResult,
    process::{Process, Stat},
};

use crate::{
    model::{
        budget,
        stranger::{Stranger, Why},
    },
    procfs::processes,
};

/// The share of the time that walks of /proc may take at most, whatever an attacker starts: one in so many.
const SHARE: u32 = 20;

/// `loginuid` of whatever nobody who logged in has started (`INVALID_UID`, include/linux/uidgid.h).
const NO_LOGIN: &str = "4294967295";

/// Finds out about everybody of the name.
#[derive(Debug)]
pub struct Trust {
    name: String,
    masters: HashMap<MapData, u32, u64>,
    /// The strangers that were reported: pid, and when the process began.
    known: HashSet<(i32, u64)>,
    reported: usize,
    /// Whether it was reported that somebody cannot be looked at.
    has_complained: bool,
    period: Duration,
    /// When /proc may be walked again.
    next: Instant,
}

impl Trust {
    /// For processes of this name, to be looked at no more often than `period` says; `masters` says to the kernel side whom to believe.
    pub fn new(name: &str, period: Duration, masters: HashMap<MapData, u32, u64>) -> Self {
        Self {
            name: name.to_owned(),
            period,
            masters,
            known: HashSet::new(),
            reported: 0,
            has_complained: false,
            next: Instant::now(),
        }
    }

    /// Whether it is time to look: /proc is not walked the whole time.
    pub fn may_look(&self) -> bool {
        Instant::now() >= self.next
    }

    /// Looks at everybody of the name: lets the kernel side believe whoever deserves it, and returns the strangers that were not
    /// reported before, at most [`budget::STRANGERS`] in a run.
    ///
    /// # Errors
    /// If /proc cannot be read.
    pub fn look(&mut self) -> io::Result<Vec<Stranger>> {
        let began = Instant::now();
        let (mut strangers, mut seen, mut alive) = (Vec::new(), HashSet::new(), HashSet::new());
        for pid in processes::pids()? {
            let found = Process::new(pid).and_then(|process| process.stat().map(|stat| (process, stat)));
            let (process, stat) = match processes::still(found) {
                Ok(Some(found)) => found,
                // Whoever goes meanwhile is nobody any more.
                Ok(None) => continue,
                Err(error) => {
                    // Whatever was found out about it stays.
                    alive.insert(pid.unsigned_abs());
                    if !std::mem::replace(&mut self.has_complained, true) {
                        crate::notice!(
                            "process {pid}, for one, cannot be looked at ({error}): if it is not root's, it is not taken for {}",
                            self.name
                        );
                    }
                    continue;
                }
            };
            alive.insert(stat.pid.unsigned_abs());
            if stat.comm != self.name || stat.state == 'Z' {
                continue;
            }
            let Some((master, stat)) = unproven(process, stat, &self.name) else { continue };
            let name = (stat.pid, stat.starttime);
            if !seen.insert(name) {
                continue;
            }
            match reason(&master, &self.name) {
                // A full table leaves it a stranger: the kernel side counts its connections.
                None if self.masters.insert(stat.pid.unsigned_abs(), stat.starttime, 0).is_ok() => {}
                why if !self.known.contains(&name) && self.reported < budget::STRANGERS => {
                    self.reported += 1;
                    strangers.push(Stranger {
                        pid: stat.pid.unsigned_abs(),
                        uid: master.status().ok().map(|status| status.ruid),
                        exe: exe(&master).map(|path| cut(&path)),
                        why: why.unwrap_or(Why::Unseen),
                    });
                }
                _ => {}
            }
        }
        // Of those reported before, whoever lives on; bounded by the processes there are.
        self.known = seen;
        let gone: Vec<u32> = self.masters.keys().flatten().filter(|pid| !alive.contains(pid)).collect();
        for pid in gone {
            // A leftover one believes nobody who began at another time.
            let _gone = self.masters.remove(&pid);
        }
        self.next = Instant::now() + (began.elapsed() * SHARE).max(self.period);
        Ok(strangers)
    }

    /// Whether no more strangers are reported, only counted.
    pub fn is_full(&self) -> bool {
        self.reported >= budget::STRANGERS
    }
}

/// Whether a process of this name is believed to be nginx, by the kernel side or for its executable.
pub fn is_believed(process: &Process, name: &str) -> bool {
    let Ok(stat) = process.stat() else { return false };
    let Ok(process) = Process::new(process.pid) else { return false };
    unproven(process, stat, name).is_none_or(|(master, _)| reason(&master, name).is_none())
}

/// Who answers for this process, unless the kernel side believes it anyway: its parent if that is what forked it.
fn unproven(process: Process, stat: Stat, name: &str) -> Option<(Process, Stat)> {
    if is_roots(&process) {
        return None;
    }
    let parent = Process::new(stat.ppid).and_then(|parent| parent.stat().map(|stat| (parent, stat)));
    match parent {
        Ok((parent, of))
            if of.comm == name && program(&parent).is_some_and(|it| program(&process) == Some(it)) =>
        {
            if is_roots(&parent) {
                None
            } else {
                Some((parent, of))
            }
        }
        _ => Some((process, stat)),
    }
}

/// By the real user: a program that only borrows root's rights keeps the one who started it.
fn is_roots(process: &Process) -> bool {
    process.status().is_ok_and(|status| status.ruid == 0)
}

/// What names the program that a process runs.
fn program(process: &Process) -> Option<(u64, u64)> {
    let there = fs::metadata(link(process)).ok()?;
    Some((there.dev(), there.ino()))
}

/// A link of the kernel's own: it leads to the very file, whatever its name leads to by now.
fn link(process: &Process) -> PathBuf {
    format!("/proc/{}/exe", process.pid).into()
}

fn exe(process: &Process) -> Option<PathBuf> {
    fs::read_link(link(process)).ok()
}

/// A name as it is kept: a user chose it.
fn cut(path: &Path) -> String {
    path.to_string_lossy().chars().take(budget::EXECUTABLE).collect()
}

/// Why a process that is not root's is not believed; none if it is.
fn reason(process: &Process, name: &str) -> Option<Why> {
    let link = link(process);
    let (Ok(there), Ok(kind), Some(path)) = (fs::metadata(&link), statfs(&link), exe(process)) else {
        return Some(Why::Unseen);
    };
    // In a user namespace, a mount gives any file any name.
    match (user_namespace(process), Process::myself().and_then(|me| user_namespace(&me))) {
        (Ok(theirs), Ok(ours)) if theirs == ours => {}
        (Ok(_), Ok(_)) => return Some(Why::UserNamespace),
        _ => return Some(Why::Unseen),
    }
    if kind.filesystem_type() == FUSE_SUPER_MAGIC {
        return Some(Why::UsersFileSystem);
    }
    if there.uid() != 0 {
        return Some(Why::ForeignExecutable);
    }
    if there.mode() & 0o022 != 0 {
        return Some(Why::WritableExecutable);
    }
    let called = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let called = called.strip_suffix(" (deleted)").unwrap_or(&called);
    if called.strip_prefix(name).is_none_or(|rest| !rest.is_empty() && !rest.starts_with(['-', '.'])) {
        return Some(Why::OtherExecutable);
    }
    match fs::read_to_string(format!("/proc/{}/loginuid", process.pid)) {
        Ok(login) if login.trim() != NO_LOGIN => Some(Why::Login),
        // Without audit in the kernel nobody knows who has logged in: the executable must do.
        _ => None,
    }
}

/// A kernel without user namespaces has but one.
fn user_namespace(process: &Process) -> ProcResult<Option<u64>> {
    Ok(process.namespaces()?.0.get(&OsString::from("user")).map(|user| user.identifier))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, id};

    use super::*;

    struct Sleeper(Child);

    impl Sleeper {
        fn of(program: &Path) -> Self {
            let sleeper = Self(Command::new(program).arg("1000").spawn().unwrap());
            while exe(&sleeper.process()).as_deref() != Some(program) {
                std::thread::yield_now();
            }
            sleeper
        }

        fn process(&self) -> Process {
            Process::new(self.0.id().cast_signed()).unwrap()
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn an_executable_of_roots_that_has_the_name_is_believed_and_nothing_else() {
        use std::os::unix::fs::{PermissionsExt as _, chown};
        let folder = tempfile::tempdir().unwrap();
        let copy = |name: &str| {
            let path = folder.path().join(name);
            fs::copy("/bin/sleep", &path).unwrap();
            path
        };
        let (roots, writable, foreign) = (copy("nginx"), copy("nginx-w"), copy("nginx-f"));
        fs::set_permissions(&writable, fs::Permissions::from_mode(0o777)).unwrap();
        chown(&foreign, Some(65_534), None).unwrap();
        let of = |path: &Path| reason(&Sleeper::of(path).process(), "nginx");
        // Whoever runs the tests may have logged in.
        assert!(matches!(of(&roots), None | Some(Why::Login)));
        assert_eq!(of(&writable), Some(Why::WritableExecutable));
        assert_eq!(of(&foreign), Some(Why::ForeignExecutable));
        assert_eq!(reason(&Sleeper::of(&roots).process(), "slee"), Some(Why::OtherExecutable));
    }

    #[test]
    fn root_is_known_by_the_real_user() {
        assert!(is_roots(&Process::new(id().cast_signed()).unwrap()));
    }
}
