//! The stream as it comes from the running kernel: its records, the looks at slow workers, losses, the clocks.

mod access_logs;
mod audible;
mod configurations;
mod depths;
mod groups;
mod hearing;
mod inquiries;
mod listeners;
mod logs;
mod masters;
pub mod scope;
mod unix;
mod upstreams;

use std::{collections::VecDeque, future::pending, time::Duration};

use anyhow::Context as _;
use nix::errno::Errno;
use tokio::{
    sync::mpsc::Receiver,
    task::yield_now,
    time::{Interval, interval, sleep},
};
use wire::{Beginning, Endpoint, ExchangeRecord, SUBJECT_LEN, Stats, WordOf, nginx_flag};

use crate::{
    args::Trace,
    decode::{Event, decode},
    engine::{Missed, Ring, SETTLING, losses},
    ledger::Said,
    load::Tracer,
    model::{
        self, budget,
        clock::{ClockOffset, changed_clock_offset, clock_offset, monotonic_ns, nanoseconds},
        facts::Sources,
        failure::Failure,
        groups::{Configured, Place},
        inquiry::Inquiry,
        pressure::Reading,
        record::Record,
        stranger::Stranger,
        stream::{Counts, Entry, Loss, LossReason, Start, UpstreamCounts, What},
        upstream::{self, UpstreamFilter},
        words,
    },
    procfs::{cgroup, host::text_of, pressure::Meter, trust::Trust},
    sample::{self, Round},
    source::scope::Extras,
};

use access_logs::AccessLogs;
use audible::Audible;
use configurations::Configurations;
pub use depths::Depths;
use hearing::Hearing;
use inquiries::Inquiries;
use listeners::Listeners;
use masters::UnixUpstreams;
use unix::Unix;
use upstreams::Upstreams;

/// How often the kernel side's counters are looked at while nothing fails.
const TICK: Duration = Duration::from_secs(1);

/// For how long records are read in one go.
const TURN: Duration = Duration::from_millis(50);

/// In a storm the ring buffer is left alone for so long after it was read: whoever reads each record as it comes is woken for each, by nginx.
const REST: Duration = Duration::from_millis(1);

/// For so long records are counted at least (ns) to know whether they come in a storm, and so many in that time make one.
const COUNTED_NS: u64 = 10_000_000;
const STORM: u64 = 100;

/// Where a live stream comes from.
pub struct Source {
    tracer: Tracer,
    ring: Ring,
    looks: Receiver<Round>,
    /// Rounds of looks that were received and not taken yet.
    found: Vec<Round>,
    meter: Meter,
    tick: Interval,
    /// There is more to be read already.
    has_more: bool,
    rate: Rate,
    /// At this moment nothing was left to be read.
    seen_ns: u64,
    clock_offset: ClockOffset,
    stats: Stats,
    missed: Missed,
    /// Whether the programs' own counters are to be looked at.
    asks_programs: bool,
    unix: Unix,
    configurations: Configurations,
    /// What those said last of unix upstreams, not taken in yet.
    found_unix: Option<UnixUpstreams>,
    is_verbose: bool,
    started_ns: u64,
    /// Exchanges by upstream as last emitted, if they are emitted at all.
    upstreams: Option<Upstreams>,
    counted_ns: u64,
    counts: Counts,
    depths: Option<Depths>,
    max_open: u32,
    /// The upstreams that were asked for; empty for all.
    wanted: Vec<UpstreamFilter>,
    /// Whose verdicts are emitted.
    places: model::cgroup::Wanted,
    /// Who the processes are that records name.
    members: cgroup::Finder,
    /// What comes before a record: who is named in it.
    ahead: VecDeque<What>,
    /// None where the user said himself whom to trace.
    trust: Option<Trust>,
    /// Found before anybody could take them.
    strangers: Vec<Stranger>,
    /// There are strangers who may not have been looked at yet.
    has_strangers: bool,
    audible: Audible,
    groups: groups::Known,
    inquiries: Inquiries,
    /// Words that name no upstream and were left out, for only some were asked for.
    words_left_out: u64,
    /// Words whose texts could not be read.
    words_unread: u64,
    /// Comes after what it made us learn.
    held: VecDeque<What>,
    hearing: Hearing,
    access_logs: AccessLogs,
    listeners: Listeners,
}

/// How fast records come.
#[derive(Default)]
struct Rate {
    since_ns: u64,
    records: u32,
    is_storm: bool,
}

