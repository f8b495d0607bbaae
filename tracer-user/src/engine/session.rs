//! The event loop: signals, the run's duration, deadlines and demands.

use std::{future::pending, path::Path, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};

use crate::{
    file,
    model::{clock::monotonic_ns, failure::Failure},
};

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Yes.
    GoOn,
    /// No: what was asked for has been reached.
    Over,
}

/// What runs in the event loop.
pub trait Session {
    /// Waits until there may be something to do. It can be dropped while it waits.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn ready(&mut self) -> impl Future<Output = Result<(), Failure>>;

    /// Does what there is to be done by now, and lets others have their turn; `is_last` if the run is over, by its duration or a signal.
    ///
    /// # Errors
    /// If that ends the run.
    fn turn(&mut self, is_last: bool) -> Result<Flow, Failure>;

    /// When `turn` is to be called at the latest (ns, monotonic).
    fn wake_ns(&self) -> Option<u64> {
        None
    }

    /// Whether SIGUSR1 is a demand; otherwise it stays what it is, the end of the process.
    fn takes_demands(&self) -> bool {
        false
    }

    /// The user demands something by SIGUSR1.
    fn demand(&mut self) {}

    /// Whether SIGHUP asks for the configuration to be read again; otherwise it stays what it is, the end of the process.
    fn takes_reloads(&self) -> bool {
        false
    }

    /// The user has changed the configuration.
    fn reload(&mut self) {}
}

/// How long a session runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run<'a> {
    /// So long at most; else until it has enough, or a signal comes.
    pub duration: Option<Duration>,
    /// Made as soon as it has begun, for whoever waits for that.
    pub ready_file: Option<&'a Path>,
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

/// Runs a session until it has enough, the duration is over, or SIGINT or SIGTERM comes.
///
/// # Errors
/// Of the session, or if something fails on the way.
pub async fn follow(session: &mut impl Session, run: Run<'_>, ends: &mut Ends) -> Result<(), Failure> {
    let mut demand = match session.takes_demands() {
        true => Some(signal(SignalKind::user_defined1()).context("SIGUSR1 cannot be watched")?),
        false => None,
    };
    let mut hangup = match session.takes_reloads() {
        true => Some(signal(SignalKind::hangup()).context("SIGHUP cannot be watched")?),
        false => None,
    };
    if let Some(path) = run.ready_file {
        file::replace(path, b"")?;
    }
    let end = run.duration.map(|duration| Instant::now() + duration);
    let mut flow = Flow::GoOn;
    let mut is_over = false;
    while flow == Flow::GoOn && !is_over {
        let wake = session.wake_ns();
        let wake = wake.map(|ns| Instant::now() + Duration::from_nanos(ns.saturating_sub(monotonic_ns())));
        let (mut is_demanded, mut is_reloaded) = (false, false);
        tokio::select! {
            ready = session.ready() => ready?,
            () = at(wake) => {}
            () = at(end) => is_over = true,
            () = ends.come() => is_over = true,
            () = comes(&mut demand) => is_demanded = true,
            () = comes(&mut hangup) => is_reloaded = true,
        }
        flow = session.turn(is_over)?;
        if is_demanded {
            session.demand();
        }
        if is_reloaded {
            session.reload();
        }
    }
    Ok(())
}

/// Waits for a signal, or for ever where it is not watched.
async fn comes(signal: &mut Option<Signal>) {
    let has_come = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if has_come.is_none() {
        pending().await
    }
}

/// Waits for a moment, or for ever.
pub async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}
