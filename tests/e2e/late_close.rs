//! nginx closes a connection that another process holds at this moment, as whoever looks at open files does: it ends when that one lets go
//! of it, and nginx's thread has gone on by then.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use procfs::process::{FDTarget, Process};
use rig::process::Pid;
use rig::reconcile::pair_off;
use rig::{Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Tracer};

fn descriptor(result: libc::c_long) -> Result<OwnedFd> {
    let number = RawFd::try_from(Errno::result(result)?)?;
    // SAFETY: the kernel has just made it, for this process alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Holds the connection that a process has with this peer.
fn hold(pid: Pid, peer: SocketAddr) -> Result<OwnedFd> {
    let process = Process::new(pid)?;
    let connections = process.tcp()?;
    let connection =
        connections.iter().find(|entry| entry.remote_address == peer).context("no connection")?;
    let is_it = |target: &FDTarget| matches!(target, FDTarget::Socket(inode) if *inode == connection.inode);
    let held = process.fd()?.flatten().find(|file| is_it(&file.target)).context("no descriptor")?;
    // SAFETY: takes two numbers.
    let process = descriptor(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: takes three numbers.
    descriptor(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), held.fd, 0) })
}

#[test]
fn what_nginx_said_of_it_is_not_taken_for_a_word_on_what_it_closes_next() -> Result<()> {
    let namespace = Namespace::new()?;
    let mute = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(9100), 8)?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/mute/", mute.endpoint()).read_timeout(Duration::from_secs(1)))
        .location(Location::fpm("/php/", &fpm))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    let [worker] = nginx.workers()?[..] else { anyhow::bail!("one worker") };
    // What it closes next has begun before.
    let slow = client.ask("/php/sleep.php?s=2&tag=slow")?;
    fpm.worker_on("slow")?;
    let asked = client.ask("/mute/")?;
    mute.wait_read(1)?;
    let held = hold(worker, (std::net::Ipv4Addr::LOCALHOST, 9100).into())?;
    nginx.wait_for_failures(1)?;
    ensure!(slow.answer()?.status == 200);
    drop(held);
    ensure!(asked.answer()?.status == 504);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    account.only(mute.endpoint())?.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))
}
