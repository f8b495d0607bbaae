//! Uploads that nginx passes on as they come, and that go wrong by the client's own fault.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use rig::{FaultyServer, Namespace, wait};

/// How one goes wrong: where it is sent, what follows its beginning, what nginx answers, and the verdict's name.
pub struct Fault {
    pub path: &'static str,
    pub directive: &'static str,
    then: &'static [u8],
    status: u16,
    pub name: &'static str,
}

pub const FAULTS: [Fault; 3] = [
    Fault {
        path: "/large/",
        directive: "client_max_body_size 8",
        then: b"a\r\n0123456789\r\n",
        status: 413,
        name: "client_error/body_too_large",
    },
    Fault {
        path: "/invalid/",
        directive: "client_max_body_size 1m",
        then: b"no length\r\n",
        status: 400,
        name: "client_error/invalid_body",
    },
    Fault {
        path: "/stopped/",
        directive: "client_body_timeout 1s",
        then: b"",
        status: 408,
        name: "client_error/body_timeout",
    },
];

/// So many of each kind at a time, all of which reach `server` before they go wrong.
pub fn go_wrong(namespace: &Namespace, nginx: SocketAddr, server: &FaultyServer, count: usize) -> Result<()> {
    for (round, fault) in (1..).zip(&FAULTS) {
        let mut streams: Vec<_> =
            (0..count).map(|_| begin(namespace, nginx, fault)).collect::<Result<_>>()?;
        server.wait_read(round * count)?;
        for stream in &mut streams {
            // One that stopped for too long is over by now, maybe.
            let _sent = stream.write_all(fault.then);
        }
        streams.into_iter().try_for_each(|stream| is_answered(stream, fault))?;
    }
    Ok(())
}

fn begin(namespace: &Namespace, nginx: SocketAddr, fault: &Fault) -> Result<TcpStream> {
    let mut stream = namespace.run(|| Ok(TcpStream::connect(nginx)?))?;
    stream.set_read_timeout(Some(wait::bound()))?;
    write!(
        stream,
        "POST {} HTTP/1.1\r\nHost: rig\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        fault.path
    )?;
    Ok(stream)
}

fn is_answered(mut stream: TcpStream, fault: &Fault) -> Result<()> {
    let mut answer = Vec::new();
    // What nginx has not read may make its end a reset.
    let _end = stream.read_to_end(&mut answer);
    let line =
        answer.split(|byte| *byte == b'\r').next().map(String::from_utf8_lossy).context("no answer")?;
    let Fault { path, status, .. } = fault;
    // That reset may overtake the answer.
    ensure!(line.is_empty() || line.contains(&format!(" {status} ")), "{path}: {line}");
    Ok(())
}
