//! Joins the two ends of an exchange that two hosts have recorded: by the handshake's sequence numbers, which both ends know and
//! which survive address translation. The handshake also shows how far apart the hosts' clocks are.

use std::{collections::HashMap, rc::Rc};

use wire::{
    ExchangeRecord, Gone, Header, Kind, NginxEnd, Served, Signal, Stops, Task, WorkerEnd, WorkerGone,
    nginx_flag, tcp_state,
};

use crate::model::{record::Record, stream::What};

/// Ends that are remembered; there is one for each connection that did not succeed.
const MOST: usize = 100_000;

/// How much one handshake's account of the clocks may differ from the best one's (ns), and how much more for each second between
/// them: clocks that nobody disciplines drift by less.
const SLACK_NS: u64 = 20_000_000;
const DRIFT_NS: u64 = 200_000;

/// When the network ends a connection, the news are under way for less than this (ns).
const UNDER_WAY_NS: u64 = 1_000_000_000;

/// What the hosts of listeners have recorded.
#[derive(Debug, Default)]
pub struct Ends {
    by_handshake: HashMap<u64, (usize, WorkerEnd, Stops)>,
    /// Ends that were not remembered.
    pub left_out: u64,
}

impl Ends {
    /// Takes in what recording `number` holds.
    pub fn add(&mut self, number: usize, what: &What) {
        let What::Record(Record::Served(served)) = what else { return };
        let Served { header: _, handshake, peer: _, reserved: _, worker, stops } = served.as_ref();
        if self.by_handshake.len() == MOST {
            self.left_out += 1;
        } else if *handshake != 0 {
            self.by_handshake.insert(*handshake, (number, *worker, *stops));
        }
    }

    fn of(&self, nginx: &NginxEnd) -> Option<(usize, &WorkerEnd, &Stops)> {
        let is_connected = nginx.handshake != 0 && nginx.established_ns != 0;
        let (number, worker, stops) = self.by_handshake.get(&nginx.handshake).filter(|_| is_connected)?;
        Some((*number, worker, stops))
    }
}

/// How far the clock of a listener's host is ahead of nginx's, as one handshake shows.
#[derive(Clone, Copy, Debug)]
struct Account {
    /// Half of the time there and back, in ns: it is as sure as that.
    half_ns: u64,
    /// When it was, on nginx's host (ns, monotonic).
    at_ns: u64,
    ahead_ns: i64,
}

/// nginx knows of the handshake's end half a round trip before the listener's host does.
fn account(nginx: &NginxEnd, worker: &WorkerEnd, half_ns: u64) -> Account {
    let distance = worker.created_ns.cast_signed() - nginx.established_ns.cast_signed();
    Account { half_ns, at_ns: nginx.established_ns, ahead_ns: distance - half_ns.cast_signed() }
}

/// Joins one recording of nginx's host with the others.
#[derive(Debug)]
pub struct Join {
    ends: Rc<Ends>,
    /// The best account of each other recording's clock.
    best: HashMap<usize, Account>,
    /// Exchanges that were joined.
    pub joined: u64,
}

impl Join {
    /// With what the others have recorded.
    pub fn new(ends: Rc<Ends>) -> Self {
        Self { ends, best: HashMap::new(), joined: 0 }
    }

    /// Learns from an entry how far apart the clocks are: to be called for all of them before any is joined.
    pub fn learn(&mut self, what: &What) {
        let What::Record(Record::Exchange(exchange)) = what else { return };
        let nginx = &exchange.nginx;
        let Some((number, worker, _)) = self.ends.of(nginx) else { return };
        let half_ns = nginx.established_ns.saturating_sub(nginx.connect_ns) / 2;
        let account = account(nginx, worker, half_ns);
        let best = self.best.entry(number).or_insert(account);
        if account.half_ns < best.half_ns {
            *best = account;
        }
    }

    /// How far each other recording's clock is ahead of this one's (ns), and how sure that is.
    pub fn clocks(&self) -> impl Iterator<Item = (usize, i64, u64)> {
        self.best.iter().map(|(number, best)| (*number, best.ahead_ns, best.half_ns))
    }

    /// Adds the worker's end to an exchange that lacks it. What happens to that end after nginx's ended comes back, to be taken in
    /// at its time.
    pub fn join(&mut self, exchange: &mut ExchangeRecord) -> Option<WorkerGone> {
        if exchange.worker.sock != 0 {
            return None;
        }
        let (number, worker, stops) = self.ends.of(&exchange.nginx)?;
        let best = *self.best.get(&number)?;
        // Its own handshake knows best, unless a packet of it was lost or late.
        let own = account(&exchange.nginx, worker, best.half_ns);
        let apart_s = own.at_ns.abs_diff(best.at_ns) / 1_000_000_000;
        let is_plausible =
            own.ahead_ns.abs_diff(best.ahead_ns) <= SLACK_NS.saturating_add(DRIFT_NS.saturating_mul(apart_s));
        let ahead_ns = if is_plausible { own.ahead_ns } else { best.ahead_ns };
        let worker = here(worker, ahead_ns, &exchange.nginx);
        exchange.stops = stops_here(stops, ahead_ns);
        self.joined += 1;
        add(exchange, worker)
    }
}

/// A moment of the listener's host by the clock of nginx's host.
fn moment_here(ns: u64, ahead_ns: i64) -> u64 {
    if ns == 0 { 0 } else { ns.saturating_add_signed(ahead_ns.saturating_neg()).max(1) }
}

fn stops_here(stops: &Stops, ahead_ns: i64) -> Stops {
    let here = |signal: &Signal| Signal { ns: moment_here(signal.ns, ahead_ns), ..*signal };
    let gone =
        Gone { ns: moment_here(stops.gone.ns, ahead_ns), signal: here(&stops.gone.signal), ..stops.gone };
    Stops { worker: here(&stops.worker), parent: here(&stops.parent), gone, ..*stops }
}

