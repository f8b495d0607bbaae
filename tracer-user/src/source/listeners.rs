//! The one look at the listeners of this host, after failures only: who listens near an upstream at which nobody does, who shares its address,
//! and who should work off the queue that nginx waited in. The kernel's iterator over open files shows it: no file is touched for it, and
//! no table of /proc/net is believed.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    fs, io,
    path::PathBuf,
    time::Instant,
};

use wire::{
    ClosedListener, Endpoint, ExchangeRecord, FAMILY_INET, FAMILY_INET6, FAMILY_UNIX, HeldSocket, nginx_flag,
    tcp_state,
};

use super::{configurations::Configurations, inquiries::each_socket};
use crate::{
    ledger::Exchange,
    load::Tracer,
    model::{
        budget,
        clock::monotonic_ns,
        failure::Failure,
        from_wire::{address, holder_of, path_of, process_named},
        inquiry::{About, Found, Holder, Inquiry, Queue, Sharer},
        near::{Asked, Closed, Near},
        upstream::Upstream,
        verdict::{Neighbour, Process},
    },
    near::{CLOSED_FOR_NS, FRESH_NS, asked, is_wanted},
    sample,
};

/// How much of the time may go into looking: one part in so many.
const SHARE: u32 = 20;

/// A look at a queue is of no use if it was so long before the failure (ns), unless there can be no other.
const LATELY_NS: u64 = 50_000_000;

/// Listeners of which it is remembered since when nobody has accepted.
const MOST_STUCK: usize = 256;

/// Processes with connections from a listener of which it is looked whether they stand still.
const MOST_SERVING: usize = 64;

/// Looks, and what the last one found, which serves all that fails within a moment.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// When the last look was over, and when it began.
    looked_ns: u64,
    look_began_ns: u64,
    due: Option<Instant>,
    listeners: Vec<Listener>,
    /// Whether these are all.
    is_all: bool,
    /// Who had his answer from the last look.
    answered: HashSet<Asked>,
    /// What the last look found of each queue that was asked for, by listener.
    queues: HashMap<u64, Option<Worked>>,
    /// Connections that wait at the head of a queue, by listener: nobody has accepted from it since they came.
    stuck: HashMap<u64, Head>,
    /// Failures of which none was near enough in time.
    left_out: u64,
    is_refused: bool,
}

/// A listener, with the processes that hold it, the oldest first.
#[derive(Clone, Debug)]
struct Listener {
    sock: u64,
    holders: Vec<Process>,
    /// How many more hold it.
    others: u32,
    /// None of one in the abstract namespace.
    place: Option<Upstream>,
    local: Endpoint,
    netns: u32,
    waiting: u32,
    /// The inode's number of a unix listener's file.
    inode: u64,
}

/// Who works a queue off.
#[derive(Clone, Debug)]
struct Worked {
    holders: Vec<Holder>,
    others: u32,
    is_served: bool,
    /// As few connections as were ever seen to wait in it during the look.
    waiting: u32,
}

/// The first connection of a queue: its socket, and when it came (ns, monotonic).
#[derive(Clone, Copy, Debug)]
struct Head {
    sock: u64,
    since_ns: u64,
}

/// What is asked about a queue.
struct InQueue {
    /// The listener.
    listener: u64,
    /// nginx's connection in it, and when it came; none where there was no room for it.
    child: Option<Head>,
    /// How many were in the queue when nginx ended.
    depth: u32,
    /// Whether nobody was before it.
    is_first: bool,
    is_shared: bool,
}

impl Listeners {
    /// Who listens near where this exchange found nobody; none if that was said just before, or if it would take too much of the time.
    pub(super) fn near(&mut self, tracer: &mut Tracer, exchange: &ExchangeRecord) -> Option<Near> {
        let joined = Exchange::new(exchange);
        if !is_wanted(&joined) || !self.look(tracer, 0) {
            return None;
        }
        let asked = asked(&joined);
        if !self.answered.insert(asked.clone()) {
            return None;
        }
        let (neighbours, others) = self.neighbours(&asked);
        let closed = self.closed(tracer, &joined);
        // That there is none is known only where all were seen.
        let is_known = self.is_all || !neighbours.is_empty();
        is_known.then_some(Near { ns: self.looked_ns, asked, neighbours, others, closed })
    }

