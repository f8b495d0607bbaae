//! HTTP requests, one connection each.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use crate::{Namespace, wait};

/// Someone who asks a server, from inside a namespace.
#[derive(Debug, Clone)]
pub struct Client {
    namespace: Namespace,
    server: SocketAddr,
}

/// A response as it came; the body may have been cut short.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status of its first line.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// A connection on which nothing has been asked yet.
#[derive(Debug)]
pub struct Connected(TcpStream);

/// A request of which the end has not been sent.
#[derive(Debug)]
pub struct Begun(TcpStream);

/// A request that has been sent and not yet been answered.
#[derive(Debug)]
pub struct Asked(TcpStream);

impl Client {
    /// A client of the server at an address.
    pub fn new(namespace: &Namespace, server: SocketAddr) -> Client {
        Client { namespace: namespace.clone(), server }
    }

    /// Asks and waits for the answer.
    pub fn get(&self, path: &str) -> Result<Response> {
        self.ask(path)?.answer()
    }

    /// Posts a body and waits for the answer.
    pub fn post(&self, path: &str, body: &[u8]) -> Result<Response> {
        let mut stream = self.connect()?;
        let length = body.len();
        write!(stream, "POST {path} HTTP/1.0\r\nHost: rig\r\nContent-Length: {length}\r\n\r\n")?;
        stream.write_all(body)?;
        Asked(stream).answer()
    }

    /// Asks, and leaves the answer for later.
    pub fn ask(&self, path: &str) -> Result<Asked> {
        let stream = self.connect()?;
        request(&stream, path)?;
        Ok(Asked(stream))
    }

    /// Makes `count` requests, `concurrency` at a time, and counts the answers by status.
    pub fn storm(&self, path: &str, count: usize, concurrency: usize) -> Result<BTreeMap<u16, usize>> {
        self.on_threads(concurrency, |next| {
            let mut statuses = BTreeMap::new();
            while next.fetch_add(1, Ordering::Relaxed) < count {
                let stream = connect(self.server)?;
                request(&stream, path)?;
                *statuses.entry(Asked(stream).answer()?.status).or_default() += 1;
            }
            Ok(statuses)
        })
    }

    /// Makes `count` requests on `connections` connections that it keeps for as long as the server does, and counts the
    /// answers by status. Each must say its length.
    pub fn storm_kept(&self, path: &str, count: usize, connections: usize) -> Result<BTreeMap<u16, usize>> {
        self.on_threads(connections, |next| {
            let mut statuses = BTreeMap::new();
            let mut kept: Option<BufReader<TcpStream>> = None;
            while next.fetch_add(1, Ordering::Relaxed) < count {
                let mut stream = match kept.take() {
                    Some(stream) => stream,
                    None => BufReader::new(connect(self.server)?),
                };
                let text = format!("GET {path} HTTP/1.1\r\nHost: rig\r\n\r\n");
                stream.get_mut().write_all(text.as_bytes()).context("sending a request")?;
                let (status, is_kept) = whole_answer(&mut stream)?;
                *statuses.entry(status).or_default() += 1;
                kept = is_kept.then_some(stream);
            }
            Ok(statuses)
        })
    }

    /// Lets threads inside the namespace work on one count, and adds up what they have counted.
    fn on_threads(
        &self,
        threads: usize,
        work: impl Fn(&AtomicUsize) -> Result<BTreeMap<u16, usize>> + Sync,
    ) -> Result<BTreeMap<u16, usize>> {
        let next = AtomicUsize::new(0);
        let work = || self.namespace.run(|| work(&next));
        thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let mut total = BTreeMap::new();
            for thread in running {
                let statuses: BTreeMap<u16, usize> =
                    thread.join().map_err(|_| anyhow!("a client panicked"))??;
                for (status, count) in statuses {
                    *total.entry(status).or_default() += count;
                }
            }
            Ok(total)
        })
    }

    /// Connects, and leaves the request for later.
    pub fn connected(&self) -> Result<Connected> {
        Ok(Connected(self.connect()?))
    }

    /// Connects, and sends the beginning of a request; a server that wants none may have closed before.
    pub fn begin(&self, path: &str) -> Result<Begun> {
        let mut stream = self.connect()?;
        match write!(stream, "GET {path} HTTP/1.0\r\nHost: rig\r\n") {
            Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                Err(error).context("sending half a request")
            }
            _ => Ok(Begun(stream)),
        }
    }

    fn connect(&self) -> Result<TcpStream> {
        self.namespace.run(|| connect(self.server))
    }
}

