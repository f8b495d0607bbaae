//! A listener of this process, where it is the kernel that is to be looked at: nobody ever accepts.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrStorage, UnixAddr, bind, listen,
    setsockopt, shutdown, socket, sockopt,
};

use crate::{Endpoint, Namespace};

/// How an endpoint is listened on.
#[derive(Debug, Clone, Copy, Default)]
struct Manner {
    deferring: bool,
    shared: bool,
}

impl Namespace {
    /// Listens, and never accepts unless the caller does.
    pub fn listen(&self, endpoint: &Endpoint, backlog: i32) -> Result<OwnedFd> {
        self.listen_so(endpoint, backlog, Manner::default())
    }

    /// Listens with `SO_REUSEPORT`, beside others that do.
    pub fn listen_beside(&self, endpoint: &Endpoint, backlog: i32) -> Result<OwnedFd> {
        self.listen_so(endpoint, backlog, Manner { shared: true, ..Manner::default() })
    }

    /// Listens with `TCP_DEFER_ACCEPT`: a handshake is over for the listener's end only when the first data come.
    pub fn listen_deferring(&self, endpoint: &Endpoint, backlog: i32) -> Result<TcpListener> {
        Ok(TcpListener::from(self.listen_so(
            endpoint,
            backlog,
            Manner { deferring: true, ..Manner::default() },
        )?))
    }

    /// Listens over TCP and stops listening, as often as it can, until `is_over`.
    pub fn listen_and_stop(&self, endpoint: &Endpoint, is_over: &AtomicBool) -> Result<()> {
        let socket = self.listen(endpoint, 1)?;
        while !is_over.load(Ordering::Relaxed) {
            shutdown(socket.as_raw_fd(), Shutdown::Read)?;
            listen(&socket, Backlog::new(1)?)?;
        }
        Ok(())
    }

    fn listen_so(&self, endpoint: &Endpoint, backlog: i32, manner: Manner) -> Result<OwnedFd> {
        self.run(|| {
            let socket = socket(family(endpoint), SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            match endpoint {
                Endpoint::Tcp(address) => {
                    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
                    setsockopt(&socket, sockopt::ReusePort, &manner.shared)?;
                    if manner.deferring {
                        defer(&socket).context("TCP_DEFER_ACCEPT")?;
                    }
                    bind(socket.as_raw_fd(), &SockaddrStorage::from(*address)).context("binding")?;
                }
                Endpoint::Unix(path) => {
                    bind(socket.as_raw_fd(), &UnixAddr::new(path)?).context("binding")?;
                }
            }
            listen(&socket, Backlog::new(backlog)?)?;
            Ok(socket)
        })
    }
}

pub(crate) fn family(endpoint: &Endpoint) -> AddressFamily {
    match endpoint {
        Endpoint::Tcp(address) if address.is_ipv4() => AddressFamily::Inet,
        Endpoint::Tcp(_) => AddressFamily::Inet6,
        Endpoint::Unix(_) => AddressFamily::Unix,
    }
}

fn defer(socket: &OwnedFd) -> Result<()> {
    let seconds: libc::c_int = 60;
    // SAFETY: the option's value is an int, which outlives the call, and its size is given.
    Errno::result(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })?;
    Ok(())
}
