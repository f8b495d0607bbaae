//! Name servers, most of them of no help.

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
    /// It says that every name is 127.0.0.1.
    Loopback,
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
            Help::Loopback => Some(0),
        };
        if let Some(code) = code {
            let socket = Arc::clone(&socket);
            thread::spawn(move || answer(&socket, code));
        }
        Ok(Resolver { _socket: socket })
    }
}

/// For the name in the question: an address (A, IN), which holds for a second.
const ADDRESS: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1];

/// Sends each question back as an answer with a code (RFC 1035, 4.1.1), and with an address if that is zero.
fn answer(socket: &UdpSocket, code: u8) {
    const IS_ANSWER: u8 = 0x80;
    let mut message = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut message) {
        if length < 12 {
            continue;
        }
        message[2] |= IS_ANSWER;
        message[3] = code;
        let mut end = length;
        if let Some(room) = message.get_mut(length..length + ADDRESS.len()).filter(|_| code == 0) {
            room.copy_from_slice(&ADDRESS);
            end += ADDRESS.len();
            message[7] = 1;
        }
        // Who asked may be gone.
        let _ = socket.send_to(&message[..end], from);
    }
}
