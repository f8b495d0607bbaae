//! Getting the kernel side to run: privileges, the kernel's layout, the hooks, the listeners that exist already.

mod backlog;
mod btf;
#[cfg(test)]
mod call_chains;
mod callable;
mod closed;
pub(crate) mod fdinfo;
mod functions;
mod given;
mod held_sockets;
mod hooks;
mod kernel_functions;
mod lean;
mod left_out;
mod listeners;
mod lockdown;
mod misses;
mod missing;
mod object;
mod open;
mod open_files;
mod privileges;
mod shares;
mod tracefs;
mod types;
mod words;

use std::{collections::HashSet, path::Path, sync::atomic::Ordering};

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, PerCpuArray, RingBuf},
};
use wire::{
    Attached, ClosedListener, Endpoint, FAMILY_UNIX, Filters, HeldSocket, Layout, Member, PATH_LEN, Stats,
    gate,
};

use object::Object;

pub use backlog::{Backlog, Clients, Source as BacklogSource, Symbols};
pub use given::{PATH as BTF_PATH, WHERE_TO_GET as WHERE_TO_GET_BTF, given_types, take_types, types_in_use};
pub(crate) use held_sockets::held_sockets;
pub use hooks::HookPlan;
pub use lockdown::Lockdown;
pub use open::Open;
pub use privileges::{missing_capabilities, names as names_of_capabilities};
pub use tracefs::is_mounted as tracefs_is_mounted;
pub use words::{Binary, binary};

use closed::ClosedListeners;
use shares::{GivenUp, Shares};
use types::Types;
use words::Words;

use crate::model::{
    facts::{Fact, WORDS},
    failure::Failure,
    from_wire::{address, path_of, sun_path},
    hook_kind::HookKind,
    upstream::Upstream,
};

/// Which exchanges to watch, and how many at a time.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Handed to the kernel side as it is.
    pub filters: Filters,
    /// The upstreams asked for; empty for all. A port alone has the unspecified address.
    pub upstreams: Vec<Endpoint>,
    /// The unix sockets asked for, closed by a zero.
    pub paths: Vec<[u8; PATH_LEN]>,
    /// The listeners whose connections are emitted though nginx is on another host. A port alone has the unspecified address.
    pub listeners: Vec<Endpoint>,
    /// Whether to see connects that fail before TCP's own hooks do.
    pub connect_errors: bool,
    /// Whether to hear what nginx says.
    pub words: bool,
    /// Whether standby instances of the programs see what the first ones miss from the start, as [`Tracer::attach_standby`] lets them later.
    pub standby: bool,
    /// The kinds of hooks to use; empty for any.
    pub only: Vec<HookKind>,
    /// Open exchanges that fit at a time.
    pub max_open: u32,
}

/// The running kernel side. Dropping it detaches every program and frees every map; so does the end of the process,
/// however it ends, for nothing is pinned.
pub struct Tracer {
    object: Ebpf,
    traces_system_calls: bool,
    plan: HookPlan,
    layout: Layout,
    attached: Array<MapData, Attached>,
    has_standby: bool,
    words: Option<Words>,
    /// Whether whoever has the name is watched, whoever runs it.
    believes_all: bool,
    stats: PerCpuArray<MapData, Stats>,
    foreign: HashMap<MapData, u32, u64>,
    upstreams: HashMap<MapData, Endpoint, u64>,
    unix_upstreams: HashMap<MapData, [u8; PATH_LEN], u64>,
    ring: Option<RingBuf<MapData>>,
    open: Option<Open>,
    showing: listeners::Showing,
    listeners: usize,
    masters: Option<HashMap<MapData, u32, u64>>,
    members: Option<HashMap<MapData, u32, Member>>,
    closed: ClosedListeners,
    given_up: GivenUp,
}

/// How many entries of a map of upstreams are walked: when one goes while the walk stands on it, the kernel begins anew, and
/// the walk must end nonetheless.
const MOST_UPSTREAMS: usize = 2_048;

/// The same of a map by process.
const MOST_FOREIGN: usize = 2_048;

/// The map that is to hold one entry for each open exchange.
const PER_EXCHANGE: &str = "EXCHANGES";

/// The table of handshakes whose worker's end has not appeared, as have all where the upstreams are on other hosts: so many places for each open
/// exchange, in rows of eight, that less than a fortieth of them find none in their row.
const HANDSHAKES: &str = "WAITING";

/// How many rows those are, a power of two.
const fn handshake_rows(max_open: u32) -> u32 {
    max_open.div_ceil(5).next_power_of_two()
}

