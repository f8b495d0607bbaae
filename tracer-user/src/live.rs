//! `why502 live`: trace, and write each verdict as it comes.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use bytes::Bytes;
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    time::{Instant, interval, sleep, sleep_until},
};
use tracer_ebpf::{COMM_LEN, Endpoint, Filters, PATH_LEN};

use crate::{
    args::{Format, Live, UpstreamFilter},
    audit::{self, Audit},
    cause::{Cause, Context, Outcome, afterwards, attribute},
    clock::{SystemClock, monotonic_ns},
    decode::decode,
    facts::Sources,
    failure::Failure,
    ledger::{Joined, Ledger, Whole},
    load::{Scope, Tracer},
    output::{Json, Look, Output, Text},
    sample::Sampler,
    verdict::Summary,
};

/// Open exchanges that are watched at a time; the kernel side's maps take about 1 KiB for each.
const MAX_OPEN: u32 = 16_384;

/// How long after its last read a connection that nginx closes counts as plainly finished. nginx closes a finished
/// exchange in the very turn of its loop that read the end, and its own timeouts are seconds long.
const SETTLE: Duration = Duration::from_millis(500);

/// How often the kernel side's counters are looked at while nothing fails.
const TICK: Duration = Duration::from_secs(1);

/// Runs until the duration is over, the count is reached, or SIGINT or SIGTERM comes.
///
/// # Errors
/// Where this host cannot be traced, or something fails on the way. A closed standard output is no error.
pub fn run(args: &Live) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the event loop cannot be started")?;
    runtime.block_on(trace(args))
}

async fn trace(args: &Live) -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be watched")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be watched")?;
    let scope = scope(args)?;
    let mut audit = Audit::open(args)?;
    let mut tracer = Tracer::start(&scope)?;
    if let Some(audit) = &mut audit {
        audit.begin();
    }
    if args.verbose {
        for (fact, reason) in &tracer.plan().missing {
            eprintln!("why502: without a hook for \"{}\": {reason}", fact.meaning());
        }
    }
    greet(args, &tracer);
    if let Some(path) = &args.ready_file {
        fs::write(path, "").with_context(|| format!("{} cannot be written", path.display()))?;
    }
    // SAFETY: the ring buffer owns its descriptor and keeps it open until both are dropped together.
    let mut ring = unsafe { AsyncFd::register_with_interest(tracer.take_ring()?, Interest::READABLE) }
        .context("the ring buffer cannot be watched")?;
    let open = tracer.take_open()?;
    let sampler = Sampler::start(move |moment_ns| open.served_since(moment_ns))
        .context("slow workers cannot be looked at")?;
    let mut run = Run::new(args, sampler, tracer.plan().sources.clone(), audit);
    let mut tick = interval(TICK);
    let mut look = interval(audit::PERIOD);
    let mut unix_is_refused = false;
    let end = args.duration.map(|duration| Instant::now() + duration);
    let mut is_over = false;
    while !is_over {
        let patience = run
            .ledger
            .next_deadline()
            .map(|deadline| Instant::now() + Duration::from_nanos(deadline.saturating_sub(monotonic_ns())));
        tokio::select! {
            guard = ring.readable_mut() => {
                guard.context("the ring buffer cannot be read")?.clear_ready();
            }
            () = at(patience) => {}
            _ = tick.tick() => if watch_unix(&mut tracer, args, &mut unix_is_refused)? {
                run.sources = tracer.plan().sources.clone();
            },
            _ = look.tick(), if run.audit.is_some() => run.read_logs(),
            () = at(end) => is_over = true,
            _ = interrupt.recv() => is_over = true,
            _ = terminate.recv() => is_over = true,
        }
        run.notice_losses(&tracer)?;
        let batch = || -> io::Result<bool> {
            while let Some(record) = ring.get_mut().next() {
                if run.take(&Bytes::copy_from_slice(&record))? {
                    return Ok(true);
                }
            }
            let overdue = if is_over { run.ledger.drain() } else { run.ledger.overdue(monotonic_ns()) };
            let mut reached = false;
            for whole in overdue {
                reached |= run.tell(whole)?;
            }
            run.output.flush()?;
            Ok(reached)
        };
        match quietly(batch) {
            Written::Done(reached) => is_over |= reached,
            Written::Closed => return Ok(()),
            Written::Failed(error) => {
                return Err(Failure::Run(
                    anyhow::Error::from(error).context("standard output cannot be written"),
                ));
            }
        }
    }
    let report = run.end_audit(&mut ring).await;
    run.notice_losses(&tracer)?;
    let summary = run.summary(&tracer)?;
    let last_words = || {
        if let Some(report) = &report {
            run.output.audit(report)?;
        }
        run.output.summary(&summary)?;
        run.output.flush()
    };
    match quietly(last_words) {
        Written::Done(()) | Written::Closed => Ok(()),
        Written::Failed(error) => {
            Err(Failure::Run(anyhow::Error::from(error).context("standard output cannot be written")))
        }
    }
}

