//! What a waiting thread waits for: its system call's descriptors, followed to what is behind them.

use std::{fs, io::IoSliceMut, path::PathBuf};

use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};
use procfs::process::{FDTarget, Process, Task};

use super::{
    Served, Target,
    sockets::{Socket, Sockets},
    syscall::Call,
};

/// Descriptors of one call that are followed; an event loop has more, and which one matters does not show.
const MOST_DESCRIPTORS: usize = 8;

/// How many generations of children are followed: `sh -c` and what it runs.
const MOST_GENERATIONS: usize = 4;

/// What a thread waits for on a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

/// Descriptors with what is awaited on each.
type Watched = Vec<(i32, Way)>;

/// A thread that waits, and what is needed to find out what for.
pub(super) struct Waiter<'a> {
    pub(super) process: &'a Process,
    pub(super) task: &'a Task,
    pub(super) served: &'a Served,
    /// Whether its process has no other thread.
    pub(super) is_only_thread: bool,
    pub(super) sockets: &'a mut Sockets,
}

impl Waiter<'_> {
    /// What it waits for in this call. None if that cannot be found out now.
    pub(super) fn target(&mut self, call: Call) -> Option<Target> {
        Some(match call {
            Call::Read { fd } => self.behind(fd, Way::In, "read")?,
            Call::Write { fd } => self.behind(fd, Way::Out, "write")?,
            Call::Connect { fd } => match self.behind(fd, Way::Out, "connect")? {
                Target::Peer(peer) => Target::Connecting(peer),
                target => target,
            },
            Call::Accept => Target::Connection,
            Call::Poll { name, address, count } => {
                let watched = self.poll_set(address, count);
                self.any_of(name, watched)?
            }
            Call::Select { name, count, read, write } => {
                let watched = self.select_sets(count, read, write);
                self.any_of(name, watched)?
            }
            Call::Epoll { name, fd } => match self.epoll_set(fd).as_deref() {
                Some([(fd, way)]) => self.behind(*fd, *way, name)?,
                _ => Target::Events(name.into()),
            },
            Call::Sleep { name } => Target::Sleep(name.into()),
            Call::Futex => Target::Lock,
            Call::FileLock { fd } => match self.behind(fd, Way::In, "flock")? {
                Target::File(path) => Target::FileLock(path),
                target => target,
            },
            Call::Child => Target::Child(self.children().pop().and_then(name)),
            Call::Signal => Target::Signal,
            Call::Named(name) => Target::Kernel(name.to_owned()),
            Call::Number(number) => Target::Kernel(format!("system call {number}")),
        })
    }

    /// What a call that waits for any of these waits for.
    fn any_of(&mut self, name: &'static str, watched: Option<Watched>) -> Option<Target> {
        let Some(mut watched) = watched else { return Some(Target::Events(name.into())) };
        // poll and select with nothing to watch only let time pass.
        if watched.is_empty() {
            return Some(Target::Sleep(name.into()));
        }
        if watched.len() > 1 && self.is_only_thread {
            // With no other thread to wake it, such as libcurl keeps beside its sockets, they are watched for nothing.
            watched.retain(|(fd, _)| !self.is_own_wakeup(*fd));
        }
        let mut targets = Vec::new();
        for (fd, way) in watched {
            targets.push(self.behind(fd, way, name)?);
        }
        targets.dedup();
        Some(if targets.len() == 1 { targets.swap_remove(0) } else { Target::Events(name.into()) })
    }

    /// Whether this descriptor is one by which a process wakes itself: an eventfd, or one end of a pair or of a pipe
    /// whose other end it has, too.
    fn is_own_wakeup(&mut self, fd: i32) -> bool {
        let target = |fd| self.process.fd_from_fd(fd).map(|descriptor| descriptor.target);
        match target(fd) {
            Ok(FDTarget::AnonInode(name)) => name == "[eventfd]",
            Ok(FDTarget::Socket(inode)) => self.sockets.find(inode) == Some(Socket::UnixPair),
            Ok(FDTarget::Pipe(inode)) => self.process.fd().is_ok_and(|descriptors| {
                let is_same = |target: &FDTarget| matches!(target, FDTarget::Pipe(other) if *other == inode);
                descriptors.flatten().filter(|descriptor| is_same(&descriptor.target)).count() > 1
            }),
            _ => false,
        }
    }

    fn behind(&mut self, fd: i32, way: Way, call: &str) -> Option<Target> {
        let descriptor = self.process.fd_from_fd(fd).map(|descriptor| descriptor.target);
        Some(match descriptor {
            Ok(FDTarget::Path(path)) => Target::File(without_secret(path)),
            Ok(FDTarget::Pipe(inode)) => Target::Pipe(self.child_with_pipe(inode)),
            Ok(FDTarget::Socket(inode)) => {
                let socket = self.sockets.find(inode)?;
                self.end_of(&socket, way)
            }
            _ => Target::Kernel(call.to_owned()),
        })
    }

    fn end_of(&self, socket: &Socket, way: Way) -> Target {
        let is_own = match socket {
            Socket::Listener => return Target::Connection,
            // The listener's address is this end's own address.
            Socket::Tcp { local, .. } => self.served.local == Some(*local),
            Socket::UnixAccepted => self.served.local.is_none(),
            Socket::Udp { .. } | Socket::UnixClient(_) | Socket::UnixPair | Socket::Other => false,
        };
        match (is_own, way) {
            (true, Way::In) => return Target::Request,
            (true, Way::Out) => return Target::ResponseTaken,
            (false, _) => {}
        }
        match socket.peer() {
            Some(peer) if matches!(socket, Socket::Tcp { connecting: true, .. }) => Target::Connecting(peer),
            Some(peer) => Target::Peer(peer),
            None => Target::Socket,
        }
    }

    /// The `struct pollfd`s: an int, and two shorts of events.
    fn poll_set(&self, address: u64, count: u64) -> Option<Watched> {
        let count = usize::try_from(count).ok().filter(|count| *count <= MOST_DESCRIPTORS)?;
        let entries = self.memory(address, count * size_of::<libc::pollfd>())?;
        let entries = entries.chunks_exact(size_of::<libc::pollfd>()).map(|entry| {
            let fd = i32::from_ne_bytes([entry[0], entry[1], entry[2], entry[3]]);
            let events = i16::from_ne_bytes([entry[4], entry[5]]);
            (fd, if events & libc::POLLIN == 0 && events & libc::POLLOUT != 0 { Way::Out } else { Way::In })
        });
        // The kernel passes over negative ones.
        Some(entries.filter(|(fd, _)| *fd >= 0).collect())
    }

    /// Bits in longs of 64 bits, of which there are as many as `count` bits need.
    fn select_sets(&self, count: u64, read: u64, write: u64) -> Option<Watched> {
        let count = usize::try_from(count).ok().filter(|count| *count <= libc::FD_SETSIZE)?;
        let mut watched = Vec::new();
        for (address, way) in [(read, Way::In), (write, Way::Out)] {
            if address == 0 {
                continue;
            }
            let set = self.memory(address, count.div_ceil(u64::BITS as usize) * size_of::<u64>())?;
            let longs = set.as_chunks().0.iter().copied().map(u64::from_ne_bytes);
            let bits = longs.flat_map(|long| (0..u64::BITS).map(move |bit| (long >> bit) & 1 != 0));
            watched.extend((0..).zip(bits).filter(|(_, is_set)| *is_set).map(|(fd, _)| (fd, way)));
        }
        Some(watched)
    }

    /// The lines `tfd: 8 events: 19 data: ...` of the descriptor's fdinfo, the events in hexadecimal digits.
    fn epoll_set(&self, fd: i32) -> Option<Watched> {
        let text = fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", self.process.pid)).ok()?;
        Some(epoll_entries(&text))
    }

    fn memory(&self, address: u64, bytes: usize) -> Option<Vec<u8>> {
        let mut memory = vec![0; bytes];
        if bytes > 0 {
            let remote = RemoteIoVec { base: usize::try_from(address).ok()?, len: bytes };
            let read = process_vm_readv(
                Pid::from_raw(self.process.pid),
                &mut [IoSliceMut::new(&mut memory)],
                &[remote],
            );
            read.ok().filter(|read| *read == bytes)?;
        }
        Some(memory)
    }

    /// The only child, its only child, and so on: the last is the one that does the work. Empty where there is none, or
    /// more than one.
    fn children(&self) -> Vec<i32> {
        let mut line = Vec::new();
        let mut children = self.task.children().unwrap_or_default();
        while let [child] = children[..]
            && line.len() < MOST_GENERATIONS
        {
            let Ok(child) = i32::try_from(child) else { break };
            line.push(child);
            let task = Process::new(child).and_then(|process| process.task_main_thread());
            children = task.and_then(|task| task.children()).unwrap_or_default();
        }
        line
    }

    /// The name of the youngest child that has the other end of a pipe.
    fn child_with_pipe(&self, inode: u64) -> Option<String> {
        let has_pipe = |pid: &i32| {
            let descriptors = Process::new(*pid).and_then(|process| process.fd()).ok();
            descriptors.is_some_and(|descriptors| {
                descriptors
                    .flatten()
                    .any(|descriptor| matches!(descriptor.target, FDTarget::Pipe(other) if other == inode))
            })
        };
        self.children().into_iter().rev().find(has_pipe).and_then(name)
    }
}

