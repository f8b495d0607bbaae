//! A network namespace, listeners that never accept of their own, and clients that wait for nothing.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, UnixAddr, accept, bind, connect,
        getpeername, getsockname, getsockopt, listen, socket, sockopt,
    },
};
use procfs::{
    FromReadSI as _,
    net::{TcpNetEntries, TcpNetEntry, TcpState},
};

use super::PATIENCE;
use crate::command::backlog::netns::{self, Counters};

/// Moves the calling thread into a network namespace of its own, with only the loopback in it.
pub(super) fn enter() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)
        .context("a network namespace cannot be made: the experiment needs root (CAP_SYS_ADMIN)")?;
    bring_up_loopback().context("the loopback cannot be brought up")
}

fn bring_up_loopback() -> Result<()> {
    let any = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut names = [0; libc::IFNAMSIZ];
    for (to, from) in names.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    let flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    let request =
        libc::ifreq { ifr_name: names, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    Errno::result(unsafe {
        libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &raw const request)
    })?;
    Ok(())
}

/// Sets a sysctl of the calling thread's namespace. Returns whether this kernel has it.
pub(super) fn set(name: &str, value: u32) -> Result<bool> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    if !path.exists() {
        return Ok(false);
    }
    fs::write(&path, value.to_string()).with_context(|| format!("{name} cannot be set"))?;
    Ok(true)
}

/// What the calling thread's namespace counts.
pub(super) fn counters() -> Result<Counters> {
    netns::here().context("/proc/thread-self/net/netstat cannot be read")
}

