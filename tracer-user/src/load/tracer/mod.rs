//! The running kernel side of whatever traces as `live` does.

mod counts;
mod standby;
mod start;
mod unix;
mod words;

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, PerCpuArray, RingBuf},
};
use wire::{Attached, ClosedListener, Endpoint, HeldSocket, Layout, Member, PATH_LEN, Stats};

use super::{closed::ClosedListeners, hooks::HookPlan, listeners, open::Open, shares::GivenUp, words::Words};
use crate::model::{failure::Failure, upstream::Upstream};

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

impl Tracer {
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
}
