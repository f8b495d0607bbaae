//! Where an upstream listens.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Error};

/// A TCP address or the path of a unix socket, displayed as why502 does: `127.0.0.1:9000`, `[::1]:9000`,
/// `/run/fpm.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// TCP over IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A unix stream socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// A port of 127.0.0.1.
    pub fn v4(port: u16) -> Endpoint {
        Endpoint::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
    }

    /// A port of `[::1]`.
    pub fn v6(port: u16) -> Endpoint {
        Endpoint::Tcp(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port))
    }

    /// As nginx's configuration writes it.
    pub fn for_nginx(&self) -> String {
        match self {
            Endpoint::Tcp(address) => address.to_string(),
            Endpoint::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// From the `upstream: "fastcgi://127.0.0.1:9000"` of nginx's error log: there, a unix socket's path is
    /// followed by a colon, or after a timeout not; and HTTP's URI follows, which in the rig is `/` then.
    pub fn from_error_log(upstream: &str) -> Option<Endpoint> {
        let (_, rest) = upstream.split_once("://")?;
        match rest.strip_prefix("unix:") {
            Some(path) => Some(Endpoint::Unix(path.split(':').next()?.trim_end_matches('/').into())),
            None => rest.split('/').next()?.parse().ok().map(Endpoint::Tcp),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => address.fmt(f),
            Endpoint::Unix(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Endpoint, Error> {
        if text.starts_with('/') {
            return Ok(Endpoint::Unix(text.into()));
        }
        text.parse().map(Endpoint::Tcp).with_context(|| format!("{text} is no address"))
    }
}
