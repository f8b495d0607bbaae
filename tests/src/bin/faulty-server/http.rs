//! HTTP/1.1, spoken wrongly.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc::{self, linger};
use nix::sys::signal::{SigEvent, SigevNotify};
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::alarm;
use rig::Fault;

use crate::hold;

/// Until the timer goes off.
const SOON: Duration = Duration::from_millis(200);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
const HALF: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this much";
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// What is said once and then holds.
#[derive(Debug, Default)]
pub struct Signal {
    given: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    /// Says it.
    pub fn give(&self) {
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(given, |given| !*given));
    }
}

/// What a request brought.
enum Request {
    Whole,
    /// Its first byte begins no method.
    NoHttp,
    /// The stream ended, or was idle for too long.
    End,
}

/// Serves one connection as a fault has it.
pub fn misbehave(connection: OwnedFd, fault: Fault, signal: &Signal) -> Result<()> {
    let linger = |fd: &OwnedFd| setsockopt(fd, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 });
    let socket = connection.try_clone()?;
    let mut stream = File::from(connection);
    match fault {
        Fault::NeverRead => hold(&socket),
        Fault::CloseUnread | Fault::ExitUnread => {
            wait_unread(&socket)?;
            if fault == Fault::ExitUnread {
                process::exit(3);
            }
            return Ok(());
        }
        _ => {}
    }
    loop {
        match request(&mut stream)? {
            Request::Whole => println!("read"),
            Request::NoHttp => {
                // Who speaks otherwise may have gone.
                let _ = stream.write_all(BAD_REQUEST);
                crate::drain(&mut stream);
                return Ok(());
            }
            Request::End => return Ok(()),
        }
        match fault {
            Fault::Timer => {
                let notify =
                    SigevNotify::SigevSignal { signal: nix::sys::signal::Signal::SIGTERM, si_value: 0 };
                let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify))?;
                timer.set(Expiration::OneShot(SOON.into()), TimerSetTimeFlags::empty())?;
                hold(&socket);
            }
            Fault::Alarm => {
                alarm::set(1);
                hold(&socket);
            }
            Fault::Mute => hold(&socket),
            Fault::AnswerAndExit => {
                stream.write_all(ANSWER)?;
                process::exit(3);
            }
            Fault::AnswerAndReset => {
                stream.write_all(ANSWER)?;
                return Ok(linger(&socket)?);
            }
            Fault::Reset => return Ok(linger(&socket)?),
            Fault::CloseUnanswered => return Ok(()),
            Fault::Exit => process::exit(3),
            Fault::StallMidway => {
                stream.write_all(HALF)?;
                hold(&socket);
            }
            Fault::ShutDownUnanswered | Fault::ShutDownMidway => {
                if fault == Fault::ShutDownMidway {
                    stream.write_all(HALF)?;
                }
                shutdown(socket.as_raw_fd(), Shutdown::Write)?;
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
            Fault::CloseKept => {
                stream.write_all(ANSWER)?;
                return wait_unread(&socket);
            }
            Fault::AnswerWhenTold => {
                signal.wait();
                // Nobody may be left to take it.
                let sent = stream.write_all(ANSWER);
                println!("answered");
                if sent.is_err() {
                    return Ok(());
                }
            }
            Fault::Answer => stream.write_all(ANSWER)?,
            other => {
                let answer = wrong_answer(other).with_context(|| format!("no answer for {other}"))?;
                return Ok(stream.write_all(&answer)?);
            }
        }
    }
}

/// Waits until there is something to leave unread; a look at it would be a receive.
fn wait_unread(socket: &OwnedFd) -> Result<()> {
    let mut request = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which outlives the call.
    Errno::result(unsafe { libc::poll(&raw mut request, 1, -1) })?;
    Ok(())
}

/// What a server sends that closes then.
fn wrong_answer(fault: Fault) -> Option<Vec<u8>> {
    let (header, body) = match fault {
        Fault::CutLength => ("Content-Length: 100000", "x".repeat(4_000)),
        Fault::CutChunk => ("Transfer-Encoding: chunked", format!("1000\r\n{}", "x".repeat(100))),
        Fault::NoHttp => return Some(b"220 mail.example ESMTP\r\n".to_vec()),
        Fault::BadLength => ("Content-Length: foo", "ok\n".into()),
        Fault::TwoLengths => ("Content-Length: 3\r\nContent-Length: 4", "ok\n".into()),
        Fault::LengthAndCoding => {
            ("Content-Length: 3\r\nTransfer-Encoding: chunked", "3\r\nok\n\r\n0\r\n\r\n".into())
        }
        Fault::UnknownCoding => ("Transfer-Encoding: rot13", "bx\n".into()),
        Fault::BadHeader => ("X-\u{1}: x", "ok\n".into()),
        Fault::BadChunk => ("Transfer-Encoding: chunked", "many\r\nok\n\r\n0\r\n\r\n".into()),
        Fault::BigHeader => {
            return Some(
                format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 3\r\n\r\nok\n", "x".repeat(20_000))
                    .into(),
            );
        }
        _ => return None,
    };
    Some(format!("HTTP/1.1 200 OK\r\n{header}\r\n\r\n{body}").into())
}

/// Reads a request's header.
fn request(stream: &mut impl Read) -> Result<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(0) => return Ok(Request::End),
            Ok(_) => head.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Idle for too long.
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Request::End),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(Request::End),
            Err(error) => return Err(error).context("reading a request"),
        }
        if !head[0].is_ascii_uppercase() {
            return Ok(Request::NoHttp);
        }
    }
    Ok(Request::Whole)
}
