//! Finds the control groups of the processes that records of failures name.

use std::{
    collections::HashMap,
    io::{self, Read as _},
    sync::Arc,
};

use aya::maps::{HashMap as BpfMap, MapData};
use nix::time::ClockId;
use procfs::{ProcResult, process::Process};

use super::ids::Ids;
use crate::{
    model::{
        budget,
        cgroup::{Cgroup, Member},
        clock::{monotonic_ns, now},
        record::Record,
    },
    procfs::processes,
};

/// How long what was found of a process is taken to hold, in ns.
const FRESH_NS: u64 = 1_000_000_000;

/// After so long what is known of a process is emitted again, if it still lives, in ns: long before [`super::known`] takes it for
/// another's.
const AGAIN_NS: u64 = 20_000_000_000;

/// Processes that are looked at within such a time: a storm names the same few again and again.
const MOST_LOOKS: usize = 256;

/// Bytes of /proc/PID/cgroup: a line of at most `PATH_MAX` for each of a dozen hierarchies.
const MOST_BYTES: u64 = 64 << 10;

/// /proc counts a process's beginning in hundredths of a second, rounded down, and the two clocks are read one after the other.
const SLACK_NS: u64 = 10_000_000;

/// Looks at processes when a failure names them.
#[derive(Debug)]
pub struct Finder {
    /// What the kernel side kept of those that may be gone.
    kept: BpfMap<MapData, u32, wire::Member>,
    ids: Ids,
    found: HashMap<u32, Found>,
    /// Since when looks are counted, and how many there were.
    since_ns: u64,
    looks: usize,
    left_out: u64,
    unread: u64,
}

#[derive(Debug)]
struct Found {
    at_ns: u64,
    /// When it was emitted last.
    emitted_ns: u64,
    /// None where it is not known.
    member: Option<Member>,
}

impl Finder {
    /// With what the kernel side keeps.
    pub fn new(kept: BpfMap<MapData, u32, wire::Member>) -> Self {
        Self { kept, ids: Ids::now(), found: HashMap::new(), since_ns: 0, looks: 0, left_out: 0, unread: 0 }
    }

    /// What is new of the processes in a record.
    pub fn look(&mut self, record: &Record) -> Vec<Member> {
        let now = monotonic_ns();
        let mut news = Vec::new();
        for (pid, at_ns) in named(record).into_iter().flatten() {
            if pid != 0 {
                news.extend(self.of(pid, at_ns, now));
            }
        }
        news
    }

    /// Whether the kernel side saw this process take up an exchange, or signal one that had.
    pub fn has_accepted(&self, pid: u32) -> bool {
        self.kept.get(&pid, 0).is_ok()
    }

    /// Processes that were not looked at, for too many were named at a time.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Processes whose control group could not be read though they were there.
    pub fn unread(&self) -> u64 {
        self.unread
    }

    /// The process that acted at a moment, if it is news.
    fn of(&mut self, pid: u32, at_ns: u64, now: u64) -> Option<Member> {
        let before = self.found.get(&pid);
        let is_it = |found: &Found| found.member.as_ref().is_none_or(|member| member.began_ns <= at_ns);
        if before.is_some_and(|found| now < found.at_ns.saturating_add(FRESH_NS) && is_it(found)) {
            return None;
        }
        if now >= self.since_ns.saturating_add(FRESH_NS) {
            (self.since_ns, self.looks) = (now, 0);
        }
        if self.looks == MOST_LOOKS {
            self.left_out += 1;
            return None;
        }
        self.looks += 1;
        let member = self.alive(pid, at_ns).or_else(|| {
            // What /proc said while it lived says more: it has every hierarchy.
            let kept = self.gone(pid, at_ns)?;
            let known = self.found.get(&pid).and_then(|found| found.member.as_ref());
            let is_known = known.is_some_and(|known| known.began_ns.abs_diff(kept.began_ns) <= 2 * SLACK_NS);
            (!is_known).then_some(kept)
        });
        if self.found.len() >= budget::CGROUPED.get() {
            self.found.retain(|_, found| now < found.at_ns.saturating_add(FRESH_NS));
        }
        let found = self.found.entry(pid).or_insert(Found { at_ns: now, emitted_ns: 0, member: None });
        found.at_ns = now;
        let is_news = found.member != member || now >= found.emitted_ns.saturating_add(AGAIN_NS);
        // Where it is none, what was known of it may still be true: nobody knows better.
        let member = member?;
        found.member = Some(member.clone());
        if is_news {
            found.emitted_ns = now;
        }
        is_news.then_some(member)
    }

    /// What /proc has of it, zombies included.
    fn alive(&mut self, pid: u32, at_ns: u64) -> Option<Member> {
        match processes::still(asked(pid)) {
            Ok(Some((began_ns, text))) if began_ns <= at_ns.saturating_add(SLACK_NS) => {
                let cgroup = Arc::new(Cgroup::of(best(&text)?));
                Some(Member { pid, began_ns: began_ns.min(at_ns), is_kept: false, cgroup })
            }
            Ok(_) => None,
            Err(_) => {
                self.unread += 1;
                None
            }
        }
    }

    /// What the kernel side kept of one that has ended.
    fn gone(&mut self, pid: u32, at_ns: u64) -> Option<Member> {
        let Ok(wire::Member { began_ns, cgroup }) = self.kept.get(&pid, 0) else { return None };
        if began_ns > at_ns {
            return None;
        }
        let cgroup = Arc::new(Cgroup::of(self.ids.path(cgroup)?));
        Some(Member { pid, began_ns, is_kept: true, cgroup })
    }
}