/// Watches unix sockets from when they are seen to be in use. Returns whether that began now. A kernel that refuses is told of
/// once, and tracing goes on without.
fn watch_unix(tracer: &mut Tracer, args: &Live, is_refused: &mut bool) -> Result<bool, Failure> {
    let wants_unix = |upstream: &UpstreamFilter| matches!(upstream, UpstreamFilter::Unix(_));
    let is_wanted = args.upstreams.is_empty() || args.upstreams.iter().any(wants_unix);
    if *is_refused || !is_wanted || tracer.stats()?.unix_seen == 0 {
        return Ok(false);
    }
    match tracer.trace_system_calls() {
        Ok(begins) => {
            if begins && args.verbose {
                eprintln!(
                    "why502: unix-socket upstreams are in use: watching connect and close, which slows every system call of \
                     this host a little"
                );
            }
            Ok(begins)
        }
        Err(failure) => {
            *is_refused = true;
            eprintln!("why502: unix-socket upstreams are in use and cannot be watched here: {failure}");
            Ok(false)
        }
    }
}

/// How writing went.
enum Written<T> {
    Done(T),
    /// The reader has gone: `| head` has what it wanted.
    Closed,
    Failed(io::Error),
}

fn quietly<T>(write: impl FnOnce() -> io::Result<T>) -> Written<T> {
    match write() {
        Ok(value) => Written::Done(value),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Written::Closed,
        Err(error) => Written::Failed(error),
    }
}

/// Waits for a moment, or for ever.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// What a run has come to so far.
struct Run {
    ledger: Ledger,
    sampler: Sampler,
    sources: Sources,
    output: Box<dyn Output>,
    started_ns: u64,
    failures: BTreeMap<Cause, u64>,
    delayed: u64,
    lost: u64,
    /// Exchanges that began before this moment (ns, monotonic) may lack facts.
    last_loss_ns: u64,
    limit: Option<u64>,
    audit: Option<Audit>,
}

impl Run {
    fn new(args: &Live, sampler: Sampler, sources: Sources, audit: Option<Audit>) -> Self {
        let stdout = io::BufWriter::new(io::stdout());
        let output: Box<dyn Output> = match args.output {
            Format::Json => Box::new(Json::new(stdout)),
            Format::Text => Box::new(Text::new(stdout, Look::of_stdout(args.verbose))),
        };
        Self {
            ledger: Ledger::default(),
            sampler,
            sources,
            output,
            started_ns: monotonic_ns(),
            failures: BTreeMap::new(),
            delayed: 0,
            lost: 0,
            last_loss_ns: 0,
            limit: args.count.map(Into::into),
            audit,
        }
    }

    /// Takes in one record of the ring buffer. Returns whether the run is over.
    fn take(&mut self, bytes: &Bytes) -> io::Result<bool> {
        match decode(bytes) {
            Ok(record) => match self.ledger.take(record) {
                Some(whole) => self.tell(whole),
                None => Ok(false),
            },
            Err(error) => {
                eprintln!("why502: a record was passed over: {error}");
                self.lost += 1;
                self.last_loss_ns = monotonic_ns();
                Ok(false)
            }
        }
    }

    /// Writes what became whole. Returns whether the run is over.
    fn tell(&mut self, whole: Whole) -> io::Result<bool> {
        if self.is_full() {
            self.explain(&whole);
            return Ok(true);
        }
        match whole {
            Whole::Exchange(mut exchange) => {
                exchange.activity = self.sampler.take(&exchange.nginx);
                self.tell_exchange(&exchange)
            }
            Whole::Afterwards(end) => {
                self.output.after(&afterwards(&end, &SystemClock))?;
                Ok(false)
            }
        }
    }

    fn tell_exchange(&mut self, exchange: &Joined) -> io::Result<bool> {
        let context = Context {
            clock: &SystemClock,
            sources: &self.sources,
            evidence_lost: exchange.nginx.connect_ns <= self.last_loss_ns,
        };
        match attribute(exchange, &context) {
            Outcome::Failed(verdict) => {
                *self.failures.entry(verdict.cause).or_default() += 1;
                self.output.verdict(&verdict)?;
                if let Some(audit) = &mut self.audit {
                    audit.verdict(&verdict);
                }
            }
            Outcome::Delayed(delayed) => {
                self.delayed += 1;
                self.output.delayed(&delayed)?;
            }
            Outcome::Well => {}
        }
        Ok(self.is_full())
    }