/// The name of a file of PHP's sessions is all that one needs to take the session over: it must not get into logs.
fn without_secret(path: PathBuf) -> PathBuf {
    let is_session = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"sess_"));
    if is_session { path.with_file_name("sess_*") } else { path }
}

fn epoll_entries(fdinfo: &str) -> Watched {
    let entries = fdinfo.lines().filter_map(|line| {
        let mut words = line.strip_prefix("tfd:")?.split_whitespace();
        let fd = words.next()?.parse().ok()?;
        let events = u32::from_str_radix(words.nth(1)?, 16).ok()?;
        let (input, output) = (libc::EPOLLIN as u32, libc::EPOLLOUT as u32);
        Some((fd, if events & input == 0 && events & output != 0 { Way::Out } else { Way::In }))
    });
    entries.collect()
}

fn name(pid: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| name.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_session_is_kept_secret() {
        let shown = |path: &str| without_secret(path.into()).display().to_string();
        assert_eq!(shown("/var/lib/php/sessions/sess_8k2v"), "/var/lib/php/sessions/sess_*");
        assert_eq!(shown("/var/lib/php/sessions/other"), "/var/lib/php/sessions/other");
    }

    #[test]
    fn what_an_epoll_descriptor_watches_is_read_from_its_fdinfo() {
        // As Linux 6.18 writes it.
        let fdinfo = "pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t1057\n\
             tfd:        5 events:       19 data:        5  pos:0 ino:3a5c sdev:8\n\
             tfd:        9 events: 80000004 data: ffffffff00000009  pos:0 ino:3a60 sdev:8\n";
        assert_eq!(epoll_entries(fdinfo), [(5, Way::In), (9, Way::Out)]);
        assert_eq!(epoll_entries("pos:\t0\nflags:\t02\n"), []);
    }
}
