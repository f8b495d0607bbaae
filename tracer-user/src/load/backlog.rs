//! The kernel side of `why502 backlog`: an object of its own, so that `live` does not carry its hooks.

use std::{
    fs,
    time::{Duration, Instant},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, RingBuf},
};
use wire::{
    Filters, HeldSocket, Layout, MISSING,
    accept_queue::{Attached, Key, Listener, Places, Stats, Victim},
};

use super::{
    hooks::{self, Attacher, HookPlan, Plan},
    listeners,
    loader::{load, loader, prepare},
    maps::{map, take},
    object::Object,
    refused::refused,
    types::Types,
};
use crate::model::{
    facts::{
        ACCEPTS, Fact,
        Point::{self, Entry, Return, Tracepoint},
        Source as Hooks,
    },
    failure::Failure,
    from_wire::comm_bytes,
    hook_kind::HookKind,
};

/// The function that consumes a SYN once a listener has dealt with it.
const SYN_CONSUMER: &str = "tcp_rcv_state_process";

/// A visit to the open files of this host that takes longer than this is made up for by a pause.
const LONG: Duration = Duration::from_millis(50);

/// How much of the time may go into long ones: one part in so many.
const SHARE: u32 = 20;

/// How a fact about accept queues is seen, or why it is not.
pub type Source = Result<String, String>;

/// The running kernel side. Dropping it detaches every program and frees every map; so does the end of the process.
pub struct Backlog {
    object: Ebpf,
    plan: HookPlan,
    unix_arrivals: Source,
    /// Whether there is an iterator over listeners.
    shows_listeners: bool,
    /// From when on they may be visited again.
    due: Option<Instant>,
    stats: Array<MapData, Stats>,
    listeners: HashMap<MapData, u64, Listener>,
    victims: HashMap<MapData, Key, Victim>,
    ring: Option<RingBuf<MapData>>,
    masters: Option<HashMap<MapData, u32, u64>>,
}

fn plan(layout: &Layout, places: &Places) -> Vec<Plan> {
    let needed = |fact, sources: &[Hooks]| Plan { fact, is_required: true, sources: sources.to_vec() };
    let wanted = |fact, sources: &[Hooks]| Plan { fact, is_required: false, sources: sources.to_vec() };
    const SYN_DROPS: &[Point] = &[Return("tcp_conn_request")];
    const HANDSHAKE_DROPS: &[Point] = &[Return("tcp_v4_syn_recv_sock"), Return("tcp_v6_syn_recv_sock")];
    let mut syn_drops = vec![Hooks::function(SYN_DROPS), Hooks::kprobe(SYN_DROPS)];
    if layout.consume_caller_arg != MISSING && places.consumer_start != 0 {
        syn_drops.push(Hooks::raw(&[Tracepoint("consume_skb")]));
    }
    let mut handshake_drops = vec![Hooks::function(HANDSHAKE_DROPS), Hooks::kprobe(HANDSHAKE_DROPS)];
    let has_reason = layout.drop_reason_arg != MISSING && layout.drop_listen_overflow != MISSING;
    let has_counter =
        places.listen_overflows != 0 && layout.net_statistics != MISSING && layout.array_pptrs != MISSING;
    if has_reason || has_counter {
        handshake_drops.push(Hooks::raw(&[Tracepoint("kfree_skb")]));
    }
    vec![
        needed(Fact::States, &[Hooks::raw(&[Tracepoint("inet_sock_set_state")])]),
        wanted(
            Fact::Accepts,
            &[
                Hooks::function(ACCEPTS),
                Hooks::kprobe(ACCEPTS),
                Hooks::system_calls(&[Tracepoint("sys_exit_accept"), Tracepoint("sys_exit_accept4")]),
            ],
        ),
        wanted(Fact::SynDrops, &syn_drops),
        wanted(Fact::HandshakeDrops, &handshake_drops),
        wanted(Fact::Retransmits, &[Hooks::raw(&[Tracepoint("tcp_retransmit_skb")])]),
        wanted(
            Fact::UnixSockets,
            &[
                Hooks::function(&[
                    Entry("unix_stream_connect"),
                    Return("unix_stream_connect"),
                    Return("unix_listen"),
                ]),
                Hooks::kprobe(&[Return("unix_stream_connect"), Return("unix_listen")]),
                Hooks::system_calls(&[Tracepoint("sys_enter_connect"), Tracepoint("sys_exit_connect")]),
            ],
        ),
    ]
}