    /// Whether all the failures that were asked for have been told.
    fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.failures.values().sum::<u64>() >= limit)
    }

    fn read_logs(&mut self) {
        if let Some(audit) = &mut self.audit {
            audit.read();
        }
    }

    /// Lets the audit know what is no longer told.
    fn explain(&mut self, whole: &Whole) {
        let context = Context { clock: &SystemClock, sources: &self.sources, evidence_lost: false };
        if let (Some(audit), Whole::Exchange(exchange)) = (&mut self.audit, whole)
            && let Outcome::Failed(verdict) = attribute(exchange, &context)
        {
            audit.untold(&verdict);
        }
    }

    /// Ends the audit, with a little time for what is only half there: a line, or a verdict.
    async fn end_audit(&mut self, ring: &mut AsyncFd<RingBuf<MapData>>) -> Option<audit::Report> {
        self.audit.as_mut()?.end();
        let deadline = Instant::now() + audit::GRACE;
        while Instant::now() < deadline && !self.audit.as_ref()?.is_complete() {
            sleep(audit::PERIOD / 10).await;
            while let Some(record) = ring.get_mut().next() {
                let record = Bytes::copy_from_slice(&record);
                if let Some(whole) = decode(&record).ok().and_then(|record| self.ledger.take(record)) {
                    self.explain(&whole);
                }
            }
            self.read_logs();
        }
        for whole in self.ledger.drain() {
            self.explain(&whole);
        }
        self.audit.take().map(Audit::finish)
    }

    fn notice_losses(&mut self, tracer: &Tracer) -> Result<(), Failure> {
        let stats = tracer.stats()?;
        let lost = stats.lost + stats.workers_untracked;
        if lost > self.lost {
            self.lost = lost;
            self.last_loss_ns = monotonic_ns();
        }
        Ok(())
    }

    fn summary(&self, tracer: &Tracer) -> Result<Summary, Failure> {
        let stats = tracer.stats()?;
        Ok(Summary {
            elapsed_ns: monotonic_ns() - self.started_ns,
            exchanges: stats.exchanges,
            failures: self.failures.iter().map(|(cause, count)| (*cause, *count)).collect(),
            delayed: self.delayed,
            lost: self.lost,
            untracked: stats.untracked,
        })
    }
}

/// What the user asked for, as the kernel side takes it.
fn scope(args: &Live) -> Result<Scope, Failure> {
    if let Some(pid) = args.pid
        && !fs::exists(format!("/proc/{pid}")).unwrap_or(false)
    {
        return Err(Failure::Run(anyhow::anyhow!("no process has pid {pid}")));
    }
    let mut comm = [0; COMM_LEN];
    if let Some(name) = args.comm() {
        comm[..name.len()].copy_from_slice(name.as_bytes());
    }
    let (mut upstreams, mut paths) = (Vec::new(), Vec::new());
    for filter in &args.upstreams {
        match filter {
            UpstreamFilter::Address(address) => upstreams.push(endpoint(*address)),
            UpstreamFilter::Port(port) => upstreams.push(Endpoint { addr: [0; 4], port: *port, family: 0 }),
            UpstreamFilter::Unix(path) => paths.push(sun_path(path)),
        }
    }
    let filters = Filters {
        comm,
        pid: args.pid.unwrap_or(0),
        upstreams: u32::from(!args.upstreams.is_empty()),
        own_pid: std::process::id(),
        settle_ms: u32::try_from(SETTLE.as_millis()).unwrap_or(u32::MAX),
    };
    let (connect_errors, only) = (args.connect_errors, args.hooks_only.clone());
    Ok(Scope { filters, upstreams, paths, connect_errors, only, max_open: MAX_OPEN })
}

/// An address as the kernel side takes it; IPv4 is mapped into IPv6.
fn endpoint(address: SocketAddr) -> Endpoint {
    let octets = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut addr = [0; 4];
    for (word, bytes) in addr.iter_mut().zip(octets.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    Endpoint { addr, port: address.port(), family: 0 }
}

/// A path as `struct sockaddr_un` has it. The command line has checked its length.
fn sun_path(path: &Path) -> [u8; PATH_LEN] {
    let mut sun_path = [0; PATH_LEN];
    for (byte, from) in sun_path.iter_mut().zip(path.as_os_str().as_bytes()) {
        *byte = *from;
    }
    sun_path
}

/// Tells on standard error what is being traced.
fn greet(args: &Live, tracer: &Tracer) {
    let who = match (args.pid, args.comm()) {
        (Some(pid), _) => format!("process {pid} and its children"),
        (None, Some(name)) => {
            if !is_running(name) {
                eprintln!("why502: no process named {name} runs so far; tracing anyway, for when one does");
            }
            format!("processes named {name}")
        }
        (None, None) => "every process".to_owned(),
    };
    eprintln!("why502: tracing {who}; {} listening sockets known; Ctrl-C ends", tracer.listeners());
}

fn is_running(name: &str) -> bool {
    procfs::process::all_processes().is_ok_and(|mut all| {
        all.any(|process| process.and_then(|process| process.stat()).is_ok_and(|stat| stat.comm == name))
    })
}
