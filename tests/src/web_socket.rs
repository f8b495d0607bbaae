//! Clients of WebSockets.

use std::io::{Read, Write};

use anyhow::{Result, anyhow, ensure};
use tungstenite::{Message, WebSocket};

/// Asks for an upgrade at `url` (`ws://...`, `wss://...`), and exchanges so many messages.
///
/// # Errors
///
/// If it is refused, or something else comes back than was sent.
pub fn greet<Stream: Read + Write>(stream: Stream, url: &str, messages: usize) -> Result<WebSocket<Stream>> {
    let greeted = tungstenite::client(url, stream);
    let (mut client, _) = greeted.map_err(|error| anyhow!("no WebSocket: {error}"))?;
    for number in 0..messages {
        let message = Message::text(format!("message {number}"));
        client.send(message.clone())?;
        ensure!(client.read()? == message);
    }
    Ok(client)
}

/// Reads until the other side has ended it.
pub fn read_to_end<Stream: Read + Write>(mut client: WebSocket<Stream>) {
    while client.read().is_ok() {}
}
