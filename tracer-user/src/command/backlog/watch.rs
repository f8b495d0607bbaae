//! The run: reads what the kernel side says, and hands on what it amounts to.

use std::{
    collections::{HashMap, HashSet},
    io,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    task::yield_now,
    time::{Interval, interval},
};
use wire::accept_queue::{Listener, RING_BYTES, Stats, Victim};

use super::{
    Balance, Outcome, Overflow, Queue,
    choice::Choice,
    closed::Closed,
    output::{Json, Moment, Output, Summary, Text},
    reconcile::Books,
    verify::{Check, Scene, checks},
};
use crate::{
    args::{Backlog as Args, Format},
    engine::{self, Ends, Flow, Ring, Session},
    load::{Backlog, Clients, Symbols},
    memory,
    model::{budget, clock::monotonic_ns, facts::Fact, failure::Failure, words::count},
    procfs::trust::Trust,
    queues::{Name, Owners, Record, at_the_end, decode, is_unix, judged},
    sink::Look,
    terminal,
};

/// How often the listeners are emitted.
const TICK: Duration = Duration::from_secs(1);

/// How often it is looked who is to be believed to be nginx.
const TRUST: Duration = Duration::from_secs(10);

/// How long claims are verified, unless the command line says otherwise.
const VERIFIED: Duration = Duration::from_secs(10);

/// Watches until the duration is over, or SIGINT or SIGTERM comes.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    engine::run(watch(args))
}

async fn watch(args: &Args) -> Result<(), Failure> {
    let mut ends = Ends::watch()?;
    let mut watching = Watching::start(args)?;
    watching.greet();
    let run = engine::Run {
        duration: args.duration.or(args.verify.then_some(VERIFIED)),
        ready_file: args.ready_file.as_deref(),
    };
    engine::follow(&mut watching, run, &mut ends).await
}

/// What a run has come to so far.
struct Watching<'a> {
    args: &'a Args,
    backlog: Backlog,
    ring: Ring,
    tick: Interval,
    /// A second has passed.
    is_time: bool,
    /// There is more to be read already.
    has_more: bool,
    /// None where the user said himself who counts as nginx.
    trust: Option<Trust>,
    owners: Owners,
    books: Books,
    choice: Choice,
    output: Box<dyn Output>,
    started_ns: u64,
    /// The listeners as they were looked at last.
    queues: Vec<Queue>,
    /// Those that were closed.
    closed: Closed,
    /// Both, and those whose end is still to be read, as far as they are kept: each as it was seen last.
    known: HashMap<Name, Queue>,
    /// Victims of listeners that no look has shown, with what is to be emitted of them: the record of such a one's end is on its way.
    early: Vec<(Victim, Option<Outcome>)>,
    victims: u64,
    passed_over: u64,
}

impl Session for Watching<'_> {
    async fn ready(&mut self) -> Result<(), Failure> {
        tokio::select! {
            // Only so does the event loop look for signals meanwhile.
            () = yield_now(), if self.has_more => {}
            ready = self.ring.ready() => ready?,
            _ = self.tick.tick() => self.is_time = true,
        }
        Ok(())
    }

    fn turn(&mut self, is_last: bool) -> Result<Flow, Failure> {
        terminal::written(self.batch(is_last))?;
        Ok(Flow::GoOn)
    }
}

impl<'a> Watching<'a> {
    fn start(args: &'a Args) -> Result<Self, Failure> {
        let clients = Clients { comm: args.comm(), pid: None, trusts_all: args.comm.is_some() };
        let mut backlog = Backlog::start(Symbols::read(), clients, &args.hooks_only)?;
        let ring = Ring::watch(backlog.take_ring()?)?;
        let trust = match args.comm {
            Some(_) => None,
            None => Some(Trust::new(args.comm(), TRUST, backlog.take_masters()?)),
        };
        let owners = Owners::of_all(&mut backlog);
        let choice = Choice::new(args);
        let output: Box<dyn Output> = match args.output {
            Format::Json => Box::new(Json::new(terminal::json())),
            Format::Text => {
                let look = Look::of_stdout(false);
                Box::new(Text::new(terminal::text(), look, look.details && args.duration.is_none()))
            }
        };
        let mut watching = Self {
            args,
            backlog,
            ring,
            tick: interval(TICK),
            is_time: false,
            has_more: false,
            trust,
            owners,
            books: Books::default(),
            choice,
            output,
            started_ns: monotonic_ns(),
            queues: Vec::new(),
            closed: Closed::default(),
            known: HashMap::new(),
            early: Vec::new(),
            victims: 0,
            passed_over: 0,
        };
        watching.look_at_strangers();
        memory::give_back();
        watching.look();
        Ok(watching)
    }

