//! Looks at real processes that the tests start.

use std::{
    fs::File,
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            net::{UnixListener, UnixStream},
            process::CommandExt as _,
        },
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    ptr::null_mut,
    thread::sleep,
    time::Instant,
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, killpg},
    unistd::{Pid, gettid},
};

use super::*;

/// A process that is killed with its test, and its children with it.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        killpg(Pid::from_raw(self.served().pid), Signal::SIGKILL).unwrap();
        self.0.wait().unwrap();
    }
}

impl Victim {
    fn start(program: &str, arguments: &[&str], stdin: Stdio) -> Self {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::of(command, stdin, Stdio::null())
    }

    fn of(mut command: Command, stdin: Stdio, stdout: Stdio) -> Self {
        Self(command.stdin(stdin).stdout(stdout).process_group(0).spawn().unwrap())
    }

    /// A shell's words, with `stdin` as its standard input.
    fn shell(script: &str, stdin: Stdio) -> Self {
        Self::start("sh", &["-c", script], stdin)
    }

    fn served(&self) -> Served {
        let pid = i32::try_from(self.0.id()).unwrap();
        served_by(pid, pid)
    }

    /// Looks until it does what it is meant to do; starting up takes it a while.
    fn does(&self, expected: &Doing) {
        does(&self.served(), expected);
    }
}

fn served_by(pid: i32, tid: i32) -> Served {
    Served { name: (1, 1), exchange: 1, since_ns: 1, is_answered: false, pid, tid, local: None }
}

fn does(served: &Served, expected: &Doing) {
    let started = Instant::now();
    let mut sockets = Sockets::default();
    loop {
        sockets.begin_round(std::iter::once(served.pid));
        let found = look(served, None, &mut sockets, monotonic_ns()).map(|look| look.doing);
        if found.as_ref() == Some(expected) {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{found:?} instead of {expected:?}");
        sleep(Duration::from_millis(2));
    }
}

fn waits(target: Target) -> Doing {
    Doing::Waiting(target)
}

fn stdio(socket: impl Into<OwnedFd>) -> Stdio {
    Stdio::from(socket.into())
}

/// A connection whose two ends are ours: the one that connected, and the one that was accepted.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("why502-sample-{}-{name}", std::process::id()))
}

#[test]
fn a_sleeping_process_sleeps() {
    Victim::start("sleep", &["60"], Stdio::null()).does(&waits(Target::Sleep("clock_nanosleep".into())));
}

#[test]
fn a_busy_process_runs() {
    Victim::shell("while :; do :; done", Stdio::null()).does(&Doing::Running);
}

#[test]
fn a_stopped_process_is_stopped() {
    let victim = Victim::shell("kill -STOP $$", Stdio::null());
    victim.does(&waits(Target::Stopped));
}

#[test]
fn a_blocking_read_waits_on_the_sockets_peer() {
    let (client, server) = connection();
    let peer = Peer::Tcp(client.peer_addr().unwrap());
    let _server = server;
    Victim::start("cat", &[], stdio(client)).does(&waits(Target::Peer(peer)));
}

#[test]
fn a_blocking_write_waits_on_the_sockets_peer() {
    let (client, _server) = connection();
    let peer = Peer::Tcp(client.peer_addr().unwrap());
    let mut command = Command::new("cat");
    command.arg("/dev/zero");
    Victim::of(command, Stdio::null(), stdio(client)).does(&waits(Target::Peer(peer)));
}

#[test]
fn the_workers_own_connection_is_nginxs() {
    let (client, server) = connection();
    let local = Some(server.local_addr().unwrap());
    let victim = Victim::start("cat", &[], stdio(server));
    does(&Served { local, ..victim.served() }, &waits(Target::Request));
    drop(client);
}

#[test]
fn a_unix_sockets_two_ends_are_told_apart() {
    let path = scratch("unix.sock");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let client = UnixStream::connect(&path).unwrap();
    let (server, _) = listener.accept().unwrap();
    let (client, server) =
        (Victim::start("cat", &[], stdio(client)), Victim::start("cat", &[], stdio(server)));
    client.does(&waits(Target::Peer(Peer::Unix(path.clone()))));
    server.does(&waits(Target::Request));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn udp_with_a_fixed_peer_waits_on_it() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(server.local_addr().unwrap()).unwrap();
    let peer = Peer::Udp(server.local_addr().unwrap());
    Victim::start("cat", &[], stdio(client)).does(&waits(Target::Peer(peer)));
}

/// Lets a thread of this process do something that takes for ever, and looks at it.
fn thread_does(work: impl FnOnce() + Send + 'static, expected: &Doing) {
    let (sender, tid) = std::sync::mpsc::channel();
    thread::spawn(move || {
        sender.send(gettid().as_raw()).unwrap();
        work();
    });
    let pid = i32::try_from(std::process::id()).unwrap();
    does(&served_by(pid, tid.recv().unwrap()), expected);
}

fn poll(mut set: Vec<libc::pollfd>, timeout: i32) {
    let count = libc::nfds_t::try_from(set.len()).unwrap();
    // SAFETY: as many entries as are said.
    unsafe { libc::poll(set.as_mut_ptr(), count, timeout) };
}