    /// Who should work off the queue that this exchange waited in, or found full; none where it did not, or if that would take too much of the
    /// time. `has_accepted` says whether a process is known to have taken up an exchange.
    pub(super) fn queue(
        &mut self,
        tracer: &mut Tracer,
        exchange: &ExchangeRecord,
        configurations: &mut Configurations,
        has_accepted: impl Fn(u32) -> bool,
    ) -> Option<Inquiry> {
        let asked = in_queue(exchange)?;
        let nginx = &exchange.nginx;
        let since_ns = asked.child.map_or(nginx.connect_ns, |child| child.since_ns);
        if !self.look(tracer, nginx.ended_ns.saturating_sub(LATELY_NS)) || self.looked_ns < since_ns {
            return None;
        }
        let about = About::Exchange((nginx.sock, nginx.connect_ns));
        if asked.is_shared {
            let sharers = asked.child.map(|_| self.sharers(exchange))?;
            return Some(Inquiry { about, found: Found::Sharers(sharers) });
        }
        let listener = self.listeners.iter().find(|listener| listener.sock == asked.listener)?;
        let worked = match self.queues.get(&asked.listener) {
            Some(worked) => worked.clone(),
            None => {
                let (listener, began) = (listener.clone(), Instant::now());
                let worked = configurations.ask(move |_| worked(&listener)).flatten();
                self.queues.insert(asked.listener, worked.clone());
                self.due = self.due.max(Some(Instant::now() + began.elapsed() * SHARE));
                worked
            }
        };
        let Worked { holders, others, is_served, waiting } = worked?;
        // Nobody leaves a queue but by accept. If it got shorter after nginx's end, it was worked off meanwhile, by who may have been at work until
        // then: the look came too late. One that began before that end has seen such a process if there was one.
        let least = if self.look_began_ns >= nginx.ended_ns { asked.depth } else { 1 };
        if waiting < least {
            return None;
        }
        let has_accepted = others > 0 || holders.iter().any(|holder| has_accepted(holder.process.pid));
        let is_followed = is_end_seen(tracer, nginx.upstream.family);
        let since_ns = self.nobody_accepts_since(&asked, since_ns, is_followed);
        let queue = Queue { holders, others, is_served, since_ns, has_accepted };
        Some(Inquiry { about, found: Found::Queue(queue) })
    }

    /// A connection that nginx gave up is no more, or it is not known any more whether it is: nobody is taken to wait behind it.
    pub(super) fn is_gone(&mut self, sock: u64) {
        self.stuck.retain(|_, head| head.sock != sock);
    }

    /// Ends of connections were lost.
    pub(super) fn forget_queues(&mut self) {
        self.stuck.clear();
    }

    /// Since when nobody has accepted from the queue, if that was before `came_ns`, as the order in it shows: whoever comes first is taken first.
    /// `is_followed` says whether it is seen when a connection that nginx gave up ends.
    fn nobody_accepts_since(&mut self, asked: &InQueue, came_ns: u64, is_followed: bool) -> Option<u64> {
        if let Some(head) = self.stuck.get(&asked.listener).filter(|head| head.since_ns <= came_ns) {
            return Some(head.since_ns);
        }
        let child = asked.child.filter(|_| asked.is_first)?;
        if self.stuck.len() >= MOST_STUCK {
            self.stuck.clear();
        }
        if is_followed {
            self.stuck.insert(asked.listener, child);
        }
        Some(child.since_ns)
    }

