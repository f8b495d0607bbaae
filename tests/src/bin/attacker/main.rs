//! A local user who means harm: `attacker none|own|kept ATTACK ARGUMENT...`. See `rig::attacker`.
//!
//! Becomes user and group 65534 (unless `kept`), with `own` in a user, network and mount namespace of its own, and plays the attack: a module of its
//! own here. An attack prints `ready` once its trap is laid, and ends when its standard input ends.
mod configuration;
mod crowd;
mod listeners;
mod signals;

use std::{env, fs};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

/// `nobody` and `nogroup`.
const NOBODY: u32 = 65_534;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    configuration::mark_execution(&arguments)?;
    let [walls, attack, arguments @ ..] = arguments.as_slice() else {
        bail!("usage: attacker none|own|kept ATTACK ARGUMENT...");
    };
    if walls != "kept" {
        become_nobody().context("becoming nobody")?;
    }
    if walls == "own" {
        unshare_all().context("making namespaces as nobody")?;
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match attack.as_str() {
        "fake_nginx" => crowd::fake_nginx(&arguments),
        "short_lived" => crowd::short_lived(&arguments),
        "signals" => signals::play(&arguments),
        "spin" => signals::spin(),
        "names" => listeners::names(&arguments),
        "listeners" => listeners::flood(&arguments),
        "path" => listeners::path(&arguments),
        "namespaces" => listeners::namespaces(&arguments),
        "configuration" => configuration::play(&arguments),
        _ => bail!("no attack is called {attack} {arguments:?}"),
    }
}

fn become_nobody() -> Result<()> {
    setgroups(&[])?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    // A change of user makes /proc/self root's, so that not even one's own maps of users could be written.
    prctl::set_dumpable(true)?;
    // It is forgotten by a change of user, too.
    prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    Ok(())
}

fn unshare_all() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {NOBODY} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {NOBODY} 1"))?;
    Ok(())
}
