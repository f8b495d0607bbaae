//! The stream as it comes from the running kernel: its records, the looks at slow workers, losses, the clocks.

mod access_logs;
mod audible;
mod configurations;
mod counters;
mod depths;
mod groups;
mod hearing;
mod inquiries;
mod last_count;
mod let_go;
mod listeners;
mod logs;
mod masters;
mod nginx_starts;
mod read;
mod records;
pub mod scope;
mod storm;
mod strangers;
mod unix;
mod upstreams;
mod words;

use std::{collections::VecDeque, time::Duration};

use anyhow::Context as _;
use tokio::{
    sync::mpsc::Receiver,
    time::{Interval, interval},
};
use wire::Stats;

use crate::{
    args::Trace,
    engine::{Missed, Ring},
    load::Tracer,
    model::{
        self,
        clock::{ClockOffset, clock_offset, monotonic_ns},
        facts::Sources,
        failure::Failure,
        stranger::Stranger,
        stream::{Counts, Entry, Start, What},
        upstream::UpstreamFilter,
    },
    procfs::{cgroup, pressure::Meter, trust::Trust},
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
use storm::Rate;
use unix::Unix;
use upstreams::Upstreams;

/// How often the kernel side's counters are looked at while nothing fails.
const TICK: Duration = Duration::from_secs(1);

/// Where a live stream comes from.
pub struct Source {
    tracer: Tracer,
    own_pid: u32,
    ring: Ring,
    looks: Receiver<Round>,
    /// Rounds of looks that were received and not taken yet.
    found: Vec<Round>,
    meter: Meter,
    tick: Interval,
    /// There is more to be read already.
    has_more: bool,
    /// Records that were read and not handed on yet, each after what was learnt from it, and all after what was lost until then.
    batch: VecDeque<What>,
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
    hearing: Hearing,
    access_logs: AccessLogs,
    listeners: Listeners,
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
            own_pid: std::process::id(),
            hearing,
            ring,
            looks,
            found: Vec::new(),
            meter: Meter::default(),
            tick: interval(TICK),
            has_more: false,
            batch: VecDeque::new(),
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
            trust,
            strangers: Vec::new(),
            has_strangers: true,
            audible: Audible::default(),
            groups: groups::Known::default(),
            inquiries: Inquiries::default(),
            words_left_out: 0,
            words_unread: 0,
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

    fn entry(&self, what: What) -> Entry {
        Entry { at_ns: self.seen_ns, what }
    }
}