/// What the kernel's symbols say, which only who has not given anything up is shown (kernel.kptr_restrict).
#[derive(Clone, Copy, Debug)]
pub struct Symbols(Places);

impl Symbols {
    /// Reads them. Where they cannot be read, that is said.
    pub fn read() -> Self {
        let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_else(|error| {
            crate::notice!(
                "/proc/kallsyms cannot be read ({error}): what only the kernel's addresses tell is not seen"
            );
            String::new()
        });
        Self(places(&symbols))
    }
}

/// The processes whose upstreams matter.
#[derive(Clone, Copy, Debug)]
pub struct Clients<'a> {
    /// Their name, in at most 15 bytes; empty for any.
    pub comm: &'a str,
    /// One process and its children, or all.
    pub pid: Option<u32>,
    /// Whoever has the name is meant.
    pub trusts_all: bool,
}

impl Backlog {
    /// Loads and attaches everything. The kernel side learns the listeners that exist already from [`Self::holders`]. `clients` are those
    /// whose upstreams matter.
    ///
    /// # Errors
    /// [`Failure::CannotTrace`] where a privilege, the BTF, or a hook that nothing replaces is missing.
    pub fn start(symbols: Symbols, clients: Clients, only: &[HookKind]) -> Result<Self, Failure> {
        let (kernel, layout) = prepare()?;
        let overflows = kernel.unnamed_enumerator("LINUX_MIB_LISTENOVERFLOWS");
        let places = Places { listen_overflows: overflows.map_or(0, u64::from), ..symbols.0 };
        let filters = Filters {
            comm: comm_bytes(clients.comm),
            pid: clients.pid.unwrap_or(0),
            own_pid: std::process::id(),
            trusts_all: u32::from(clients.trusts_all),
            ..Filters::default()
        };
        let mut loader = loader(&layout);
        loader.override_global("FILTERS", &filters, true).override_global("PLACES", &places, true);
        let useless = hooks::useless(only, &kernel);
        let mut object = load(&mut loader, Object::BACKLOG, &kernel, &useless)?;
        // Before they are read another time.
        drop(kernel);
        let mut types = Types::default();
        let attacher = Attacher::without(useless, &mut object, &mut types);
        let plan = hooks::follow(attacher, plan(&layout, &places), only)?;
        let unix_arrivals = if only.is_empty() || only.contains(&HookKind::RawTracepoint) {
            let attached =
                Attacher::new(&mut object, &mut types).attach_one("sk_data_ready", "sk_data_ready");
            attached.map(|()| "raw_tp/sk_data_ready".to_owned()).map_err(|error| refused(&error))
        } else {
            Err("this kind of hook was not asked for".to_owned())
        };
        let mut attached: Array<_, Attached> =
            Array::try_from(map(&mut object, "ATTACHED")?).map_err(anyhow::Error::from)?;
        let now = Attached {
            unix_arrivals: u32::from(unix_arrivals.is_ok()),
            handshake_drops: u32::from(!plan.sources.name(Fact::HandshakeDrops).starts_with("raw_tp")),
        };
        attached.set(0, now, 0).map_err(anyhow::Error::from)?;
        let shows_listeners = match listeners::load(&mut object, &mut types) {
            Ok(()) => true,
            Err(reason) => {
                crate::notice!(
                    "the listeners that exist already, and who owns them, cannot be found here: {reason}"
                );
                false
            }
        };
        Ok(Self {
            stats: Array::try_from(take(&mut object, "STATS")?).map_err(anyhow::Error::from)?,
            listeners: HashMap::try_from(take(&mut object, "LISTENERS")?).map_err(anyhow::Error::from)?,
            victims: HashMap::try_from(take(&mut object, "VICTIMS")?).map_err(anyhow::Error::from)?,
            ring: Some(RingBuf::try_from(take(&mut object, "RING")?).map_err(anyhow::Error::from)?),
            masters: Some(HashMap::try_from(take(&mut object, "MASTERS")?).map_err(anyhow::Error::from)?),
            object,
            plan,
            unix_arrivals,
            shows_listeners,
            due: None,
        })
    }

