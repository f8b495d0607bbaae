//! Listeners: the kernel side learns those that are older than the tracer, and those that found no room, by being shown them.

use std::{
    collections::{BTreeSet, HashSet},
    io,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{Array, MapData},
};
use wire::{
    HeldSocket,
    shown::{BEGUN, DONE, LEFT_OUT},
    tcp_state,
};

use super::{open_files, refused::refused, types::Types, wanted::may_be_upstream};

/// The program that shows the kernel side each listener that it visits.
const PROGRAM: &str = "listeners";

/// How much of the time may go into showing them again: one part in so many.
const SHARE: u32 = 20;

/// Loads the iterator.
///
/// # Errors
/// Why this kernel has none.
pub(super) fn load(object: &mut Ebpf, types: &mut Types) -> Result<(), String> {
    open_files::load(object, PROGRAM, types).map_err(|error| refused(&error))
}

/// Shows every listener of this host to the kernel side, and hands on who holds them, each descriptor by itself.
///
/// # Errors
/// If the kernel refuses, or if it takes too long.
pub(super) fn show(object: &mut Ebpf, each: impl FnMut(&HeldSocket)) -> io::Result<()> {
    open_files::read(object, PROGRAM, each)
}

/// How the listeners were shown so far, and when to show them again.
pub(super) struct Showing {
    shown: Array<MapData, u64>,
    /// Whether there is an iterator.
    is_possible: bool,
    /// Addresses that had been sought when they were shown last ([`wire::Stats::listeners_sought`]).
    sought: u64,
    begun: u64,
    due: Option<Instant>,
    /// Who was connected to a unix upstream's path by then, where such are not watched; by process.
    unix_clients: BTreeSet<u32>,
}

impl Showing {
    /// Shows the listeners for the first time; returns how many there are as well. Where that cannot be done it is said, and those that are
    /// older than the tracer are taken for left out.
    pub(super) fn begin(
        object: &mut Ebpf,
        shown: Array<MapData, u64>,
        types: &mut Types,
    ) -> anyhow::Result<(Self, usize)> {
        let mut showing =
            Self { shown, is_possible: true, sought: 0, begun: 0, due: None, unix_clients: BTreeSet::new() };
        if let Err(reason) = load(object, types) {
            showing.is_possible = false;
            showing.give_up(&reason)?;
            return Ok((showing, 0));
        }
        let count = showing.show(object, |_| {})?.0;
        Ok((showing, count))
    }

    /// Shows them, and hands each on. Returns how many there are, and whether these are all.
    fn show(
        &mut self,
        object: &mut Ebpf,
        mut each: impl FnMut(&HeldSocket),
    ) -> anyhow::Result<(usize, bool)> {
        let started = Instant::now();
        self.begun += 1;
        let mut listeners = HashSet::new();
        self.unix_clients.clear();
        self.shown.set(BEGUN, self.begun, 0)?;
        let result = show(object, |held| {
            if held.state == tcp_state::LISTEN {
                listeners.insert(held.sock);
                each(held);
            } else if held.name().is_some_and(may_be_upstream) {
                self.unix_clients.insert(held.tgid);
            }
        });
        let is_all = result.is_ok();
        match result {
            Ok(()) => self.shown.set(DONE, self.begun, 0)?,
            Err(error) => self.give_up(&error.to_string())?,
        }
        self.due = Some(Instant::now() + (started.elapsed() * SHARE).max(Duration::from_millis(100)));
        Ok((listeners.len(), is_all))
    }

    /// The processes that were connected to a path which may be a unix upstream's when listeners were shown last, where such are not
    /// watched.
    pub(super) fn unix_clients(&self) -> &BTreeSet<u32> {
        &self.unix_clients
    }

    /// Some are not known: from now on nobody takes a listener for absent that is not known.
    fn give_up(&mut self, reason: &str) -> anyhow::Result<()> {
        let left_out = self.shown.get(&LEFT_OUT, 0)?;
        if left_out == 0 {
            crate::notice!(
                "listeners that are older than why502 are not all known ({reason}): where one may have mattered, \
                 verdicts are marked incomplete"
            );
        }
        self.shown.set(LEFT_OUT, left_out + 1, 0)?;
        Ok(())
    }

    /// Shows the listeners again if addresses were sought meanwhile, and if the last time is long enough ago.
    pub(super) fn again(&mut self, object: &mut Ebpf, sought: u64) -> anyhow::Result<()> {
        let is_due = self.due.is_none_or(|due| due <= Instant::now());
        if self.is_possible && is_due && sought != self.sought {
            // Before: what is sought from now on is for the next time.
            self.sought = sought;
            self.show(object, |_| {})?;
        }
        Ok(())
    }

    /// Hands on each listener of this host with who holds it, each descriptor by itself. Returns whether these are all.
    pub(super) fn visit(&mut self, object: &mut Ebpf, each: impl FnMut(&HeldSocket)) -> anyhow::Result<bool> {
        if !self.is_possible {
            anyhow::bail!("this kernel does not let open files be visited");
        }
        Ok(self.show(object, each)?.1)
    }
}