fn entry(fd: i32, events: i16) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

#[test]
fn poll_is_followed_to_the_one_descriptor_that_it_watches() {
    let (client, server) = connection();
    let (fd, peer) = (client.as_raw_fd(), Peer::Tcp(client.peer_addr().unwrap()));
    let set = vec![entry(-1, libc::POLLIN), entry(fd, libc::POLLIN | libc::POLLPRI)];
    thread_does(move || poll(set, -1), &waits(Target::Peer(peer)));

    let set = vec![entry(fd, libc::POLLIN), entry(server.as_raw_fd(), libc::POLLIN)];
    thread_does(move || poll(set, -1), &waits(Target::Events("poll".into())));
    thread_does(|| poll(Vec::new(), 60_000), &waits(Target::Sleep("poll".into())));
    // The threads still use the descriptors.
    std::mem::forget((client, server));
}

#[test]
fn select_is_followed_to_the_one_descriptor_that_it_watches() {
    let (client, server) = connection();
    let (fd, peer) = (client.as_raw_fd(), Peer::Tcp(client.peer_addr().unwrap()));
    let select = move || {
        // SAFETY: all zero is an empty set, and the descriptor is below FD_SETSIZE in this small process.
        unsafe {
            let mut set: libc::fd_set = std::mem::zeroed();
            libc::FD_SET(fd, &raw mut set);
            libc::select(fd + 1, &raw mut set, null_mut(), null_mut(), null_mut());
        }
    };
    thread_does(select, &waits(Target::Peer(peer)));
    std::mem::forget((client, server));
}

#[test]
fn epoll_is_followed_only_where_it_watches_one_descriptor() {
    let (client, server) = connection();
    let (fd, other) = (client.as_raw_fd(), server.as_raw_fd());
    let peer = Peer::Tcp(client.peer_addr().unwrap());
    let epoll = |fds: Vec<i32>| {
        // SAFETY: takes integers and two events that live until each call returns.
        move || unsafe {
            let epoll = libc::epoll_create1(0);
            let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
            for fd in fds {
                assert_eq!(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event), 0);
            }
            libc::epoll_wait(epoll, &raw mut event, 1, -1);
        }
    };
    thread_does(epoll(vec![fd]), &waits(Target::Peer(peer)));
    thread_does(epoll(vec![fd, other]), &waits(Target::Events("epoll_wait".into())));
    std::mem::forget((client, server));
}

#[test]
fn a_connection_that_does_not_come_about_is_no_connection_yet() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // SAFETY: takes two integers. The queue is then as short as can be.
    unsafe { libc::listen(listener.as_raw_fd(), 0) };
    let _queued = TcpStream::connect(address).unwrap();
    let connect = move || drop(TcpStream::connect(address));
    thread_does(connect, &waits(Target::Connecting(Peer::Tcp(address))));
}

#[test]
fn a_listener_waits_for_a_connection_and_a_mutex_for_a_lock() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    thread_does(move || drop(listener.accept()), &waits(Target::Connection));
    thread_does(thread::park, &waits(Target::Lock));
}

#[test]
fn a_file_lock_names_the_file() {
    let path = scratch("lock");
    let held = Flock::lock(File::create(&path).unwrap(), FlockArg::LockExclusive).unwrap();
    let victim = Victim::start("flock", &[path.to_str().unwrap(), "true"], Stdio::null());
    victim.does(&waits(Target::FileLock(path.clone())));
    drop(held);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_child_is_named_whether_its_end_or_its_output_is_awaited() {
    let victim = Victim::shell("sleep 60; :", Stdio::null());
    victim.does(&waits(Target::Child(Some("sleep".to_owned()))));
    let victim = Victim::shell("x=$(sleep 60; :)", Stdio::null());
    victim.does(&waits(Target::Pipe(Some("sleep".to_owned()))));
}

#[test]
fn a_thread_that_has_gone_gives_no_sample() {
    let mut gone = Command::new("true").spawn().unwrap();
    let pid = i32::try_from(gone.id()).unwrap();
    gone.wait().unwrap();
    assert!(look(&served_by(pid, pid), None, &mut Sockets::default(), 1).is_none());
}

#[test]
fn in_one_round_the_oldest_unanswered_exchanges_come_first() {
    let served = [(3, false), (1, true), (2, false)].map(|(since_ns, is_answered)| Served {
        since_ns,
        is_answered,
        ..served_by(1, 1)
    });
    let order: Vec<_> = in_order(&served).iter().map(|served| served.since_ns).collect();
    assert_eq!(order, [2, 3, 1]);
}

#[test]
fn exchanges_of_one_thread_share_one_look() {
    let mut rounds = Rounds::default();
    let victim = Victim::start("sleep", &["60"], Stdio::null());
    let served: Vec<_> = (0..100).map(|number| Served { name: (number, 1), ..victim.served() }).collect();
    victim.does(&waits(Target::Sleep("clock_nanosleep".into())));
    let looks = rounds.round(&served);
    assert_eq!((looks.len(), looks[0].exchanges.len(), rounds.used.len()), (1, 100, 1));
}
