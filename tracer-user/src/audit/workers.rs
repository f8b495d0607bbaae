//! Which lines are about traced processes: nginx writes its own pid, as its pid namespace counts.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use procfs::{
    ProcResult,
    process::{Process, Status},
};

use crate::{args::Trace, model::budget, procfs::processes};

/// How long what was found out about a pid holds; it may become another's.
const VALID: Duration = Duration::from_secs(60);

/// How long a process that has ended is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The share of the time that walks of /proc may take at most: one in so many.
const SHARE: u32 = 20;

/// Knows processes by the pids they write.
#[derive(Debug)]
pub struct Workers {
    comm: Option<String>,
    pid: Option<u32>,
    known: HashMap<u32, Known>,
    /// The pid that a traced process writes, by the pid it has here.
    written: HashMap<u32, (u32, Instant)>,
    /// When /proc may be walked again.
    next_stock: Instant,
    /// Whether it was reported that somebody cannot be looked at.
    has_complained: bool,
}

/// What is known of whoever writes a pid.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Its pid here; none if nobody was found.
    pid: Option<u32>,
    is_traced: bool,
    at: Instant,
}

impl Workers {
    /// Takes stock of the processes, by the filters of the run.
    pub fn new(args: &Trace) -> Self {
        let comm = args.comm().map(str::to_owned);
        let (known, written) = (HashMap::new(), HashMap::new());
        let (next_stock, has_complained) = (Instant::now(), false);
        let mut workers = Self { comm, pid: args.pid, known, written, next_stock, has_complained };
        workers.take_stock();
        workers
    }

    /// Whether the process that writes this pid is traced. A line is only left out if its process is known not to be: one
    /// that ended before anyone looked may have been.
    pub fn are_traced(&mut self, written: u32) -> bool {
        match self.known.get(&written) {
            Some(known) if known.at.elapsed() < VALID => return known.is_traced,
            Some(Known { pid: Some(pid), .. }) => {
                let pid = *pid;
                let status = self.status(pid);
                if let Some(status) = status.filter(|status| pid_within(status) == written) {
                    return self.learn(pid, &status);
                }
            }
            _ => {}
        }
        // Nearly always the pid it writes is the one that it has here.
        let status = self.status(written);
        if let Some(status) =
            status.filter(|status| pid_within(status) == written && self.has_asked_for(written, status))
        {
            return self.learn(written, &status);
        }
        if Instant::now() < self.next_stock {
            // Whoever writes pids that nobody has must not keep /proc being walked. He counts as traced until it is known.
            return self.known.get(&written).is_none_or(|known| known.is_traced);
        }
        self.take_stock();
        if self.known.len() >= budget::LOG_PIDS && !self.known.contains_key(&written) {
            return true;
        }
        let unknown = Known { pid: None, is_traced: true, at: Instant::now() };
        let known = self.known.entry(written).or_insert(unknown);
        // Of one that has ended, what was known stays true.
        known.at = unknown.at;
        known.is_traced
    }

    /// The pid that a traced process writes.
    pub fn written_by(&mut self, pid: u32) -> u32 {
        if let Some((written, at)) = self.written.get(&pid)
            && at.elapsed() < VALID
        {
            return *written;
        }
        if let Some(status) = self.status(pid) {
            self.learn(pid, &status);
            return pid_within(&status);
        }
        let (written, at) = self.written.entry(pid).or_insert((pid, Instant::now()));
        *at = Instant::now();
        *written
    }

    /// The traced processes that run now: the pid they have here, and the one they write.
    pub fn running(&self) -> impl Iterator<Item = (u32, u32)> {
        let traced = self.known.iter().filter(|(_, known)| known.is_traced);
        traced.filter_map(|(written, known)| Some((known.pid?, *written)))
    }

    fn take_stock(&mut self) {
        let began = Instant::now();
        // Where too many were learnt, only whoever is there now.
        let is_kept = |at: Instant, count: usize| at.elapsed() < REMEMBERED && count < budget::LOG_PIDS;
        let counts = (self.known.len(), self.written.len());
        self.known.retain(|_, known| is_kept(known.at, counts.0));
        self.written.retain(|_, (_, at)| is_kept(*at, counts.1));
        let mut seen_traced = HashMap::<u32, bool>::new();
        let pids = processes::pids().unwrap_or_else(|error| {
            self.complain(&error);
            Vec::new()
        });
        for pid in pids {
            let pid = pid.unsigned_abs();
            let Some(status) = self.status(pid) else { continue };
            let written = pid_within(&status);
            // In two pid namespaces, two processes may write the same pid.
            if !seen_traced.get(&written).copied().unwrap_or(false) {
                let is_traced = self.learn(pid, &status);
                seen_traced.insert(written, is_traced);
            }
        }
        self.next_stock = Instant::now() + began.elapsed() * SHARE;
    }

