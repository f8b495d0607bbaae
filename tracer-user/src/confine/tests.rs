//! Each in a thread of its own: what it gives up is that thread's.

use std::{
    fs::{self, File},
    io,
    net::{TcpListener, TcpStream},
    process::Command,
    thread,
};

use caps::{CapSet, Capability};

use super::*;

/// What a thread is like after it has confined itself.
fn confined_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join()).unwrap()
}

fn status(name: &str) -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

fn called(result: libc::c_long) -> Option<i32> {
    (result < 0).then(|| io::Error::last_os_error().raw_os_error()).flatten()
}

/// Calls that do nothing much, and that a confined thread has no use for: none may be made, with whatever privileges.
fn forbidden() -> Vec<(&'static str, Option<i32>)> {
    // SAFETY: each takes integers, or no memory at all.
    unsafe {
        vec![
            ("ptrace", called(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0))),
            ("unshare", called(libc::unshare(libc::CLONE_FS).into())),
            ("setns", called(libc::setns(-1, libc::CLONE_NEWNET).into())),
            ("keyctl", called(libc::syscall(libc::SYS_keyctl, 0, 0, 0))),
            ("kill", called(libc::kill(std::process::id().cast_signed(), 0).into())),
            ("init_module", called(libc::syscall(libc::SYS_init_module, 0, 0, 0))),
            ("process_vm_writev", called(libc::syscall(libc::SYS_process_vm_writev, 0, 0, 0, 0, 0, 0))),
            ("io_uring_setup", called(libc::syscall(libc::SYS_io_uring_setup, 0, 0))),
            ("mount", called(libc::syscall(libc::SYS_mount, 0, 0, 0, 0, 0))),
            ("AF_PACKET", called(libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0).into())),
            ("TIOCSTI", called(libc::ioctl(0, libc::TIOCSTI, 0).into())),
            ("executable memory", {
                let made = libc::mmap(
                    std::ptr::null_mut(),
                    4096,
                    libc::PROT_READ | libc::PROT_EXEC,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                );
                (made == libc::MAP_FAILED).then(|| io::Error::last_os_error().raw_os_error()).flatten()
            }),
            ("fork", called(libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0))),
        ]
    }
}

fn all_are_refused() {
    for (name, errno) in forbidden() {
        assert_eq!(errno, Some(libc::EPERM), "{name}");
    }
    assert_eq!(errno(Command::new("/bin/true").status()), Some(libc::EPERM));
    assert_eq!((status("NoNewPrivs"), status("Seccomp")), ("1".to_owned(), "2".to_owned()));
}

#[test]
fn a_tracing_thread_executes_nothing_and_makes_no_process_and_yet_does_what_tracing_takes() {
    if !Means::here().seccomp {
        return;
    }
    confined_thread(|| {
        assert!(confined(|| capabilities::keep(kept(false, false)), &Filter::tracing()).is_empty());
        all_are_refused();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "x").unwrap();
        fs::rename(folder.path().join("a"), folder.path().join("b")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(thread::spawn(|| status("Seccomp")).join().unwrap(), "2");
    });
}

#[test]
fn a_thread_apart_may_enter_network_namespaces_and_no_other() {
    if !Means::here().seccomp {
        return;
    }
    confined_thread(|| {
        assert!(confined(|| capabilities::keep(kept(true, false)), &Filter::apart(false)).is_empty());
        let [network, host_name] =
            ["net", "uts"].map(|kind| File::open(format!("/proc/self/ns/{kind}")).unwrap());
        let enter = |file: &File, kind| errno(nix::sched::setns(file, kind).map_err(io::Error::from));
        let is_root = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap();
        let (net, uts) = (nix::sched::CloneFlags::CLONE_NEWNET, nix::sched::CloneFlags::CLONE_NEWUTS);
        assert_eq!(enter(&network, net), (!is_root).then_some(libc::EPERM));
        assert_eq!(enter(&host_name, uts), Some(libc::EPERM));
        assert_eq!(enter(&network, nix::sched::CloneFlags::empty()), Some(libc::EPERM));
    });
}