impl Rate {
    /// Concludes from what has been counted for long enough.
    fn look(&mut self, now: u64) {
        let counted_ns = now.saturating_sub(self.since_ns);
        if counted_ns >= COUNTED_NS {
            let is_storm = u64::from(self.records) * COUNTED_NS >= STORM * counted_ns;
            *self = Self { since_ns: now, records: 0, is_storm };
        }
    }
}

impl Source {
    /// Begins with what the kernel side has from now on; with exchanges by upstream, once a second, if it counts them. `running` are the
    /// processes that run already.
    ///
    /// # Errors
    /// If it cannot be watched.
    pub fn new(
        mut tracer: Tracer,
        args: &Trace,
        running: &[u32],
        extras: Extras<'_>,
        is_verbose: bool,
    ) -> Result<Self, Failure> {
        let counts_upstreams = extras.counts_upstreams;
        let ring = Ring::watch(tracer.take_ring()?)?;
        let mut open = tracer.take_open()?;
        let looks = sample::start(move |moment_ns| open.served_since(moment_ns))
            .context("slow workers cannot be looked at")?;
        let now = monotonic_ns();
        let name = args.comm().filter(|_| !args.trusts_all());
        let trust = match name {
            Some(name) => Some(Trust::new(name, TICK, tracer.take_masters()?)),
            None => None,
        };
        let hearing = Hearing::begin(&tracer, args, extras.error_logs, running);
        let members = cgroup::Finder::new(tracer.take_members()?);
        let configurations = Configurations::begin(args).context("configurations cannot be read")?;
        let unix = Unix::new(&tracer, args, is_verbose);
        let mut source = Self {
            tracer,
            hearing,
            ring,
            looks,
            found: Vec::new(),
            meter: Meter::default(),
            tick: interval(TICK),
            has_more: false,
            rate: Rate { since_ns: now, ..Rate::default() },
            seen_ns: now,
            clock_offset: clock_offset(),
            stats: Stats::default(),
            missed: Missed::default(),
            asks_programs: false,
            unix,
            configurations,
            found_unix: None,
            is_verbose,
            started_ns: now,
            upstreams: counts_upstreams.then(Upstreams::default),
            counted_ns: now,
            counts: Counts::default(),
            depths: None,
            max_open: args.max_open,
            wanted: args.upstreams.clone(),
            places: args.wanted.clone(),
            members,
            ahead: VecDeque::new(),
            trust,
            strangers: Vec::new(),
            has_strangers: true,
            audible: Audible::default(),
            groups: groups::Known::default(),
            inquiries: Inquiries::default(),
            words_left_out: 0,
            words_unread: 0,
            held: VecDeque::new(),
            access_logs: AccessLogs::new(!args.no_access_log, extras.shows_requests, &args.upstreams),
            listeners: Listeners::default(),
        };
        source.access_logs.follow(running, &mut source.configurations);
        for pid in running {
            source.audible.look(*pid, &mut source.configurations);
        }
        if is_verbose && source.tracer.reads_words_late() {
            crate::notice!(
                "this kernel does not let what hears nginx wait for memory (Linux 6.0 and later do): a text that nginx had not touched before \
                 is read from it just after it was said"
            );
        }
        source.inquiries.begin(running);
        source.strangers = source.look_at_strangers();
        source.unix.foresee(&mut source.tracer, &mut source.configurations, args, running, name);
        Ok(source)
    }

    /// Looks at those who have nginx's name and are not believed to be nginx, if any have shown since and it is time; returns those to
    /// be reported.
    fn look_at_strangers(&mut self) -> Vec<Stranger> {
        let Some(trust) = self.trust.as_mut().filter(|trust| self.has_strangers && trust.may_look()) else {
            return Vec::new();
        };
        self.has_strangers = false;
        let strangers = trust.look().unwrap_or_else(|error| {
            crate::notice!("who is called nginx cannot be looked up: {error}");
            Vec::new()
        });
        for Stranger { pid, uid, exe, why } in &strangers {
            // As Rust would write it, for a user chose it.
            let exe = exe.as_ref().map_or_else(String::new, |exe| format!(" ({exe:?})"));
            let user = uid.map_or_else(String::new, |uid| format!(" of user {uid}"));
            crate::notice!(
                "left out: process {pid}{user} is called nginx{exe}, {}; -p {pid} traces it all the same",
                why.meaning()
            );
        }
        if !strangers.is_empty() && trust.is_full() {
            crate::notice!(
                "more processes than {} are called nginx and are left out: from now on only their connections are counted",
                budget::STRANGERS
            );
        }
        strangers
    }