/// Waits until something holds.
pub(super) fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds()? {
        if start.elapsed() > PATIENCE {
            bail!("waited in vain for {what}");
        }
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// A listener.
pub(super) struct Listener {
    fd: OwnedFd,
    addr: Addr,
}

enum Addr {
    Inet(SocketAddr),
    Unix(UnixAddr),
}

impl Listener {
    /// Over IPv4, on a port that the kernel chooses.
    pub fn v4(backlog: i32) -> Result<Self> {
        Self::inet(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), backlog, false)
    }

    /// Over IPv6.
    pub fn v6(backlog: i32) -> Result<Self> {
        Self::inet(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), backlog, false)
    }

    /// Its handshakes are over when the first data come (TCP_DEFER_ACCEPT).
    pub fn deferring(backlog: i32) -> Result<Self> {
        Self::inet(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), backlog, true)
    }

    fn inet(addr: SocketAddr, backlog: i32, is_deferring: bool) -> Result<Self> {
        let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        if is_deferring {
            let seconds: libc::c_int = 60;
            // SAFETY: the option's value is an int, which outlives the call, and its size is given.
            Errno::result(unsafe {
                libc::setsockopt(
                    fd.as_raw_fd(),
                    libc::IPPROTO_TCP,
                    libc::TCP_DEFER_ACCEPT,
                    (&raw const seconds).cast(),
                    size_of::<libc::c_int>() as libc::socklen_t,
                )
            })?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;
        let this = Self { fd, addr: Addr::Inet(addr) };
        this.listen(backlog)?;
        let bound: SockaddrStorage = getsockname(this.fd.as_raw_fd())?;
        let port = bound.as_sockaddr_in().map(|v4| v4.port());
        let port = port.or_else(|| bound.as_sockaddr_in6().map(|v6| v6.port()));
        let addr = SocketAddr::new(addr.ip(), port.context("a listener has no port")?);
        Ok(Self { addr: Addr::Inet(addr), ..this })
    }

    /// On a unix socket whose name is in the abstract namespace: it belongs to the network namespace, and leaves no file.
    pub fn unix(backlog: i32) -> Result<Self> {
        let addr = UnixAddr::new_abstract(b"why502-experiment")?;
        let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(fd.as_raw_fd(), &addr)?;
        let this = Self { fd, addr: Addr::Unix(addr) };
        this.listen(backlog)?;
        Ok(this)
    }

    /// Calls listen, again maybe. The kernel takes any number that fits an int.
    pub fn listen(&self, backlog: i32) -> Result<()> {
        match Backlog::new(backlog) {
            Ok(backlog) => listen(&self.fd, backlog)?,
            // SAFETY: takes two integers.
            Err(_) => drop(Errno::result(unsafe { libc::listen(self.fd.as_raw_fd(), backlog) })?),
        }
        Ok(())
    }

    /// Accepts one connection and closes it.
    pub fn accept(&self) -> Result<()> {
        let accepted = accept(self.fd.as_raw_fd())?;
        // SAFETY: accept has just made it, for us alone.
        drop(unsafe { OwnedFd::from_raw_fd(accepted) });
        Ok(())
    }

    /// A client that calls connect without waiting, and what connect said.
    pub fn connect(&self) -> Result<(Client, Result<(), Errno>)> {
        self.client(SockFlag::SOCK_NONBLOCK)
    }

    /// A client that waits.
    pub fn connect_blocking(&self) -> Result<(Client, Result<(), Errno>)> {
        self.client(SockFlag::empty())
    }

    fn client(&self, flags: SockFlag) -> Result<(Client, Result<(), Errno>)> {
        let family = match &self.addr {
            Addr::Inet(addr) if addr.is_ipv4() => AddressFamily::Inet,
            Addr::Inet(_) => AddressFamily::Inet6,
            Addr::Unix(_) => AddressFamily::Unix,
        };
        let fd = socket(family, SockType::Stream, flags | SockFlag::SOCK_CLOEXEC, None)?;
        let said = match &self.addr {
            Addr::Inet(addr) => connect(fd.as_raw_fd(), &SockaddrStorage::from(*addr)),
            Addr::Unix(addr) => connect(fd.as_raw_fd(), addr),
        };
        Ok((Client { fd }, said))
    }

    /// Clients that call connect, each as soon as the one before it is in the accept queue or was dropped: on a busy machine, SYNs
    /// that come at once would all be answered before the first handshake ends and counts.
    pub fn crowd(&self, count: usize) -> Result<Vec<Client>> {
        let before = counters()?.overflows;
        let queued = self.sockets(&[TcpState::Established])?;
        let mut clients = Vec::with_capacity(count);
        for number in 1..=count {
            clients.push(self.connect()?.0);
            until("each client to be in or dropped", || {
                let dropped = counters()?.overflows - before;
                let entered = self.sockets(&[TcpState::Established])?.saturating_sub(queued);
                Ok(entered as u64 + dropped >= number as u64)
            })?;
        }
        Ok(clients)
    }

    /// How many of the namespace's TCP sockets on this listener's port are in one of these states, the listener's side only.
    pub fn sockets(&self, states: &[TcpState]) -> Result<usize> {
        let Addr::Inet(addr) = &self.addr else { bail!("a unix listener has no TCP sockets") };
        let table = if addr.is_ipv4() { "tcp" } else { "tcp6" };
        let path = format!("/proc/thread-self/net/{table}");
        let entries = TcpNetEntries::from_file(&path, procfs::current_system_info())?;
        let mine =
            |entry: &&TcpNetEntry| entry.local_address.port() == addr.port() && states.contains(&entry.state);
        Ok(entries.0.iter().filter(mine).count())
    }
}

/// A client's socket.
pub(super) struct Client {
    fd: OwnedFd,
}

impl Client {
    /// Whether it believes to be connected.
    pub fn is_in(&self) -> bool {
        getpeername::<SockaddrStorage>(self.fd.as_raw_fd()).is_ok()
    }

    /// Its pending error, taken by asking; none if there is none.
    pub fn error(&self) -> Result<Option<Errno>> {
        let error = getsockopt(&self.fd, sockopt::SocketError)?;
        Ok((error != 0).then(|| Errno::from_raw(error)))
    }

    /// Sends some bytes.
    pub fn send(&self) -> Result<()> {
        nix::sys::socket::send(self.fd.as_raw_fd(), b"hello", nix::sys::socket::MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }

    /// Bytes that were sent and not acknowledged (SIOCOUTQ).
    pub fn unacknowledged(&self) -> Result<i32> {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the call writes one int, which outlives it.
        Errno::result(unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
        Ok(bytes)
    }
}

/// How many believe to be connected.
pub(super) fn inside(clients: &[Client]) -> usize {
    clients.iter().filter(|client| client.is_in()).count()
}
