//! The failure that is made fastest: nobody listens.

use anyhow::{Result, ensure};

use crate::{Client, Endpoint, Location, Namespace, Nginx};

/// An nginx in a network of its own, with one upstream at which nobody listens.
pub fn refusing() -> Result<(Namespace, Nginx)> {
    let namespace = Namespace::new()?;
    let nginx = Nginx::on(&namespace).location(Location::fastcgi("/none/", &Endpoint::v4(9009))).start()?;
    Ok((namespace, nginx))
}

/// So many requests to that upstream, one after the other.
pub fn fail(client: &Client, count: usize) -> Result<()> {
    for _ in 0..count {
        ensure!(client.get("/none/")?.status == 502);
    }
    Ok(())
}