/// The map that holds those which find none, which is larger than they are many.
const CROWDED_HANDSHAKES: &str = "HANDSHAKES";

/// The map that holds one entry for each connection that the network has ended and nginx has not closed yet, which it does in the next turn
/// of its loop: half as many. Those beyond are counted and marked (`acts_unkept`).
const PER_BROKEN: &str = "BROKEN";

/// The map that holds one entry for each worker's end that has none of nginx's: [`MOST_GIVEN_UP`] of those that nginx gave up and that are still
/// open; and where connections of nginx on other hosts are asked for, one for each of them. Those beyond are counted (`workers_untracked`).
const PER_LONE_WORKER: &str = "WORKERS";

/// How many worker's ends that nginx gave up are followed to their own end.
const MOST_GIVEN_UP: u32 = 2_048;

/// The map that holds one entry for each open exchange from a port that another has, too: few do, unless nginx has more connections than ports.
/// Those beyond are counted (`workers_untracked`).
const PER_SHARED_PORT: &str = "ALIASES";

/// How many such there may be.
const MOST_SHARED_PORTS: u32 = 4_096;

/// The maps that hold one entry for each call that a kprobe saw begin and a kretprobe is to see return.
const PER_CALL: [&str; 2] = ["CALLS", "RECEIVES"];

/// Entries of a map that nobody fills.
const UNUSED: u32 = 64;

/// The map that holds one entry for each connection to the listeners asked for.
const PER_VISITOR: &str = "VISITORS";

/// The maps that count exchanges by upstream, which not everybody asks for.
const PER_UPSTREAM: [&str; 2] = ["UPSTREAMS", "UNIX_UPSTREAMS"];