/// The processes that a record names, each with the moment at which it acted.
fn named(record: &Record) -> [Option<(u32, u64)>; 8] {
    let mut named = [None; 8];
    match record {
        Record::Exchange(exchange) => {
            let (nginx, worker, stops) = (&exchange.nginx, &exchange.worker, &exchange.stops);
            named = [
                Some((nginx.nginx.tgid, nginx.connect_ns)),
                Some((worker.worker.tgid, worker.accepted_ns)),
                Some((worker.closer.tgid, worker.ended_ns)),
                Some((worker.signal.sender.tgid, worker.signal.ns)),
                Some((stops.worker.sender.tgid, stops.worker.ns)),
                Some((stops.parent.sender.tgid, stops.parent.ns)),
                Some((stops.parent_task.tgid, stops.parent.ns)),
                None,
            ];
        }
        Record::WorkerGone(gone) => {
            named[0] = Some((gone.worker.worker.tgid, gone.worker.accepted_ns));
            named[1] = Some((gone.worker.closer.tgid, gone.worker.ended_ns));
        }
        Record::Hop(hop) => named[0] = Some((hop.nginx.tgid, hop.asked_ns)),
        Record::Word(word) => named[0] = Some((word.word.tgid, word.word.ns)),
        Record::NextAction(..) | Record::Served(_) => {}
    }
    named
}

/// When a process began (ns, monotonic), and its control groups as /proc has them: both of the same process, for the folder is opened once.
fn asked(pid: u32) -> ProcResult<(u64, String)> {
    let process = Process::new(pid.cast_signed())?;
    let text = text(&process)?;
    Ok((began_ns(process.stat()?.starttime), text))
}

/// The control group of a process that runs now; none if it has gone, or that cannot be read.
pub fn of_process(pid: u32) -> Option<Cgroup> {
    processes::still(asked(pid)).ok().flatten().and_then(|(_, text)| best(&text).map(Cgroup::of))
}

/// /proc/PID/cgroup.
///
/// # Errors
/// Where it cannot be read.
pub fn text(process: &Process) -> ProcResult<String> {
    let mut bytes = Vec::new();
    process.open_relative("cgroup")?.take(MOST_BYTES).read_to_end(&mut bytes).map_err(gone)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Of a process that ends meanwhile, nothing can be read.
fn gone(error: io::Error) -> procfs::ProcError {
    procfs::ProcError::Io(error, None)
}

/// From hundredths of a second since the host booted to monotonic nanoseconds: that clock stands still while the host sleeps.
fn began_ns(ticks: u64) -> u64 {
    // Two readings are never of the same moment: whole milliseconds, so that a process begins at the same one whenever it is asked.
    const MS: u64 = 1_000_000;
    let asleep = (now(ClockId::CLOCK_BOOTTIME) - now(ClockId::CLOCK_MONOTONIC)).max(0).unsigned_abs();
    let hertz = procfs::ticks_per_second().max(1);
    ticks.saturating_mul(1_000_000_000 / hertz).saturating_sub(asleep / MS * MS)
}

/// The path that says most: of a container, then of a unit, in the default hierarchy first, then in systemd's, then in any other; else
/// where the default hierarchy has it. Each line is `number:controllers:path` (cgroups(7)).
fn best(text: &str) -> Option<&str> {
    let lines = || text.lines().filter_map(|line| line.splitn(3, ':').collect::<Vec<_>>().try_into().ok());
    let lines = || lines().map(|[number, controllers, path]: [&str; 3]| (number, controllers, path));
    let rank = |(number, controllers, _): &(&str, &str, &str)| match (*number, *controllers) {
        ("0", "") => 0,
        (_, "name=systemd") => 1,
        _ => 2,
    };
    let mut all: Vec<_> = lines().collect();
    all.sort_by_key(rank);
    let contained = all.iter().find(|(.., path)| {
        let Cgroup { container, pod, .. } = Cgroup::of(path);
        container.is_some() || pod.is_some()
    });
    let named = || all.iter().find(|(.., path)| Cgroup::of(path).is_named());
    // The root of a hierarchy is where nobody was put.
    let placed = || all.iter().take_while(|line| rank(line) < 2).find(|(.., path)| *path != "/");
    contained.or_else(named).or_else(placed).or(all.first()).map(|(.., path)| *path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_that_says_most_is_taken() {
        let id = "3f1c2b7a9d10e4b85c6f70a1928374655647382910afbecd1122334455667788";
        assert_eq!(best("0::/system.slice/nginx.service\n"), Some("/system.slice/nginx.service"));
        let hybrid = format!(
            "12:cpu,cpuacct:/docker/{id}\n1:name=systemd:/docker/{id}\n0::/system.slice/containerd.service\n"
        );
        assert_eq!(best(&hybrid), Some(format!("/docker/{id}").as_str()));
        let legacy = format!("9:name=systemd:/\n1:cpu:/docker/{id}\n0::/\n");
        assert_eq!(best(&legacy), Some(format!("/docker/{id}").as_str()));
        assert_eq!(best("4:memory:/a/b\n1:name=systemd:/c\n0::/\n"), Some("/c"));
        assert_eq!(best("4:memory:/a/b\n0::/\n"), Some("/"));
        // A path may have colons.
        assert_eq!(best("0::/x:y:z\n"), Some("/x:y:z"));
        assert_eq!((best(""), best("gone")), (None, None));
    }

    #[test]
    fn a_running_process_is_asked_and_began_before_now() {
        let (began_ns, text) = asked(std::process::id()).unwrap();
        assert!(began_ns <= monotonic_ns() && best(&text).is_some());
    }
}
