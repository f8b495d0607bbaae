//! Threads apart: the only ones that may enter a network namespace, or be another user for a moment.
//!
//! One thread keeps what that takes, waits for work, and has each piece done by a thread that it starts for it, which has the same
//! privileges, and whose namespace and user nobody else shares. A thread is no wall against whoever makes another thread of this process
//! execute what he likes; it is one against whatever these others do by mistake.

use std::{
    any::Any,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        OnceLock,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use super::{capabilities, confined, seccomp::Filter};
use crate::model::privileges::kept;

/// Pieces of work that may wait to be begun.
const WAITING: usize = 8;

type Work = Box<dyn FnOnce() + Send>;

/// A thread to be started: its name, what it does, and whether it could be.
type Order = (&'static str, Work, SyncSender<io::Result<()>>);

static ORDERS: OnceLock<SyncSender<Order>> = OnceLock::new();

/// Starts what starts threads apart, as long as the calling thread still has what these keep. Returns what could not be had, in words.
pub(super) fn start(writes_elsewhere: bool, mounts: bool) -> Vec<String> {
    let (send, orders) = sync_channel::<Order>(WAITING);
    let (reply, lacking) = sync_channel(1);
    let started = thread::Builder::new().name("apart".to_owned()).spawn(move || {
        let lacking = confined(|| capabilities::keep(kept(true, writes_elsewhere)), &Filter::apart(mounts));
        // Whoever started it waits for this.
        let _heard = reply.send(lacking);
        obey(&orders);
    });
    match started {
        Ok(_runs_on) => {
            // A second run in one process keeps to the first one's.
            let _only_once = ORDERS.set(send);
            lacking.recv().unwrap_or_default()
        }
        Err(error) => vec![format!("no thread can be set apart: {error}")],
    }
}

fn obey(orders: &Receiver<Order>) {
    for (name, work, reply) in orders {
        let started = thread::Builder::new().name(name.to_owned()).spawn(work).map(drop);
        // It may have waited no longer.
        let _heard = reply.send(started);
    }
}

/// Starts a thread apart, or, where nothing has been given up, just a thread.
///
/// # Errors
/// If it cannot be started.
pub fn spawn(name: &'static str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    order(name, Box::new(work))
}

fn order(name: &'static str, work: Work) -> io::Result<()> {
    let Some(orders) = ORDERS.get() else {
        return thread::Builder::new().name(name.to_owned()).spawn(work).map(drop);
    };
    let (reply, started) = sync_channel(1);
    let ended = || io::Error::other("what starts threads apart has ended");
    orders.send((name, work, reply)).map_err(|_unsent| ended())?;
    started.recv().map_err(|_dropped| ended())?
}

/// What one piece of work is, and to whom its result goes. The work goes first when this is dropped, and the result is sent once the work is
/// over: whoever waits for one or the other knows that nothing of the work is left.
struct Piece<F, T> {
    work: F,
    reply: SyncSender<thread::Result<T>>,
}

impl<F: FnOnce() -> T, T> Piece<F, T> {
    fn run(self) {
        let Self { work, reply } = self;
        let done = catch_unwind(AssertUnwindSafe(work));
        let _awaited = reply.send(done);
    }
}

/// Runs `work` in a thread apart, whose identity and namespaces nobody else has, and waits for it.
///
/// # Errors
/// If it panics, or there can be no such thread.
pub fn apart<'a, T: Send + 'a>(work: impl FnOnce() -> T + Send + 'a) -> thread::Result<T> {
    let (reply, done) = sync_channel(1);
    let piece = Piece { work, reply };
    let work: Box<dyn FnOnce() + Send + 'a> = Box::new(move || piece.run());
    // SAFETY: what `work` borrows outlives it. This function returns after `done` has given a result, which is sent when the work has been
    // consumed, or after its other end was dropped, which is when the whole piece has been.
    let work = unsafe { std::mem::transmute::<Box<dyn FnOnce() + Send + 'a>, Work>(work) };
    let started = order("apart", work);
    match (done.recv(), started) {
        (Ok(done), _) => done,
        (Err(_dropped), Err(error)) => Err(Box::new(error) as Box<dyn Any + Send>),
        (Err(dropped), Ok(())) => Err(Box::new(dropped)),
    }
}
