//! The event loop of every command that traces.

use std::{future::pending, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};
use wire::{Aftermath, RING_BYTES};

use crate::{
    args::Trace,
    clock::monotonic_ns,
    failure::Failure,
    load::Tracer,
    memory,
    output::file,
    scope::{self, Beyond},
    source::Source,
    stream::Entry,
};

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Yes.
    GoOn,
    /// No: what was asked for has been reached.
    Over,
}

/// What is done with the stream.
pub trait Session {
    /// Takes in the next entry.
    ///
    /// # Errors
    /// If that ends the run.
    fn take(&mut self, entry: Entry) -> Result<Flow, Failure>;

    /// All that was there by `at_ns` has been taken in.
    ///
    /// # Errors
    /// If that ends the run.
    fn pause(&mut self, at_ns: u64) -> Result<Flow, Failure>;

    /// When `pause` is to be called at the latest (ns, monotonic).
    fn wake_ns(&self) -> Option<u64>;

    /// Whether SIGUSR1 is a demand; otherwise it stays what it is, the end of the process.
    fn takes_demands(&self) -> bool {
        false
    }

    /// The user demands something by SIGUSR1.
    fn demand(&mut self) {}
}

/// Starts an event loop for what runs in one.
///
/// # Errors
/// Of `run`, or if there can be no event loop.
pub fn run<T>(run: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the event loop cannot be started")?;
    runtime.block_on(run)
}

/// Loads and attaches everything.
///
/// # Errors
/// Where this host cannot be traced.
pub fn start(args: &Trace, beyond: Beyond, is_verbose: bool) -> Result<Source, Failure> {
    let mut tracer = Tracer::start(&scope::of(args, beyond)?)?;
    if args.copies {
        tracer.attach_copies()?;
    }
    if is_verbose {
        for (fact, reason) in &tracer.plan().missing {
            crate::notice!("without a hook for \"{}\": {reason}", fact.meaning());
        }
    }
    let (running, is_known) = match scope::running(args) {
        Ok(running) => (running, true),
        Err(error) => {
            crate::notice!(
                "which nginx runs already is not known, so that neither its word nor its logs nor its configuration are: /proc cannot \
                 be listed: {error}"
            );
            (Vec::new(), false)
        }
    };
    scope::greet(args, is_known.then_some(&running), tracer.listeners());
    for pid in &running {
        tracer.hear(*pid);
    }
    let source = Source::new(tracer, args, &running, beyond, is_verbose);
    memory::give_back();
    source
}

/// Tells whoever waits for it that the tracing has begun.
///
/// # Errors
/// If the file cannot be written.
pub fn is_ready(args: &Trace) -> Result<(), Failure> {
    if let Some(path) = &args.ready_file {
        file::replace(path, b"")?;
    }
    Ok(())
}

/// The signals that end a run.
#[derive(Debug)]
pub struct Ends {
    interrupt: Signal,
    terminate: Signal,
}

impl Ends {
    /// Watches for them from now on.
    ///
    /// # Errors
    /// If that is refused.
    pub fn watch() -> Result<Self, Failure> {
        let interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be watched")?;
        let terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be watched")?;
        Ok(Self { interrupt, terminate })
    }

    async fn come(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// How many records may wait in the ring buffer when a run ends: these are of before its end. What a storm adds meanwhile is not waited
/// for.
const MOST_WAITING: usize = RING_BYTES as usize / size_of::<Aftermath>();

/// Gives the stream to `session` until that has enough, the duration is over, or SIGINT or SIGTERM comes.
///
/// # Errors
/// Of the session, or if something fails on the way.
pub async fn follow(
    source: &mut Source,
    args: &Trace,
    ends: &mut Ends,
    session: &mut dyn Session,
) -> Result<(), Failure> {
    let mut demand = match session.takes_demands() {
        true => Some(signal(SignalKind::user_defined1()).context("SIGUSR1 cannot be watched")?),
        false => None,
    };
    is_ready(args)?;
    let end = args.duration.map(|duration| Instant::now() + duration);
    let mut flow = Flow::GoOn;
    let mut is_over = false;
    while flow == Flow::GoOn && !is_over {
        let wake = session.wake_ns();
        let wake = wake.map(|ns| Instant::now() + Duration::from_nanos(ns.saturating_sub(monotonic_ns())));
        let mut is_demanded = false;
        tokio::select! {
            ready = source.ready() => ready?,
            () = at(wake) => {}
            () = at(end) => is_over = true,
            () = ends.come() => is_over = true,
            Some(()) = async { match &mut demand { Some(demand) => demand.recv().await, None => pending().await } } => {
                is_demanded = true;
            }
        }
        if is_over {
            source.read_logs_now();
        }
        let mut any_number = usize::MAX;
        flow = hand_on(source, session, &mut any_number)?;
        if is_demanded {
            session.demand();
        }
    }
    let mut waiting = MOST_WAITING;
    while flow == Flow::GoOn && waiting > 0 && source.gave_way() {
        flow = hand_on(source, session, &mut waiting)?;
    }
    Ok(())
}

/// Hands on what there is to be read in one turn, and no more than `most` entries, which it counts down.
fn hand_on(source: &mut Source, session: &mut dyn Session, most: &mut usize) -> Result<Flow, Failure> {
    let mut flow = Flow::GoOn;
    let seen_ns = source.read(|entry| {
        *most = most.saturating_sub(1);
        flow = session.take(entry)?;
        Ok(flow == Flow::Over || *most == 0)
    })?;
    if flow == Flow::GoOn { session.pause(seen_ns) } else { Ok(flow) }
}

/// Waits for a moment, or for ever.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}
