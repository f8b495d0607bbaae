//! Reads the counters.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use procfs::process::Process;

use crate::{
    model::{
        cgroup::PATH,
        clock::monotonic_ns,
        pressure::{GROUPS, Group, PIDS, QUOTAS, Quota, Reading, Stall, Stalls},
    },
    procfs::{
        cgroup::{cgroups_of, mount_of},
        processes,
    },
};

/// Bytes of a file of counters: the kernel's have some hundreds.
const FILE: u64 = 16 << 10;

/// Readings at the ends of exchanges within a second.
const MOST_AT_ENDS: u32 = 16;

/// How old a reading may be that is not taken again, in ns.
const FRESH_NS: u64 = 100_000_000;

/// What reads them, and where they are.
#[derive(Debug)]
pub struct Meter {
    /// Where cgroup v2 is mounted.
    unified: Option<PathBuf>,
    /// Where the CPU controller of cgroup v1 is mounted.
    cpu: Option<PathBuf>,
    /// The last reading at an exchange's end, who was in it, and how many there were in that second.
    last_ns: u64,
    last_pid: u32,
    since_ns: u64,
    taken: u32,
}

impl Default for Meter {
    fn default() -> Self {
        let mount = |kind, controller| {
            mount_of(kind, controller).unwrap_or_else(|error| {
                crate::notice!("where control groups are mounted is not known: {error}");
                None
            })
        };
        Self {
            unified: mount("cgroup2", None),
            cpu: mount("cgroup", Some("cpu")),
            last_ns: 0,
            last_pid: 0,
            since_ns: 0,
            taken: 0,
        }
    }
}

impl Meter {
    /// What is counted now of the host, and of these workers' control groups.
    pub fn read(&self, pids: impl IntoIterator<Item = u32>) -> Reading {
        let mut groups: Vec<(Place, Group)> = Vec::new();
        for pid in pids.into_iter().take(PIDS) {
            let Some(place) = place(pid) else { continue };
            let is_full = groups.len() == GROUPS;
            match groups.iter_mut().find(|(known, _)| *known == place) {
                Some((_, group)) => group.pids.push(pid),
                None if !is_full => {
                    let group = self.group(pid, &place);
                    groups.push((place, group));
                }
                None => {}
            }
        }
        let running = text(Path::new("/proc/loadavg")).and_then(|text| running(&text));
        Reading {
            ns: monotonic_ns(),
            host: stalls(|what| text(Path::new(&format!("/proc/pressure/{what}")))),
            running,
            cpus: nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN)
                .ok()
                .flatten()
                .and_then(|cpus| u32::try_from(cpus).ok()),
            groups: groups.into_iter().map(|(_, group)| group).collect(),
        }
    }

    /// The same when an exchange of this worker (or of none, zero) has failed: none where that was done just before, or too often.
    pub fn read_at_end(&mut self, pid: u32) -> Option<Reading> {
        let now = monotonic_ns();
        if now >= self.since_ns.saturating_add(1_000_000_000) {
            (self.since_ns, self.taken) = (now, 0);
        }
        let is_fresh = now < self.last_ns.saturating_add(FRESH_NS) && (pid == 0 || pid == self.last_pid);
        if is_fresh || self.taken == MOST_AT_ENDS {
            return None;
        }
        self.taken += 1;
        (self.last_ns, self.last_pid) = (now, pid);
        Some(self.read((pid != 0).then_some(pid)))
    }

    fn group(&self, pid: u32, place: &Place) -> Group {
        let own = folder(self.unified.as_deref(), place.unified.as_deref());
        let stalls = own
            .map_or_else(Stalls::default, |own| stalls(|what| text(&own.join(format!("{what}.pressure")))));
        let mut quotas = Vec::new();
        for (mount, path) in [(&self.unified, &place.unified), (&self.cpu, &place.cpu)] {
            let (Some(mount), Some(path)) = (mount, path) else { continue };
            for level in Path::new(path).ancestors().take(QUOTAS) {
                let found = level.to_str().and_then(|level| {
                    let stat = text(&folder(Some(mount), Some(level))?.join("cpu.stat"))?;
                    quota(level, &stat)
                });
                quotas.extend(found);
            }
        }
        quotas.truncate(QUOTAS);
        let path = place
            .unified
            .clone()
            .filter(|path| path != "/")
            .or_else(|| place.cpu.clone())
            .unwrap_or_default();
        Group { pids: vec![pid], path, stalls, quotas }
    }
}

/// A process's control groups: of cgroup v2, and of the CPU controller of v1.
#[derive(Debug, Default, PartialEq, Eq)]
struct Place {
    unified: Option<String>,
    cpu: Option<String>,
}

