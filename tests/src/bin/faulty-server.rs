//! An upstream that misbehaves on purpose: `faulty-server FAULT ENDPOINT BACKLOG`. See `rig::faulty`.
//!
//! Prints `ready` once it listens, `accepted` for each connection and `read` for each request; the line `close` on its standard input
//! closes the listener, which it confirms with `closed`; the end of its standard input ends it.

use std::io::{BufRead, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::thread::{self, park};
use std::time::Duration;
use std::{env, io, process as this};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc::{self, linger};
use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, accept,
    bind, listen, setsockopt, shutdown, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::alarm;
use rig::{Endpoint, Fault};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [fault, endpoint, backlog] = arguments.as_slice() else {
        bail!("usage: faulty-server FAULT ENDPOINT BACKLOG");
    };
    let fault: Fault = fault.parse()?;
    let listener = listening(&endpoint.parse()?, backlog.parse()?)?;
    println!("ready");

    if fault != Fault::NeverAccept {
        let listener = listener.try_clone()?;
        thread::spawn(move || serve(&listener, fault));
    }
    let mut listener = Some(listener);
    for line in io::stdin().lock().lines() {
        if line? == "close" {
            if let Some(listener) = listener.take() {
                close(&listener, fault)?;
            }
            println!("closed");
        }
    }
    Ok(())
}

fn listening(endpoint: &Endpoint, backlog: i32) -> Result<OwnedFd> {
    let (family, address) = match endpoint {
        Endpoint::Tcp(address @ SocketAddr::V4(_)) => (AddressFamily::Inet, SockaddrStorage::from(*address)),
        Endpoint::Tcp(address @ SocketAddr::V6(_)) => (AddressFamily::Inet6, SockaddrStorage::from(*address)),
        Endpoint::Unix(path) => {
            let address = UnixAddr::new(path)?;
            // SAFETY: the pointer and the length come from a valid address.
            let storage = unsafe { SockaddrStorage::from_raw(address.as_ptr().cast(), Some(address.len())) };
            (AddressFamily::Unix, storage.context("a unix address")?)
        }
    };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    bind(socket.as_raw_fd(), &address).with_context(|| format!("binding to {endpoint}"))?;
    listen(&socket, Backlog::new(backlog)?)?;
    Ok(socket)
}

/// Ends listening though another thread may be inside accept(2).
fn close(listener: &OwnedFd, fault: Fault) -> Result<()> {
    if fault != Fault::NeverAccept {
        shutdown(listener.as_raw_fd(), Shutdown::Both)?;
    }
    Ok(())
}

fn serve(listener: &OwnedFd, fault: Fault) {
    while let Ok(accepted) = accept(listener.as_raw_fd()) {
        // SAFETY: accept(2) has just made this descriptor, and nobody else has it.
        let connection = unsafe { OwnedFd::from_raw_fd(accepted) };
        println!("accepted");
        thread::spawn(move || {
            if let Err(error) = misbehave(connection, fault) {
                eprintln!("faulty-server: {error:#}");
            }
        });
    }
}

fn misbehave(connection: OwnedFd, fault: Fault) -> Result<()> {
    let linger = |fd: &OwnedFd| setsockopt(fd, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 });
    let socket = connection.try_clone()?;
    let mut stream = std::fs::File::from(connection);
    match fault {
        Fault::NeverRead => hold(&socket),
        Fault::CloseUnread | Fault::ExitUnread => {
            // Not before there is something to leave unread; a look at it would be a receive.
            let mut request = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one entry, which outlives the call.
            Errno::result(unsafe { libc::poll(&raw mut request, 1, -1) })?;
            if fault == Fault::ExitUnread {
                this::exit(3);
            }
            return Ok(());
        }
        _ => {}
    }
    while request(&mut stream)? {
        println!("read");
        match fault {
            Fault::Mute => hold(&socket),
            Fault::Timer => {
                let notify = SigevNotify::SigevSignal { signal: Signal::SIGTERM, si_value: 0 };
                let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify))?;
                timer.set(Expiration::OneShot(SOON.into()), TimerSetTimeFlags::empty())?;
                hold(&socket);
            }
            Fault::Alarm => {
                alarm::set(1);
                hold(&socket);
            }
            Fault::AnswerAndExit => {
                stream.write_all(ANSWER)?;
                this::exit(3);
            }
            Fault::AnswerAndReset => {
                stream.write_all(ANSWER)?;
                return Ok(linger(&socket)?);
            }
            Fault::Reset => return Ok(linger(&socket)?),
            Fault::CloseUnanswered => return Ok(()),
            Fault::Exit => this::exit(3),
            Fault::StallMidway => {
                stream.write_all(HALF)?;
                hold(&socket);
            }
            Fault::ResetMidway => {
                stream.write_all(HALF)?;
                return Ok(linger(&socket)?);
            }
            Fault::CloseIdle => {
                stream.write_all(ANSWER)?;
                let idle = TimeVal::milliseconds(300);
                setsockopt(&socket, sockopt::ReceiveTimeout, &idle)?;
            }
            Fault::Answer => stream.write_all(ANSWER)?,
            Fault::NeverRead | Fault::CloseUnread | Fault::ExitUnread | Fault::NeverAccept => {}
        }
    }
    Ok(())
}

/// Until the timer goes off.
const SOON: Duration = Duration::from_millis(200);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
const HALF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this much";

/// Reads a request's header; false at the end of the stream.
fn request(stream: &mut impl Read) -> Result<bool> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(0) => return Ok(false),
            Ok(_) => head.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Idle for too long.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error).context("reading a request"),
        }
    }
    Ok(true)
}

/// Keeps a connection open for as long as the process lives.
fn hold(connection: &impl AsFd) {
    let _kept = connection.as_fd();
    loop {
        park();
    }
}