    /// Failures that came too long after a look and too soon for another one.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    fn is_fresh(&self) -> bool {
        self.looked_ns != 0 && monotonic_ns() < self.looked_ns.saturating_add(FRESH_NS)
    }

    /// Looks, unless that was done just now, after `wanted_ns` if there is time for it. Returns whether there is something to go by.
    fn look(&mut self, tracer: &mut Tracer, wanted_ns: u64) -> bool {
        if self.is_refused {
            return false;
        }
        if self.is_fresh() && self.looked_ns >= wanted_ns {
            return true;
        }
        if self.due.is_some_and(|due| due > Instant::now()) {
            self.left_out += u64::from(!self.is_fresh());
            return self.is_fresh();
        }
        if let Err(error) = self.visit(tracer) {
            crate::notice!("who listens on this host is not known where it would explain a failure: {error}");
            self.is_refused = true;
        }
        !self.is_refused
    }

    fn visit(&mut self, tracer: &mut Tracer) -> Result<(), Failure> {
        let (began, began_ns) = (Instant::now(), monotonic_ns());
        let mut places = HashMap::new();
        let mut listeners: Vec<Listener> = Vec::new();
        self.answered.clear();
        self.queues.clear();
        let is_all = tracer.visit_listeners(|held| {
            if held.state != tcp_state::LISTEN {
                return;
            }
            if let Some(listener) = places.get(&held.sock).and_then(|at: &usize| listeners.get_mut(*at)) {
                listener.held(held);
            } else if listeners.len() < budget::LISTENERS_SEEN {
                places.insert(held.sock, listeners.len());
                listeners.push(Listener::new(held));
            }
        })?;
        self.is_all = is_all && listeners.len() < budget::LISTENERS_SEEN;
        self.listeners = listeners;
        (self.looked_ns, self.look_began_ns) = (monotonic_ns(), began_ns);
        self.due = Some(Instant::now() + began.elapsed() * SHARE);
        Ok(())
    }

    fn neighbours(&self, (upstream, from): &Asked) -> (Vec<Neighbour>, u32) {
        first(self.listeners.iter().filter_map(|listener| listener.near(upstream, *from)).collect())
    }

    /// The listener that was closed within the last minute where this exchange found nobody.
    fn closed(&self, tracer: &Tracer, exchange: &Exchange) -> Option<Closed> {
        let (upstream, netns) = (exchange.upstream(), exchange.nginx.netns);
        let ClosedListener { ns, again_ns, tgid, netns: its_netns, exiting, exit_code, comm } =
            tracer.closed_listener(&upstream, netns)?;
        let failed_ns = exchange.nginx.ended_ns;
        let is_late = ns > failed_ns || ns.saturating_add(CLOSED_FOR_NS) < failed_ns;
        // A path means another file in another container, which has its own network, too, mostly.
        if is_late || its_netns != netns {
            return None;
        }
        let process = process_named(tgid, &comm);
        let is_namesake = |listener: &&Listener| {
            listener.holders.iter().any(|holder| holder.comm == process.comm)
                && listener.place.as_ref() != Some(&upstream)
        };
        let namesake = |listener: &Listener| {
            Some(Neighbour {
                process: listener.holders.iter().find(|holder| holder.comm == process.comm)?.clone(),
                listens: listener.place.clone()?,
                is_elsewhere: listener.netns != netns,
            })
        };
        let (namesakes, _) = first(self.listeners.iter().filter(is_namesake).filter_map(namesake).collect());
        Some(Closed {
            process,
            ns,
            again_ns: (again_ns != 0).then_some(again_ns),
            exit: (exiting != 0).then_some(exit_code),
            namesakes,
        })
    }

    /// The listeners that share the address at which this exchange waits, those with the longest queues first.
    fn sharers(&self, exchange: &ExchangeRecord) -> Vec<Sharer> {
        let (netns, at) = (exchange.nginx.netns, address(&exchange.worker.local));
        let is_one = |listener: &&Listener| {
            let local = address(&listener.local);
            let is_at = local.port() == at.port() && (local.ip() == at.ip() || local.ip().is_unspecified());
            listener.is_inet() && listener.netns == netns && is_at
        };
        let mut sharers: Vec<_> = self
            .listeners
            .iter()
            .filter(is_one)
            .filter_map(|listener| Some((listener.holders.first()?.clone(), listener.waiting)))
            .collect();
        sharers.sort_by_key(|(process, waiting)| (Reverse(*waiting), process.pid));
        sharers.truncate(budget::HOLDERS);
        let sharer = |(process, waiting): (Process, u32)| {
            let stands_still = sample::stands_still(process.pid.cast_signed());
            Sharer { process, waiting, stands_still }
        };
        sharers.into_iter().map(sharer).collect()
    }
}

impl Listener {
    fn new(held: &HeldSocket) -> Self {
        let place = match held.name() {
            Some([0, ..]) => None,
            Some(name) => Some(Upstream::Unix(path_of(name))),
            None if held.local.port != 0 => Some(Upstream::Inet(address(&held.local))),
            None => None,
        };
        Self {
            sock: held.sock,
            holders: vec![holder_of(held)],
            others: 0,
            place,
            local: held.local,
            netns: held.netns,
            waiting: held.waiting,
            inode: held.place,
        }
    }

    /// It is held by one more descriptor.
    fn held(&mut self, held: &HeldSocket) {
        self.waiting = held.waiting;
        if self.holders.iter().any(|holder| holder.pid == held.tgid) {
            return;
        }
        // The kernel visits processes by their pids, and may begin anew with the one that it visited last.
        if self.holders.len() < budget::HOLDERS {
            self.holders.push(holder_of(held));
            self.holders.sort_by_key(|holder| holder.pid);
        } else {
            self.others = self.others.saturating_add(1);
        }
    }

    fn is_inet(&self) -> bool {
        matches!(self.local.family, FAMILY_INET | FAMILY_INET6)
    }

    fn near(&self, upstream: &Upstream, from: u32) -> Option<Neighbour> {
        let (place, process) = (self.place.as_ref()?, self.holders.first()?);
        let is_elsewhere = match (place, upstream) {
            (Upstream::Inet(place), Upstream::Inet(asked)) if place.port() == asked.port() => {
                self.netns != from
            }
            (Upstream::Unix(place), Upstream::Unix(asked)) if place == asked => {
                match (mount_namespace(process.pid), mount_namespace(from)) {
                    (Ok(theirs), Ok(own)) => theirs != own,
                    // Whoever has gone meanwhile is no neighbour.
                    _ => return None,
                }
            }
            _ => return None,
        };
        Some(Neighbour { process: process.clone(), listens: place.clone(), is_elsewhere })
    }

