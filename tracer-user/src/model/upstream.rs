//! Upstreams: where exchanges go, and which of them a user asks for.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Where an exchange went.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Upstream {
    /// Over TCP.
    Inet(SocketAddr),
    /// To a unix stream socket.
    Unix(PathBuf),
    /// Nowhere: nothing was attempted. The name that nginx was asked for, where it is known; else empty.
    Named(String),
}

impl fmt::Display for Upstream {
    /// `ip:port`, `[ip6]:port` or the socket's path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
            Self::Named(name) if name.is_empty() => f.write_str("no server"),
            Self::Named(name) => name.fmt(f),
        }
    }
}

/// Whether a connection to `upstream` may end up at `listener`. The unspecified address stands for any.
pub fn leads_to(upstream: SocketAddr, listener: SocketAddr) -> bool {
    let ((upstream, port), (listener, at)) = (canonical(upstream), canonical(listener));
    port == at && (upstream == listener || upstream.is_unspecified() || listener.is_unspecified())
}

/// What fits in `sockaddr_un.sun_path`, less the closing NUL.
const UNIX_PATH_MAX: usize = 107;

/// The upstreams that one `-u` selects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamFilter {
    /// One address and port.
    Address(SocketAddr),
    /// One port of any address.
    Port(u16),
    /// One unix socket.
    Unix(PathBuf),
}

impl UpstreamFilter {
    /// Whether this selects the upstream.
    pub fn matches(&self, upstream: &Upstream) -> bool {
        match (self, upstream) {
            (Self::Address(wanted), Upstream::Inet(seen)) => canonical(*wanted) == canonical(*seen),
            (Self::Port(wanted), Upstream::Inet(seen)) => *wanted == seen.port(),
            (Self::Unix(wanted), Upstream::Unix(seen)) => wanted == seen,
            (Self::Address(_) | Self::Port(_), Upstream::Unix(_) | Upstream::Named(_))
            | (Self::Unix(_), Upstream::Inet(_) | Upstream::Named(_)) => false,
        }
    }
}

/// An IPv4 address within IPv6 (`::ffff:10.0.0.1`) is the same peer as the bare one.
fn canonical(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

/// Why a word does not name an upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUpstream {
    /// An address without its port.
    #[error("the port is missing; write {0}")]
    NoPort(String),
    /// A port that no listener can have.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// A path that is relative.
    #[error("the path of a unix socket begins with /")]
    RelativePath,
    /// A path that no unix socket can have.
    #[error("the path of a unix socket has at most {UNIX_PATH_MAX} bytes, and this one has {0}")]
    LongPath(usize),
    /// Anything else, names of hosts included.
    #[error("an upstream is IP:PORT, [IPV6]:PORT, :PORT or the path of a unix socket")]
    Unknown,
}

impl FromStr for UpstreamFilter {
    type Err = BadUpstream;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        if let Some(path) = word.strip_prefix("unix:") {
            // nginx ends the socket's name with a colon where a URI may follow it.
            return unix(path.strip_suffix(':').unwrap_or(path));
        }
        if word.starts_with('/') {
            return unix(word);
        }
        if let Some(port) = word.strip_prefix(':')
            && !port.contains(':')
        {
            return Ok(Self::Port(port_number(port)?));
        }
        if let Ok(ip) = word.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Err(BadUpstream::NoPort(match ip {
                IpAddr::V4(ip) => format!("{ip}:PORT"),
                IpAddr::V6(ip) => format!("[{ip}]:PORT"),
            }));
        }
        let (host, port) = word.rsplit_once(':').ok_or(BadUpstream::Unknown)?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(ip) => IpAddr::V6(ip.parse().map_err(|_| BadUpstream::Unknown)?),
            None => IpAddr::V4(host.parse().map_err(|_| BadUpstream::Unknown)?),
        };
        Ok(Self::Address(SocketAddr::new(host.to_canonical(), port_number(port)?)))
    }
}

impl fmt::Display for UpstreamFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Port(port) => write!(f, ":{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

fn unix(path: &str) -> Result<UpstreamFilter, BadUpstream> {
    let path = Path::new(path);
    match path.as_os_str().as_bytes().len() {
        _ if !path.is_absolute() => Err(BadUpstream::RelativePath),
        length if length > UNIX_PATH_MAX => Err(BadUpstream::LongPath(length)),
        _ => Ok(UpstreamFilter::Unix(path.to_owned())),
    }
}

fn port_number(word: &str) -> Result<u16, BadUpstream> {
    word.parse().ok().filter(|port| *port != 0).ok_or(BadUpstream::Port)
}