    /// What a process is; none if it has gone, or if it cannot be looked at, which is reported once.
    fn status(&mut self, pid: u32) -> Option<Status> {
        status(pid).unwrap_or_else(|error| {
            self.complain(&error);
            None
        })
    }

    fn complain(&mut self, error: &impl std::fmt::Display) {
        if !std::mem::replace(&mut self.has_complained, true) {
            crate::notice!(
                "the audit cannot look at every process ({error}): where it is not known who wrote a line, it counts as a traced \
                 process's"
            );
        }
    }

    fn has_asked_for(&self, pid: u32, status: &Status) -> bool {
        self.comm.as_ref().is_none_or(|comm| *comm == status.name)
            && self.pid.is_none_or(|wanted| wanted == pid || wanted == status.ppid.unsigned_abs())
    }

    /// Remembers what a process is; returns whether it is traced.
    fn learn(&mut self, pid: u32, status: &Status) -> bool {
        let is_traced = self.has_asked_for(pid, status);
        let (written, at) = (pid_within(status), Instant::now());
        self.known.insert(written, Known { pid: Some(pid), is_traced, at });
        if is_traced {
            self.written.insert(pid, (written, at));
        }
        is_traced
    }
}

/// What a process is; none if it has gone.
fn status(pid: u32) -> ProcResult<Option<Status>> {
    processes::still(Process::new(pid.cast_signed()).and_then(|process| process.status()))
}

/// What getpid returns to the process: the pid in the innermost of its namespaces.
fn pid_within(status: &Status) -> u32 {
    let pid = status.nspid.as_ref().and_then(|pids| pids.last()).unwrap_or(&status.pid);
    pid.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, id};

    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command as Verb};

    fn traced_by(words: &[&str]) -> Trace {
        let Args { command: Verb::Live(live), .. } = Args::parse_from([&["why502", "live"], words].concat())
        else {
            panic!("not live")
        };
        live.trace
    }

    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Self {
            let sleeper = Self(Command::new("sleep").arg("1000").spawn().unwrap());
            // It is called after this test until it has executed the other program.
            while status(sleeper.0.id()).unwrap().is_none_or(|status| status.name != "sleep") {
                std::thread::yield_now();
            }
            sleeper
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn the_filters_apply_to_those_who_write() {
        let sleeper = Sleeper::start();
        let (pid, me) = (sleeper.0.id(), id().to_string());
        let traced = |words: &[&str]| Workers::new(&traced_by(words)).are_traced(pid);
        assert!(traced(&["--comm", "sleep"]));
        assert!(!traced(&[]));
        assert!(traced(&["--all"]));
        assert!(traced(&["--comm", "sleep", "-p", &me]));
        assert!(traced(&["--comm", "sleep", "-p", &pid.to_string()]));
        assert!(!traced(&["--comm", "sleep", "-p", "1"]));
        assert!(!traced(&["-p", &me]));
    }

    #[test]
    fn who_starts_later_is_found_and_who_has_ended_is_remembered() {
        let mut workers = Workers::new(&traced_by(&["--comm", "sleep"]));
        let (late, other) = (Sleeper::start(), Sleeper::start());
        let pid = late.0.id();
        assert!(workers.are_traced(pid) && workers.running().any(|running| running == (pid, pid)));
        assert_eq!(workers.written_by(other.0.id()), other.0.id());
        let not_traced = id();
        assert!(!workers.are_traced(not_traced));
        drop(late);
        assert!(workers.are_traced(pid));
    }

    #[test]
    fn a_pid_that_nobody_has_is_not_left_out() {
        let mut workers = Workers::new(&traced_by(&["-p", &id().to_string()]));
        assert!(workers.are_traced(u32::MAX >> 1));
        assert_eq!(workers.written_by(u32::MAX >> 1), u32::MAX >> 1);
        assert!(workers.running().all(|(pid, _)| pid != u32::MAX >> 1));
    }
}
