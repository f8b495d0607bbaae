//! What a program that runs as root may do to others, held against every system call that it made: it executes nothing, takes no
//! descriptor of another's, opens nothing through another's links, changes nothing that it was not asked to.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::process::Pid;
use crate::strace::{Call, Traced};

/// What a command may do beyond what all may.
#[derive(Debug, Clone, Default)]
pub struct Licence {
    /// Where it may write, make and remove files: what its user named.
    pub writes: Vec<PathBuf>,
    /// Whether it may enter network namespaces, to read what they count.
    pub enters: bool,
    /// Into whose memory it may look: what a worker waits for by poll or select lies there.
    pub looks_into: Vec<Pid>,
    /// To which addresses it may connect, by the words that strace has for them.
    pub connects: Vec<String>,
}

/// What returns a new descriptor of the caller's own. `pidfd_getfd` is not among them: what it returns is another's.
const MAKERS: [&str; 28] = [
    "open",
    "openat",
    "openat2",
    "creat",
    "socket",
    "accept",
    "accept4",
    "dup",
    "dup2",
    "dup3",
    "epoll_create",
    "epoll_create1",
    "eventfd",
    "eventfd2",
    "signalfd",
    "signalfd4",
    "timerfd_create",
    "inotify_init",
    "inotify_init1",
    "fanotify_init",
    "memfd_create",
    "pidfd_open",
    "perf_event_open",
    "bpf",
    "open_tree",
    "fsopen",
    "fsmount",
    "landlock_create_ruleset",
];
/// Requests of `ioctl` that return a namespace's descriptor.
const NAMESPACES: [&str; 3] = ["SIOCGSKNS", "NS_GET_", "PIDFD_GET_"];
/// What returns two, in an array.
const PAIR_MAKERS: [(&str, usize); 3] = [("pipe", 0), ("pipe2", 0), ("socketpair", 3)];
/// What nothing here ever needs: to read or stop another process, take its descriptors, or work where strace sees nothing.
const NEVER: [&str; 13] = [
    "pidfd_getfd",
    "ptrace",
    "process_vm_writev",
    "process_madvise",
    "process_mrelease",
    "execveat",
    "fork",
    "vfork",
    "chroot",
    "pivot_root",
    "chdir",
    "fchdir",
    "io_uring_setup",
];
/// What signals a process, and which of its arguments says which.
const SIGNALLERS: [&str; 6] =
    ["kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal"];
/// What changes the file system, and the arguments that name what.
const CHANGERS: [(&str, &[usize]); 24] = [
    ("unlink", &[0]),
    ("unlinkat", &[1]),
    ("rename", &[0, 1]),
    ("renameat", &[1, 3]),
    ("renameat2", &[1, 3]),
    ("mkdir", &[0]),
    ("mkdirat", &[1]),
    ("rmdir", &[0]),
    ("link", &[0, 1]),
    ("linkat", &[1, 3]),
    ("symlink", &[1]),
    ("symlinkat", &[2]),
    ("mknod", &[0]),
    ("mknodat", &[1]),
    ("chmod", &[0]),
    ("fchmodat", &[1]),
    ("fchmodat2", &[1]),
    ("chown", &[0]),
    ("lchown", &[0]),
    ("fchownat", &[1]),
    ("truncate", &[0]),
    ("setxattr", &[0]),
    ("utimensat", &[1]),
    ("umount2", &[0]),
];
/// In a mount namespace of a thread's own: that nothing goes out of it, and tracefs, by which hooks are found.
const MOUNTS: [&str; 2] = [
    "NULL, \"/\", NULL, MS_REC|MS_PRIVATE, NULL",
    "\"tracefs\", \"/sys/kernel/tracing\", \"tracefs\", 0, NULL",
];
/// Links in a process's folder, by which the kernel leads into what is the process's.
const LINKS: [&str; 5] = ["cwd", "root", "exe", "fd", "map_files"];
/// Any of these keeps an `openat2` on this side of such links, and below the folder that it begins at.
const KEPT_BELOW: [&str; 2] = ["RESOLVE_IN_ROOT", "RESOLVE_BENEATH"];

/// Says what a run did that it may not do: nothing, if all is well.
pub fn faults(traced: &Traced, program: &Path, licence: &Licence) -> Vec<String> {
    let mut judge = Judge {
        licence,
        program: program.to_owned(),
        threads: traced.calls.iter().map(|call| call.thread).chain([traced.pid]).collect(),
        own: [0, 1, 2].into(),
        behind_a_link: BTreeSet::new(),
        has_begun: false,
    };
    let faults =
        traced.calls.iter().filter_map(|call| Some(format!("{}: {}", judge.fault(call)?, call.shown())));
    faults.collect()
}