impl Connected {
    /// Asks, and leaves the answer for later.
    pub fn ask(self, path: &str) -> Result<Asked> {
        request(&self.0, path)?;
        Ok(Asked(self.0))
    }
}

impl Begun {
    /// Whether the server has closed the connection, for all that can be seen by now.
    pub fn is_over(&self) -> Result<bool> {
        self.0.set_nonblocking(true)?;
        let peeked = self.0.peek(&mut [0]);
        self.0.set_nonblocking(false)?;
        Ok(!peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock))
    }

    /// Sends the rest, and leaves the answer for later.
    pub fn finish(mut self) -> Result<Asked> {
        self.0.write_all(b"\r\n").context("sending the rest of a request")?;
        Ok(Asked(self.0))
    }
}

impl Asked {
    /// Waits for the answer, to its end.
    pub fn answer(mut self) -> Result<Response> {
        let mut answer = Vec::new();
        self.0.read_to_end(&mut answer).context("reading the answer")?;
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let head = head.with_context(|| format!("no header in an answer of {} bytes", answer.len()))?;
        let body = answer.split_off(head + 4);
        let line = String::from_utf8_lossy(&answer);
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok(Response { status: status.with_context(|| format!("no status: {line}"))?, body })
    }

    /// Waits until at least `length` bytes of the answer have come, and leaves them there.
    pub fn wait_for(&self, length: usize) -> Result<()> {
        let mut some = vec![0; length];
        wait::until_true(&format!("{length} bytes of an answer"), || {
            Ok(self.0.peek(&mut some).context("looking at the answer")? >= length)
        })
    }

    /// Waits for the first `length` bytes of the answer, then goes away.
    pub fn abort_after(mut self, length: usize) -> Result<()> {
        let mut some = vec![0; length];
        self.0.read_exact(&mut some).context("reading a part of the answer")
    }

    /// Says that it will send no more (a FIN), and waits for the answer or the end.
    pub fn half_close(mut self) -> Result<Vec<u8>> {
        self.0.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        self.0.read_to_end(&mut answer).context("reading the answer")?;
        Ok(answer)
    }

    /// Goes away with a RST.
    pub fn reset(self) -> Result<()> {
        setsockopt(&self.0, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).context("asking for a RST")
    }

    /// Goes away before the answer.
    pub fn abort(self) -> Result<()> {
        self.0.set_nonblocking(true)?;
        let read = (&self.0).read(&mut [0]);
        ensure!(read.is_err_and(|e| e.kind() == ErrorKind::WouldBlock), "the answer has come already");
        Ok(())
    }
}

fn connect(server: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server, wait::bound())
        .with_context(|| format!("connecting to {server}"))?;
    stream.set_read_timeout(Some(wait::bound()))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

/// Reads an answer that says its length; returns its status, and whether the server keeps the connection.
fn whole_answer(stream: &mut BufReader<TcpStream>) -> Result<(u16, bool)> {
    let (mut status, mut length, mut is_kept) = (0, 0, true);
    let mut line = String::new();
    loop {
        line.clear();
        ensure!(
            stream.read_line(&mut line).context("reading the answer")? > 0,
            "the answer ends in its header"
        );
        let text = line.trim_end().to_ascii_lowercase();
        match text.split_once(": ") {
            None if text.is_empty() => break,
            None => status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0),
            Some(("content-length", value)) => length = value.parse().context("the answer's length")?,
            Some(("connection", value)) => is_kept = value != "close",
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).context("reading the answer's body")?;
    Ok((status, is_kept))
}

/// HTTP/1.0, so that the end of the answer is the end of the connection.
fn request(mut stream: &TcpStream, path: &str) -> Result<()> {
    let text = format!("GET {path} HTTP/1.0\r\nHost: rig\r\n\r\n");
    stream.write_all(text.as_bytes()).context("sending a request")
}
