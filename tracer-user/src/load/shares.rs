//! Who holds the places for open exchanges: once somebody finds none left, whoever holds more than half of them is held to that.

use std::{
    collections::HashMap as Map,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData},
};
use procfs::process::Process;
use wire::{FAMILY_UNIX, NginxEnd};

use super::maps::take;
use crate::model::failure::Failure;

/// How many exchanges were given up so that others than their owner have places.
pub type GivenUp = Arc<AtomicU64>;

/// One open exchange, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub sock: u64,
    pub worker_sock: u64,
    pub connect_ns: u64,
    pub tgid: u32,
    /// Whether it can be given up with nothing of it left behind: its worker's end is known and goes by itself, or it has none yet.
    may_go: bool,
}

impl From<&NginxEnd> for Place {
    fn from(nginx: &NginxEnd) -> Self {
        Self {
            sock: nginx.sock,
            worker_sock: nginx.worker_sock,
            connect_ns: nginx.connect_ns,
            tgid: nginx.nginx.tgid,
            may_go: nginx.upstream.family != FAMILY_UNIX && (nginx.worker_sock != 0 || nginx.handshake == 0),
        }
    }
}

/// Watches over the shares.
pub(super) struct Shares {
    refused: HashMap<MapData, u32, u64>,
    greedy: HashMap<MapData, u32, u32>,
    greedy_count: Array<MapData, u32>,
    given_up: GivenUp,
}

impl Shares {
    pub(super) fn new(object: &mut Ebpf) -> Result<Self, Failure> {
        Ok(Self {
            refused: HashMap::try_from(take(object, "REFUSED")?).map_err(anyhow::Error::from)?,
            greedy: HashMap::try_from(take(object, "GREEDY")?).map_err(anyhow::Error::from)?,
            greedy_count: Array::try_from(take(object, "GREEDY_COUNT")?).map_err(anyhow::Error::from)?,
            given_up: GivenUp::default(),
        })
    }

    pub(super) fn given_up(&self) -> GivenUp {
        Arc::clone(&self.given_up)
    }

    /// So many were given up just now.
    pub(super) fn count(&self, given_up: u64) {
        self.given_up.fetch_add(given_up, Ordering::Relaxed);
    }

    /// Looks who holds the places, of which there are `most`; returns which exchanges are to be given up.
    pub(super) fn look(&mut self, places: &[Place], most: usize) -> Vec<Place> {
        let refused: Vec<u32> = self.refused.keys().flatten().take(most).collect();
        let greedy: Vec<u32> = self.greedy.keys().flatten().collect();
        if refused.is_empty() && greedy.is_empty() {
            return Vec::new();
        }
        let mut owners = Owners::default();
        let mut held: Map<u32, Vec<Place>> = Map::new();
        for place in places {
            held.entry(owners.of(place.tgid)).or_default().push(*place);
        }
        let count = |owner: u32| held.get(&owner).map_or(0, Vec::len);
        for owner in greedy {
            if count(owner) < most / 4 && self.greedy.remove(&owner).is_ok() {
                crate::notice!("process {owner} and its children get places for open exchanges again");
            }
        }
        let mut others_refused = Vec::new();
        for tgid in refused {
            others_refused.push(owners.of(tgid));
            // The kernel side may have put another in its place meanwhile, whom the next look finds.
            if let Err(error) = self.refused.remove(&tgid) {
                complain(&error);
            }
        }
        let mut going = Vec::new();
        if let Some((&owner, held)) = held.iter().max_by_key(|(_, held)| held.len())
            && held.len() > most / 2
            && others_refused.iter().any(|other| *other != owner)
            && self.greedy.insert(owner, 1, 0).is_ok()
        {
            let mut oldest: Vec<Place> = held.iter().copied().filter(|place| place.may_go).collect();
            oldest.sort_unstable_by_key(|place| place.connect_ns);
            oldest.truncate(held.len() - most / 2);
            crate::notice!(
                "process {owner} and its children hold {} of the {most} places for open exchanges, and others find none: \
                 their oldest {} are given up, and they get no more until they hold less than a quarter",
                held.len(),
                oldest.len()
            );
            going = oldest;
        }
        let count = u32::try_from(self.greedy.keys().flatten().count()).unwrap_or(u32::MAX);
        if let Err(error) = self.greedy_count.set(0, count, 0) {
            complain(&error);
        }
        going
    }
}

/// The kernel refused to change a map: what was to be held back goes on.
fn complain(error: &aya::maps::MapError) {
    crate::notice!("the shares of open exchanges cannot be changed: {error}");
}

/// Who answers for a process: its parent if that has the same name.
#[derive(Debug, Default)]
struct Owners(Map<u32, u32>);

impl Owners {
    fn of(&mut self, tgid: u32) -> u32 {
        *self.0.entry(tgid).or_insert_with(|| {
            let stat = |pid: i32| Process::new(pid).and_then(|process| process.stat());
            let Ok(process) = stat(tgid.cast_signed()) else { return tgid };
            match stat(process.ppid) {
                Ok(parent) if parent.comm == process.comm => parent.pid.cast_unsigned(),
                _ => tgid,
            }
        })
    }
}