    /// Where the stream begins; after `limit` failures nothing more is to be emitted.
    pub fn start(&self, limit: Option<u64>) -> Start {
        Start {
            started_ns: self.started_ns,
            begins_ns: self.started_ns,
            counts: Counts::default(),
            clock_offset: self.clock_offset,
            sources: self.sources().clone(),
            limit,
            is_narrowed: !self.wanted.is_empty(),
            wanted: self.places.clone(),
        }
    }

    /// Emits how full accept queues are from now on.
    pub fn watch_depths(&mut self, depths: Depths) {
        self.depths = Some(depths);
    }

    fn sources(&self) -> &Sources {
        &self.tracer.plan().sources
    }

    /// Waits until there may be something to read. It can be dropped while it waits.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        if self.gave_way() {
            // Only so does the event loop look for signals meanwhile.
            yield_now().await;
            return Ok(());
        }
        let logs = self.hearing.wake_ns();
        let (rest, ring) = (self.rate.is_storm.then(|| sleep(REST)), &mut self.ring);
        let records = async {
            if let Some(rest) = rest {
                rest.await;
            }
            ring.ready().await
        };
        tokio::select! {
            ready = records => ready?,
            Some(round) = self.looks.recv() => self.found.push(round),
            Some(found) = self.configurations.next_unix(), if self.unix.is_awaited() => self.found_unix = Some(found),
            _ = self.tick.tick() => {
                self.asks_programs = true;
                self.access_logs.hurry();
            }
            () = at(logs) => {}
        }
        Ok(())
    }

    /// Hands on what there is to be read, one after the other, until `take` says by `true` that it is enough, or others must have
    /// their turn. Returns the last moment at which nothing was left.
    ///
    /// # Errors
    /// Of `take`, or if the kernel refuses.
    pub fn read(&mut self, mut take: impl FnMut(Entry) -> Result<bool, Failure>) -> Result<u64, Failure> {
        if let Some(clock_offset) = changed_clock_offset(self.clock_offset) {
            self.clock_offset = clock_offset;
            take(self.entry(What::Clock(clock_offset)))?;
        }
        for what in self.counters()? {
            take(self.entry(what))?;
        }
        if let Some(following) = self.hearing.following() {
            take(self.entry(following))?;
        }
        while let Ok(round) = self.looks.try_recv() {
            self.found.push(round);
        }
        for Round { pressure, looks } in std::mem::take(&mut self.found) {
            for what in pressure.map(What::Pressure).into_iter().chain(looks.into_iter().map(What::Look)) {
                take(self.entry(what))?;
            }
        }
        let began_ns = monotonic_ns();
        self.rate.look(began_ns);
        let give_way_ns = began_ns.saturating_add(nanoseconds(TURN));
        loop {
            while let Some(what) = self.record() {
                if take(self.entry(what))? {
                    return Ok(self.seen_ns);
                }
                // In a storm there is always more, and yet signals, frames and deadlines must have their turn.
                if monotonic_ns() >= give_way_ns {
                    self.has_more = true;
                    return Ok(self.seen_ns);
                }
            }
            // What came before this moment has been read if nothing is there after it.
            let now = monotonic_ns();
            let Some(what) = self.record() else {
                self.seen_ns = now;
                for what in self.access_logs.read() {
                    take(self.entry(what))?;
                }
                for what in self.hearing.read(&self.tracer) {
                    if let What::Logged(line) = &what {
                        let said = Said::logged(line);
                        if !self.is_asked_for(&said) {
                            continue;
                        }
                        if let Some(learnt) = self.ask(&said) {
                            take(self.entry(learnt))?;
                        }
                    }
                    take(self.entry(what))?;
                }
                return Ok(now);
            };
            if take(self.entry(what))? {
                return Ok(self.seen_ns);
            }
        }
    }

    /// What stands in nginx's logs by now is to be read the next time, for it is the last one.
    pub fn read_logs_now(&mut self) {
        self.hearing.hurry();
        self.access_logs.hurry();
    }

    /// Whether the last reading gave way to others before everything was read.
    pub fn gave_way(&mut self) -> bool {
        std::mem::take(&mut self.has_more)
    }

    /// What has been counted since it was last looked at: to be taken in at the very end.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn recount(&mut self) -> Result<Vec<Entry>, Failure> {
        self.unix.give_up();
        self.counted_ns = 0;
        let mut news = Vec::new();
        for pause in [Duration::ZERO, SETTLING] {
            std::thread::sleep(pause);
            self.asks_programs = true;
            news.extend(self.counters()?);
        }
        if self.missed.emitted > 0 {
            let by_program: Vec<String> =
                self.tracer.missed()?.iter().map(|(program, count)| format!("{program} {count}")).collect();
            crate::notice!(
                "{} not seen because a program of why502 was busy with another on that CPU: {}",
                words::count(self.missed.emitted, "event"),
                by_program.join(", ")
            );
        }
        if self.stats.returns_missed > 0 {
            crate::notice!(
                "{} not seen to return, for kprobes have room for few calls at a time",
                words::count(self.stats.returns_missed, "call")
            );
        }
        for (count, what, why) in [
            (
                self.stats.afterwards_unkept,
                "connection",
                "that nginx gave up not followed to its end: its process has others",
            ),
            (
                self.stats.upstreams_unkept,
                "exchange",
                "not counted by upstream: there are more upstreams than fit",
            ),
            (
                self.stats.translations_unkept,
                "connection",
                "of which it is not remembered where address translation led: there are more such upstreams than fit, and a verdict that \
                 an unknown listener may touch is marked incomplete",
            ),
            (
                self.members.left_out(),
                "process",
                "whose unit or container is not told: failures named too many at a time",
            ),
            (
                self.members.unread() + self.stats.members_unkept,
                "process",
                "whose unit or container is not told: it could not be read, or kept until it was asked for",
            ),
            (
                self.words_unread,
                "word",
                "of nginx's known by level and errno alone, for its process ended before its text was read",
            ),
            (
                self.listeners.left_out(),
                "failure",
                "of which it was not looked who listens there or near: this host has too many open files for a look every second",
            ),
            (
                self.hearing.passed_over(),
                "line",
                "of nginx's error log passed over: too long, or cut off before it says what it is about",
            ),
        ] {
            if count > 0 {
                crate::notice!("{} {why}", words::count(count, what));
            }
        }
        Ok(news.into_iter().map(|what| self.entry(what)).collect())
    }

    /// The next record, if there is one; who is named in it comes first.
    fn record(&mut self) -> Option<What> {
        if self.ahead.is_empty() {
            let what = self.decoded()?;
            if let What::Record(record) = &what {
                self.ahead.extend(self.members.look(record).into_iter().map(What::Member));
                let pressure = self.pressure(record);
                self.ahead.extend(pressure.map(What::Pressure));
            }
            self.ahead.push_back(what);
        }
        self.ahead.pop_front()
    }

    /// What is short now, if this is the end of an exchange that nginx waited in.
    fn pressure(&mut self, record: &Record) -> Option<Reading> {
        let Record::Exchange(exchange) = record else { return None };
        let (nginx, worker) = (&exchange.nginx, &exchange.worker);
        let began_ns = nginx.first_sent_ns.max(nginx.connect_ns);
        let is_slow = nginx.ended_ns.saturating_sub(began_ns) >= sample::SLOW_NS;
        is_slow.then(|| self.meter.read_at_end(worker.worker.tgid)).flatten()
    }

    /// The next record as the kernel side has it.
    fn decoded(&mut self) -> Option<What> {
        if let Some(held) = self.held.pop_front() {
            return Some(held);
        }
        loop {
            let bytes = self.ring.take()?;
            self.rate.records += 1;
            match decode(&bytes) {
                Ok(Event::Started(started)) => self.begins(started.task.tgid),
                Ok(Event::Record(Record::Word(mut word))) => {
                    self.words_unread += u64::from(read_texts(&mut word).is_err());
                    self.hearing.heard(&word);
                    let said = Said::new(&word);
                    if !self.is_asked_for(&said) {
                        continue;
                    }
                    if matches!(said.peer(), Some(upstream::Upstream::Unix(_))) {
                        self.unix.is_seen();
                    }
                    let learnt = self.ask(&said);
                    self.held.extend(learnt.into_iter().chain([What::Record(Record::Word(word))]));
                    return self.held.pop_front();
                }
                Ok(Event::Record(Record::Exchange(mut exchange))) => {
                    if self.audible.is(&self.tracer, &mut self.configurations, &exchange.nginx) {
                        exchange.nginx.flags |= nginx_flag::WORD_AUDIBLE;
                    }
                    let near = self.listeners.near(&mut self.tracer, &exchange).map(What::Near);
                    let inquiry = self.inquire(&exchange).map(What::Inquiry);
                    let record = What::Record(Record::Exchange(exchange));
                    self.held.extend(near.into_iter().chain(inquiry).chain([record]));
                    return self.held.pop_front();
                }
                Ok(Event::Record(record)) => {
                    if let Record::WorkerGone(gone) = &record {
                        self.listeners.is_gone(gone.worker.sock);
                    }
                    return Some(What::Record(record));
                }
                Err(error) => {
                    crate::notice!("a record was passed over: {error}");
                    let loss = Loss { ns: monotonic_ns(), reason: LossReason::Undecoded, count: 1 };
                    return Some(What::Loss(loss));
                }
            }
        }
    }

    /// What there is to be looked up about an exchange.
    fn inquire(&mut self, exchange: &ExchangeRecord) -> Option<Inquiry> {
        let has_accepted = |pid| self.members.has_accepted(pid);
        let queue = self.listeners.queue(&mut self.tracer, exchange, &mut self.configurations, has_accepted);
        queue.or_else(|| self.inquiries.of_exchange(exchange, &mut self.configurations))
    }

    /// A process of ours has begun to run, or is told to read its configuration again.
    fn begins(&mut self, pid: u32) {
        self.audible.forget(pid);
        // A daemon leaves its work to a child, and ends.
        if !self.hears(pid) {
            for pid in self.hearing.running() {
                self.hears(pid);
            }
        }
        self.unix.begins(pid, &mut self.configurations);
        self.access_logs.begins(pid, &mut self.configurations);
    }

    /// Hears what this process says from now on, if it is to be heard. Returns whether it was there still.
    fn hears(&mut self, pid: u32) -> bool {
        let hears = self.tracer.hear(pid);
        if hears == Some(true) && self.is_verbose {
            crate::notice!("what nginx {pid} says of its upstreams is heard from now on");
        }
        hears.is_some()
    }

    /// Whether a word may be about an upstream that was asked for. Of what names none, only words about connections that are watched
    /// can be, and those about groups, which may have such servers; others are counted.
    fn is_asked_for(&mut self, said: &Said) -> bool {
        if self.wanted.is_empty() || said.is_no_live() {
            return true;
        }
        if let Some(peer) = said.peer() {
            return self.wanted.iter().any(|wanted| wanted.matches(&peer));
        }
        let is_of_watched = !said.is_of_no_connection();
        self.words_left_out += u64::from(!is_of_watched);
        is_of_watched
    }

    /// What there is to be learnt, before a word is taken in.
    fn ask(&mut self, said: &Said) -> Option<What> {
        let inquiry = self.inquiries.of_word(said, &mut self.configurations).map(What::Inquiry);
        inquiry.or_else(|| self.ask_groups(said).map(What::Groups))
    }

    /// What the configuration says of the groups of a worker that found no server alive, unless it was asked before.
    fn ask_groups(&mut self, said: &Said) -> Option<Configured> {
        let mut configured = if said.is_no_live() {
            self.groups.ask(said.nginx.pid, &mut self.configurations)?
        } else {
            return None;
        };
        configured.is_narrowed = !self.wanted.is_empty();
        if configured.is_narrowed {
            for server in configured.groups.iter_mut().flat_map(|group| &mut group.servers) {
                server.is_watched = self.wanted.iter().any(|wanted| match (&server.place, wanted) {
                    (Place::At(upstream), _) => wanted.matches(upstream),
                    (Place::Named(port), UpstreamFilter::Port(wanted)) => port == wanted,
                    (Place::Named(port), UpstreamFilter::Address(wanted)) => *port == wanted.port(),
                    (Place::Named(_), UpstreamFilter::Unix(_)) => false,
                });
            }
        }
        Some(configured)
    }

    fn entry(&self, what: What) -> Entry {
        Entry { at_ns: self.seen_ns, what }
    }

    /// What the kernel side's counters say that they did not say before, losses first; and what follows from it.
    fn counters(&mut self) -> Result<Vec<What>, Failure> {
        // Before the count of those that were seen after all.
        let missed =
            if std::mem::take(&mut self.asks_programs) { Some(self.programs_missed()?) } else { None };
        let stats = self.tracer.stats()?;
        let Stats {
            exchanges, connections, untracked, unix_seen, stood_in, strangers, unix_strangers, ..
        } = stats;
        self.tracer.show_listeners(stats.listeners_sought)?;
        if stats.listeners_untracked > 0 && self.stats.listeners_untracked == 0 {
            crate::notice!(
                "this host has more listeners than are kept in sight: those of upstreams are looked up when they are needed, and a \
                 verdict that came before is marked incomplete"
            );
        }
        if untracked > 0 && self.stats.untracked == 0 {
            crate::notice!(
                "more exchanges are open than the {} that are watched at a time (--max-open): those beyond are counted, \
                 not explained",
                self.max_open
            );
        }
        self.hearing.weigh(&mut self.tracer, stats.foreign_words);
        self.audible.catch_up(&mut self.configurations);
        let missed = missed.map_or(0, |missed| self.missed.look(missed.saturating_sub(stood_in)));
        let before = self.stats;
        self.stats = stats;
        self.has_strangers |= strangers > before.strangers || unix_strangers > before.unix_strangers;
        let found = self.look_at_strangers();
        let mut news: Vec<_> = self.strangers.drain(..).chain(found).map(What::Stranger).collect();
        let kept = losses(&stats).into_iter().zip(losses(&before));
        let unkept = kept.map(|((reason, count), (_, before))| (reason, count.saturating_sub(before)));
        if stats.afterwards_unkept > before.afterwards_unkept {
            self.listeners.forget_queues();
        }
        for (reason, count) in unkept.chain([(LossReason::Missed, missed)]) {
            if count > 0 {
                self.listeners.forget_queues();
                news.push(What::Loss(Loss { ns: monotonic_ns(), reason, count }));
            }
        }
        news.extend(self.upstreams());
        let upstreams_left_out = self.upstreams.as_ref().map_or(0, Upstreams::left_out);
        let words_left_out = self.words_left_out;
        let counts =
            Counts { exchanges, connections, untracked, strangers, upstreams_left_out, words_left_out };
        if counts != self.counts {
            self.counts = counts;
            news.push(What::Counts(counts));
        }
        if let Some(depths) = &self.depths {
            news.extend(depths.found().map(What::Depth));
        }
        if let Some(found) = self.found_unix.take() {
            self.unix.learn(found);
        }
        if unix_seen > 0 {
            self.unix.is_seen();
        }
        if self.unix.watch(&mut self.tracer) {
            news.push(What::Sources(self.sources().clone()));
        }
        Ok(news)
    }

    /// Events that programs missed so far. From the first one on, standby instances see them.
    fn programs_missed(&mut self) -> Result<u64, Failure> {
        let missed = self.tracer.missed_at_first()?;
        if missed > 0 && self.tracer.attach_standby()? && self.is_verbose {
            crate::notice!(
                "this kernel interrupts the programs that watch it; from now on, standby instances of them see what they miss"
            );
        }
        Ok(missed)
    }

    fn upstreams(&mut self) -> Vec<What> {
        let ns = monotonic_ns();
        let Some(upstreams) = &mut self.upstreams else { return Vec::new() };
        if ns < self.counted_ns.saturating_add(nanoseconds(TICK)) {
            return Vec::new();
        }
        self.counted_ns = ns;
        let counted = self.tracer.upstreams();
        if let Some(depths) = &self.depths {
            depths.watch(counted.iter().map(|(upstream, _)| upstream));
        }
        let news = upstreams.look(counted).into_iter();
        news.map(|(upstream, exchanges)| What::Upstream(UpstreamCounts { ns, upstream, exchanges })).collect()
    }
}

/// Reads what the kernel side could not: texts that nginx itself had not looked at before it said them. It has by now.
///
/// # Errors
/// If not all could be read: it stays a word, whose level and errno are known.
fn read_texts(word: &mut WordOf) -> Result<(), Errno> {
    let pid = word.word.tgid;
    if word.unread_message != 0 {
        word.word.message = text_of(pid, word.unread_message)?;
        if !Beginning::of(&word.word.message).is_note() {
            (word.upstream, word.subject) = (Endpoint::default(), [0; SUBJECT_LEN]);
        }
    }
    if word.unread_action != 0 {
        word.word.action = text_of(pid, word.unread_action)?;
    }
    Ok(())
}

/// Waits for a moment (ns, monotonic), or for ever.
async fn at(moment: Option<u64>) {
    match moment {
        Some(ns) => sleep(Duration::from_nanos(ns.saturating_sub(monotonic_ns()))).await,
        None => pending().await,
    }
}
