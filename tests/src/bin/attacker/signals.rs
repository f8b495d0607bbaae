//! A crowd of children that are sent every signal there is, and a process that keeps a processor busy.

use std::io::{self, BufRead};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{ForkResult, Pid, fork, pause};

/// `signals COUNT`: makes that many children that let every signal wait. At the line `flood` each is sent all signals that end a process
/// by default, which is confirmed with `flooded`.
pub(crate) fn play(arguments: &[&str]) -> Result<()> {
    let [count] = arguments else { bail!("usage: attacker none signals COUNT") };
    let count: usize = count.parse()?;
    SigSet::all().thread_block()?;
    let children: Vec<Pid> = (0..count).map(|_| child()).collect::<Result<_>>()?;
    println!("ready");
    for line in io::stdin().lock().lines() {
        if line? == "flood" {
            for (child, signal) in
                children.iter().flat_map(|child| Signal::iterator().map(move |signal| (child, signal)))
            {
                if !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP | Signal::SIGCONT) {
                    kill(*child, signal)?;
                }
            }
            println!("flooded");
        }
    }
    for child in children {
        kill(child, Signal::SIGKILL)?;
    }
    Ok(())
}

fn child() -> Result<Pid> {
    // SAFETY: this process has one thread.
    match unsafe { fork() }.context("forking")? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            loop {
                pause();
            }
        }
    }
}

/// `spin`: keeps each processor busy until its standard input ends.
pub(crate) fn spin() -> Result<()> {
    let processors = thread::available_parallelism()?;
    for _ in 0..processors.get() {
        thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
    println!("ready");
    for line in io::stdin().lock().lines() {
        line?;
    }
    Ok(())
}
