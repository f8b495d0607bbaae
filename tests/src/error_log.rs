//! nginx's error log: the failures of upstreams in it, which are the ground truth of every test.

use crate::Endpoint;
use crate::process::Pid;

/// What kind of failure a line tells of.
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
    /// `upstream prematurely closed connection`.
    PrematureClose,
    /// `upstream sent too big header`, `invalid header`, and the like.
    RejectedResponse,
    /// `client prematurely closed connection`, logged at level info.
    ClientAbort,
    /// `no live upstreams`: nothing was tried.
    NoLiveUpstreams,
}

/// One line about a failed exchange.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The moment, to the second, as nginx writes it.
    pub time: String,
    /// `error`, `crit`, `info`, ...
    pub level: String,
    /// The nginx worker.
    pub pid: Pid,
    /// What kind of failure.
    pub kind: Kind,
    /// The number in `(111: Connection refused)`, if there is one.
    pub errno: Option<i32>,
    /// The message, up to ", client:".
    pub text: String,
    /// The upstream, unless it is the name of a group.
    pub upstream: Option<Endpoint>,
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
    let (_, message) = rest.split_once(' ')?;
    let (text, context) = message.split_once(", client: ")?;
    let (_, upstream) = context.split_once("upstream: \"")?;
    Some(Failure {
        time: time.into(),
        level: level.into(),
        pid: pid.parse().ok()?,
        kind: kind(text)?,
        errno: text.split_once(" (").and_then(|(_, rest)| rest.split_once(':')?.0.parse().ok()),
        text: text.into(),
        upstream: Endpoint::from_error_log(upstream.split('"').next()?),
        client: context.split(',').next()?.into(),
    })
}

fn kind(text: &str) -> Option<Kind> {
    let call = text.split_once("() ").map(|(call, _)| call);
    Some(match text {
        _ if text.starts_with("FastCGI sent in stderr") => return None,
        _ if text.contains("client prematurely closed connection") => Kind::ClientAbort,
        _ if text.starts_with("upstream timed out") => Kind::TimedOut,
        _ if text.starts_with("upstream prematurely closed") => Kind::PrematureClose,
        _ if text.starts_with("no live upstreams") => Kind::NoLiveUpstreams,
        _ if text.starts_with("upstream sent") => Kind::RejectedResponse,
        _ if text.contains("FastCGI") => Kind::RejectedResponse,
        // A failure of the other side, the client's, also names the upstream.
        _ if !text.contains("failed (") || text.ends_with("while sending to client") => return None,
        _ => match call? {
            "connect" => Kind::Connect,
            "recv" | "readv" => Kind::Receive,
            "send" | "writev" | "sendfile" => Kind::Send,
            _ => return None,
        },
    })
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
2026/11/20 11:39:28 [info] 24945#24945: *6 client 127.0.0.1 closed keepalive connection
"#;

    #[test]
    fn only_failures_of_upstreams_are_read() {
        let found = parse(LOG);
        let kinds: Vec<Kind> = found.iter().map(|failure| failure.kind).collect();
        assert_eq!(kinds, [Kind::Connect, Kind::Connect, Kind::TimedOut, Kind::ClientAbort]);
        assert_eq!(found.iter().map(|f| f.errno).collect::<Vec<_>>(), [Some(111), Some(2), Some(110), None]);
        let upstreams: Vec<String> =
            found.iter().filter_map(|f| Some(f.upstream.as_ref()?.to_string())).collect();
        assert_eq!(upstreams, ["[::1]:9009", "/run/x.sock", "10.0.0.2:80", "127.0.0.1:9000"]);
        assert_eq!(found[0].text, "connect() failed (111: Connection refused) while connecting to upstream");
        assert_eq!((found[0].pid, found[0].client.as_str()), (24945, "127.0.0.1"));
    }
}
