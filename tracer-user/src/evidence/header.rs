//! The first line: what was recorded, where and how.

use std::{
    collections::BTreeMap,
    fs::File,
    hash::BuildHasher as _,
    io::{self, BufRead as _, BufReader},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    Names, VERSION,
    codec::{Bad, Base, Codec, Moment, Number, bad},
    line::Process,
};
use crate::{
    args::Trace,
    load::types_in_use,
    model::{
        cgroup::Wanted,
        clock::ClockOffset,
        facts::{Fact, Sources},
        stream::{Counts, Start},
    },
    procfs::{masters, settings},
};

/// What was recorded, where and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Header {
    /// The version of the format.
    pub v: u32,
    /// The program that wrote it, and its version.
    pub program: String,
    /// Names the recording: equal in all files that a rotation made of it.
    pub recording: String,
    /// Which file of the recording it is, from 1.
    pub part: u64,
    /// When the file begins, in nanoseconds since the recording did.
    pub begins: i64,
    /// What was counted until then.
    pub counts: Counted,
    /// `uname -r`.
    pub kernel: String,
    /// SHA-256 of the kernel's BTF; null where it could not be read.
    pub btf_sha256: Option<String>,
    /// The clocks when the recording began.
    pub clocks: Clocks,
    /// The hook that sees each fact.
    pub sources: BTreeMap<String, String>,
    /// What was asked for.
    pub filters: Filters,
    /// Settings of the kernel that matter here; null where it has none such.
    pub sysctls: BTreeMap<String, Option<u64>>,
    /// nginx and php-fpm at the start.
    pub processes: Vec<Process>,
    /// Whether addresses and paths were replaced.
    pub anonymized: bool,
}

/// Both clocks at one moment. Strings, for they are larger than a double holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Clocks {
    /// CLOCK_MONOTONIC in ns: all other moments are relative to it.
    pub monotonic_ns: String,
    /// How far CLOCK_REALTIME is ahead of it, in ns.
    pub distance_ns: String,
    /// The moment in words, UTC.
    pub wall: String,
}

/// What was counted before a file begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Counted {
    /// Exchanges that ended.
    pub exchanges: u64,
    /// Connections.
    pub connections: u64,
    /// Connections that were not watched.
    pub untracked: u64,
    /// Connections of processes that only have nginx's name.
    #[serde(default)]
    pub strangers: u64,
    /// Upstreams that are not counted one by one.
    #[serde(default)]
    pub upstreams_left_out: u64,
    /// Words that may be about upstreams other than those asked for.
    #[serde(default)]
    pub words_left_out: u64,
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Filters {
    /// The name of the processes; null for any.
    pub comm: Option<String>,
    /// The process.
    pub pid: Option<u32>,
    /// The upstreams; empty for all.
    pub upstreams: Vec<String>,
    /// The listeners whose connections are recorded though nginx is elsewhere.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// After how many failures nothing more is told.
    pub count: Option<u64>,
    /// The control groups whose failures were to be told; empty for all, and where names are replaced.
    #[serde(default)]
    pub cgroups: Vec<String>,
    /// The same by containers.
    #[serde(default)]
    pub containers: Vec<String>,
    /// The same by units.
    #[serde(default)]
    pub units: Vec<String>,
    /// Whether connects that fail at once are seen.
    pub connect_errors: bool,
}

/// Whose failures were to be emitted. Names that are replaced elsewhere would give themselves away, and fit nothing any more.
fn asked_for(wanted: &Wanted, names: &Names) -> Wanted {
    if names.is_anonymous() { Wanted::default() } else { wanted.clone() }
}

impl Header {
    /// Of a recording that begins now.
    pub fn now(args: &Trace, listeners: &[String], start: &Start, names: &Names) -> Self {
        let Start { started_ns, clock_offset, sources, limit, wanted, .. } = start;
        let Wanted { cgroups, containers, units } = asked_for(wanted, names);
        let wall = clock_offset.0.saturating_add_unsigned(*started_ns);
        let shown = |address: &str| names.named(address);
        let masters = masters::masters().into_iter().map(|master| Process {
            pid: master.pid,
            comm: master.comm,
            workers: master.workers,
            listeners: master.listeners.map(|all| all.iter().map(|one| shown(one)).collect()),
        });
        Self {
            v: VERSION,
            program: concat!("why502 ", env!("CARGO_PKG_VERSION")).to_owned(),
            recording: format!("{:016x}", std::collections::hash_map::RandomState::new().hash_one(wall)),
            part: 1,
            begins: 0,
            counts: Counted::default(),
            kernel: settings::kernel(),
            btf_sha256: btf_sha256().ok(),
            clocks: Clocks {
                monotonic_ns: started_ns.to_string(),
                distance_ns: clock_offset.0.to_string(),
                wall: crate::model::words::time(wall),
            },
            sources: of_sources(sources),
            filters: Filters {
                comm: args.comm().map(str::to_owned),
                pid: args.pid,
                upstreams: args.upstreams.iter().map(|upstream| shown(&upstream.to_string())).collect(),
                listeners: listeners.iter().map(|listener| shown(listener)).collect(),
                count: *limit,
                cgroups,
                containers,
                units,
                connect_errors: args.connect_errors,
            },
            sysctls: settings::now()
                .into_iter()
                .map(|setting| (setting.name.to_owned(), setting.value))
                .collect(),
            processes: masters.collect(),
            anonymized: names.is_anonymous(),
        }
    }