    /// Reports on standard error what is watched, and what this kernel does not show.
    fn greet(&self) {
        let which = match &self.choice {
            Choice::All => "every listener".to_owned(),
            Choice::These(filters) => {
                let names: Vec<String> = filters.iter().map(ToString::to_string).collect();
                names.join(", ")
            }
            Choice::Nginx(_) => {
                format!(
                    "the listeners that {} passes requests on to, by its configuration or by its connections, and php-fpm's pools (--all for \
                     every listener)",
                    self.args.comm()
                )
            }
        };
        crate::notice!("watching {which}; {} known on this host; Ctrl-C ends", self.queues.len());
        for (fact, reason) in &self.backlog.plan().missing {
            let instead = match fact {
                Fact::SynDrops => {
                    "who meets a full queue at its SYN has no name here, and is not counted per listener"
                }
                Fact::HandshakeDrops => "who meets a full queue at the end of its handshake is not seen here",
                Fact::Accepts => "how long connections wait to be accepted is not seen here",
                Fact::UnixSockets => "who meets a unix socket's full queue is not seen here",
                _ => "some victims on this host have no process's name",
            };
            crate::notice!("{instead}: {reason}");
        }
        if let Err(reason) = self.backlog.unix_arrivals()
            && self.backlog.plan().missing.iter().any(|(fact, _)| *fact == Fact::UnixSockets)
        {
            crate::notice!("the queues of unix sockets are not seen here: {reason}");
        }
    }

    /// Finds out who is to be believed to be nginx, now and then.
    fn look_at_strangers(&mut self) {
        if let Some(trust) = self.trust.as_mut().filter(|trust| trust.may_look()) {
            // Nobody is left out here: a stranger's connections are only not called nginx's.
            if let Err(error) = trust.look() {
                crate::notice!("who is called nginx cannot be looked up: {error}");
            }
        }
    }

    /// Looks at every listener, and learns what is new about them.
    fn look(&mut self) {
        let listeners = self.backlog.listeners();
        self.owners.follow(&listeners, &mut self.backlog);
        let mut socks: HashMap<u32, Vec<u64>> = HashMap::new();
        for listener in listeners.iter().filter(|listener| !is_unix(listener)) {
            socks.entry(listener.netns).or_default().push(listener.sock);
        }
        for listener in &listeners {
            let holder = self.owners.of(listener.inode);
            // Those of that namespace only: there may be as many of these as there are listeners.
            let there = socks.get(&listener.netns).map_or(&[][..], Vec::as_slice);
            let seen = || there.iter().filter_map(|sock| self.backlog.listener(*sock)).map(drops).sum();
            self.books.open(listener.netns, listener.inode, holder, seen);
        }
        let now = monotonic_ns();
        let mut queues: Vec<Queue> = listeners.iter().map(|listener| self.queue(listener, now)).collect();
        queues.sort_by(|a, b| (&a.addr, a.netns, a.since_ns).cmp(&(&b.addr, b.netns, b.since_ns)));
        for queue in &queues {
            self.known.insert(queue.name(), queue.clone());
        }
        self.choice.learn(&queues, self.args.comm());
        self.queues = queues;
        self.forget();
    }

    /// Forgets those that are no more and whose end was not read: some records are lost.
    fn forget(&mut self) {
        if self.known.len() <= self.queues.len() + 2 * budget::CLOSED_LISTENERS {
            return;
        }
        let open: HashSet<Name> = self.queues.iter().map(Queue::name).collect();
        self.known.retain(|name, _| open.contains(name) || self.closed.has(*name));
    }

