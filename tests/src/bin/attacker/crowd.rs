//! Crowds: a program that calls itself nginx and holds more connections than the tracer has places for, and listeners that live for
//! a moment.

use std::fs;
use std::io::{self, BufRead, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process as this;

use anyhow::{Context, Result, ensure};
use nix::sys::prctl;
use nix::sys::socket::{Backlog, listen};

/// Connections that fit into one accept queue.
const QUEUE: usize = 4_000;

/// Calls itself nginx and connects so many times, to nobody who would accept; and once to a unix socket, on which it sends.
pub fn fake_nginx(arguments: &[&str]) -> Result<()> {
    let [count] = arguments else { anyhow::bail!("usage: fake_nginx COUNT") };
    let count: usize = count.parse()?;
    prctl::set_name(c"nginx").context("taking the name nginx")?;
    let mut held = Vec::new();
    let mut listeners = Vec::new();
    while held.len() < count {
        let listener = TcpListener::bind("127.0.0.1:0").context("a listener")?;
        listen(&listener, Backlog::new(QUEUE as i32)?).context("a longer queue")?;
        let address = listener.local_addr()?;
        for _ in 0..QUEUE.min(count - held.len()) {
            held.push(TcpStream::connect(address).context("a held connection")?);
        }
        listeners.push(listener);
    }
    let path = format!("/tmp/why502-fake-nginx-{}.sock", this::id());
    let unix = UnixListener::bind(&path).context(path.clone())?;
    let connected = UnixStream::connect(&path);
    fs::remove_file(&path)?;
    let mut connected = connected?;
    connected.write_all(b"hello")?;
    println!("ready");
    for line in io::stdin().lock().lines() {
        let _ = line?;
        connected.write_all(b"hello")?;
        println!("sent");
    }
    drop((held, listeners, unix, connected));
    Ok(())
}

/// Opens and closes so many listeners for each line that it is told.
pub fn short_lived(arguments: &[&str]) -> Result<()> {
    let [count] = arguments else { anyhow::bail!("usage: short_lived COUNT") };
    let count: usize = count.parse()?;
    println!("ready");
    for line in io::stdin().lock().lines() {
        let _ = line?;
        for _ in 0..count {
            ensure!(TcpListener::bind("127.0.0.1:0").is_ok(), "no more listeners");
        }
        println!("done");
    }
    Ok(())
}
