//! Waiting for a state to come about, with a bound that only a hang reaches.

use std::env;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How many times slower than real hardware this machine may be: `RIG_PATIENCE`, which is set where the processor is
/// emulated.
pub fn patience() -> u32 {
    static PATIENCE: OnceLock<u32> = OnceLock::new();
    *PATIENCE.get_or_init(|| env::var("RIG_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1))
}

/// How much of a load of this many requests a machine so slow is given, so that it is the same load to it; an even number. All of it where
/// `RIG_FULL_LOAD` is set.
pub fn load(count: usize) -> usize {
    if env::var_os("RIG_FULL_LOAD").is_some() { count } else { count / patience() as usize / 2 * 2 }
}

/// How long anything may take on a slow, busy machine before it counts as hung.
pub fn bound() -> Duration {
    patience() * Duration::from_secs(30)
}

const PAUSE: Duration = Duration::from_millis(5);

static GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// Lets all waiting in this process fail from now on: someone has pressed Ctrl-C.
pub fn give_up() {
    GIVEN_UP.store(true, Ordering::Relaxed);
}

/// Whether waiting is still worth while.
pub(crate) fn check(start: Instant, what: &str) -> Result<()> {
    if GIVEN_UP.load(Ordering::Relaxed) {
        bail!("no longer waiting for {what}");
    }
    if start.elapsed() > bound() {
        bail!("waited {:?} in vain for {what}", bound());
    }
    Ok(())
}

/// Waits until all waiting shall fail.
pub fn until_given_up() {
    while !GIVEN_UP.load(Ordering::Relaxed) {
        sleep(PAUSE);
    }
}

/// Asks `probe` until it yields a value. `what` completes the sentence "waited in vain for ...".
pub fn until<T>(what: &str, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        check(start, what)?;
        sleep(PAUSE);
    }
}

/// Asks `probe` until it holds.
pub fn until_true(what: &str, mut probe: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, || Ok(probe()?.then_some(())))
}