/// Those of a process; none if it has gone.
fn place(pid: u32) -> Option<Place> {
    let process = Process::new(pid.cast_signed());
    let text = processes::still(process.and_then(|process| cgroups_of(&process))).ok().flatten()?;
    let mut place = Place::default();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if path.chars().count() > PATH {
            continue;
        }
        if number == "0" && controllers.is_empty() {
            place.unified = Some(path.to_owned());
        } else if controllers.split(',').any(|one| one == "cpu") {
            place.cpu = Some(path.to_owned());
        }
    }
    Some(place)
}

/// Where a control group's files are. A path that leads out of what is mounted is that of another namespace.
fn folder(mount: Option<&Path>, path: Option<&str>) -> Option<PathBuf> {
    let path = path?.strip_prefix('/')?;
    let is_inside = path.split('/').all(|folder| folder != "..") && !path.ends_with(" (deleted)");
    is_inside.then(|| mount.map(|mount| mount.join(path)))?
}

/// A small file of the kernel's; none where there is none such, or it goes meanwhile.
fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(FILE).read_to_string(&mut text).ok()?;
    Some(text)
}

/// From the files of cpu, io and memory.
fn stalls(read: impl Fn(&str) -> Option<String>) -> Stalls {
    let stall = |what| read(what).map_or_else(Stall::default, |text| stall(&text));
    Stalls { cpu: stall("cpu"), io: stall("io"), memory: stall("memory") }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=123`, and the same with `full`.
fn stall(text: &str) -> Stall {
    let total = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        line.split(' ').find_map(|field| field.strip_prefix("total="))?.parse().ok()
    };
    Stall { some: total("some"), full: total("full") }
}

/// `0.20 0.18 0.12 3/80 11206`: the tasks that run or want to, of all (proc_loadavg(5)).
fn running(text: &str) -> Option<u32> {
    text.split(' ').nth(3)?.split_once('/')?.0.parse().ok()
}

/// What `cpu.stat` says of a quota: microseconds in cgroup v2 (`throttled_usec`), nanoseconds in v1 (`throttled_time`); none where there is
/// none, or it has held nobody back yet.
fn quota(path: &str, text: &str) -> Option<Quota> {
    let field = |name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?.trim().parse().ok()
    };
    let periods = field("nr_periods").filter(|periods| *periods > 0)?;
    let throttled_us = field("throttled_usec").or_else(|| field("throttled_time").map(|ns| ns / 1_000))?;
    Some(Quota { path: path.to_owned(), throttled_us, throttled: field("nr_throttled")?, periods })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let text = "some avg10=28.97 avg60=12.43 avg300=20.57 total=17119039075\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(stall(text), Stall { some: Some(17_119_039_075), full: Some(7) });
        assert_eq!(
            stall("some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"),
            Stall { some: Some(5), full: None }
        );
        assert_eq!(stall(""), Stall::default());
        assert_eq!((running("1.28 1.98 2.16 5/412 99\n"), running("")), (Some(5), None));
    }

    #[test]
    fn quotas_of_both_versions_are_read() {
        let of = |throttled_us| Quota { path: "/a".to_owned(), throttled_us, throttled: 4, periods: 9 };
        let v2 = "usage_usec 1\nuser_usec 1\nsystem_usec 0\nnr_periods 9\nnr_throttled 4\nthrottled_usec 77\nnr_bursts 0\nburst_usec 0\n";
        assert_eq!(quota("/a", v2), Some(of(77)));
        assert_eq!(quota("/a", "nr_periods 9\nnr_throttled 4\nthrottled_time 77000\n"), Some(of(77)));
        // Without one, or without the controller.
        assert_eq!(quota("/a", "nr_periods 0\nnr_throttled 0\nthrottled_usec 0\n"), None);
        assert_eq!(quota("/a", "usage_usec 1\nuser_usec 1\nsystem_usec 0\n"), None);
    }

    #[test]
    fn a_path_out_of_the_mount_is_not_followed() {
        let mount = Path::new("/sys/fs/cgroup");
        let of = |path| folder(Some(mount), Some(path));
        assert_eq!(of("/a/b"), Some(mount.join("a/b")));
        assert_eq!(of("/"), Some(mount.to_owned()));
        assert_eq!(
            (of("/../../etc"), of("a"), of("/a (deleted)"), folder(None, Some("/"))),
            (None, None, None, None)
        );
    }

    #[test]
    fn this_process_is_read() {
        let mut meter = Meter::default();
        let own = std::process::id();
        let reading = meter.read([own]);
        assert!(reading.running.is_some() && reading.cpus.is_some() && reading.groups.len() == 1);
        assert!(meter.read_at_end(own).is_some() && meter.read_at_end(own).is_none());
    }
}
