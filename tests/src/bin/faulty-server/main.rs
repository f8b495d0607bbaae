//! An upstream that misbehaves on purpose: `faulty-server FAULT ENDPOINT BACKLOG`. See `rig::faulty`.
//!
//! Prints `ready` once it listens, `accepted` for each connection, `read` for each request, and `answered` where it had to be told to
//! answer. The line `close` on its standard input closes the listener, which it confirms with `closed`; the line `answer` lets it
//! answer; the end of its standard input ends it.

mod fastcgi;
mod grpc;
mod http;
mod http2;
mod web_socket;

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::thread::{self, park};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, accept,
    bind, listen, setsockopt, shutdown, socket, sockopt,
};
use rig::{Endpoint, Fault};

use crate::http::Signal;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [fault, endpoint, backlog] = arguments.as_slice() else {
        bail!("usage: faulty-server FAULT ENDPOINT BACKLOG");
    };
    let fault: Fault = fault.parse()?;
    let listener = listening(&endpoint.parse()?, backlog.parse()?)?;
    println!("ready");

    let signal = Arc::new(Signal::default());
    if fault != Fault::NeverAccept {
        let (listener, signal) = (listener.try_clone()?, Arc::clone(&signal));
        thread::spawn(move || serve(&listener, fault, &signal));
    }
    let mut listener = Some(listener);
    for line in io::stdin().lock().lines() {
        match line?.as_str() {
            "close" => {
                if let Some(listener) = listener.take() {
                    close(&listener, fault)?;
                }
                println!("closed");
            }
            "answer" => signal.give(),
            other => bail!("told to {other}"),
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
    if std::env::var_os("RIG_REUSEPORT").is_some() {
        setsockopt(&socket, sockopt::ReusePort, &true)?;
    }
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

fn serve(listener: &OwnedFd, fault: Fault, signal: &Arc<Signal>) {
    while let Ok(accepted) = accept(listener.as_raw_fd()) {
        // SAFETY: accept(2) has just made this descriptor, and nobody else has it.
        let connection = unsafe { OwnedFd::from_raw_fd(accepted) };
        println!("accepted");
        let signal = Arc::clone(signal);
        thread::spawn(move || {
            if let Err(error) = misbehave(connection, fault, &signal) {
                eprintln!("faulty-server: {error:#}");
            }
        });
    }
}

fn misbehave(connection: OwnedFd, fault: Fault, signal: &Signal) -> Result<()> {
    if let Some(answer) = fastcgi::answer(fault) {
        return fastcgi::misbehave(File::from(connection), &answer);
    }
    if let Some(answer) = http2::answer(fault) {
        let closes = fault != Fault::Http2Answer;
        return http2::misbehave(File::from(connection), &answer, closes);
    }
    match fault {
        Fault::WebSocket => web_socket::serve(connection),
        Fault::Http2ExitMidway => grpc::exit_midway(connection),
        _ => http::misbehave(connection, fault, signal),
    }
}

/// Says that nothing more will come, and waits until the other side has nothing more to say either: closed with something unread, a
/// connection would be reset.
fn close_properly(connection: &mut File) {
    // nginx may have gone already, having had enough.
    let _ = shutdown(connection.as_raw_fd(), Shutdown::Write);
    drain(connection);
}

/// Reads to the end of what the other side has to say; its reset is one, too.
fn drain(connection: &mut File) {
    while connection.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {}
}

/// Keeps a connection open for as long as the process lives.
fn hold(connection: &impl AsFd) -> ! {
    let _kept = connection.as_fd();
    loop {
        park();
    }
}