impl Tracer {
    /// Loads and attaches everything, and shows the kernel side the listeners that exist already.
    ///
    /// # Errors
    /// [`Failure::CannotTrace`] where a privilege, the BTF, or a hook that nothing replaces is missing.
    pub fn start(scope: &Scope) -> Result<Self, Failure> {
        let (kernel, layout) = prepare()?;
        let mut loader = loader(&layout);
        let sockets = held_sockets::object(&mut loader, &kernel);
        let filters = Filters { handshake_rows: handshake_rows(scope.max_open), ..scope.filters };
        loader.override_global("FILTERS", &filters, true);
        loader.map_max_entries(PER_EXCHANGE, scope.max_open);
        loader.map_max_entries(HANDSHAKES, filters.handshake_rows);
        loader.map_max_entries(CROWDED_HANDSHAKES, (scope.max_open / 16).max(UNUSED));
        loader.map_max_entries(PER_BROKEN, scope.max_open.div_ceil(2));
        let (visitors, lone) = match scope.listeners.is_empty() {
            true => (UNUSED, scope.max_open.min(MOST_GIVEN_UP)),
            false => (scope.max_open, scope.max_open),
        };
        loader.map_max_entries(PER_VISITOR, visitors).map_max_entries(PER_LONE_WORKER, lone);
        loader.map_max_entries(PER_SHARED_PORT, scope.max_open.min(MOST_SHARED_PORTS));
        for (map, entries) in [
            ("WANTED", scope.upstreams.len()),
            ("NAMED_PATHS", scope.paths.len().max(NO_UPSTREAMS.len())),
            ("SERVED", scope.listeners.len()),
        ] {
            loader.map_max_entries(map, u32::try_from(entries).unwrap_or(u32::MAX).max(UNUSED));
        }
        if scope.filters.counts_upstreams == 0 {
            for map in PER_UPSTREAM {
                loader.map_max_entries(map, UNUSED);
            }
        }
        let useless = hooks::useless(&scope.only, &kernel);
        if useless.contains(&HookKind::Kprobe) {
            for map in PER_CALL {
                loader.map_max_entries(map, UNUSED);
            }
        }
        let mut object = load(&mut loader, Object::LIVE, &kernel, &useless)?;
        // Before they are read another time.
        drop(kernel);
        let mut types = Types::default();
        want(&mut object, scope)?;
        if scope.standby {
            // First: a standby instance that finds no note takes the event for missed.
            let gates = object.map_mut("GATES").context("the BPF object has no map GATES")?;
            let mut gates: Array<_, Attached> = Array::try_from(gates).map_err(anyhow::Error::from)?;
            gates
                .set(gate::ATTACHED, Attached { standby: 1, ..Attached::default() }, 0)
                .map_err(anyhow::Error::from)?;
        }
        let mut plan = hooks::attach(&mut object, &layout, &scope.only, useless, scope.standby, &mut types)?;
        let starts = hooks::attach_starts(&mut object);
        if let (Err(why), false) = (&starts, scope.words) {
            crate::notice!("an nginx that begins later is not seen to: {why}");
        }
        let heard = match scope.words {
            true => starts.and_then(|()| words::load(&mut object)),
            false => Err("its memory was to be left alone (--no-uprobe)".to_owned()),
        };
        let words = match heard {
            Ok(words) => {
                plan.sources.set(Fact::Words, WORDS.to_owned());
                Some(words)
            }
            Err(reason) => {
                plan.missing.push((Fact::Words, reason));
                None
            }
        };
        let mut attached: Array<_, Attached> =
            Array::try_from(take(&mut object, "GATES")?).map_err(anyhow::Error::from)?;
        let what = Attached { standby: u8::from(scope.standby), ..hooks::attached(&plan, &layout) };
        attached.set(gate::ATTACHED, what, 0).map_err(anyhow::Error::from)?;
        let shown = Array::try_from(take(&mut object, "SHOWN")?).map_err(anyhow::Error::from)?;
        let (showing, listeners) = listeners::Showing::begin(&mut object, shown, &mut types)?;
        held_sockets::keep(sockets, &mut types);
        drop(types);
        let stats = PerCpuArray::try_from(take(&mut object, "STATS")?).map_err(anyhow::Error::from)?;
        let foreign = HashMap::try_from(take(&mut object, "FOREIGN")?).map_err(anyhow::Error::from)?;
        let upstreams = HashMap::try_from(take(&mut object, "UPSTREAMS")?).map_err(anyhow::Error::from)?;
        let unix_upstreams =
            HashMap::try_from(take(&mut object, "UNIX_UPSTREAMS")?).map_err(anyhow::Error::from)?;
        let ring = RingBuf::try_from(take(&mut object, "RING")?).map_err(anyhow::Error::from)?;
        let open = Some(Open {
            exchanges: HashMap::try_from(take(&mut object, "EXCHANGES")?).map_err(anyhow::Error::from)?,
            aliases: HashMap::try_from(take(&mut object, "ALIASES")?).map_err(anyhow::Error::from)?,
            max_open: scope.max_open,
            shares: Shares::new(&mut object)?,
        });
        let given_up = open.as_ref().map(|open| open.shares.given_up()).unwrap_or_default();
        let closed = ClosedListeners::new(&mut object)?;
        let masters = Some(HashMap::try_from(take(&mut object, "MASTERS")?).map_err(anyhow::Error::from)?);
        let members = Some(HashMap::try_from(take(&mut object, "MEMBERS")?).map_err(anyhow::Error::from)?);
        let mut tracer = Self {
            object,
            traces_system_calls: false,
            plan,
            layout,
            attached,
            has_standby: scope.standby,
            words,
            believes_all: scope.filters.trusts_all != 0,
            stats,
            foreign,
            upstreams,
            unix_upstreams,
            ring: Some(ring),
            open,
            showing,
            listeners,
            masters,
            members,
            closed,
            given_up,
        };
        if !scope.paths.is_empty() || scope.connect_errors {
            tracer.trace_system_calls()?;
        }
        Ok(tracer)
    }

    /// Whether unix sockets are watched only once [`Self::trace_system_calls`] is called.
    pub fn may_trace_system_calls(&self) -> bool {
        let is_seen = self.plan.sources.has(Fact::UnixSockets) && self.plan.sources.has(Fact::ConnectErrors);
        !self.traces_system_calls && !is_seen && self.plan.may_trace_system_calls
    }

    /// Whether the end of every unix socket is seen, and not only that of those whose process closes them.
    pub fn sees_unix_ends(&self) -> bool {
        !self.traces_system_calls && self.plan.sources.has(Fact::UnixSockets)
    }

    /// The processes of the name that held a connection to a path which may be a unix upstream's when the tracer started, whoever
    /// runs them; none where such connections are watched anyway.
    pub fn unix_clients(&self) -> impl Iterator<Item = u32> {
        self.showing.unix_clients().iter().copied()
    }

