//! The access logs that nginx's masters hold open, for what clients were answered. Read by descriptor, as their error logs are; of what
//! stands in them only lines with a status that is accounted for are looked at closer, and of these no more is kept than status, time and
//! servers.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs::read_link,
    io,
    os::fd::AsRawFd as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use nix::time::ClockId;

use super::{configurations::Configurations, masters::began_after};
use crate::{
    audit::follow::Reading,
    model::{
        answers::{Answer, Followed, STATUSES},
        budget,
        clock::{monotonic_ns, nanoseconds, now},
        stream::What,
        upstream::UpstreamFilter,
    },
    procfs::host::{
        HeldLog, Identity, Master, Refusal,
        nginx::{
            AccessLog, Rules, access_logs, configuration,
            log_format::{Format, Said},
            master_of, rules,
        },
    },
};

/// How often the logs are read.
const PERIOD: Duration = Duration::from_secs(1);

/// How often a master is asked anew which files it holds open, though each log that is followed has the name that it had.
const ASKING: Duration = Duration::from_secs(10);

/// How long a log that nobody holds open any more is read on without a new line.
const LEFT: Duration = Duration::from_secs(5);

/// The access logs that are followed.
#[derive(Debug)]
pub(super) struct AccessLogs {
    /// Whether they are to be at all.
    is_wanted: bool,
    shows_requests: bool,
    upstreams: Vec<UpstreamFilter>,
    masters: HashMap<u32, Held>,
    followed: HashMap<Identity, Log>,
    /// Files that masters hold open and that are none of these logs.
    others: HashSet<Identity>,
    since: SystemTime,
    next_ns: u64,
    /// Lines that were taken since this moment, for there may be too many in a second.
    taken: (u64, u64),
    left_out: u64,
    emitted: Followed,
    complaints: HashSet<String>,
}

/// A master that is believed.
#[derive(Debug)]
struct Held {
    master: Master,
    logs: Vec<AccessLog>,
    /// What gives which status without an upstream.
    rules: Arc<Rules>,
    /// It has been asked for its files before.
    is_known: bool,
    next: Instant,
}

/// A log that some master holds open, or held.
#[derive(Debug)]
struct Log {
    reading: Reading,
    /// The link in procfs that says what it is called by now.
    own: PathBuf,
    called: PathBuf,
    formats: Vec<Format>,
    /// Of the master that holds it open.
    rules: Arc<Rules>,
    is_held: bool,
}

impl AccessLogs {
    /// Nothing is followed yet.
    pub(super) fn new(is_wanted: bool, shows_requests: bool, upstreams: &[UpstreamFilter]) -> Self {
        Self {
            is_wanted,
            shows_requests,
            upstreams: upstreams.to_vec(),
            masters: HashMap::new(),
            followed: HashMap::new(),
            others: HashSet::new(),
            since: SystemTime::now(),
            next_ns: 0,
            taken: (0, 0),
            left_out: 0,
            emitted: Followed::default(),
            complaints: HashSet::new(),
        }
    }

    /// Follows the logs of these processes' masters, besides those that are followed already.
    pub(super) fn follow(&mut self, pids: &[u32], configurations: &mut Configurations) {
        if !self.is_wanted {
            return;
        }
        for (one, pid) in pids.iter().filter_map(|pid| Some((*pid, master_of(*pid)?))) {
            if self.masters.contains_key(&pid) || self.masters.len() >= budget::CONFIGURATIONS {
                continue;
            }
            match configurations.ask(move |_| known(pid, one)) {
                Some(Ok((master, logs, rules))) => {
                    let held = Held { master, logs, rules, is_known: false, next: Instant::now() };
                    self.masters.insert(pid, held);
                    self.look(pid);
                }
                // It has ended, or the reader does not answer, which it reports itself.
                Some(Err(Refusal::Changed)) | None => {}
                Some(Err(refusal)) => self.complain(format!(
                    "the access logs of nginx {pid} are not followed, so that what its clients were answered is not accounted for: {refusal}"
                )),
            }
        }
    }

    /// A process has begun, or is to read its configuration again: what is known of its master is asked for anew.
    pub(super) fn begins(&mut self, pid: u32, configurations: &mut Configurations) {
        if let Some(master) = master_of(pid) {
            let was_known = self.masters.remove(&master).is_some_and(|held| held.is_known);
            self.follow(&[pid], configurations);
            if let Some(held) = self.masters.get_mut(&master) {
                held.is_known |= was_known;
            }
        }
    }

    /// The logs are to be read at once: it is time, or the run ends.
    pub(super) fn hurry(&mut self) {
        self.next_ns = 0;
    }

