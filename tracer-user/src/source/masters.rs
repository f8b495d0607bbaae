//! What the configurations of masters say, as far as tracing wants to know it. Only masters that are root's own are believed.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use nix::time::ClockId;
use procfs::process::Process;

use crate::{
    model::{
        budget,
        clock::{booted_ns, now},
        groups::Group,
    },
    procfs::host::{
        Master, Refusal,
        nginx::{Configuration, configuration, counts_statuses, groups, master_of},
    },
};

/// A process may have begun by so much later than its time of birth says, which is in ticks (ns).
const TICK_NS: i64 = 10_000_000;

/// Whether unix upstreams are configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UnixUpstreams {
    /// This one's configuration names some.
    Of(u32),
    /// None does, as far as all could be read.
    None,
    /// None does, but of one of them it is not known, as this says.
    Unknown(String),
}

/// A configuration, as its files said it at a time.
#[derive(Debug)]
pub(super) struct Said {
    /// Whether nginx says each error; none where not all was read.
    pub(super) says_errors: Option<bool>,
    /// Whether a unix socket is named as an upstream.
    pub(super) names_unix: bool,
    /// The groups of upstreams; an error where they are more than are kept.
    pub(super) groups: Result<Vec<Group>, String>,
    /// Whether a server may be taken out by the status of its response.
    pub(super) counts_statuses: bool,
    /// What was left out, if anything was.
    pub(super) gaps: Option<String>,
    /// When the newest of the files was changed last (ns since 1970).
    changed_ns: i64,
}

/// The masters whose configurations were read.
#[derive(Debug, Default)]
pub(super) struct Masters(HashMap<u32, Read>);

#[derive(Debug)]
struct Read {
    /// When the master began, in ticks since the host's start.
    started: u64,
    /// When its files were read (ns since 1970).
    read_ns: i64,
    said: Result<Arc<Said>, String>,
    /// Whether it was reported why it is not known, or what it keeps back.
    is_reported: bool,
}

impl Masters {
    /// What the configuration says that a process of this master's runs by, which began then (in ticks).
    ///
    /// # Errors
    /// Why it is not known.
    pub(super) fn said_to(&mut self, master: u32, born: u64) -> Result<Arc<Said>, String> {
        let read = self.read(master, |read| latest_ns(born) < read.read_ns)?;
        let read = read.ok_or_else(|| "it has ended".to_owned())?;
        let said = read.said.clone()?;
        if !said.is_older_than(born) {
            return Err("a file of it was changed after this worker had begun".to_owned());
        }
        Ok(said)
    }

    /// Whether a process of this master's that began then (in ticks) says each error. Where it may not, that is reported, once for a
    /// master.
    pub(super) fn says_errors(&mut self, master: u32, born: u64) -> bool {
        let says = match self.said_to(master, born) {
            Ok(said) => said.says_errors == Some(true),
            Err(_) => false,
        };
        if let Some(read) = self.0.get_mut(&master)
            && let Some(why) = read.silence()
            && !std::mem::replace(&mut read.is_reported, true)
        {
            crate::notice!(
                "nginx {master} may fail to say what fails ({why}): where it says nothing, verdicts are inferred"
            );
        }
        says
    }

    /// What the configurations of these processes' masters say of unix upstreams, now.
    pub(super) fn unix_upstreams(&mut self, pids: impl IntoIterator<Item = u32>) -> UnixUpstreams {
        let masters: BTreeSet<u32> = pids.into_iter().filter_map(master_of).collect();
        let mut answer = UnixUpstreams::None;
        for (number, pid) in masters.into_iter().enumerate() {
            let unknown = if number >= budget::CONFIGURATIONS {
                format!("those of {} others were read", budget::CONFIGURATIONS)
            } else {
                match self.read(pid, |_| false) {
                    Ok(None) => continue,
                    Err(why) => why,
                    Ok(Some(read)) => match &read.said {
                        Ok(said) if said.names_unix => return UnixUpstreams::Of(pid),
                        Ok(said) => match &said.gaps {
                            Some(gaps) => format!("not all of it was read: {gaps}"),
                            None => continue,
                        },
                        Err(why) => why.clone(),
                    },
                }
            };
            if answer == UnixUpstreams::None {
                answer = UnixUpstreams::Unknown(format!("the configuration of nginx {pid}: {unknown}"));
            }
        }
        answer
    }