#[test]
fn capabilities_that_were_given_up_do_not_come_back() {
    confined_thread(|| {
        capabilities::keep([Capability::CAP_SYS_PTRACE, Capability::CAP_BPF].into_iter()).unwrap();
        let permitted = caps::read(None, CapSet::Permitted).unwrap();
        assert_eq!(permitted, caps::read(None, CapSet::Effective).unwrap());
        assert!(permitted.is_subset(&[Capability::CAP_SYS_PTRACE, Capability::CAP_BPF].into()));
        assert!(caps::raise(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).is_err());
        capabilities::keep([].into_iter()).unwrap();
        assert!(caps::read(None, CapSet::Permitted).unwrap().is_empty());
    });
}

#[test]
fn whoever_reads_evidence_opens_nothing_but_that_and_writes_only_where_the_page_goes() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [evidence, page, secret] =
        [other.path().join("a.zst"), folder.path().join("page.html"), other.path().join("secret")];
    fs::write(&evidence, "x").unwrap();
    fs::write(&secret, "x").unwrap();
    let (port, target) = (TcpListener::bind("127.0.0.1:0").unwrap(), other.path().join("made"));
    let address = port.local_addr().unwrap();
    confined_thread(|| {
        let Means { seccomp, landlock } = Means::here();
        let lacking = reading(std::slice::from_ref(&evidence), &[&page]);
        assert_eq!(lacking.is_empty(), seccomp && landlock, "{lacking:?}");
        assert_eq!(fs::read(&evidence).unwrap(), b"x");
        crate::file::replace(&page, b"page").unwrap();
        crate::file::replace(&page, b"page again").unwrap();
        if seccomp {
            all_are_refused();
            let connected = TcpStream::connect(address);
            assert_eq!(errno(connected), Some(libc::EPERM));
        }
        if landlock {
            for refused in
                [errno(File::open(&secret)), errno(File::create(&target)), errno(fs::remove_file(&secret))]
            {
                assert_eq!(refused, Some(libc::EACCES));
            }
            assert_eq!(errno(File::options().append(true).open(&evidence)), Some(libc::EACCES));
        }
        opened(&[&page]);
        assert!(caps::read(None, CapSet::Permitted).unwrap().is_empty());
    });
    assert!(secret.exists() && fs::read(&page).unwrap() == b"page again");
}

#[test]
fn a_filter_that_is_refused_is_reported_and_ends_nothing() {
    if !Means::here().seccomp {
        return;
    }
    confined_thread(|| {
        // Under this one no further one may be put on.
        assert!(Filter::serving().put_on().is_ok());
        let refusal = Filter::tracing().put_on().unwrap_err();
        assert!(refusal.starts_with("system calls are not filtered: "), "{refusal}");
        assert!(landlock::only(&[], &[]).is_err());
    });
}

#[test]
fn who_serves_metrics_reads_the_setting_that_they_take_and_no_other() {
    let [setting, other] = ["bpf_stats_enabled", "ostype"].map(|name| format!("/proc/sys/kernel/{name}"));
    if !landlock::is_here() || fs::read_to_string(&setting).is_err() {
        return;
    }
    confined_thread(move || {
        serving(Path::new(&setting));
        assert!(fs::read_to_string(&setting).is_ok());
        assert!(fs::read_to_string(&other).is_err());
    });
}

#[test]
fn what_is_borrowed_comes_back_from_a_thread_apart_and_so_does_a_panic() {
    let mut words = vec!["a".to_owned()];
    assert_eq!(
        apart(|| {
            words.push("b".to_owned());
            words.len()
        })
        .unwrap(),
        2
    );
    assert_eq!(words, ["a", "b"]);
    assert!(apart(|| panic!("{}", words.len())).is_err());
}

#[test]
fn only_what_is_another_users_takes_more_than_being_root() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("new");
    assert!(!is_elsewhere(&file) && !is_elsewhere(Path::new("no-such-file")));
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o500)).unwrap();
    assert!(is_elsewhere(&file) && is_elsewhere(folder.path()));
    assert_eq!(folder_of(Path::new("a")), Path::new("."));
}