    /// Where a replay begins.
    ///
    /// # Errors
    /// If a value cannot be.
    pub fn start(&self) -> Result<Start, Bad> {
        let base = self.base()?;
        for name in [&self.program, &self.recording, &self.kernel] {
            if name.len() > MOST_NAME {
                return Err(bad("a name is longer than any of its kind"));
            }
        }
        let Counted { exchanges, connections, untracked, strangers, upstreams_left_out, words_left_out } =
            self.counts;
        let count = |json| <Number as Codec<u64>>::decode(json, base);
        Ok(Start {
            started_ns: base.started_ns,
            begins_ns: Moment::decode(Some(self.begins), base)?,
            counts: Counts {
                exchanges: count(exchanges)?,
                connections: count(connections)?,
                untracked: count(untracked)?,
                strangers: count(strangers)?,
                upstreams_left_out: count(upstreams_left_out)?,
                words_left_out: count(words_left_out)?,
            },
            clock_offset: ClockOffset(
                number(&self.clocks.distance_ns).ok_or_else(|| bad("the clocks' offset is no number"))?,
            ),
            sources: to_sources(&self.sources)?,
            limit: self.filters.count,
            is_narrowed: !self.filters.upstreams.is_empty(),
            wanted: Wanted {
                cgroups: self.filters.cgroups.clone(),
                containers: self.filters.containers.clone(),
                units: self.filters.units.clone(),
            },
        })
    }

    /// As this version of the program writes it, in one file, and anonymous if the names are.
    pub fn renewed(&self, names: &Names) -> Self {
        let mut header = self.clone();
        let shown = |all: &[String]| all.iter().map(|one| names.named(one)).collect::<Vec<_>>();
        header.v = VERSION;
        header.part = 1;
        let Filters { cgroups, containers, units, .. } = self.filters.clone();
        let wanted = asked_for(&Wanted { cgroups, containers, units }, names);
        (header.filters.cgroups, header.filters.containers, header.filters.units) =
            (wanted.cgroups, wanted.containers, wanted.units);
        header.filters.upstreams = shown(&self.filters.upstreams);
        header.filters.listeners = shown(&self.filters.listeners);
        for process in &mut header.processes {
            process.listeners = process.listeners.as_deref().map(shown);
        }
        header.anonymized |= names.is_anonymous();
        header
    }

    /// That of a later file, which begins at `at_ns` (monotonic), when so much was counted and the clocks were so far apart.
    pub fn of_part(&self, part: u64, at_ns: u64, counts: Counts, clock_offset: ClockOffset) -> Self {
        let Counts { exchanges, connections, untracked, strangers, upstreams_left_out, words_left_out } =
            counts;
        let counts =
            Counted { exchanges, connections, untracked, strangers, upstreams_left_out, words_left_out };
        let started = self.base().map_or(at_ns, |base| base.started_ns);
        let begins = at_ns.cast_signed().saturating_sub(started.cast_signed()).max(0);
        let clocks = Clocks { distance_ns: clock_offset.0.to_string(), ..self.clocks.clone() };
        Self { part, begins, clocks, counts, ..self.clone() }
    }

    /// Notes that facts have these sources from now on.
    pub fn set_sources(&mut self, sources: &Sources) {
        self.sources = of_sources(sources);
    }

    pub(super) fn base(&self) -> Result<Base, Bad> {
        let started = number(&self.clocks.monotonic_ns).and_then(|ns| u64::try_from(ns).ok());
        Ok(Base { started_ns: started.ok_or_else(|| bad("the monotonic clock is no number"))? })
    }
}

/// A number that no sum of two overflows with.
pub(super) fn number(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|number| number.unsigned_abs() < 1 << 61)
}

/// The longest name of a program, a recording or a kernel (`__NEW_UTS_LEN`, 64), in bytes.
const MOST_NAME: usize = 128;

/// The longest name of a source, in bytes: each fact under each verdict bears one.
const MOST_SOURCE: usize = 128;

/// The sources by the facts' names.
pub(super) fn of_sources(sources: &Sources) -> BTreeMap<String, String> {
    sources.iter().map(|(fact, source)| (fact.name().to_owned(), source.to_owned())).collect()
}

pub(super) fn to_sources(named: &BTreeMap<String, String>) -> Result<Sources, Bad> {
    let mut sources = Sources::default();
    for (name, source) in named {
        if source.len() > MOST_SOURCE {
            return Err(bad("a source's name is longer than any is"));
        }
        let fact = Fact::ALL.iter().find(|fact| fact.name() == name);
        sources.set(*fact.ok_or_else(|| bad("no fact has such a name"))?, source.clone());
    }
    Ok(sources)
}

fn btf_sha256() -> io::Result<String> {
    let mut hash = Sha256::new();
    // Some megabytes, which need not be held at once.
    let mut types = BufReader::with_capacity(64 << 10, File::open(types_in_use())?);
    loop {
        let some = types.fill_buf()?;
        if some.is_empty() {
            break;
        }
        hash.update(some);
        let length = some.len();
        types.consume(length);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