    /// What was read of this master's, or is read now unless what was read will do; none if it has ended.
    ///
    /// # Errors
    /// If that cannot be found out.
    fn read(&mut self, master: u32, will_do: impl Fn(&Read) -> bool) -> Result<Option<&mut Read>, String> {
        let Some(started) = born(master)? else { return Ok(None) };
        let known = self.0.get(&master).filter(|read| read.started == started);
        if known.is_none_or(|known| !will_do(known)) {
            let is_reported = known.is_some_and(|known| known.is_reported);
            if self.0.len() >= budget::CONFIGURATIONS {
                self.0.clear();
            }
            // Before: what changes meanwhile is newer.
            let read_ns = now(ClockId::CLOCK_REALTIME);
            let said = match Master::believe(master).and_then(|master| configuration(&master)) {
                Ok(configuration) => Ok(Arc::new(Said::of(&configuration))),
                Err(Refusal::Changed) => return Ok(None),
                Err(refusal) => Err(refusal.to_string()),
            };
            self.0.insert(master, Read { started, read_ns, said, is_reported });
        }
        Ok(self.0.get_mut(&master))
    }
}

impl Read {
    /// Why nginx may fail to say an error.
    fn silence(&self) -> Option<String> {
        match &self.said {
            Ok(said) if said.says_errors == Some(false) => Some("an error_log keeps errors back".to_owned()),
            Ok(said) => said.gaps.clone(),
            Err(why) => Some(why.clone()),
        }
    }
}

impl Said {
    fn of(configuration: &Configuration) -> Self {
        Self {
            says_errors: configuration.says_errors(),
            names_unix: configuration.names_unix_upstreams(),
            groups: within_budget(groups(configuration)),
            counts_statuses: counts_statuses(&configuration.directives),
            gaps: configuration.gaps.sentence(),
            changed_ns: configuration.changed_ns,
        }
    }

    /// Whether a process that began then (in ticks) runs by it, if its master is the same.
    pub(super) fn is_older_than(&self, born: u64) -> bool {
        self.changed_ns <= latest_ns(born)
    }
}

fn within_budget(groups: Vec<Group>) -> Result<Vec<Group>, String> {
    let servers: usize = groups.iter().map(|group| group.servers.len().max(1)).sum();
    if servers > budget::GROUP_SERVERS {
        return Err(format!("it has more than {} servers", budget::GROUP_SERVERS));
    }
    if groups.iter().any(|group| group.name.len() > budget::GROUP_NAME) {
        return Err("a group's name is longer than any is".to_owned());
    }
    Ok(groups)
}

/// When a process began, in ticks since the host's start; none if it has ended.
fn born(pid: u32) -> Result<Option<u64>, String> {
    crate::procfs::processes::still(Process::new(pid.cast_signed()).and_then(|process| process.stat()))
        .map(|stat| stat.map(|stat| stat.starttime))
        .map_err(|error| format!("the /proc entry of {pid} cannot be read: {error}"))
}

/// Whether a process began after this moment (ns since 1970), as far as its time of birth shows.
pub(super) fn began_after(pid: u32, unix_ns: i64) -> bool {
    matches!(born(pid), Ok(Some(born)) if unix_ns <= latest_ns(born))
}

/// When that was by the wall clock at the latest (ns since 1970).
fn latest_ns(born: u64) -> i64 {
    let since_boot = born.saturating_mul(1_000_000_000 / procfs::ticks_per_second());
    let since_boot = i64::try_from(since_boot).unwrap_or(i64::MAX);
    booted_ns().saturating_add(since_boot).saturating_add(TICK_NS)
}