    fn queue(&self, listener: &Listener, now_ns: u64) -> Queue {
        let holder = self.owners.of(listener.inode);
        let owner = holder.map(|holder| holder.process.clone());
        let cgroup = holder.and_then(|holder| holder.cgroup.clone());
        Queue { cgroup, ..Queue::of(listener, now_ns, owner, self.books.somaxconn(listener.netns)) }
    }

    fn bury_unix_listeners(&mut self) -> io::Result<()> {
        for listener in self.owners.bury(&self.backlog.listeners(), &mut self.backlog) {
            let queue = self.queue(&listener, monotonic_ns());
            self.close(queue)?;
        }
        Ok(())
    }

    fn close(&mut self, mut queue: Queue) -> io::Result<()> {
        // Whoever owned it may be gone by now.
        let known = self.known.get(&queue.name());
        queue.owner = queue.owner.or_else(|| known?.owner.clone());
        let name = queue.name();
        self.known.insert(name, queue.clone());
        let is_its = |(victim, _): &mut (Victim, _)| (victim.listener, victim.listener_since_ns) == name;
        for (victim, outcome) in self.early.extract_if(.., is_its).collect::<Vec<_>>() {
            self.emit(&victim, outcome)?;
        }
        let Some(forgotten) = self.closed.push(queue, |queue| self.choice.has(queue)) else { return Ok(()) };
        if !self.closed.has(forgotten.name()) {
            self.known.remove(&forgotten.name());
        }
        if self.choice.has(&forgotten) { self.output.forgotten(&forgotten) } else { Ok(()) }
    }

    /// Takes in what is there, and hands on what is to be emitted of it.
    fn batch(&mut self, is_last: bool) -> io::Result<()> {
        self.has_more = !self.take_all()?;
        if is_last {
            self.end()?;
        } else if std::mem::take(&mut self.is_time) {
            self.second()?;
        }
        self.output.flush()
    }

    /// Takes in what waits in the ring buffer by now. Returns whether nothing is left: in a storm there is always more, and yet signals and
    /// deadlines must have their turn.
    fn take_all(&mut self) -> io::Result<bool> {
        let mut taken = 0;
        while taken < RING_BYTES as usize {
            let Some(bytes) = self.ring.take() else { return Ok(true) };
            taken += bytes.len();
            self.take(&bytes)?;
        }
        Ok(false)
    }

    /// Takes in one record of the ring buffer.
    fn take(&mut self, bytes: &Bytes) -> io::Result<()> {
        match decode(bytes) {
            Ok(Record::Ended(victim)) => self.emit(&victim, None),
            Ok(Record::Closed(listener)) => {
                let queue = self.queue(&listener, monotonic_ns());
                self.close(queue)
            }
            Err(error) => {
                crate::notice!("a record was passed over: {error}");
                self.passed_over += 1;
                Ok(())
            }
        }
    }

    /// Emits a victim, if its listener is one that is emitted.
    fn emit(&mut self, victim: &Victim, outcome: Option<Outcome>) -> io::Result<()> {
        let name = (victim.listener, victim.listener_since_ns);
        if !self.known.contains_key(&name) {
            self.look();
        }
        let Some(queue) = self.known.get(&name) else {
            if self.early.len() < budget::CLOSED_LISTENERS {
                self.early.push((*victim, outcome));
            } else {
                self.pass_over(1);
            }
            return Ok(());
        };
        let overflow = Overflow::of(victim, &queue.addr, queue.netns, outcome, self.args.comm());
        // nginx may have connected since the listener was looked at.
        if !overflow.is_nginx && !self.choice.has(queue) {
            return Ok(());
        }
        self.victims += 1;
        self.output.overflow(&overflow)
    }

    /// So many victims have no listener that is known.
    fn pass_over(&mut self, victims: usize) {
        if victims > 0 {
            crate::notice!(
                "{} met the full queue of a listener that is gone",
                count(victims as u64, "connection")
            );
            self.passed_over += victims as u64;
        }
    }