    /// Asks a master which logs it holds open by now.
    fn look(&mut self, pid: u32) {
        let Some(held) = self.masters.get_mut(&pid) else { return };
        held.next = Instant::now() + ASKING;
        let most = budget::HELD_LOGS.saturating_sub(self.followed.len());
        let is_known = |identity| self.followed.contains_key(&identity) || self.others.contains(&identity);
        let (new, known, left_out) = match held.master.held_logs(most, is_known) {
            Ok(found) => found,
            Err(Refusal::Changed) => {
                self.masters.remove(&pid);
                return;
            }
            Err(refusal) => {
                self.complain(format!("the access logs of nginx {pid} cannot be looked for: {refusal}"));
                return;
            }
        };
        for identity in known {
            if let Some(log) = self.followed.get_mut(&identity) {
                log.is_held = true;
                log.rules = Arc::clone(&held.rules);
            }
        }
        let was_known = std::mem::replace(&mut held.is_known, true);
        let (logs, rules) = (held.logs.clone(), Arc::clone(&held.rules));
        if left_out > 0 {
            self.complain(format!(
                "more than {} access logs are held open: the others are not followed",
                budget::HELD_LOGS
            ));
        }
        for log in new {
            if let Err(error) = self.begin(log, &logs, &rules, was_known) {
                self.complain(cannot_be_read(&error));
            }
        }
    }

    /// Follows one more log, if it is one of these: from its beginning if it was made meanwhile.
    fn begin(
        &mut self,
        log: HeldLog,
        logs: &[AccessLog],
        rules: &Arc<Rules>,
        was_known: bool,
    ) -> io::Result<()> {
        let HeldLog { identity, file } = log;
        let is_new = was_known && file.metadata()?.created().map_or(true, |made| made >= self.since);
        // The file stays open for as long as it is read.
        let own = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let called = read_link(&own)?;
        let name: OsString = called.file_name().unwrap_or_default().to_owned();
        let its: Vec<&AccessLog> = logs.iter().filter(|log| log.name == name).collect();
        let formats: Vec<Format> = its.iter().filter_map(|log| Format::of(log.format.as_deref()?)).collect();
        if formats.is_empty() {
            if !its.is_empty() {
                self.complain(format!(
                    "what the lines of {} mean cannot be told from its log_format: what it has of clients' answers is not accounted for",
                    crate::terminal::printable(&called.display().to_string())
                ));
            }
            if self.others.len() >= budget::HELD_LOGS {
                self.others.clear();
            }
            self.others.insert(identity);
            return Ok(());
        }
        let mut reading = Reading::of(file)?;
        if !is_new {
            reading.skip()?;
        }
        self.followed
            .insert(identity, Log { reading, own, called, formats, rules: Arc::clone(rules), is_held: true });
        Ok(())
    }

    /// What is new in the logs, unless they were read a moment ago.
    pub(super) fn read(&mut self) -> Vec<What> {
        let at = monotonic_ns();
        if self.masters.is_empty() || at < self.next_ns {
            return Vec::new();
        }
        self.next_ns = at.saturating_add(nanoseconds(PERIOD));
        let is_moved = self.followed.values().any(Log::is_moved);
        let due: Vec<u32> = self
            .masters
            .iter()
            .filter(|(_, held)| is_moved || Instant::now() >= held.next)
            .map(|(pid, _)| *pid)
            .collect();
        if due.len() == self.masters.len() {
            self.followed.values_mut().for_each(|log| log.is_held = false);
        }
        due.into_iter().for_each(|pid| self.look(pid));
        let (lines, failed) = self.lines(at);
        failed.iter().for_each(|error| self.complain(cannot_be_read(error)));
        self.followed.retain(|_, log| log.is_held || log.reading.grown().elapsed() < LEFT);
        let followed = Followed { logs: self.followed.len() as u64, left_out: self.left_out };
        if followed.left_out > 0 && self.emitted.left_out == 0 {
            self.complain(
                "an access log grows too fast to be read as a whole: what is left out, the end says"
                    .to_owned(),
            );
        }
        let mut news = Vec::new();
        if std::mem::replace(&mut self.emitted, followed) != followed {
            news.push(What::AccessLogs(followed));
        }
        news.extend(lines.into_iter().map(|answer| What::Answer(Box::new(answer))));
        news
    }

