//! The error logs that are read where nginx's word is not heard: those that masters hold open, and those that the user names.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use procfs::{
    ProcResult,
    process::{Process, Stat, Status},
};

use crate::{
    audit::{
        follow::{Follower, Reading},
        once::Once,
        spoken::Spoken,
    },
    model::{budget, clock::monotonic_ns, stream::Logged},
    procfs::{
        host::{HeldLog, Identity, Master, Refusal},
        processes,
    },
};

/// How often the logs are read, and those who hold them open asked for others.
pub(super) const PERIOD: Duration = Duration::from_millis(200);

/// The share of the time that asking may take: one in so many.
const SHARE: u32 = 200;

/// How long a log that nobody holds open any more is read on without a new line.
const LEFT: Duration = Duration::from_secs(5);

/// After so many lines none of which is an error log's, a file is none: masters hold their access logs open, too.
const STRANGE: u64 = 64;

/// The logs that are followed.
#[derive(Debug)]
pub(super) struct Logs {
    named: Vec<(usize, Follower)>,
    masters: HashMap<u32, Held>,
    followed: HashMap<Identity, Log>,
    /// Files that masters hold open and that are no error logs.
    others: HashSet<Identity>,
    once: Once,
    /// When this began.
    since: SystemTime,
    /// When masters may be asked again.
    next: Instant,
    /// What was reported already.
    reported: HashSet<String>,
    /// Lines that were read, of whatever kind.
    lines: u64,
    /// Lines that may be about an upstream and are not known.
    passed_over: u64,
}

/// A master that is believed.
#[derive(Debug)]
struct Held {
    master: Master,
    /// Its own pid here and its workers', by those that they write.
    pids: HashMap<u32, u32>,
    /// It has been asked for its logs.
    is_known: bool,
}

/// A log that some master holds open, or held.
#[derive(Debug)]
struct Log {
    number: usize,
    reading: Reading,
    is_held: bool,
    lines: u64,
    is_error_log: bool,
}

impl Logs {
    /// Those that the user names, from their ends on.
    pub(super) fn new(named: &[PathBuf]) -> Self {
        let mut logs = Self {
            named: Vec::new(),
            masters: HashMap::new(),
            followed: HashMap::new(),
            others: HashSet::new(),
            once: Once::new(0),
            since: SystemTime::now(),
            next: Instant::now(),
            reported: HashSet::new(),
            lines: 0,
            passed_over: 0,
        };
        for path in named {
            match Follower::open(path) {
                Ok(follower) => {
                    let number = logs.once.add();
                    logs.named.push((number, follower));
                }
                Err(error) => logs.report(format!("{} cannot be followed: {error}", path.display())),
            }
        }
        logs
    }

    /// Follows the logs of these processes' masters, and no others' any more.
    pub(super) fn follow(&mut self, pids: &[u32]) {
        let mut masters = HashMap::<u32, HashMap<u32, u32>>::new();
        for &pid in pids {
            match processes::still(of(pid)) {
                Ok(Some((master, written))) => {
                    masters.entry(master).or_default().insert(written, pid);
                }
                // Whoever has ended writes no more.
                Ok(None) => {}
                Err(error) => {
                    self.report(format!("whose worker nginx {pid} is cannot be looked up: {error}"))
                }
            }
        }
        self.masters.retain(|pid, _| masters.contains_key(pid));
        for (pid, pids) in masters {
            if let Some(held) = self.masters.get_mut(&pid) {
                held.pids = pids;
                continue;
            }
            match Master::believe(pid) {
                Ok(master) => {
                    self.masters.insert(pid, Held { master, pids, is_known: false });
                    self.next = Instant::now();
                }
                Err(Refusal::Changed) => {}
                Err(refusal) => self.report(format!(
                    "the error log of nginx {pid} is not looked for: {refusal}; --error-log names it"
                )),
            }
        }
    }

    /// Whether any log is read.
    pub(super) fn has_any(&self) -> bool {
        !self.named.is_empty() || !self.followed.is_empty()
    }

    /// How many lines were read since this was asked last.
    pub(super) fn take_lines(&mut self) -> u64 {
        std::mem::take(&mut self.lines)
    }

    /// How many lines were passed over since this was asked last: longer than any of nginx's, or cut off before they say what they are
    /// about.
    pub(super) fn take_passed_over(&mut self) -> u64 {
        std::mem::take(&mut self.passed_over)
    }

    /// Asks the masters which logs they hold open by now.
    pub(super) fn look(&mut self) {
        if Instant::now() < self.next {
            return;
        }
        let began = Instant::now();
        self.followed.values_mut().for_each(|log| log.is_held = false);
        let mut asked = Vec::new();
        for (pid, held) in &mut self.masters {
            let most = budget::HELD_LOGS.saturating_sub(self.followed.len());
            let is_known =
                |identity| self.followed.contains_key(&identity) || self.others.contains(&identity);
            asked.push((
                *pid,
                std::mem::replace(&mut held.is_known, true),
                held.master.held_logs(most, is_known),
            ));
        }
        for (pid, was_known, held) in asked {
            let (new, known, left_out) = match held {
                Ok(held) => held,
                Err(Refusal::Changed) => {
                    self.masters.remove(&pid);
                    continue;
                }
                Err(refusal) => {
                    self.report(format!("the error log of nginx {pid} cannot be looked for: {refusal}"));
                    continue;
                }
            };
            if left_out > 0 {
                self.report(format!(
                    "more than {} logs are held open: the others are not followed",
                    budget::HELD_LOGS
                ));
            }
            if !was_known && new.is_empty() && known.is_empty() && self.named.is_empty() {
                self.report(format!(
                    "nginx {pid} holds no file open that may be its error log, so that what it says of its upstreams is not known"
                ));
            }
            for identity in known {
                if let Some(log) = self.followed.get_mut(&identity) {
                    log.is_held = true;
                }
            }
            for log in new {
                if let Err(error) = self.begin(log, was_known) {
                    self.report(cannot_be_read(&error));
                }
            }
        }
        self.followed.retain(|_, log| log.is_held || log.reading.grown().elapsed() < LEFT);
        self.next = Instant::now() + (began.elapsed() * SHARE).max(PERIOD);
    }

