//! Listeners of MPTCP, as Go programs make them: plain TCP clients are served by the TCP socket under one.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::libc;
use nix::sys::socket::{Backlog, SockaddrIn, bind, listen};
use rig::reconcile::pair_off;
use rig::{Endpoint, Location, Namespace, Nginx, Tracer};

/// How many connections may wait: one more fits.
const BACKLOG: i32 = 1;

/// A listener of MPTCP; none where this kernel has no MPTCP.
fn listener(namespace: &Namespace, port: u16) -> Result<Option<OwnedFd>> {
    namespace.run(|| {
        // SAFETY: takes integers.
        let made = unsafe {
            libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_MPTCP)
        };
        if made < 0 {
            return Ok(None);
        }
        // SAFETY: the kernel made this descriptor just now, for us alone.
        let socket = unsafe { OwnedFd::from_raw_fd(made) };
        bind(
            socket.as_raw_fd(),
            &SockaddrIn::from(std::net::SocketAddrV4::new([127, 0, 0, 1].into(), port)),
        )?;
        listen(&socket, Backlog::new(BACKLOG)?)?;
        Ok(Some(socket))
    })
}

#[test]
fn the_full_queue_of_an_mptcp_listener_is_a_full_queue_before_and_after_the_tracing_began() -> Result<()> {
    let namespace = Namespace::new()?;
    let Some(_before) = listener(&namespace, 9000)? else {
        eprintln!("not tested: this kernel has no MPTCP");
        return Ok(());
    };
    let (before, after) = (Endpoint::v4(9000), Endpoint::v4(9001));
    let location =
        |path: &str, endpoint| Location::http(path, endpoint).connect_timeout(Duration::from_secs(3));
    let nginx = Nginx::on(&namespace)
        .location(location("/before/", &before))
        .location(location("/after/", &after))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let _after = listener(&namespace, 9001)?.context("a listener")?;
    for (path, endpoint) in [("/before/", &before), ("/after/", &after)] {
        let Endpoint::Tcp(address) = endpoint else { anyhow::bail!("no TCP") };
        let _waiting = fill(&namespace, *address)?;
        ensure!(nginx.client().get(path)?.status == 504);
    }
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    for endpoint in [&before, &after] {
        let verdict = account.only(endpoint)?;
        verdict.says("accept_queue_overflow/syn_dropped", "proven", 504, Some("ETIMEDOUT"))?;
        let queue = verdict.queue.clone().context("a queue")?;
        ensure!((queue.depth, queue.limit) == (Some(2), Some(1)), "{queue:?}");
    }
    Ok(())
}

/// As many connections as fit, none of which is accepted.
fn fill(namespace: &Namespace, address: SocketAddr) -> Result<Vec<std::net::TcpStream>> {
    namespace.run(|| (0..=BACKLOG).map(|_| Ok(std::net::TcpStream::connect(address)?)).collect())
}