    /// Hands on who holds listeners, each descriptor by itself; the kernel side learns those that it does not know. Returns whether that
    /// is all of them: where it cannot be done, that is said. After a long visit to the host's open files there is none for a while.
    pub fn holders(&mut self, each: impl FnMut(&HeldSocket)) -> bool {
        if !self.shows_listeners || self.due.is_some_and(|due| due > Instant::now()) {
            return false;
        }
        let started = Instant::now();
        let result = listeners::show(&mut self.object, each);
        let took = started.elapsed();
        self.due = (took > LONG).then(|| Instant::now() + took * SHARE);
        if let Err(error) = &result {
            crate::notice!("who owns the listeners of this host is not known: {error}");
        }
        result.is_ok()
    }

    /// The hooks in use, and the facts that this kernel does not let the program see.
    pub fn plan(&self) -> &HookPlan {
        &self.plan
    }

    /// What shows that a connection entered a unix socket's queue, or why only connect does.
    pub fn unix_arrivals(&self) -> &Source {
        &self.unix_arrivals
    }

    /// The ring buffer; it can be taken once.
    ///
    /// # Errors
    /// If it was taken before.
    pub fn take_ring(&mut self) -> Result<RingBuf<MapData>, Failure> {
        self.ring.take().ok_or_else(|| Failure::Run(anyhow::anyhow!("the ring buffer has a reader already")))
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

    /// The kernel side's counters.
    ///
    /// # Errors
    /// If the kernel refuses to read the map.
    pub fn stats(&self) -> Result<Stats, Failure> {
        Ok(self.stats.get(&0, 0).map_err(anyhow::Error::from)?)
    }

    /// Every listener as it is now. One that the kernel side is writing down at this moment is not there yet; of one that was closed while
    /// it was read, and another written down in its place, half may be the other's: it has gone, which its record says.
    pub fn listeners(&self) -> Vec<Listener> {
        let listeners = entries(&self.listeners).into_iter().map(|(_, listener)| listener);
        let is_still = |listener: &Listener| {
            self.listener(listener.sock).is_some_and(|now| now.since_ns == listener.since_ns)
        };
        listeners.filter(|listener| listener.since_ns != 0 && is_still(listener)).collect()
    }

    /// One listener as it is now, unless it has gone.
    pub fn listener(&self, sock: u64) -> Option<Listener> {
        self.listeners.get(&sock, 0).ok()
    }

    /// Forgets a listener that is no more. Returns whether the caller is to emit its end: otherwise the kernel side has emitted it
    /// meanwhile.
    pub fn bury(&mut self, listener: &Listener) -> bool {
        let is_still = self.listener(listener.sock).is_some_and(|now| now.since_ns == listener.since_ns);
        is_still && self.listeners.remove(&listener.sock).is_ok()
    }

    /// Every connection that met a full queue and whose fate is open.
    pub fn victims(&self) -> Vec<(Key, Victim)> {
        entries(&self.victims)
    }

    /// Forgets a victim. Returns whether the caller is to emit it: otherwise the kernel side has ended and emitted it meanwhile.
    pub fn forget(&mut self, key: &Key) -> bool {
        self.victims.remove(key).is_ok()
    }
}

/// A map's entries. When one goes while the walk stands on it, the kernel begins anew: the walk must end nonetheless.
fn entries<K: aya::Pod + std::hash::Hash + Eq, V: aya::Pod>(map: &HashMap<MapData, K, V>) -> Vec<(K, V)> {
    const MOST: usize = 1 << 17;
    let found: std::collections::HashMap<K, V> = map.iter().take(MOST).flatten().collect();
    found.into_iter().collect()
}

/// What the kernel's symbols say; nothing where it does not show their addresses (/proc/kallsyms, kernel.kptr_restrict).
fn places(symbols: &str) -> Places {
    let all = symbols.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        (address != 0).then_some((address, words.next()?, words.next()?))
    });
    let at = |wanted: &str| all.clone().find(|(.., name)| *name == wanted).map(|(address, ..)| address);
    let start = at(SYN_CONSUMER).unwrap_or(0);
    let code = all.clone().filter(|(address, kind, _)| matches!(*kind, "t" | "T") && *address > start);
    Places {
        consumer_start: start,
        consumer_end: code.map(|(address, ..)| address).min().unwrap_or(0),
        listen_overflows: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_functions_code_ends_where_the_next_one_begins() {
        let symbols = "ff30 T later\nff10 T tcp_rcv_state_process\nff18 d data\nff20 t next\n";
        let places = places(symbols);
        assert_eq!((places.consumer_start, places.consumer_end), (0xff10, 0xff20));
    }

    #[test]
    fn hidden_addresses_are_no_addresses() {
        assert_eq!(places("0 T tcp_rcv_state_process\n0 t next\n"), Places::NONE);
    }
}
