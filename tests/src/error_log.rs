//! nginx's error log: the failures of upstreams in it, which are the ground truth of every test.

use crate::Endpoint;
use crate::process::Pid;

/// What kind of failure a line reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `connect() failed (N: ...)` or `connect() to X failed (N: ...)`.
    Connect,
    /// `upstream timed out`: one of nginx's own timers.
    TimedOut,
    /// `recv() failed` or `readv() failed`.
    Receive,
    /// `send() failed`, `writev() failed` or `sendfile() failed`.
    Send,
    /// `upstream prematurely closed connection`, or stream, or FastCGI stdout, or request.
    PrematureClose,
    /// `upstream sent too big header`, `invalid header`, `goaway`, `upstream rejected request`, and the like.
    RejectedResponse,
    /// `SSL_do_handshake() failed`, `upstream SSL certificate verify error`, and the like.
    Tls,
    /// `client prematurely closed connection`, logged at level info.
    ClientAbort,
    /// `no live upstreams`: nothing was tried.
    NoLiveUpstreams,
    /// `X could not be resolved`: nothing was tried.
    Unresolved,
    /// `socket() failed` or `worker_connections are not enough`: nginx has no means to try.
    NoMeans,
    /// nginx's own files: `open() "X" failed`, `cannot load certificate "X"`.
    Local,
    /// Anything else that was logged at level error or above, about an upstream.
    Other,
}

/// One line about a failed exchange, or one that was not even tried.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The moment, to the second, as nginx writes it.
    pub time: String,
    /// `error`, `crit`, `info`, ...
    pub level: String,
    /// The nginx worker.
    pub pid: Pid,
    /// nginx's number of the client's connection: `*17`.
    pub connection: u64,
    /// What kind of failure.
    pub kind: Kind,
    /// The number in `(111: Connection refused)`, if there is one.
    pub errno: Option<i32>,
    /// The text, up to the errno or to " while ": `connect() failed`.
    pub message: String,
    /// What nginx was doing: `connecting to upstream`.
    pub doing: Option<String>,
    /// The whole text, up to ", client:".
    pub text: String,
    /// The upstream, unless it is the name of a group.
    pub upstream: Option<Endpoint>,
    /// The name in `proxy_pass`, if the line has that instead of an address.
    pub group: Option<String>,
    /// The client's address.
    pub client: String,
}

/// How many lines are of a kind.
pub fn count(failures: &[Failure], kind: Kind) -> usize {
    failures.iter().filter(|failure| failure.kind == kind).count()
}

/// The upstream failures of a log; all other lines are passed over.
pub fn parse(log: &str) -> Vec<Failure> {
    log.lines().filter_map(failure).collect()
}

/// `2026/11/20 11:39:26 [error] 24945#24945: *1 connect() failed (111: Connection refused) while connecting
/// to upstream, client: 127.0.0.1, server: , request: "GET / HTTP/1.0", upstream: "fastcgi://127.0.0.1:9009",
/// host: "..."`
fn failure(line: &str) -> Option<Failure> {
    let (head, rest) = line.split_once("] ")?;
    let (time, level) = head.split_once(" [")?;
    let (pid, rest) = rest.split_once('#')?;
    let (_, rest) = rest.split_once(": *")?;
    let (connection, rest) = rest.split_once(' ')?;
    let (text, context) = rest.split_once(", client: ")?;
    let (said, doing) = match text.rsplit_once(" while ") {
        Some((said, doing)) => (said, Some(doing)),
        None => (text, None),
    };
    let (message, errno) = errno(said);
    let upstream = context.split_once("upstream: \"").and_then(|(_, rest)| rest.split('"').next());
    let address = upstream.and_then(Endpoint::from_error_log);
    let group = upstream.filter(|_| address.is_none()).and_then(|upstream| {
        let (_, rest) = upstream.split_once("://")?;
        rest.split('/').next()
    });
    let is_about_upstream = upstream.is_some() || doing.is_some_and(|doing| doing.contains("upstream"));
    Some(Failure {
        time: time.into(),
        level: level.into(),
        pid: pid.parse().ok()?,
        connection: connection.parse().ok()?,
        kind: kind(level, message, doing, is_about_upstream)?,
        errno,
        message: message.into(),
        doing: doing.map(Into::into),
        text: text.into(),
        upstream: address,
        group: group.map(Into::into),
        client: context.split(',').next()?.into(),
    })
}

/// Takes `(111: Connection refused)` off the end of what nginx says. A resolver's and a certificate's codes look alike and are none.
fn errno(said: &str) -> (&str, Option<i32>) {
    let split = said.rsplit_once(" (").and_then(|(message, rest)| {
        let (number, _) = rest.strip_suffix(')')?.split_once(": ")?;
        Some((message, number.parse().ok()?))
    });
    match split {
        Some((message, number)) if !message.ends_with("could not be resolved") => (message, Some(number)),
        _ => (said, None),
    }
}

