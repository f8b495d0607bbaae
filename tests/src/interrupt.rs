//! Ctrl-C, for the rig's own programs: what was started is ended by whoever started it.

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::{Namespace, wait};

enum Event {
    Over(Result<ExitCode>),
    Interrupted(i32),
}

/// Runs `work` with a namespace of its own, in a thread of its own, and ends it early if a signal comes. The exit code is that of
/// `work`, or the signal's; what went wrong is said on standard error, after `name`.
pub fn run(name: &str, work: impl FnOnce(&Namespace) -> Result<ExitCode> + Send + 'static) -> ExitCode {
    end_early(name, work).unwrap_or_else(|error| {
        eprintln!("{name}: {error:#}");
        ExitCode::FAILURE
    })
}

fn end_early(
    name: &str,
    work: impl FnOnce(&Namespace) -> Result<ExitCode> + Send + 'static,
) -> Result<ExitCode> {
    let (events, inbox) = mpsc::channel();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("watching for Ctrl-C")?;
    let interrupted = events.clone();
    thread::spawn(move || {
        for signal in &mut signals {
            // Nobody listens any more when the work is over.
            let _ = interrupted.send(Event::Interrupted(signal));
        }
    });
    let namespace = Namespace::new()?;
    let theirs = namespace.clone();
    let work = thread::spawn(move || {
        let over = work(&theirs);
        drop(theirs);
        events.send(Event::Over(over))
    });
    let code = match inbox.recv()? {
        Event::Over(over) => over?,
        Event::Interrupted(signal) => {
            eprintln!("\n{name}: interrupted; ending what was started");
            wait::give_up();
            // Whatever the work waits for now fails, so that it takes down by itself what is its own.
            namespace.kill_all();
            ExitCode::from(128 + u8::try_from(signal)?)
        }
    };
    let _ = work.join();
    Ok(code)
}
