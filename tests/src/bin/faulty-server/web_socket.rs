//! A WebSocket's server.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process;

use anyhow::{Result, anyhow};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

/// Sends back what it is sent, until either side ends it.
pub fn serve(connection: OwnedFd) -> Result<()> {
    let socket = connection.try_clone()?;
    let greeted = tungstenite::accept(File::from(connection));
    let mut web_socket = greeted.map_err(|error| anyhow!("no WebSocket: {error}"))?;
    println!("read");
    // However the client ends it.
    while let Ok(message) = web_socket.read() {
        match message.to_text().unwrap_or_default() {
            "leave" => return Ok(()),
            "reset" => {
                return Ok(setsockopt(&socket, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 })?);
            }
            "exit" => process::exit(3),
            "abort" => process::abort(),
            _ if message.is_text() => web_socket.send(message)?,
            _ => {}
        }
    }
    Ok(())
}