    /// Whether this socket came from it, or may have: one that was reset has no address any more.
    fn may_have_made(&self, held: &HeldSocket) -> bool {
        if held.state == tcp_state::LISTEN || i32::from(held.kind) != libc::SOCK_STREAM {
            return false;
        }
        let is_holders = self.holders.iter().any(|holder| holder.pid == held.tgid);
        if held.local.family == FAMILY_UNIX && self.local.family == FAMILY_UNIX {
            // It has its listener's name, and the file of that name.
            let is_file_known = self.inode != 0 && held.place != 0;
            return held.is_bound != 0 && if is_file_known { held.place == self.inode } else { is_holders };
        }
        if !self.is_inet() || !matches!(held.local.family, FAMILY_INET | FAMILY_INET6) {
            return false;
        }
        let (local, own) = (address(&held.local), address(&self.local));
        let is_from = local.port() == own.port() && (own.ip().is_unspecified() || local.ip() == own.ip());
        is_from && held.netns == self.netns || is_holders && held.state == tcp_state::CLOSE
    }
}

/// Whether it is seen when a connection ends that nginx gave up.
fn is_end_seen(tracer: &Tracer, family: u16) -> bool {
    family != FAMILY_UNIX || tracer.sees_unix_ends()
}

/// The first of them, those nearby before those elsewhere, and how many more there are.
fn first(mut neighbours: Vec<Neighbour>) -> (Vec<Neighbour>, u32) {
    neighbours.sort_by_key(|neighbour| (neighbour.is_elsewhere, neighbour.process.pid));
    let others = neighbours.len().saturating_sub(budget::NEIGHBOURS);
    neighbours.truncate(budget::NEIGHBOURS);
    (neighbours, u32::try_from(others).unwrap_or(u32::MAX))
}

/// What is asked about the queue that an exchange waited in when nginx ended it, or for which it found no room; none of any other.
fn in_queue(exchange: &ExchangeRecord) -> Option<InQueue> {
    let ExchangeRecord { nginx, worker, .. } = exchange;
    let (first, last) = (&nginx.listener_first, &nginx.listener_last);
    let view = if last.sock != 0 { last } else { first };
    let is_known = view.sock != 0 && (first.sock == last.sock || first.sock == 0 || last.sock == 0);
    let is_shared = view.shared > 1;
    if nginx.flags & nginx_flag::ENDED_WELL != 0 || !is_known || is_shared && view.elsewhere != 0 {
        return None;
    }
    let is_queued = worker.sock != 0
        && worker.ended_ns == 0
        && worker.accepted_ns == 0
        && worker.has_socket == 0
        && nginx.sent > 0;
    let found_full = worker.sock == 0 && view.depth > view.limit && nginx.received == 0;
    if !is_queued && !found_full {
        return None;
    }
    // The kernel looks at a unix listener when the connection is in its queue, and at another before that.
    let none_before = u32::from(nginx.upstream.family == FAMILY_UNIX);
    Some(InQueue {
        listener: view.sock,
        child: is_queued.then_some(Head { sock: worker.sock, since_ns: worker.created_ns }),
        depth: view.depth,
        is_first: first.sock != 0 && first.depth <= none_before,
        is_shared,
    })
}

/// Who holds a listener, and whether anybody is at work on what came from it; none where that cannot be looked at.
fn worked(listener: &Listener) -> Option<Worked> {
    let (mut serving, mut waiting) = (Vec::new(), listener.waiting);
    let looked = each_socket(|held| {
        if held.sock == listener.sock {
            waiting = waiting.min(held.waiting);
        }
        let is_new = !serving.contains(&held.tgid) && serving.len() < MOST_SERVING;
        if is_new && listener.may_have_made(held) {
            serving.push(held.tgid);
        }
    });
    if let Err(error) = looked {
        crate::notice!("who works off a queue is not known: {error}");
        return None;
    }
    let is_served =
        serving.len() == MOST_SERVING || serving.iter().any(|pid| !sample::stands_still(pid.cast_signed()));
    let holder = |process: &Process| Holder {
        doing: sample::doing(process.pid.cast_signed()),
        process: process.clone(),
    };
    let holders = listener.holders.iter().map(holder).collect();
    Some(Worked { holders, others: listener.others, is_served, waiting })
}

/// What names a process's mount namespace, as `mnt:[4026531841]`.
fn mount_namespace(pid: u32) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/mnt"))
}
