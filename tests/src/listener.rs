//! A listener of this process, where it is the kernel that is to be looked at: nobody ever accepts.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

use crate::{Endpoint, Namespace};

impl Namespace {
    /// Listens with `TCP_DEFER_ACCEPT`: a handshake is over for the listener's end only when the first data come.
    pub fn listen_deferring(&self, endpoint: &Endpoint, backlog: i32) -> Result<TcpListener> {
        let Endpoint::Tcp(address) = *endpoint else { bail!("{endpoint} is not TCP") };
        self.run(|| {
            let socket = socket(family(address), SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
            setsockopt(&socket, sockopt::ReuseAddr, &true)?;
            defer(&socket).context("TCP_DEFER_ACCEPT")?;
            bind(socket.as_raw_fd(), &SockaddrStorage::from(address)).context("binding")?;
            listen(&socket, Backlog::new(backlog)?)?;
            Ok(TcpListener::from(socket))
        })
    }
}

fn family(address: SocketAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn defer(socket: &OwnedFd) -> Result<()> {
    let seconds: libc::c_int = 60;
    // SAFETY: the option's value is an int, which outlives the call, and its size is told.
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
