//! Verdicts as messages of syslog: by RFC 5424 to a daemon elsewhere, and as syslog(3) writes them to the one of this host.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket},
    os::unix::net::UnixDatagram,
    process,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use jiff::{Timestamp, tz::TimeZone};
use syslog_fmt::{
    Facility, Severity as Level,
    v5424::{Config, Formatter, write_data},
};

use super::{
    Sink,
    courier::{Carrier, Courier, Fate},
    metrics::Shared,
    record::{Record, Severity},
};
use crate::{
    model::{destination::Syslog, failure::Failure, words::time},
    procfs::host_name,
};

/// So many verdicts may wait for it.
const QUEUE: usize = 2_048;

/// How long connecting and writing may take.
const LIMIT: Duration = Duration::from_secs(3);

/// What the attributes stand under. The number is the one that is meant for examples: none is registered for this program.
const ELEMENT: &str = "why502@32473";

/// A sink that writes verdicts to a syslog daemon.
///
/// # Errors
/// If it is of this host, and nobody takes messages there.
pub fn to_syslog(to: Syslog, shared: &Arc<Shared>) -> Result<impl Sink + use<>, Failure> {
    if let Syslog::Local(path) = &to
        && let Err(error) = Connection::open(&to)
    {
        return Err(Failure::CannotTrace(format!(
            "nobody takes log messages at {} ({error}): start a syslog daemon, or leave --syslog out",
            path.display()
        )));
    }
    let host = host_name().context("the name of this host cannot be read")?;
    let pid = process::id();
    let config = Config {
        facility: Facility::Daemon,
        hostname: Some(&*host).filter(|host| !host.is_empty()),
        app_name: Some("why502"),
        proc_id: Some(&pid.to_string()),
    };
    let called = format!("syslog at {to}");
    let sender =
        Sender { formatter: config.into_formatter(), zone: TimeZone::system(), pid, to, connection: None };
    Ok(Courier::start("syslog", called, QUEUE, &shared.drops_of("syslog"), sender)?)
}

/// What speaks to the daemon.
struct Sender {
    formatter: Formatter,
    zone: TimeZone,
    pid: u32,
    to: Syslog,
    connection: Option<Connection>,
}

enum Connection {
    Local(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Connection {
    fn open(to: &Syslog) -> io::Result<Self> {
        match to {
            Syslog::Local(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(LIMIT))?;
                Ok(Self::Local(socket))
            }
            Syslog::Udp(host, port) => {
                let address = resolved(host, *port)?;
                let any = match address {
                    SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                    SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                Ok(Self::Udp(socket))
            }
            Syslog::Tcp(host, port) => {
                let stream = TcpStream::connect_timeout(&resolved(host, *port)?, LIMIT)?;
                stream.set_write_timeout(Some(LIMIT))?;
                stream.set_nodelay(true)?;
                Ok(Self::Tcp(stream))
            }
        }
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Local(socket) => socket.send(message).map(drop),
            Self::Udp(socket) => socket.send(message).map(drop),
            Self::Tcp(stream) => {
                is_open(stream)?;
                // RFC 6587: its length says where it ends.
                let mut framed = format!("{} ", message.len()).into_bytes();
                framed.extend_from_slice(message);
                stream.write_all(&framed)
            }
        }
    }
}

fn resolved(host: &str, port: u16) -> io::Result<SocketAddr> {
    (host, port).to_socket_addrs()?.next().ok_or_else(|| ErrorKind::NotFound.into())
}

/// A daemon that has gone would swallow one more message. It never says anything, so that the end is all that can be read.
fn is_open(stream: &mut TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    let read = stream.read(&mut [0; 64]);
    stream.set_nonblocking(false)?;
    match read {
        Ok(0) => Err(ErrorKind::ConnectionAborted.into()),
        Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}

impl Carrier for Sender {
    const BATCH: usize = 1;
    const LINGER: Duration = Duration::ZERO;

    fn carry(&mut self, records: &[Record]) -> Fate {
        match records.iter().try_for_each(|record| self.send(record)) {
            Ok(()) => Fate::Taken { but: 0 },
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => Fate::Refused(error.to_string()),
            Err(error) => {
                self.connection = None;
                Fate::Later { why: error.to_string(), after: None }
            }
        }
    }
}

impl Sender {
    fn send(&mut self, record: &Record) -> io::Result<()> {
        let message = self.message(record)?;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(&self.to)?),
        };
        connection.send(&message)
    }

    fn message(&self, record: &Record) -> io::Result<Vec<u8>> {
        let mut message = Vec::new();
        let level = match record.severity {
            Severity::Info => Level::Info,
            Severity::Error => Level::Err,
        };
        if let Syslog::Local(_) = self.to {
            // The daemons of a host, journald among them, read what the C library's syslog(3) writes, and no RFC 5424.
            let time = Timestamp::from_nanosecond(record.unix_ns.into()).unwrap_or(Timestamp::UNIX_EPOCH);
            let time = time.to_zoned(self.zone.clone()).strftime("%b %e %H:%M:%S");
            let priority = Facility::Daemon as u8 | level as u8;
            write!(message, "<{priority}>{time} why502[{}]: {}", self.pid, record.body)?;
            write_attributes(&mut message, record)?;
        } else {
            self.formatter.write_header(&mut message, level, time(record.unix_ns), Some("verdict"))?;
            write_attributes(&mut message, record)?;
            write!(message, " {}", record.body)?;
        }
        Ok(message)
    }
}

/// As structured data: `[why502@32473 error.type="reset/worker_killed" ...]`.
fn write_attributes(message: &mut Vec<u8>, record: &Record) -> io::Result<()> {
    let values: Vec<_> = record.attributes.iter().map(|(name, value)| (*name, value.to_string())).collect();
    let parameters: Vec<_> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
    write_data(message, [(ELEMENT, parameters)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{record::ATTRIBUTES, samples};

    fn written(to: &str) -> String {
        let config = Config {
            facility: Facility::Daemon,
            hostname: Some("web1"),
            app_name: Some("why502"),
            proc_id: Some("7"),
        };
        let sender = Sender {
            formatter: config.into_formatter(),
            zone: TimeZone::UTC,
            pid: 7,
            to: to.parse().unwrap(),
            connection: None,
        };
        String::from_utf8(sender.message(&Record::of(&samples::killed(), 0)).unwrap()).unwrap()
    }

    #[test]
    fn a_message_is_as_its_daemon_reads_it() {
        let far = written("tcp://127.0.0.1:514");
        let head = "<27>1 2026-11-20T11:39:26.123456Z web1 why502 7 verdict [why502@32473 error.type=\"reset/worker_killed\" ";
        assert!(far.starts_with(head), "{far}");
        assert!(far.ends_with("] php-fpm master 24938 sent SIGTERM to worker 24940, 3.257 s into the request; 8 bytes were still unread, so the kernel reset the connection and nginx read ECONNRESET."), "{far}");
        let near = written("/dev/log");
        assert!(
            near.starts_with("<27>Nov 20 11:39:26 why502[7]: php-fpm master 24938 sent SIGTERM"),
            "{near}"
        );
        assert!(near.contains(" [why502@32473 error.type=\"reset/worker_killed\" "), "{near}");
    }

    #[test]
    fn each_attribute_has_a_name_that_structured_data_takes() {
        for (name, _) in ATTRIBUTES {
            assert!(
                name.len() <= 32
                    && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"=]\"".contains(&byte)),
                "{name}"
            );
        }
    }
}
