//! Getting the kernel side to run: privileges, the kernel's layout, the hooks, the listeners that exist already.

mod btf;
mod hooks;
mod listeners;
mod lockdown;
mod open;
mod privileges;
mod tracefs;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, RingBuf},
};
use tracer_ebpf::{Attached, Endpoint, Filters, Layout, PATH_LEN, Stats};

pub use btf::PATH as BTF_PATH;
pub use hooks::{HookKind, HookPlan};
pub use lockdown::Lockdown;
pub use open::Open;
pub use privileges::missing_capabilities;
pub use tracefs::is_mounted as tracefs_is_mounted;

use crate::{facts::Fact, failure::Failure};

/// The BPF object that the build script made.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/why502-bpf"));

/// Which exchanges to watch, and how many at a time.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Handed to the kernel side as it is.
    pub filters: Filters,
    /// The upstreams asked for; empty for all. A port alone has the unspecified address.
    pub upstreams: Vec<Endpoint>,
    /// The unix sockets asked for, closed by a zero.
    pub paths: Vec<[u8; PATH_LEN]>,
    /// Whether to see connects that fail before TCP's own hooks do.
    pub connect_errors: bool,
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
    stats: Array<MapData, Stats>,
    ring: Option<RingBuf<MapData>>,
    open: Option<Open>,
    listeners: usize,
}

/// The size of a map that is to hold one entry for each open exchange.
const PER_EXCHANGE: [&str; 3] = ["EXCHANGES", "WORKERS", "HANDSHAKES"];

impl Tracer {
    /// Loads and attaches everything, and shows the kernel side the listeners that exist already.
    ///
    /// # Errors
    /// [`Failure::CannotTrace`] where a privilege, the BTF, or a hook that nothing replaces is missing.
    pub fn start(scope: &Scope) -> Result<Self, Failure> {
        privileges::check()?;
        lockdown::check()?;
        privileges::lift_memory_limit();
        let kernel = btf::Kernel::running()?;
        let layout: Layout = kernel.layout()?;
        let mut loader = EbpfLoader::new();
        loader.override_global("LAYOUT", &layout, true).override_global("FILTERS", &scope.filters, true);
        for map in PER_EXCHANGE {
            loader.map_max_entries(map, scope.max_open);
        }
        let mut object = loader.load(OBJECT).map_err(|error| {
            Failure::CannotTrace(format!("this kernel refuses the BPF maps: {}", refused(&error)))
        })?;
        want(&mut object, scope)?;
        let plan = hooks::attach(&mut object, &layout, &scope.only)?;
        let mut attached: Array<_, Attached> =
            Array::try_from(map(&mut object, "ATTACHED")?).map_err(anyhow::Error::from)?;
        attached.set(0, hooks::attached(&plan), 0).map_err(anyhow::Error::from)?;
        let listeners = listeners::show();
        let stats = Array::try_from(take(&mut object, "STATS")?).map_err(anyhow::Error::from)?;
        let ring = RingBuf::try_from(take(&mut object, "RING")?).map_err(anyhow::Error::from)?;
        let open = Some(Open {
            exchanges: HashMap::try_from(take(&mut object, "EXCHANGES")?).map_err(anyhow::Error::from)?,
            workers: HashMap::try_from(take(&mut object, "WORKERS")?).map_err(anyhow::Error::from)?,
            max_open: scope.max_open,
        });
        let mut tracer = Self {
            object,
            traces_system_calls: false,
            plan,
            layout,
            stats,
            ring: Some(ring),
            open,
            listeners,
        };
        if !scope.paths.is_empty() || scope.connect_errors {
            tracer.trace_system_calls()?;
        }
        Ok(tracer)
    }

    /// Begins to watch unix sockets, if it is not done already. It taxes every system call of the host, so it waits until
    /// unix upstreams are asked for or seen. Returns whether it began now.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn trace_system_calls(&mut self) -> Result<bool, Failure> {
        let is_seen = self.plan.sources.has(Fact::UnixSockets) && self.plan.sources.has(Fact::ConnectErrors);
        if self.traces_system_calls || is_seen || !self.plan.may_trace_system_calls {
            return Ok(false);
        }
        let source = hooks::attach_system_calls(&mut self.object)?;
        for fact in [Fact::UnixSockets, Fact::ConnectErrors] {
            self.plan.sources.set(fact, source.clone());
        }
        self.traces_system_calls = true;
        Ok(true)
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

    /// The kernel side's counters.
    ///
    /// # Errors
    /// If the kernel refuses to read the map.
    pub fn stats(&self) -> Result<Stats, Failure> {
        Ok(self.stats.get(&0, 0).map_err(anyhow::Error::from)?)
    }
}

fn take(object: &mut Ebpf, name: &str) -> Result<aya::maps::Map, Failure> {
    object.take_map(name).ok_or_else(|| Failure::Run(anyhow::anyhow!("the BPF object has no map {name}")))
}

fn want(object: &mut Ebpf, scope: &Scope) -> Result<(), Failure> {
    let mut wanted: HashMap<_, Endpoint, u32> =
        HashMap::try_from(map(object, "WANTED")?).map_err(anyhow::Error::from)?;
    for upstream in &scope.upstreams {
        wanted.insert(upstream, 1, 0).map_err(anyhow::Error::from)?;
    }
    let mut wanted: HashMap<_, [u8; PATH_LEN], u32> =
        HashMap::try_from(map(object, "WANTED_PATHS")?).map_err(anyhow::Error::from)?;
    for path in &scope.paths {
        wanted.insert(path, 1, 0).map_err(anyhow::Error::from)?;
    }
    Ok(())
}

fn map<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::maps::Map, Failure> {
    object.map_mut(name).ok_or_else(|| Failure::Run(anyhow::anyhow!("the BPF object has no map {name}")))
}

/// Why the kernel refused something: its errno, never the verifier's log.
fn refused(error: &(dyn std::error::Error + 'static)) -> String {
    let mut source = Some(error);
    let mut errno = None;
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            errno = Some(io.to_string());
        }
        source = error.source();
    }
    errno.unwrap_or_else(|| error.to_string().lines().next().unwrap_or_default().to_owned())
}