struct Judge<'a> {
    licence: &'a Licence,
    program: PathBuf,
    /// All threads that there ever were.
    threads: BTreeSet<Pid>,
    /// The descriptors that it made itself, or was started with.
    own: BTreeSet<i32>,
    /// Those among them that are folders or files of another's, come to by a link of his.
    behind_a_link: BTreeSet<i32>,
    has_begun: bool,
}

impl Judge<'_> {
    /// What is wrong with a call, after all those before it.
    fn fault(&mut self, call: &Call) -> Option<&'static str> {
        let name = call.name.as_str();
        if let Some((descriptor, _)) = call.descriptor(0)
            && !self.own.contains(&descriptor)
        {
            return Some("it uses a descriptor that it did not make");
        }
        let fault = match name {
            "execve" => self.execution(call),
            _ if NEVER.contains(&name) => Some("nothing here needs this call"),
            "clone" | "clone3" => (!call.argument(0).contains("CLONE_THREAD")
                && !call.shown().contains("CLONE_THREAD"))
            .then_some("it starts a process"),
            "unshare" => (call.argument(0) != "CLONE_NEWNS").then_some("it leaves more than the mounts"),
            "setns" => {
                let is_network = call.argument(1) == "CLONE_NEWNET";
                (!self.licence.enters || !is_network).then_some("it enters a namespace")
            }
            "mount" => {
                (!MOUNTS.contains(&call.arguments.join(", ").as_str())).then_some("it mounts something")
            }
            "process_vm_readv" => {
                let is_meant =
                    call.argument(0).parse().is_ok_and(|pid| self.licence.looks_into.contains(&pid));
                (!is_meant).then_some("it looks into the memory of somebody")
            }
            "recvmsg" | "recvmmsg" => {
                call.shown().contains("SCM_RIGHTS").then_some("it takes in a descriptor")
            }
            "connect" => {
                let address = call.argument(1);
                let is_meant = self.licence.connects.iter().any(|words| address.contains(words));
                (!is_meant && !address.contains("AF_NETLINK")).then_some("it connects to somebody")
            }
            "bpf" => call.argument(0).contains("BPF_OBJ_PIN").then_some("it leaves something in the kernel"),
            _ if SIGNALLERS.contains(&name) => self.signal(call),
            "open" | "creat" => self.opening(call, 0),
            "openat" | "openat2" => self.opening(call, 1),
            _ => self.change(call),
        };
        self.note(call);
        fault
    }

    /// The program's own start is the only one.
    fn execution(&mut self, call: &Call) -> Option<&'static str> {
        let is_start = !self.has_begun && call.path(0).as_deref() == Some(&self.program);
        self.has_begun = true;
        (!is_start).then_some("it executes something")
    }

    /// It may ask whether a process is there, and may signal itself.
    fn signal(&self, call: &Call) -> Option<&'static str> {
        let asks =
            call.name != "pidfd_send_signal" && call.arguments.last().is_some_and(|signal| signal == "0");
        let is_own = call.argument(0).parse().is_ok_and(|pid| self.threads.contains(&pid));
        (!asks && !is_own).then_some("it signals somebody")
    }

    fn opening(&self, call: &Call, number: usize) -> Option<&'static str> {
        let Some(path) = call.path(number) else { return Some("it opens what cannot be told") };
        let flags = call.arguments.get(number + 1..).unwrap_or_default().join(" ");
        let is_kept_below = call.name == "openat2" && KEPT_BELOW.iter().any(|kept| flags.contains(kept));
        let starts_behind = number > 0
            && call
                .descriptor(number - 1)
                .is_some_and(|(descriptor, _)| self.behind_a_link.contains(&descriptor))
            && !call.argument(number).starts_with("\"/");
        if starts_behind {
            // One name at a time, and a link stays one: so whoever walks has seen each on the way.
            let name = call.argument(number).trim_matches('"');
            let is_one_step = flags.contains("O_NOFOLLOW") && !name.contains('/') && name != "..";
            return (!is_kept_below && !is_one_step)
                .then_some("it leaves a foreign folder by the links in it");
        }
        let is_only_named = flags.contains("O_PATH");
        match self.place(&path) {
            Place::Memory => return Some("it opens a process's memory"),
            Place::BehindALink if !is_kept_below => return Some("it opens something through a foreign link"),
            Place::Link if !is_kept_below && !is_only_named => {
                return Some("it opens what a foreign link leads to");
            }
            Place::BehindALink | Place::Link | Place::Elsewhere => {}
        }
        let is_written = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|flag| flags.contains(flag));
        ((is_written || call.name == "creat") && !self.may_write(&path))
            .then_some("it opens a file to write to it")
    }

    fn change(&self, call: &Call) -> Option<&'static str> {
        let (_name, numbers) = CHANGERS.iter().find(|(name, _)| *name == call.name)?;
        let is_allowed = |number: &usize| call.path(*number).is_some_and(|path| self.may_write(&path));
        (!numbers.iter().all(is_allowed)).then_some("it changes files that nobody named")
    }

    fn may_write(&self, path: &Path) -> bool {
        let is_plain = !path.components().any(|part| part == Component::ParentDir);
        is_plain
            && self.licence.writes.iter().any(|allowed| path.starts_with(allowed) || is_draft(path, allowed))
    }

    /// Where a path leads through, as far as its words say.
    fn place(&self, path: &Path) -> Place {
        let words: Vec<&str> = path.iter().filter_map(|word| word.to_str()).collect();
        let ["/", "proc", process, rest @ ..] = words.as_slice() else { return Place::Elsewhere };
        let rest = match rest {
            ["task", _thread, rest @ ..] => rest,
            rest => rest,
        };
        let is_own = matches!(*process, "self" | "thread-self")
            || process.parse().is_ok_and(|pid| self.threads.contains(&pid));
        match rest {
            ["mem", ..] => Place::Memory,
            _ if is_own => Place::Elsewhere,
            // The folder of links is no link.
            ["fd" | "map_files"] | ["fd" | "map_files", "."] => Place::Elsewhere,
            ["fd" | "map_files", _link] => Place::Link,
            ["fd" | "map_files", ..] => Place::BehindALink,
            [link] if LINKS.contains(link) => Place::Link,
            [link, ..] if LINKS.contains(link) => Place::BehindALink,
            _ => Place::Elsewhere,
        }
    }

    /// Keeps count of descriptors.
    fn note(&mut self, call: &Call) {
        let name = call.name.as_str();
        if name == "close"
            && let Some((closed, _)) = call.descriptor(0)
        {
            self.own.remove(&closed);
            self.behind_a_link.remove(&closed);
        }
        if let Some((_, number)) = PAIR_MAKERS.iter().find(|(maker, _)| *maker == name) {
            let pair = call.argument(*number).trim_matches(['[', ']']).split(", ");
            let pair = pair.filter_map(|one| one.split('<').next()?.parse::<i32>().ok());
            self.own.extend(pair);
        }
        let is_maker = MAKERS.contains(&name)
            || name == "fcntl" && call.argument(1).starts_with("F_DUPFD")
            || name == "ioctl" && NAMESPACES.iter().any(|request| call.argument(1).starts_with(request));
        let made = call.result.filter(|made| *made >= 0).and_then(|made| i32::try_from(made).ok());
        let Some(made) = made.filter(|_| is_maker) else { return };
        self.own.insert(made);
        let is_reopened = call.path(usize::from(name != "open")).is_some_and(|path| {
            let own = path.strip_prefix("/proc/self/fd").ok().and_then(Path::to_str);
            own.and_then(|own| own.parse().ok()).is_some_and(|own: i32| self.behind_a_link.contains(&own))
        });
        let is_behind = is_reopened
            || call.descriptor(0).is_some_and(|(folder, _)| self.behind_a_link.contains(&folder))
            || matches!(name, "openat" | "openat2")
                && !call.arguments.join(" ").contains("O_NOFOLLOW")
                && call.path(1).is_some_and(|path| self.place(&path) == Place::Link);
        if is_behind {
            self.behind_a_link.insert(made);
        } else {
            self.behind_a_link.remove(&made);
        }
    }
}

