//! Name servers that are of no help.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};

use crate::Namespace;

/// What a name server makes of every question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Help {
    /// It never answers.
    Silent,
    /// It says that there is no such name (NXDOMAIN).
    NoSuchName,
    /// It says that it has failed (SERVFAIL).
    Failure,
}

/// A name server, which goes on for as long as the process lives.
#[derive(Debug)]
pub struct Resolver {
    _socket: Arc<UdpSocket>,
}

impl Resolver {
    /// Listens at a port of 127.0.0.1.
    pub fn start(namespace: &Namespace, port: u16, help: Help) -> Result<Resolver> {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).context("a name server's socket");
        let socket = Arc::new(namespace.run(bind)?);
        let code = match help {
            Help::Silent => None,
            Help::NoSuchName => Some(3),
            Help::Failure => Some(2),
        };
        if let Some(code) = code {
            let socket = Arc::clone(&socket);
            thread::spawn(move || answer(&socket, code));
        }
        Ok(Resolver { _socket: socket })
    }
}

/// Sends each question back as an answer with a code (RFC 1035, 4.1.1).
fn answer(socket: &UdpSocket, code: u8) {
    const IS_ANSWER: u8 = 0x80;
    let mut message = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut message) {
        if length < 12 {
            continue;
        }
        message[2] |= IS_ANSWER;
        message[3] = code;
        // Who asked may be gone.
        let _ = socket.send_to(&message[..length], from);
    }
}