fn kind(level: &str, message: &str, doing: Option<&str>, is_about_upstream: bool) -> Option<Kind> {
    let starts_with = |beginnings: &[&str]| beginnings.iter().any(|beginning| message.starts_with(beginning));
    let kind = match message {
        _ if starts_with(&["FastCGI sent in stderr"]) => return None,
        _ if message.contains("could not be resolved") || starts_with(&["no resolver defined"]) => {
            Kind::Unresolved
        }
        _ if !is_about_upstream => return None,
        _ if message.contains("client prematurely closed connection") => Kind::ClientAbort,
        _ if starts_with(&["upstream timed out"]) => Kind::TimedOut,
        _ if starts_with(&["upstream prematurely closed"]) => Kind::PrematureClose,
        _ if starts_with(&["no live upstreams"]) => Kind::NoLiveUpstreams,
        _ if starts_with(&["upstream SSL certificate", "SSL_", "peer closed connection in SSL"]) => Kind::Tls,
        _ if starts_with(&["upstream sent", "upstream rejected"]) => Kind::RejectedResponse,
        _ if message.contains("FastCGI") => Kind::RejectedResponse,
        _ if starts_with(&["socket() failed"]) || message.ends_with("worker_connections are not enough") => {
            Kind::NoMeans
        }
        _ if starts_with(&["open() ", "mkdir() ", "pwrite() ", "rename() ", "cannot load certificate"]) => {
            Kind::Local
        }
        // A failure of the other side, the client's, also names the upstream.
        _ if doing == Some("sending to client") => return None,
        _ if starts_with(&["connect() "]) => Kind::Connect,
        _ if starts_with(&["recv() ", "readv() "]) => Kind::Receive,
        _ if starts_with(&["send() ", "writev() ", "sendfile() "]) => Kind::Send,
        _ if matches!(level, "error" | "crit" | "alert" | "emerg") => Kind::Other,
        _ => return None,
    };
    Some(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"2026/11/20 11:39:25 [notice] 24938#24938: start worker processes
2026/11/20 11:39:26 [error] 24945#24945: *1 connect() failed (111: Connection refused) while connecting to upstream, client: 127.0.0.1, server: , request: "GET /r/ HTTP/1.0", upstream: "fastcgi://[::1]:9009", host: "x"
2026/11/20 11:39:26 [crit] 24945#24945: *2 connect() to unix:/run/x.sock failed (2: No such file or directory) while connecting to upstream, client: 127.0.0.1, server: , request: "GET / HTTP/1.0", upstream: "fastcgi://unix:/run/x.sock:", host: "x"
2026/11/20 11:39:27 [error] 24945#24945: *3 upstream timed out (110: Connection timed out) while reading response header from upstream, client: 127.0.0.1, server: , request: "GET / HTTP/1.0", upstream: "http://10.0.0.2:80/x/y", host: "x"
2026/11/20 11:39:27 [error] 24945#24945: *4 FastCGI sent in stderr: "PHP message: (1: x)" while reading response header from upstream, client: 127.0.0.1, server: , request: "GET / HTTP/1.0", upstream: "fastcgi://127.0.0.1:9000", host: "x"
2026/11/20 11:39:28 [info] 24945#24945: *5 epoll_wait() reported that client prematurely closed connection, so upstream connection is closed too while sending request to upstream, client: 127.0.0.1, server: , request: "GET / HTTP/1.0", upstream: "fastcgi://127.0.0.1:9000", host: "x"
2026/11/20 11:39:28 [error] 24945#24945: *7 no live upstreams while connecting to upstream, client: 127.0.0.1, server: , request: "GET / HTTP/1.0", upstream: "http://pair/x", host: "x"
2026/11/20 11:39:28 [error] 24945#24945: *8 x.test could not be resolved (110: Operation timed out), client: 127.0.0.1, server: , request: "GET / HTTP/1.0", host: "x"
2026/11/20 11:39:28 [alert] 24945#24945: *9 16 worker_connections are not enough while connecting to upstream, client: 127.0.0.1, server: , request: "GET / HTTP/1.0", upstream: "http://127.0.0.1:80/", host: "x"
2026/11/20 11:39:28 [error] 24945#24945: *9 upstream said what nobody has said before while reading upstream, client: 127.0.0.1, server: , request: "GET / HTTP/1.0", upstream: "http://127.0.0.1:80/", host: "x"
2026/11/20 11:39:28 [error] 24945#24945: *9 open() "/srv/x" failed (2: No such file or directory), client: 127.0.0.1, server: , request: "GET /x HTTP/1.0", host: "x"
2026/11/20 11:39:28 [info] 24945#24945: *6 client 127.0.0.1 closed keepalive connection
"#;

    #[test]
    fn only_failures_of_upstreams_are_read() {
        let found = parse(LOG);
        let kinds: Vec<Kind> = found.iter().map(|failure| failure.kind).collect();
        let expected = [
            Kind::Connect,
            Kind::Connect,
            Kind::TimedOut,
            Kind::ClientAbort,
            Kind::NoLiveUpstreams,
            Kind::Unresolved,
            Kind::NoMeans,
            Kind::Other,
        ];
        assert_eq!(kinds, expected);
        let errnos: Vec<_> = found.iter().map(|failure| failure.errno).collect();
        assert_eq!(errnos, [Some(111), Some(2), Some(110), None, None, None, None, None]);
        let upstreams: Vec<String> =
            found.iter().filter_map(|f| Some(f.upstream.as_ref()?.to_string())).collect();
        assert_eq!(upstreams[..4], ["[::1]:9009", "/run/x.sock", "10.0.0.2:80", "127.0.0.1:9000"]);
        assert_eq!(found[4].group.as_deref(), Some("pair"));
        assert_eq!(found[0].text, "connect() failed (111: Connection refused) while connecting to upstream");
        assert_eq!((found[0].message.as_str(), found[0].connection), ("connect() failed", 1));
        assert_eq!(found[1].message, "connect() to unix:/run/x.sock failed");
        assert_eq!(found[2].doing.as_deref(), Some("reading response header from upstream"));
        assert_eq!(found[5].message, "x.test could not be resolved (110: Operation timed out)");
        assert_eq!((found[0].pid, found[0].client.as_str()), (24945, "127.0.0.1"));
    }
}
