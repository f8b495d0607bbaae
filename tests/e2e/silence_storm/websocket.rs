//! WebSockets that either side ends, properly or not.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::{Result, anyhow};
use rig::web_socket::{greet, read_to_end};
use rig::{Namespace, wait};
use tungstenite::Message;

/// Who ends one, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client says goodbye.
    ClientCloses,
    /// The client is gone without a word.
    ClientVanishes,
    /// The server says goodbye.
    ServerCloses,
    /// The server is gone without a word.
    ServerVanishes,
}

const ENDS: [End; 4] = [End::ClientCloses, End::ClientVanishes, End::ServerCloses, End::ServerVanishes];

/// Serves so many, each until it is told to end it or its client does.
pub fn serve(listener: &TcpListener, count: usize) -> Result<()> {
    thread::scope(|scope| {
        let served: Vec<_> = (0..count)
            .map(|_| {
                let (stream, _) = listener.accept()?;
                Ok(scope.spawn(|| serve_one(stream)))
            })
            .collect::<Result<_>>()?;
        served.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a server panicked"))?)
    })
}

fn serve_one(stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(wait::bound()))?;
    let mut socket = tungstenite::accept(stream).map_err(|error| anyhow!("{error}"))?;
    loop {
        match socket.read() {
            Ok(Message::Text(text)) if text.as_str() == "close" => {
                socket.close(None)?;
                read_to_end(socket);
                return Ok(());
            }
            Ok(Message::Text(text)) if text.as_str() == "vanish" => return Ok(()),
            Ok(message @ Message::Text(_)) => socket.send(message)?,
            Ok(_) => {}
            // The client closed or vanished.
            Err(_) => return Ok(()),
        }
    }
}

/// Opens one through nginx, says a few things, and ends it.
fn visit(namespace: &Namespace, server: SocketAddr, end: End) -> Result<()> {
    let stream = namespace.run(|| Ok(TcpStream::connect(server)?))?;
    stream.set_read_timeout(Some(wait::bound()))?;
    let mut socket = greet(stream, "ws://rig/socket/", 3)?;
    match end {
        End::ClientCloses => {
            socket.close(None)?;
            read_to_end(socket);
        }
        End::ClientVanishes => {}
        End::ServerCloses | End::ServerVanishes => {
            let word = if end == End::ServerCloses { "close" } else { "vanish" };
            socket.send(word.into())?;
            read_to_end(socket);
        }
    }
    Ok(())
}

/// So many, ended in each way in turn.
pub fn visits(namespace: &Namespace, server: SocketAddr, count: usize) -> Result<()> {
    ENDS.iter().cycle().take(count).try_for_each(|end| visit(namespace, server, *end))
}
