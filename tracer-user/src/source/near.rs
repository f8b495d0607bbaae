//! Looks for who listens near an upstream at which nobody does. The kernel's iterator over open files tells: no file is touched for it, and
//! no table of /proc/net is believed.

use std::{collections::HashSet, fs, io, path::PathBuf, time::Instant};

use tracer_ebpf::{Exchange, HeldSocket, tcp_state};

use crate::{
    budget,
    clock::monotonic_ns,
    failure::Failure,
    ledger::{Joined, address, holder_of, path_of},
    load::Tracer,
    near::{Asked, FRESH_NS, Near, asked, is_wanted},
    verdict::{Neighbour, Process, Upstream},
};

/// How much of the time may go into looking: one part in so many.
const SHARE: u32 = 20;

/// Looks, and what the last one found, which serves all that fails within a moment.
#[derive(Debug, Default)]
pub(super) struct Neighbourhood {
    looked_ns: u64,
    due: Option<Instant>,
    listeners: Vec<Listener>,
    /// Whether these are all.
    is_all: bool,
    /// Who had his answer from the last look.
    told: HashSet<Asked>,
    /// Failures of which none was near enough in time.
    left_out: u64,
    is_refused: bool,
}

/// A listener, with the oldest process that holds it.
#[derive(Clone, Debug)]
struct Listener {
    process: Process,
    place: Upstream,
    netns: u32,
}

impl Neighbourhood {
    /// Who listens near where this exchange found nobody; none if that was told just before, or if it would take too much of the time.
    pub(super) fn ask(&mut self, tracer: &mut Tracer, exchange: &Exchange) -> Option<Near> {
        let joined = Joined::new(exchange);
        if !is_wanted(&joined) || self.is_refused {
            return None;
        }
        if !self.is_fresh() {
            if self.due.is_some_and(|due| due > Instant::now()) {
                self.left_out += 1;
                return None;
            }
            if let Err(error) = self.look(tracer) {
                crate::notice!("who listens near an upstream at which nobody does is not known: {error}");
                self.is_refused = true;
                return None;
            }
        }
        let asked = asked(&joined);
        if !self.told.insert(asked.clone()) {
            return None;
        }
        let (neighbours, others) = self.near(&asked);
        // That there is none is known only where all were seen.
        let is_known = self.is_all || !neighbours.is_empty();
        is_known.then_some(Near { ns: self.looked_ns, asked, neighbours, others })
    }

    /// Failures that came too long after a look and too soon for another one.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    fn is_fresh(&self) -> bool {
        self.looked_ns != 0 && monotonic_ns() < self.looked_ns.saturating_add(FRESH_NS)
    }

    fn look(&mut self, tracer: &mut Tracer) -> Result<(), Failure> {
        let began = Instant::now();
        let (mut seen, mut listeners) = (HashSet::new(), Vec::new());
        self.told.clear();
        let is_all = tracer.visit_listeners(|held| {
            if held.state == tcp_state::LISTEN
                && listeners.len() < budget::LISTENERS_SEEN
                && seen.insert(held.sock)
                && let Some(listener) = listener(held)
            {
                listeners.push(listener);
            }
        })?;
        self.is_all = is_all && listeners.len() < budget::LISTENERS_SEEN;
        self.listeners = listeners;
        self.looked_ns = monotonic_ns();
        self.due = Some(Instant::now() + began.elapsed() * SHARE);
        Ok(())
    }

    fn near(&self, (upstream, from): &Asked) -> (Vec<Neighbour>, u32) {
        let mut neighbours: Vec<Neighbour> =
            self.listeners.iter().filter_map(|listener| neighbour(listener, upstream, *from)).collect();
        neighbours.sort_by_key(|neighbour| (neighbour.is_elsewhere, neighbour.process.pid));
        let others = neighbours.len().saturating_sub(budget::NEIGHBOURS);
        neighbours.truncate(budget::NEIGHBOURS);
        (neighbours, u32::try_from(others).unwrap_or(u32::MAX))
    }
}

fn listener(held: &HeldSocket) -> Option<Listener> {
    let place = match held.name() {
        Some([0, ..]) => return None,
        Some(name) => Upstream::Unix(path_of(name)),
        None if held.local.port != 0 => Upstream::Inet(address(&held.local)),
        None => return None,
    };
    Some(Listener { process: holder_of(held), place, netns: held.netns })
}

fn neighbour(listener: &Listener, upstream: &Upstream, from: u32) -> Option<Neighbour> {
    let is_elsewhere = match (&listener.place, upstream) {
        (Upstream::Inet(place), Upstream::Inet(asked)) if place.port() == asked.port() => {
            listener.netns != from
        }
        (Upstream::Unix(place), Upstream::Unix(asked)) if place == asked => {
            match (mount_namespace(listener.process.pid), mount_namespace(from)) {
                (Ok(theirs), Ok(own)) => theirs != own,
                // Whoever has gone meanwhile is no neighbour.
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(Neighbour { process: listener.process.clone(), listens: listener.place.clone(), is_elsewhere })
}

/// What names a process's mount namespace, as `mnt:[4026531841]`.
fn mount_namespace(pid: u32) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/mnt"))
}