/// Whether this is what is written beside a file, to take its place once it is whole: `.NAME.PID-NUMBER`.
fn is_draft(path: &Path, of: &Path) -> bool {
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let number = match (name(path), name(of)) {
        (Some(draft), Some(of)) => draft.strip_prefix(&format!(".{of}.")).map(str::to_owned),
        _ => None,
    };
    path.parent() == of.parent()
        && number.is_some_and(|number| number.chars().all(|digit| digit.is_ascii_digit() || digit == '-'))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// No way through another process.
    Elsewhere,
    /// Ends at a link of another's.
    Link,
    /// Goes on behind one.
    BehindALink,
    /// Memory of a process's.
    Memory,
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;
    use crate::strace::calls;

    const NOTHING: [&str; 0] = [];

    /// What is wrong with these calls of process 7, after an orderly start.
    fn found(text: &str, licence: &Licence) -> Vec<String> {
        let start = "execve(\"/bin/why502\", [\"why502\"], 0x1 /* 2 vars */) = 0";
        let text: String =
            [start].into_iter().chain(text.lines()).map(|line| format!("7 {line}\n")).collect();
        let traced = Traced {
            calls: calls(&text).unwrap(),
            pid: 7,
            stdout: Vec::new(),
            stderr: String::new(),
            status: ExitStatus::from_raw(0),
        };
        faults(&traced, Path::new("/bin/why502"), licence)
    }

    fn all_is_well(text: &str) {
        assert_eq!(found(text, &Licence::default()), NOTHING);
    }

    fn is_wrong(text: &str, why: &str) {
        let found = found(text, &Licence::default());
        assert!(matches!(&found[..], [one] if one.starts_with(why)), "{text}: {found:?}");
    }

    #[test]
    fn what_it_makes_itself_it_may_use() {
        all_is_well(
            "openat(AT_FDCWD</>, \"/proc/12/net/tcp\", O_RDONLY) = 3</proc/12/net/tcp>\nread(3</proc/12/net/tcp>, \"\", 1) = 0\n\
             close(3</proc/12/net/tcp>) = 0\nsocketpair(AF_UNIX, SOCK_STREAM, 0, [3<socket:[1]>, 4<socket:[2]>]) = 0\n\
             recvfrom(4<socket:[2]>, \"\", 1, MSG_DONTWAIT, NULL, NULL) = 0\nwrite(1<pipe:[5]>, \"a\", 1) = 1",
        );
    }

    #[test]
    fn the_descriptor_of_another_is_noticed_when_it_is_taken_and_when_it_is_used() {
        let faults = found(
            "pidfd_getfd(0</dev/null>, 5, 0) = 9<socket:[1]>\nrecvfrom(9<socket:[1]>, \"\", 1, 0, NULL, NULL) = 1",
            &Licence::default(),
        );
        assert!(faults.len() == 2 && faults[1].starts_with("it uses a descriptor"), "{faults:?}");
        is_wrong(
            "recvmsg(0<socket:[1]>, {msg_control=[{cmsg_type=SCM_RIGHTS, cmsg_data=[9]}]}, 0) = 1",
            "it takes in",
        );
        // One that was closed is nobody's, or another's by now.
        is_wrong("dup(1</a>) = 3</a>\nclose(3</a>) = 0\nwrite(3</b>, \"\", 0) = 0", "it uses a descriptor");
    }

    #[test]
    fn nothing_is_executed_but_the_program_itself() {
        is_wrong("execve(\"/proc/12/exe\", [\"nginx\"], 0x1) = 0", "it executes");
        is_wrong("execve(\"/bin/why502\", [\"why502\"], 0x1) = 0", "it executes");
        is_wrong("clone(child_stack=NULL, flags=CLONE_VM|CLONE_VFORK|SIGCHLD) = 9", "it starts a process");
        all_is_well(
            "clone3({flags=CLONE_VM|CLONE_FS|CLONE_THREAD, stack_size=1} => {parent_tid=[0]}, 88) = 8",
        );
    }

    #[test]
    fn foreign_links_are_named_and_never_followed() {
        let root = "openat(AT_FDCWD</>, \"/proc/12/root\", O_RDONLY|O_PATH|O_CLOEXEC) = 3</>\n";
        all_is_well(root);
        all_is_well(&format!(
            "{root}openat2(3</>, \"etc/nginx.conf\", {{flags=O_RDONLY, resolve=RESOLVE_IN_ROOT}}, 24) = 4</etc/nginx.conf>\nread(4</etc/nginx.conf>, \"\", 1) = 0"
        ));
        all_is_well(&format!(
            "{root}openat(3</>, \"etc\", O_RDONLY|O_NOFOLLOW|O_PATH) = 4</etc>\nopenat(4</etc>, \"nginx.conf\", O_RDONLY|O_NOFOLLOW|O_PATH) = 5</etc/nginx.conf>\nopenat(AT_FDCWD</>, \"/proc/self/fd/5\", O_RDONLY) = 6</etc/nginx.conf>"
        ));
        is_wrong(
            &format!("{root}openat(3</>, \"..\", O_RDONLY|O_NOFOLLOW|O_PATH) = 4</>"),
            "it leaves a foreign folder",
        );
        is_wrong(
            &format!(
                "{root}openat(AT_FDCWD</>, \"/proc/self/fd/3\", O_RDONLY) = 4</>\nopenat(4</>, \"etc\", O_RDONLY) = 5</etc>"
            ),
            "it leaves a foreign folder",
        );
        is_wrong(
            &format!("{root}openat(3</>, \"etc/nginx.conf\", O_RDONLY) = 4</etc/nginx.conf>"),
            "it leaves a foreign folder",
        );
        is_wrong(
            "openat(AT_FDCWD</>, \"/proc/12/root/etc/nginx.conf\", O_RDONLY|O_PATH) = 4</etc>",
            "it opens something through",
        );
        is_wrong("openat(AT_FDCWD</>, \"/proc/12/exe\", O_RDONLY) = 4</etc>", "it opens what a foreign link");
        is_wrong("openat(0</proc/12>, \"task/13/cwd\", O_RDONLY) = 4</etc>", "it opens what a foreign link");
        is_wrong(
            "openat(0</proc/12/fd>, \"5\", O_RDONLY) = -1 ENOENT (No such file or directory)",
            "it opens what a foreign link",
        );
        is_wrong("open(\"/proc/12/mem\", O_RDONLY) = 4</proc/12/mem>", "it opens a process's memory");
        all_is_well(
            "openat(0</proc/12>, \"fd\", O_RDONLY|O_DIRECTORY) = 4</proc/12/fd>\nopenat(4</proc/12/fd>, \"5\", O_PATH|O_NOFOLLOW) = 6</proc/12/fd/5>",
        );
        all_is_well(
            "openat(AT_FDCWD</>, \"/proc/7/fd/4\", O_RDONLY) = 5</etc>\nopenat(AT_FDCWD</>, \"/proc/self/exe\", O_RDONLY) = 6</etc>",
        );
    }

    #[test]
    fn only_what_its_user_named_is_changed() {
        is_wrong(
            "openat(AT_FDCWD</>, \"/etc/passwd\", O_WRONLY|O_CREAT, 0600) = 3</etc/passwd>",
            "it opens a file to write",
        );
        is_wrong("unlink(\"/etc/passwd\") = 0", "it changes files");
        is_wrong("renameat(AT_FDCWD</>, \"/tmp/a/b\", AT_FDCWD</>, \"/etc/passwd\") = 0", "it changes files");
        let licence = Licence { writes: vec!["/tmp/a".into()], ..Licence::default() };
        let text = "openat(AT_FDCWD</>, \"/tmp/a/b\", O_WRONLY|O_CREAT, 0600) = 3</tmp/a/b>\nunlink(\"/tmp/a/b\") = 0";
        assert_eq!(found(text, &licence), NOTHING);
        assert_eq!(found("unlink(\"/tmp/a/../b\") = 0", &licence).len(), 1);
    }

    #[test]
    fn namespaces_signals_and_connections_need_a_licence() {
        let enters = "openat(AT_FDCWD</>, \"/proc/12/ns/net\", O_RDONLY) = 3<net:[9]>\nsetns(3<net:[9]>, CLONE_NEWNET) = 0";
        is_wrong(enters, "it enters a namespace");
        assert_eq!(found(enters, &Licence { enters: true, ..Licence::default() }), NOTHING);
        is_wrong("setns(0<mnt:[9]>, CLONE_NEWNS) = 0", "it enters a namespace");
        is_wrong("kill(12, SIGTERM) = 0", "it signals");
        let looks =
            "process_vm_readv(12, [{iov_base=\"\", iov_len=8}], 1, [{iov_base=0x1, iov_len=8}], 1, 0) = 8";
        is_wrong(looks, "it looks into the memory");
        assert_eq!(found(looks, &Licence { looks_into: vec![12], ..Licence::default() }), NOTHING);
        all_is_well("kill(12, 0) = 0\ntgkill(7, 7, SIGABRT) = 0");
        let connects = "connect(0<socket:[1]>, {sa_family=AF_INET, sin_port=htons(9000)}, 16) = 0";
        is_wrong(connects, "it connects");
        let licence = Licence { connects: vec!["htons(9000)".to_owned()], ..Licence::default() };
        assert_eq!(found(connects, &licence), NOTHING);
    }
}
