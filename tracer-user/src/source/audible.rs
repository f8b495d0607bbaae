//! Whether nginx's word on an exchange would have been heard, had there been one: then its silence is evidence.
//!
//! nginx says what is of level error unless its configuration keeps that back. Its workers have the configuration that the files said when
//! they were started, so it is read once for all that a start or a reload made, and not believed where a file has changed since.

use std::{collections::HashMap, time::Duration};

use nix::time::ClockId;
use procfs::process::Process;
use tracer_ebpf::NginxEnd;

use crate::{
    budget,
    clock::{booted_ns, monotonic_ns, nanoseconds, now},
    host::{Master, nginx::configuration},
    load::{Binary, Tracer, binary},
};

/// For how long a pid is taken for the process that it was.
const FRESH: Duration = Duration::from_secs(1);

/// Start times are counted in ticks of 10 ms, and files change by a clock that ticks, too.
const SLACK_NS: i64 = 100_000_000;

/// The processes that have had exchanges, and what is known of their masters.
#[derive(Debug, Default)]
pub(super) struct Audible {
    processes: HashMap<u32, Speaker>,
    masters: HashMap<u32, Configured>,
}

/// A process that may say something.
#[derive(Clone, Copy, Debug)]
struct Speaker {
    /// In ticks since the host's start.
    started: u64,
    binary: Binary,
    says_errors: bool,
    looked_ns: u64,
}

/// A master whose configuration was read.
#[derive(Clone, Copy, Debug)]
struct Configured {
    started: u64,
    says_errors: bool,
    /// When the newest of its files was changed last, and when they were read (ns since 1970).
    changed_ns: i64,
    read_ns: i64,
}

impl Audible {
    /// Whether nginx's word on this exchange, which has just ended, would have been heard.
    pub(super) fn is(&mut self, tracer: &Tracer, nginx: &NginxEnd) -> bool {
        let began_ns =
            if nginx.exchange > 1 { nginx.first_sent_ns.max(nginx.connect_ns) } else { nginx.connect_ns };
        self.look(nginx.nginx.tgid);
        self.processes.get(&nginx.nginx.tgid).is_some_and(|speaker| {
            speaker.says_errors && tracer.heard_since(speaker.binary).is_some_and(|since| since <= began_ns)
        })
    }

    /// The process runs another program from now on.
    pub(super) fn forget(&mut self, pid: u32) {
        self.processes.remove(&pid);
        self.masters.remove(&pid);
    }

    /// Finds out about a process, and keeps it for when it has ended.
    pub(super) fn look(&mut self, pid: u32) {
        let now = monotonic_ns();
        let known = self.processes.get(&pid).copied();
        if known.is_some_and(|known| now < known.looked_ns + nanoseconds(FRESH)) {
            return;
        }
        // What has ended was what it was.
        let (Some((started, parent)), Some(binary)) = (stat(pid), binary(pid)) else { return };
        let says_errors = match known.filter(|known| known.started == started && known.binary == binary) {
            Some(known) => known.says_errors,
            None => self.says_errors(pid, started, parent, binary),
        };
        if self.processes.len() >= budget::SPEAKERS {
            self.processes.clear();
            self.masters.clear();
        }
        self.processes.insert(pid, Speaker { started, binary, says_errors, looked_ns: now });
    }

    /// Whether a process says each error, by the configuration of its master, which may be itself.
    fn says_errors(&mut self, pid: u32, started: u64, parent: u32, binary: Binary) -> bool {
        let master = if self::binary(parent) == Some(binary) { parent } else { pid };
        let Some((of_master, _)) = stat(master) else { return false };
        let started_ns = wall_ns(started);
        let known = self.masters.get(&master).copied();
        let configured = match known.filter(|known| known.started == of_master && started_ns < known.read_ns)
        {
            Some(known) => known,
            None => {
                let is_told = known.is_some_and(|known| known.started == of_master && !known.says_errors);
                let configured = read(master, of_master, is_told);
                self.masters.insert(master, configured);
                configured
            }
        };
        configured.says_errors && configured.changed_ns <= started_ns + SLACK_NS
    }
}

/// The configuration of a master, as its files say it now. Of one that cannot be read it is not known what it keeps back; that is told
/// once.
fn read(master: u32, started: u64, is_told: bool) -> Configured {
    let read_ns = now(ClockId::CLOCK_REALTIME);
    let asked = Master::believe(master).and_then(|master| configuration(&master));
    let (says_errors, changed_ns, why) = match &asked {
        Ok(configuration) => match configuration.says_errors() {
            Some(true) => (true, configuration.changed_ns, None),
            Some(false) => (false, 0, Some("an error_log keeps errors back".to_owned())),
            None => (false, 0, configuration.gaps.told()),
        },
        Err(refusal) => (false, 0, Some(refusal.to_string())),
    };
    if let Some(why) = why.filter(|_| !is_told) {
        crate::notice!(
            "nginx {master} may fail to say what fails ({why}): where it says nothing, verdicts are inferred"
        );
    }
    Configured { started, says_errors, changed_ns, read_ns }
}

/// When a process was started, in ticks since the host's start, and its parent; none if it has ended.
fn stat(pid: u32) -> Option<(u64, u32)> {
    let stat = Process::new(pid.cast_signed()).and_then(|process| process.stat()).ok()?;
    Some((stat.starttime, stat.ppid.cast_unsigned()))
}

/// When that was by the wall clock (ns since 1970).
fn wall_ns(ticks: u64) -> i64 {
    let ns =
        i64::try_from(ticks.saturating_mul(1_000_000_000 / procfs::ticks_per_second())).unwrap_or(i64::MAX);
    booted_ns().saturating_add(ns)
}