    /// Follows one more log: from its beginning if it was made meanwhile.
    fn begin(&mut self, log: HeldLog, was_known: bool) -> io::Result<()> {
        let HeldLog { identity, file } = log;
        // Not every file system says.
        let is_new = was_known && file.metadata()?.created().map_or(true, |made| made >= self.since);
        let mut reading = Reading::of(file)?;
        if !is_new {
            reading.skip()?;
        }
        let number = self.once.add();
        self.followed.insert(identity, Log { number, reading, is_held: true, lines: 0, is_error_log: false });
        Ok(())
    }

    /// Hands out what is new about upstreams.
    pub(super) fn read(&mut self) -> Vec<Logged> {
        self.look();
        let mut found = Vec::new();
        let mut failed = Vec::new();
        let now = monotonic_ns().cast_signed();
        let (once, lines, masters) = (&mut self.once, &mut self.lines, &self.masters);
        let mut passed_over = 0;
        let mut take = |number: usize, text: &str| {
            *lines += 1;
            if text.len() > budget::LOG_LINE {
                passed_over += 1;
            } else if let Some(spoken) = Spoken::parse(text) {
                if let Some(pid) = pid_of(masters, spoken.pid)
                    && once.is_new(number, text, now)
                {
                    found.push((spoken, pid));
                }
            } else if Spoken::is_cut_off(text) {
                passed_over += 1;
            }
        };
        for (number, follower) in &mut self.named {
            failed.extend(follower.read(&mut |text| take(*number, text)).err());
        }
        for log in self.followed.values_mut() {
            let read = log.reading.read(&mut |text| {
                log.lines += 1;
                log.is_error_log |= is_of_error_log(text);
                take(log.number, text);
            });
            failed.extend(read.err());
        }
        passed_over += self.named.iter_mut().map(|(_, follower)| follower.take_dropped()).sum::<u64>();
        passed_over += self.followed.values_mut().map(|log| log.reading.take_dropped()).sum::<u64>();
        self.passed_over += passed_over;
        let others = &mut self.others;
        self.followed.retain(|identity, log| {
            let is_other = !log.is_error_log && log.lines >= STRANGE;
            if is_other {
                others.insert(*identity);
            }
            !is_other
        });
        if passed_over > 0 {
            self.report(
                "lines of nginx's error log that are longer than any of its own, or cut off before they say what they are about, are passed \
                 over; how many, the end says"
                    .to_owned(),
            );
        }
        failed.into_iter().for_each(|error| self.report(cannot_be_read(&error)));
        // What stands in the logs by now was said by now.
        let ns = monotonic_ns();
        found.into_iter().map(|(spoken, pid)| logged(spoken, pid, ns)).collect()
    }

    /// Reports to a person, once.
    fn report(&mut self, what: String) {
        if self.reported.len() < budget::HELD_LOGS && !self.reported.contains(&what) {
            crate::notice!("{what}");
            self.reported.insert(what);
        }
    }
}

fn cannot_be_read(error: &io::Error) -> String {
    format!(
        "an error log of nginx's cannot be read at the moment, so that what it has may be missing: {error}"
    )
}

/// The pid here of whoever writes this one, if its words are to be taken from its log.
fn pid_of(masters: &HashMap<u32, Held>, written: u32) -> Option<u32> {
    let found = masters.values().find_map(|held| held.pids.get(&written));
    // One that is not known has ended, or has begun since its master was asked.
    found.copied().or_else(|| masters.values().any(|held| is_its(held, written)).then_some(written))
}

/// Whether a process that is not known may be a worker of this master: it has gone, or is its child.
fn is_its(held: &Held, pid: u32) -> bool {
    let stat = processes::still(Process::new(pid.cast_signed()).and_then(|process| process.stat()));
    match stat {
        Ok(Some(stat)) => stat.ppid.cast_unsigned() == held.master.pid,
        Ok(None) => true,
        Err(_refused) => false,
    }
}

/// Whether a line is an error log's: `2026/11/20 22:18:16 [error] `.
fn is_of_error_log(text: &str) -> bool {
    const TIME: usize = 19;
    text.get(TIME..).is_some_and(|rest| rest.starts_with(" [") && rest.contains("] "))
}

fn logged(spoken: Spoken, pid: u32, ns: u64) -> Logged {
    let Spoken { pid: _, mut word, upstream } = spoken;
    (word.word.ns, word.word.tgid, word.word.tid) = (ns, pid, pid);
    word.comm[..COMM.len()].copy_from_slice(COMM);
    Logged { word: *word, upstream }
}

/// What a worker is called whose exchange does not say it.
const COMM: &[u8] = b"nginx";

/// A process's master, which may be itself, and the pid that it writes.
fn of(pid: u32) -> ProcResult<(u32, u32)> {
    let process = Process::new(pid.cast_signed())?;
    let (stat, status): (Stat, Status) = (process.stat()?, process.status()?);
    let written = status.nspid.as_ref().and_then(|pids| pids.last()).copied().unwrap_or(status.pid);
    let parent = Process::new(stat.ppid).and_then(|parent| parent.stat());
    let is_worker = matches!(&parent, Ok(parent) if parent.comm == stat.comm);
    let master = if is_worker { stat.ppid } else { stat.pid };
    Ok((master.cast_unsigned(), written.unsigned_abs()))
}