    /// Each listener once; one that was closed as it was then, should it have been looked at just before.
    fn all(&self) -> Vec<&Queue> {
        let open = self.queues.iter().filter(|queue| !self.closed.has(queue.name()));
        open.chain(self.closed.iter()).collect()
    }

    fn chosen<'b>(&self, queues: impl IntoIterator<Item = &'b Queue>) -> Vec<Queue> {
        queues.into_iter().filter(|queue| self.choice.has(queue)).cloned().collect()
    }

    /// A second has passed.
    fn second(&mut self) -> io::Result<()> {
        self.look_at_strangers();
        self.bury_unix_listeners()?;
        self.look();
        self.output.queues(&self.chosen(&self.queues), Moment::Running)?;
        let now = monotonic_ns();
        self.emit_open(|victim| judged(victim, now))
    }

    /// Emits each victim whose fate the kernel side left open and of which there is something to say.
    fn emit_open(&mut self, outcome: impl Fn(&Victim) -> Option<Outcome>) -> io::Result<()> {
        for (key, victim) in self.backlog.victims() {
            if let Some(outcome) = outcome(&victim)
                && self.backlog.forget(&key)
            {
                self.emit(&victim, Some(outcome))?;
            }
        }
        Ok(())
    }

    /// It is over: what is open is emitted as it stands, and the sums are held against the kernel's.
    fn end(&mut self) -> io::Result<()> {
        let balances = self.balance()?;
        self.emit_open(|victim| Some(at_the_end(victim)))?;
        // Those that ended while the sums were looked at.
        self.take_all()?;
        let early = std::mem::take(&mut self.early).len();
        self.pass_over(early);
        let last = self.chosen(self.all());
        self.output.queues(&last, Moment::Last)?;
        self.output.balance(&balances)?;
        if self.args.verify {
            let checks = self.verify(&last);
            self.output.checks(&checks)?;
        }
        let stats = self.backlog.stats().unwrap_or_else(|error| {
            crate::notice!("{error}");
            Stats::default()
        });
        self.output.summary(&Summary {
            elapsed_ns: monotonic_ns() - self.started_ns,
            listeners: last.len() + self.closed.forgotten_emitted(),
            forgotten: self.closed.forgotten(),
            victims: self.victims,
            unnamed: stats.victims_untracked,
            lost: stats.lost
                + stats.returns_missed
                + stats.clients_unkept
                + stats.waits_unkept
                + self.passed_over,
            unattributed: stats.unattributed,
            unwatched: stats.listeners_untracked,
            uncompared: self.books.left_out() + self.closed.left_out(),
        })
    }

    fn verify(&self, emitted: &[Queue]) -> Vec<Check> {
        let scene = Scene {
            queues: &self.queues,
            emitted,
            books: &self.books,
            comm: self.args.comm(),
            fpm_pools: &self.args.fpm_pools,
        };
        let mut depth_of = |queue: &Queue| {
            let now = self.backlog.listeners();
            now.iter().find(|now| (now.sock, now.since_ns) == queue.name()).map(|now| now.depth)
        };
        checks(&scene, &mut depth_of)
    }

    /// Holds the sums against the kernel's, at a moment when nothing was counted meanwhile if there is one.
    fn balance(&mut self) -> io::Result<Vec<Balance>> {
        const TRIES: usize = 5;
        let mut balances = Vec::new();
        for _ in 0..TRIES {
            let before = self.seen()?;
            let all: Vec<Queue> = self.all().into_iter().cloned().collect();
            let queues = all.iter().map(|queue| (queue, self.choice.has(queue)));
            balances = self.books.close(queues, self.closed.sums());
            if self.seen()? == before {
                break;
            }
        }
        Ok(balances)
    }

    /// How many packets were seen to meet a full queue by now, also of listeners that were closed before they were looked at.
    fn seen(&mut self) -> io::Result<u64> {
        self.look();
        self.take_all()?;
        Ok(self.all().into_iter().map(Queue::overflows).sum())
    }
}

/// How many packets were seen to meet a TCP listener's full queue.
fn drops(listener: Listener) -> u64 {
    listener.syn_drops + listener.ack_drops
}