    fn lines(&mut self, at: u64) -> (Vec<Answer>, Vec<io::Error>) {
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        if at.saturating_sub(self.taken.0) >= nanoseconds(PERIOD) {
            self.taken = (at, 0);
        }
        let clock_offset = now(ClockId::CLOCK_REALTIME).saturating_sub(at.cast_signed());
        let (taken, left_out, upstreams) = (&mut self.taken.1, &mut self.left_out, &self.upstreams);
        let shows_requests = self.shows_requests;
        for log in self.followed.values_mut() {
            match log.reading.behind() {
                Ok(bytes) if bytes > budget::ACCESS_LOG_BYTES => {
                    *left_out += 1;
                    failed.extend(log.reading.skip().err());
                    continue;
                }
                Ok(_) => {}
                Err(error) => {
                    failed.push(error);
                    continue;
                }
            }
            let (formats, rules) = (&log.formats, &log.rules);
            let read = log.reading.read(&mut |line| {
                if !may_matter(line.as_bytes()) {
                    return;
                }
                if *taken >= budget::ANSWERS {
                    *left_out += 1;
                    return;
                }
                if let Some(said) = formats.iter().find_map(|format| format.read(line)) {
                    *taken += 1;
                    let mut answer = answer(said, at, clock_offset);
                    answer.rule = rules.only(answer.status);
                    answer.request = answer.request.filter(|_| shows_requests);
                    found.extend(is_asked_for(&answer, upstreams).then_some(answer));
                }
            });
            failed.extend(read.err());
            *left_out += log.reading.take_dropped();
        }
        (found, failed)
    }

    /// Reports it to a person, once.
    fn complain(&mut self, what: String) {
        if self.complaints.len() < budget::HELD_LOGS && !self.complaints.contains(&what) {
            crate::notice!("{what}");
            self.complaints.insert(what);
        }
    }
}

impl Log {
    /// Whether it was given another name: then there is, or will soon be, another log in its place.
    fn is_moved(&self) -> bool {
        !read_link(&self.own).is_ok_and(|called| called == self.called)
    }
}

/// A master, its logs and its rules, by the thread that reads configurations. `pid` is a process of this master's: one that is older than the
/// files may run by other rules.
fn known(master: u32, pid: u32) -> Result<(Master, Vec<AccessLog>, Arc<Rules>), Refusal> {
    let master = Master::believe(master)?;
    let configuration = configuration(&master)?;
    let is_older = began_after(pid, configuration.changed_ns);
    let rules = if is_older { rules(&configuration) } else { Rules::default() };
    Ok((master, access_logs(&configuration), Arc::new(rules)))
}

fn cannot_be_read(error: &io::Error) -> String {
    format!("an access log of nginx's cannot be read at the moment: {error}")
}

/// Whether one of the statuses may stand in a line. Most lines end here.
fn may_matter(line: &[u8]) -> bool {
    let is_one = |digits: &[u8]| {
        let &[hundreds @ (b'4' | b'5'), tens, ones] = digits else { return false };
        let number = [hundreds, tens, ones]
            .iter()
            .fold(0, |sum, digit| 10 * sum + u16::from(digit.wrapping_sub(b'0')));
        STATUSES.contains(&number)
    };
    line.windows(3).any(is_one)
}

/// What a line says, on the stream's clock, by which it was read at `at`.
fn answer(said: Said, at: u64, clock_offset: i64) -> Answer {
    let Said { status, logged, tries, request } = said;
    // Without a time of its own it is of the time since the log was read before, if nginx writes each line at once.
    let since = || (at.saturating_sub(2 * nanoseconds(PERIOD)), 2 * nanoseconds(PERIOD));
    let (ns, within_ns) = match logged {
        Some((unix_ns, within_ns)) => {
            (u64::try_from(unix_ns.saturating_sub(clock_offset)).unwrap_or_default(), within_ns)
        }
        None => since(),
    };
    Answer { ns, within_ns, status, tries, rule: None, request }
}

/// Whether an answer may be about an upstream that was asked for.
fn is_asked_for(answer: &Answer, wanted: &[UpstreamFilter]) -> bool {
    let Some(last) = answer.tries.as_ref().and_then(|tries| tries.last()) else { return true };
    let Some(upstream) = last.upstream.as_ref().filter(|_| !wanted.is_empty()) else { return true };
    wanted.iter().any(|wanted| wanted.matches(upstream))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_other_statuses_end_early() {
        for line in ["a 502 b", "504", "x499", "5503"] {
            assert!(may_matter(line.as_bytes()), "{line}");
        }
        for line in ["a 200 b", "50", "5 02", "498 501 505 500", ""] {
            assert!(!may_matter(line.as_bytes()), "{line}");
        }
    }
}