    /// Begins to watch unix sockets, if it is not done already. It taxes every system call of the host, so it waits until
    /// unix upstreams are asked for, configured or seen. Returns whether it began now.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn trace_system_calls(&mut self) -> Result<bool, Failure> {
        if !self.may_trace_system_calls() {
            return Ok(false);
        }
        // First: TCP's own connects are to be taken out of those under way.
        let attached = self.attached.get(&gate::ATTACHED, 0).map_err(anyhow::Error::from)?;
        self.attached
            .set(gate::ATTACHED, Attached { system_calls: 1, ..attached }, 0)
            .map_err(anyhow::Error::from)?;
        let source = hooks::attach_system_calls(&mut self.object, self.has_standby)?;
        for (fact, _) in hooks::by_system_calls() {
            self.plan.sources.set(fact, source.clone());
        }
        self.traces_system_calls = true;
        Ok(true)
    }

    /// Hears what nginx says, from now on, in the binary that this process runs, if it is one. Why one cannot be heard is reported. Returns
    /// whether it is heard, and was not before; none if the process has ended.
    pub fn hear(&mut self, pid: u32) -> Option<bool> {
        let Some(words) = &mut self.words else { return Some(false) };
        words.hear(&mut self.object, pid, self.believes_all).unwrap_or_else(|why| {
            crate::notice!(
                "what nginx {pid} says of its upstreams is not heard: {why}; what it judges by content is not told"
            );
            Some(false)
        })
    }

    /// Since when what a binary says is heard (ns, monotonic), if it is.
    pub fn heard_since(&self, binary: Binary) -> Option<u64> {
        self.words.as_ref()?.heard_since(binary)
    }

    /// Whether what this process says is heard from now on.
    ///
    /// # Errors
    /// Why it is not.
    pub fn try_hear(&mut self, pid: u32) -> Result<(), String> {
        if let Some(words) = &mut self.words {
            return words.try_hear(&mut self.object, pid, self.believes_all);
        }
        let missing = self.plan.missing.iter().find(|(fact, _)| *fact == Fact::Words);
        Err(missing.map_or_else(String::new, |(_, reason)| reason.clone()))
    }

    /// Whether this kernel lets nginx's word be heard, and it is to be.
    pub fn hears_words(&self) -> bool {
        self.words.is_some()
    }

    /// Whether what nginx says is heard by a program that may not wait for memory: a text that nginx itself had not looked at is then read
    /// only after it was said.
    pub fn reads_words_late(&self) -> bool {
        self.words.as_ref().is_some_and(|words| !words.may_wait)
    }

    /// Whether what this process says is to be known from elsewhere. A binary that nobody believes to be nginx's is none of it.
    pub fn is_unheard(&self, pid: u32) -> bool {
        self.words.as_ref().is_none_or(|words| binary(pid).is_some_and(|binary| words.is_unheard(binary)))
    }

    /// Leaves a binary alone, or hears it again.
    ///
    /// # Errors
    /// Why the kernel refuses.
    pub fn listen(&mut self, binary: Binary, is_heard: bool) -> Result<(), String> {
        match (&mut self.words, is_heard) {
            (Some(words), true) => words.hear_again(&mut self.object, binary),
            (Some(words), false) => words.leave_alone(&mut self.object, binary),
            (None, _) => Ok(()),
        }
    }

    /// How many calls of nginx's log that are about no upstream each process has made.
    pub fn foreign_words(&self) -> Vec<(u32, u64)> {
        // What goes while the map is walked counts the next time.
        self.foreign.iter().flatten().take(MOST_FOREIGN).collect()
    }

    /// The hooks in use, and the facts that this kernel does not let the program see.
    pub fn plan(&self) -> &HookPlan {
        &self.plan
    }

    /// What the running kernel's BTF says.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How many sockets were listening when the tracer started.
    pub fn listeners(&self) -> usize {
        self.listeners
    }

    /// Shows the kernel side the listeners again if it has sought some meanwhile ([`Stats::listeners_sought`]).
    ///
    /// # Errors
    /// If the kernel refuses to write the map.
    pub fn show_listeners(&mut self, sought: u64) -> Result<(), Failure> {
        Ok(self.showing.again(&mut self.object, sought)?)
    }

    /// Hands on each listener of this host with who holds it. Returns whether these are all.
    ///
    /// # Errors
    /// Where they cannot be visited.
    pub fn visit_listeners(&mut self, each: impl FnMut(&HeldSocket)) -> Result<bool, Failure> {
        Ok(self.showing.visit(&mut self.object, each)?)
    }

    /// The listener that was closed there last, if that is remembered; of an address also one on all addresses.
    pub fn closed_listener(&self, upstream: &Upstream, netns: u32) -> Option<ClosedListener> {
        self.closed.at(upstream, netns)
    }

    /// The ring buffer; it can be taken once.
    ///
    /// # Errors
    /// If it was taken before.
    pub fn take_ring(&mut self) -> Result<RingBuf<MapData>, Failure> {
        self.ring.take().ok_or_else(|| Failure::Run(anyhow::anyhow!("the ring buffer has a reader already")))
    }

    /// The open exchanges; they can be taken once.
    ///
    /// # Errors
    /// If they were taken before.
    pub fn take_open(&mut self) -> Result<Open, Failure> {
        self.open
            .take()
            .ok_or_else(|| Failure::Run(anyhow::anyhow!("the open exchanges have a reader already")))
    }

    /// Where the kernel side learns whom to believe though they are not root's; it can be taken once.
    ///
    /// # Errors
    /// If it was taken before.
    pub fn take_masters(&mut self) -> Result<HashMap<MapData, u32, u64>, Failure> {
        self.masters
            .take()
            .ok_or_else(|| Failure::Run(anyhow::anyhow!("somebody tells whom to believe already")))
    }

    /// The control groups of processes that may be gone; they can be taken once.
    ///
    /// # Errors
    /// If they were taken before.
    pub fn take_members(&mut self) -> Result<HashMap<MapData, u32, Member>, Failure> {
        self.members
            .take()
            .ok_or_else(|| Failure::Run(anyhow::anyhow!("the control groups have a reader already")))
    }

    /// How many events the kernel did not show to a program because they interrupted the same program; by program.
    ///
    /// # Errors
    /// If /proc does not show this process's own descriptors.
    pub fn missed(&self) -> Result<Vec<(&str, u64)>, Failure> {
        Ok(misses::count(&self.object).context("the programs' own counters cannot be read")?)
    }

    /// How many of them are lost unless a standby instance saw them instead ([`Stats::stood_in`]).
    ///
    /// # Errors
    /// The same.
    pub fn missed_at_first(&self) -> Result<u64, Failure> {
        let missed = self.missed()?;
        Ok(missed.iter().filter(|(program, _)| !hooks::is_dispensable(program)).map(|(_, count)| count).sum())
    }

    /// Lets standby instances of the programs see what the first ones miss, if it is not done already. It makes each event
    /// a little dearer. Returns whether it was done now.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn attach_standby(&mut self) -> Result<bool, Failure> {
        if std::mem::replace(&mut self.has_standby, true) {
            return Ok(false);
        }
        // First: a standby instance that finds no note takes the event for missed.
        let attached = self.attached.get(&gate::ATTACHED, 0).map_err(anyhow::Error::from)?;
        self.attached
            .set(gate::ATTACHED, Attached { standby: 1, ..attached }, 0)
            .map_err(anyhow::Error::from)?;
        hooks::attach_standby(&mut self.object)?;
        Ok(true)
    }

    /// How many exchanges with each upstream have ended. What comes or goes while the maps are walked may be missed until they are
    /// walked again.
    pub fn upstreams(&self) -> Vec<(Upstream, u64)> {
        let inet = self.upstreams.iter().flatten().filter(|(upstream, _)| upstream.family != FAMILY_UNIX);
        let inet = inet.map(|(upstream, count)| (Upstream::Inet(address(&upstream)), count));
        let unix = self.unix_upstreams.iter().flatten();
        let unix = unix.map(|(path, count)| (Upstream::Unix(path_of(&path)), count));
        inet.take(MOST_UPSTREAMS).chain(unix.take(MOST_UPSTREAMS)).collect()
    }

    /// The kernel side's counters.
    ///
    /// # Errors
    /// If the kernel refuses to read the map.
    pub fn stats(&self) -> Result<Stats, Failure> {
        let by_cpu = self.stats.get(&0, 0).map_err(anyhow::Error::from)?;
        let mut stats = by_cpu.iter().fold(Stats::default(), |all, one| all.and(*one));
        stats.untracked += self.given_up.load(Ordering::Relaxed);
        Ok(stats)
    }
}

