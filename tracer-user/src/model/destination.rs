//! Where verdicts go besides files: a collector of OpenTelemetry, a syslog daemon.

use std::{fmt, path::PathBuf, str::FromStr};

/// A collector that takes OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// Its host, a name or an address; one of IPv6 without its brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What stands before `/v1/logs`; empty, mostly.
    pub path: String,
}

/// Why a word names no collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCollector {
    /// TLS is asked for.
    #[error(
        "why502 speaks no TLS: run a collector or an agent on this host, give its http:// address, and let that one send on by https"
    )]
    Tls,
    /// Anything else.
    #[error("a collector looks like http://127.0.0.1:4318")]
    Unknown,
}

/// The port of a URL that names none.
const HTTP: u16 = 80;

impl FromStr for Collector {
    type Err = BadCollector;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let uri: hyper::Uri = word.parse().map_err(|_not_a_uri| BadCollector::Unknown)?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(BadCollector::Tls),
            _ => return Err(BadCollector::Unknown),
        }
        let authority = uri.authority().ok_or(BadCollector::Unknown)?;
        // A port that is none is no word of the default one.
        let has_bad_port =
            authority.port_u16().is_none() && authority.as_str().len() > authority.host().len();
        let is_plain =
            !authority.as_str().contains('@') && uri.query().is_none() && !authority.host().is_empty();
        if has_bad_port || !is_plain {
            return Err(BadCollector::Unknown);
        }
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(HTTP),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl Collector {
    /// Host and port, as a request's `Host` header has them.
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.path)
    }
}

/// A syslog daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Syslog {
    /// Of this host, at a unix datagram socket: `/dev/log`.
    Local(PathBuf),
    /// By one datagram of UDP for each message.
    Udp(String, u16),
    /// By a TCP connection.
    Tcp(String, u16),
}

impl FromStr for Syslog {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "a syslog daemon is /dev/log, udp://HOST:PORT or tcp://HOST:PORT";
        if word.starts_with('/') {
            return Ok(Self::Local(word.into()));
        }
        let (scheme, rest) = word.split_once("://").ok_or(FORM)?;
        let (host, port) = rest.rsplit_once(':').ok_or(FORM)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(FORM)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        if host.is_empty() || host.contains(['/', '@', '[']) || bare.is_none() && host.contains(':') {
            return Err(FORM);
        }
        match scheme {
            "udp" => Ok(Self::Udp(host.to_owned(), port)),
            "tcp" => Ok(Self::Tcp(host.to_owned(), port)),
            _ => Err(FORM),
        }
    }
}

impl fmt::Display for Syslog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Udp(host, port) => write!(f, "udp://{}", authority(host, *port)),
            Self::Tcp(host, port) => write!(f, "tcp://{}", authority(host, *port)),
        }
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_a_plain_url() {
        let shown = |word: &str| word.parse::<Collector>().map(|collector| collector.to_string());
        for (word, whole) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
            ("http://[::1]:4318/", "http://[::1]:4318"),
            ("http://agent.example/otlp/", "http://agent.example:80/otlp"),
        ] {
            assert_eq!(shown(word).as_deref(), Ok(whole));
        }
        assert_eq!(shown("https://collector.example:4318"), Err(BadCollector::Tls));
        for word in [
            "",
            "127.0.0.1:4318",
            "/v1/logs",
            "grpc://a:4317",
            "http://",
            "http://a:99999",
            "http://me:secret@a",
            "http://a/?b",
        ] {
            assert_eq!(shown(word), Err(BadCollector::Unknown), "{word}");
        }
    }

    #[test]
    fn a_syslog_daemon_is_a_socket_or_a_host_with_its_port() {
        let shown = |word: &str| word.parse::<Syslog>().map(|syslog| syslog.to_string());
        for word in ["/dev/log", "udp://127.0.0.1:514", "tcp://logs.example:6514", "udp://[::1]:514"] {
            assert_eq!(shown(word).as_deref(), Ok(word));
        }
        for word in [
            "",
            "dev/log",
            "udp://a",
            "udp://:514",
            "tcp://a:0",
            "tls://a:6514",
            "udp://::1:514",
            "udp://[::1:514",
        ] {
            assert!(shown(word).is_err(), "{word}");
        }
    }
}
