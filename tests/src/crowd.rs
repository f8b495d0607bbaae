//! Clients that connect and wait for nothing: what becomes of each is the kernel's affair.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    SockFlag, SockType, SockaddrStorage, UnixAddr, connect, getpeername, getsockname, getsockopt, send,
    socket, sockopt,
};

use crate::{Endpoint, Namespace, listener, wait};

/// Sockets that called connect without blocking, closed when dropped.
#[derive(Debug)]
pub struct Crowd {
    clients: Vec<OwnedFd>,
    refused: Vec<Errno>,
}

impl Namespace {
    /// Lets `count` clients connect, one after the other.
    pub fn crowd(&self, listener: &Endpoint, count: usize) -> Result<Crowd> {
        self.run(|| {
            let mut crowd = Crowd { clients: Vec::new(), refused: Vec::new() };
            for _ in 0..count {
                crowd.join(listener)?;
            }
            Ok(crowd)
        })
    }
}

impl Namespace {
    /// Lets `count` clients connect over TCP, each once the one before it is in the queue or was dropped, by what `there` counts, the
    /// listener's namespace: SYNs that come at once on a busy machine are all answered before the first handshake counts.
    pub fn file(&self, there: &Namespace, listener: &Endpoint, count: usize) -> Result<Crowd> {
        let settled = || -> Result<u64> {
            let queued =
                there.accept_queue(listener)?.with_context(|| format!("nobody listens on {listener}"))?;
            let all = u64::from(queued) + there.tcp_counter("ListenOverflows")?;
            // Whoever sends a SYN again, after a second, is dropped again, and no further client.
            Ok(all.saturating_sub(self.tcp_counter("TCPSynRetrans")?))
        };
        let mut crowd = Crowd { clients: Vec::new(), refused: Vec::new() };
        let before = settled()?;
        for number in 1..=count as u64 {
            self.run(|| crowd.join(listener))?;
            wait::until_true("a client to be queued or dropped", || Ok(settled()? >= before + number))?;
        }
        Ok(crowd)
    }

    /// Lets one client connect that waits for as long as the kernel makes it, in a thread; what connect says is the thread's result.
    pub fn patient(&self, listener: &Endpoint) -> JoinHandle<Result<()>> {
        let (namespace, listener) = (self.clone(), listener.clone());
        thread::spawn(move || {
            namespace.run(|| {
                let client =
                    socket(listener::family(&listener), SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
                match &listener {
                    Endpoint::Tcp(address) => connect(client.as_raw_fd(), &SockaddrStorage::from(*address))?,
                    Endpoint::Unix(path) => connect(client.as_raw_fd(), &UnixAddr::new(path)?)?,
                }
                Ok(())
            })
        })
    }
}

impl Crowd {
    fn join(&mut self, listener: &Endpoint) -> Result<()> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let client = socket(listener::family(listener), SockType::Stream, flags, None)?;
        let connected = match listener {
            Endpoint::Tcp(address) => connect(client.as_raw_fd(), &SockaddrStorage::from(*address)),
            Endpoint::Unix(path) => connect(client.as_raw_fd(), &UnixAddr::new(path)?),
        };
        match connected {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => self.refused.push(error),
        }
        self.clients.push(client);
        Ok(())
    }

    /// The errors of connects that failed at once.
    pub fn refused(&self) -> &[Errno] {
        &self.refused
    }

    /// The local addresses of those that believe to be connected, and of those that do not.
    pub fn by_luck(&self) -> Result<(Vec<SocketAddr>, Vec<SocketAddr>)> {
        let (mut lucky, mut unlucky) = (Vec::new(), Vec::new());
        for client in &self.clients {
            let is_in = getpeername::<SockaddrStorage>(client.as_raw_fd()).is_ok();
            if is_in { &mut lucky } else { &mut unlucky }.push(local(client)?);
        }
        Ok((lucky, unlucky))
    }

    /// Lets each of them send a byte.
    pub fn send(&self) -> Result<()> {
        for client in &self.clients {
            send(client.as_raw_fd(), b"x", nix::sys::socket::MsgFlags::MSG_NOSIGNAL)
                .context("sending a byte")?;
        }
        Ok(())
    }

    /// The errors that their sockets hold; each is taken by asking.
    pub fn errors(&self) -> Result<Vec<i32>> {
        let errors = self.clients.iter().map(|client| getsockopt(client, sockopt::SocketError));
        let errors: Vec<i32> = errors.collect::<Result<_, _>>()?;
        Ok(errors.into_iter().filter(|error| *error != 0).collect())
    }
}

fn local(client: &OwnedFd) -> Result<SocketAddr> {
    let address: SockaddrStorage = getsockname(client.as_raw_fd())?;
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Ok(SocketAddr::V4((*v4).into())),
        (_, Some(v6)) => Ok(SocketAddr::V6((*v6).into())),
        _ => bail!("a client has no address of TCP's"),
    }
}