/// Sees to what every kernel side needs: privileges, room, and the running kernel's layout.
fn prepare() -> Result<(btf::Kernel, Layout), Failure> {
    privileges::check()?;
    missing::check()?;
    lockdown::check()?;
    privileges::lift_memory_limit();
    let kernel = btf::Kernel::running()?;
    let layout = kernel.layout()?;
    Ok((kernel, layout))
}

/// A loader for objects that are to know the kernel's layout. Each new one reads all of the kernel's types, which no object of ours asks for.
fn loader(layout: &Layout) -> EbpfLoader<'_> {
    let mut loader = EbpfLoader::new();
    loader.btf(None).override_global("LAYOUT", layout, true);
    loader
}

fn take(object: &mut Ebpf, name: &str) -> Result<aya::maps::Map, Failure> {
    object.take_map(name).ok_or_else(|| Failure::Run(anyhow::anyhow!("the BPF object has no map {name}")))
}

/// Sockets at which the C library itself asks, for users, groups and hosts, and writes to the system's log: nginx does so in each
/// worker's first moments. Each shorter than [`PATH_LEN`].
const NO_UPSTREAMS: [&str; 15] = [
    "/dev/log",
    "/run/avahi-daemon/socket",
    "/run/dbus/system_bus_socket",
    "/run/nscd/socket",
    "/run/nslcd/socket",
    "/run/systemd/journal/dev-log",
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/systemd/userdb/io.systemd.DynamicUser",
    "/run/systemd/userdb/io.systemd.Multiplexer",
    "/run/systemd/userdb/io.systemd.NameServiceSwitch",
    "/var/lib/sss/pipes/nss",
    "/var/run/avahi-daemon/socket",
    "/var/run/dbus/system_bus_socket",
    "/var/run/nscd/socket",
    "/var/run/nslcd/socket",
];