/// The worker's end by the clock of nginx's host, as part of nginx's exchange.
fn here(worker: &WorkerEnd, ahead_ns: i64, nginx: &NginxEnd) -> WorkerEnd {
    let moment = |ns: u64| moment_here(ns, ahead_ns);
    WorkerEnd {
        nginx_sock: nginx.sock,
        connect_ns: nginx.connect_ns,
        created_ns: moment(worker.created_ns),
        accepted_ns: moment(worker.accepted_ns),
        abandoned_ns: 0,
        ended_ns: moment(worker.ended_ns),
        signal: Signal { ns: moment(worker.signal.ns), ..worker.signal },
        ..*worker
    }
}

/// As the kernel does where both ends are on one host: what nginx's end met comes from the worker's end, which ended before;
/// otherwise the worker's end is shown as it was when nginx's ended.
fn add(exchange: &mut ExchangeRecord, mut worker: WorkerEnd) -> Option<WorkerGone> {
    let nginx = &mut exchange.nginx;
    nginx.worker_sock = worker.sock;
    let was_shown = nginx.flags & nginx_flag::RESET_RECEIVED != 0 || nginx.old_state == tcp_state::CLOSE_WAIT;
    let is_close = worker.ended_ns < nginx.ended_ns.saturating_add(UNDER_WAY_NS);
    if was_shown && is_close {
        worker.ended_ns = worker.ended_ns.min(nginx.ended_ns.saturating_sub(1));
    }
    if worker.ended_ns < nginx.ended_ns {
        exchange.worker = worker;
        return None;
    }
    worker.abandoned_ns = nginx.ended_ns;
    let was_accepted = worker.accepted_ns != 0 && worker.accepted_ns < nginx.ended_ns;
    nginx.flags |= nginx_flag::WORKER_OPEN;
    if was_accepted {
        nginx.flags |= nginx_flag::WORKER_ACCEPTED;
    }
    exchange.worker = WorkerEnd {
        accepted_ns: if was_accepted { worker.accepted_ns } else { 0 },
        worker: if was_accepted { worker.worker } else { Task::default() },
        has_socket: u32::from(was_accepted),
        ended_ns: 0,
        error: 0,
        exit_code: 0,
        exiting: 0,
        old_state: 0,
        new_state: 0,
        closer: Task::default(),
        signal: Signal::default(),
        ..worker
    };
    let header = Header { kind: Kind::WorkerGone as u32, len: size_of::<WorkerGone>() as u32 };
    Some(WorkerGone { header, worker })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::samples::*;

    const AHEAD: u64 = 5_000_000_000_000;

    fn there(worker: &WorkerEnd) -> WorkerEnd {
        let moment = |ns: u64| if ns == 0 { 0 } else { ns + AHEAD };
        WorkerEnd {
            nginx_sock: 0,
            connect_ns: 0,
            created_ns: moment(worker.created_ns),
            accepted_ns: moment(worker.accepted_ns),
            abandoned_ns: 0,
            ended_ns: moment(worker.ended_ns),
            signal: Signal { ns: moment(worker.signal.ns), ..worker.signal },
            ..*worker
        }
    }

    /// The exchange as nginx's host alone knows it, and joined with what the other host knows.
    fn joined(whole: ExchangeRecord, worker: &WorkerEnd) -> (ExchangeRecord, Option<WorkerGone>) {
        let mut exchange = whole;
        exchange.nginx.handshake = 7;
        exchange.nginx.worker_sock = 0;
        exchange.nginx.flags &= !(nginx_flag::WORKER_OPEN | nginx_flag::WORKER_ACCEPTED);
        exchange.worker = WorkerEnd::default();
        let header = Header { kind: Kind::Served as u32, len: 0 };
        let (peer, reserved) = (exchange.nginx.local, 0);
        let served =
            Served { header, handshake: 7, peer, reserved, worker: there(worker), stops: Stops::default() };
        let mut ends = Ends::default();
        ends.add(0, &What::Record(Record::Served(Box::new(served))));
        let mut join = Join::new(Rc::new(ends));
        join.learn(&What::Record(Record::Exchange(Box::new(exchange))));
        let gone = join.join(&mut exchange);
        assert_eq!(join.joined, 1);
        let (_, ahead_ns, _) = join.clocks().next().unwrap();
        assert!(ahead_ns.abs_diff(AHEAD.cast_signed()) < 100_000, "{ahead_ns}");
        (exchange, gone)
    }

    #[test]
    fn a_death_elsewhere_is_as_good_as_one_here() {
        let whole = killed(3_000, 15);
        let (exchange, gone) = joined(whole, &whole.worker);
        assert!(gone.is_none());
        assert!(exchange.worker.ended_ns.abs_diff(whole.worker.ended_ns) < 100_000);
        assert!(exchange.worker.ended_ns < exchange.nginx.ended_ns);
        assert_eq!(exchange.worker.signal.number, 15);
    }

    #[test]
    fn what_goes_on_after_nginx_gave_up_comes_at_its_time() {
        let whole = given_up(1_000);
        let mut worker = whole.worker;
        worker.ended_ns = at(5_000);
        let (exchange, gone) = joined(whole, &worker);
        let gone = gone.unwrap().worker;
        assert_eq!((exchange.worker.ended_ns, exchange.worker.has_socket), (0, 1));
        assert!(exchange.nginx.flags & nginx_flag::WORKER_ACCEPTED != 0);
        assert!(gone.ended_ns.abs_diff(at(5_000)) < 100_000 && gone.abandoned_ns == exchange.nginx.ended_ns);
    }
}