/// Whether the name that a unix socket was bound to may be an upstream's: a path, but for those at which the C library itself asks.
fn may_be_upstream(name: &[u8]) -> bool {
    let path = name.split(|byte| *byte == 0).next().unwrap_or(name);
    !path.is_empty() && !NO_UPSTREAMS.iter().any(|other| other.as_bytes() == path)
}

fn want(object: &mut Ebpf, scope: &Scope) -> Result<(), Failure> {
    let mut wanted: HashMap<_, Endpoint, u32> =
        HashMap::try_from(map(object, "WANTED")?).map_err(anyhow::Error::from)?;
    for upstream in &scope.upstreams {
        wanted.insert(upstream, 1, 0).map_err(anyhow::Error::from)?;
    }
    let mut wanted: HashMap<_, [u8; PATH_LEN], u32> =
        HashMap::try_from(map(object, "NAMED_PATHS")?).map_err(anyhow::Error::from)?;
    for path in &scope.paths {
        wanted.insert(path, 1, 0).map_err(anyhow::Error::from)?;
    }
    if scope.upstreams.is_empty() && scope.paths.is_empty() {
        for path in NO_UPSTREAMS {
            wanted.insert(sun_path(Path::new(path)), 1, 0).map_err(anyhow::Error::from)?;
        }
    }
    let mut served: HashMap<_, Endpoint, u32> =
        HashMap::try_from(map(object, "SERVED")?).map_err(anyhow::Error::from)?;
    for listener in &scope.listeners {
        served.insert(listener, 1, 0).map_err(anyhow::Error::from)?;
    }
    Ok(())
}

fn map<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::maps::Map, Failure> {
    object.map_mut(name).ok_or_else(|| Failure::Run(anyhow::anyhow!("the BPF object has no map {name}")))
}

/// The errno with which the kernel refused something.
fn errno<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a std::io::Error> {
    std::iter::successors(Some(error), |error| error.source()).filter_map(|error| error.downcast_ref()).last()
}

/// Makes an object's maps, with its programs as they are to be on this kernel, but for those of useless kinds: whatever programs the loader
/// reads, it keeps.
fn load(
    loader: &mut EbpfLoader<'_>,
    object: Object,
    kernel: &btf::Kernel,
    useless: &HashSet<HookKind>,
) -> Result<Ebpf, Failure> {
    let mut settled = kernel_functions::settled(object.elf()?, kernel_functions::numbers(kernel))?;
    left_out::leave_out(&mut settled, |section| useless.iter().any(|kind| kind.is_of(section)))?;
    loader.load(&settled).map_err(|error| {
        Failure::CannotTrace(format!("this kernel refuses the BPF maps: {}", refused(&error)))
    })
}

/// Why the kernel refused something: its errno in words, never the verifier's log.
fn refused(error: &(dyn std::error::Error + 'static)) -> String {
    let errno = errno(error);
    match (errno, errno.and_then(std::io::Error::raw_os_error)) {
        (_, Some(number)) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        // Our own words.
        (Some(errno), None) if errno.kind() == std::io::ErrorKind::Unsupported => errno.to_string(),
        _ => error.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}
