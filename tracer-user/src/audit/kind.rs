//! What nginx can say of a failed exchange, and which cause it may say it for. The texts are those of nginx's source.

use crate::model::cause::Cause;

/// What kind of failure a line reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `connect() failed (111: ...)`, `connect() to X failed (2: ...)`, but for the two errors below.
    Connect,
    /// `upstream timed out (110: ...) while connecting to upstream`.
    TimedOutConnecting,
    /// `upstream timed out (110: ...)` while doing anything else.
    TimedOut,
    /// `recv() failed (104: ...)`; likewise readv, send, writev, sendfile, TLS on top of them, and connect.
    Reset,
    /// `recv() failed (110: ...)`, `connect() failed (110: ...)`: the kernel gave up.
    TimedOutByKernel,
    /// `upstream prematurely closed connection`.
    Closed,
    /// `upstream prematurely closed FastCGI stdout`: the protocol's end came too early, the connection may stand.
    Unfinished,
    /// `upstream sent too big header`, `invalid header`, and whatever else nginx will not take.
    Rejected,
    /// TLS with the upstream that came to nothing.
    Tls,
    /// `client prematurely closed connection, so upstream connection is closed too`.
    ClientAbort,
}

const ALL: &[Kind] = &[
    Kind::Connect,
    Kind::TimedOutConnecting,
    Kind::TimedOut,
    Kind::Reset,
    Kind::TimedOutByKernel,
    Kind::Closed,
    Kind::Unfinished,
    Kind::Rejected,
    Kind::Tls,
    Kind::ClientAbort,
];

/// The calls that nginx reports when a connection breaks.
const CALLS: [&str; 9] = [
    "recv()",
    "readv()",
    "send()",
    "writev()",
    "sendfile()",
    "SSL_read()",
    "SSL_write()",
    "SSL_sendfile()",
    "SSL_write_early_data()",
];

impl Kind {
    /// The kind of a message logged at level error or above, and so about the upstream's side; `errno` is the one in it.
    pub fn of_error(text: &str, errno: Option<&str>) -> Option<Self> {
        let begins = |words: &[&str]| words.iter().any(|word| text.starts_with(word));
        Some(if text.starts_with("upstream timed out") {
            Self::of_timer(text)
        } else if begins(&["connect() failed (", "connect() to "]) {
            match errno {
                Some("ECONNRESET") => Self::Reset,
                Some("ETIMEDOUT") => Self::TimedOutByKernel,
                _ => Self::Connect,
            }
        } else if begins(&["upstream prematurely closed connection"]) {
            Self::Closed
        } else if begins(&["upstream prematurely closed"]) {
            Self::Unfinished
        } else if begins(&[
            "upstream sent",
            "upstream prematurely sent",
            "upstream rejected",
            "upstream violated",
            "memcached sent",
        ]) {
            Self::Rejected
        } else if begins(&["SSL_do_handshake()", "peer closed connection in SSL handshake", "upstream SSL"]) {
            Self::Tls
        } else if is_broken_call(text) {
            match errno {
                Some("ECONNRESET" | "EPIPE") => Self::Reset,
                Some(_) => Self::TimedOutByKernel,
                None => Self::Tls,
            }
        } else {
            return None;
        })
    }

    /// The kind of a message at level info, and whether it surely means that an exchange failed. The client's own
    /// connection is reported at this level, also where it breaks once the whole response is there.
    pub fn of_info(text: &str) -> Option<(Self, bool)> {
        if text.contains("client prematurely closed connection, so upstream connection is closed too") {
            Some((Self::ClientAbort, true))
        } else if text.starts_with("upstream timed out") {
            // An upgraded connection's timer is reported for the client's side.
            Some((Self::of_timer(text), true))
        } else if is_broken_call(text) || text.starts_with("client timed out") {
            Some((Self::ClientAbort, false))
        } else {
            None
        }
    }

    fn of_timer(text: &str) -> Self {
        if text.ends_with("while connecting to upstream") { Self::TimedOutConnecting } else { Self::TimedOut }
    }
}

fn is_broken_call(text: &str) -> bool {
    let call = CALLS.iter().find_map(|call| text.strip_prefix(call));
    call.is_some_and(|rest| rest.starts_with(" failed ("))
}

/// The kinds of lines that nginx may write about an exchange that failed for this cause; none where it writes nothing.
/// A family of causes that is not in here yet may be logged in any way.
pub fn logged_as(cause: Cause) -> &'static [Kind] {
    use Kind::{
        ClientAbort, Closed, Connect, Rejected, Reset, TimedOut, TimedOutByKernel, TimedOutConnecting, Tls,
        Unfinished,
    };
    match (cause.cause(), cause.detail()) {
        // Of an ICMP message that answers its SYN nginx may learn when it receives.
        ("refused", _) => &[Connect, TimedOutByKernel],
        ("local_error", _) => &[Connect],
        ("connect_timeout", "tls_handshake") => &[TimedOut],
        ("tls_failed", _) => &[Tls],
        ("reset", "http2_stream" | "http2_goaway") => &[Rejected],
        ("accept_queue_overflow", "syn_dropped") | ("connect_timeout", _) => &[TimedOutConnecting],
        ("accept_queue_overflow", "handshake_ack_dropped") => &[TimedOut],
        ("accept_queue_overflow", "unix_backlog_full") => &[Connect],
        ("accept_queue_overflow", _) => &[Reset],
        // An upstream that closed an idle connection may have said so with a FIN.
        ("reset", "stale_keepalive") => &[Reset, Closed],
        ("reset", _) => &[Reset, Tls],
        ("premature_close", _) => &[Closed, Unfinished, Tls],
        ("read_timeout" | "send_timeout", _) => &[TimedOut],
        // Instead of ETIMEDOUT the kernel hands out what an ICMP message had said meanwhile.
        ("kernel_timeout", _) => &[TimedOutByKernel, Connect],
        ("client_abort", _) | ("client_error", "not_reading") => &[ClientAbort],
        // Of others than upstreams.
        ("client_error", _) => &[],
        ("rejected_response", _) => &[Rejected, Unfinished, Tls],
        ("nginx_exit", _) => &[],
        ("upgraded", _) => &[Reset, Tls],
        _ => ALL,
    }
}

/// Whether nginx writes about this cause whatever the level of its log; it reports leaving clients at level info only,
/// what is unknown may be that, and the end of a connection that had been upgraded is an error only if it was reset.
pub fn is_always_logged(cause: Cause) -> bool {
    cause != Cause::TimeoutIdleUpgraded
        && !matches!(cause.cause(), "client_abort" | "client_error" | "unknown" | "upgraded")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::line::errno;

    #[test]
    fn each_row_of_the_designs_table_agrees_with_its_line() {
        let rows = [
            ("refused", "connect() failed (111: Connection refused) while connecting to upstream"),
            (
                "refused",
                "connect() to unix:/run/x.sock failed (2: No such file or directory) while connecting to upstream",
            ),
            (
                "connect_timeout",
                "upstream timed out (110: Connection timed out) while connecting to upstream",
            ),
            (
                "reset",
                "recv() failed (104: Connection reset by peer) while reading response header from upstream",
            ),
            ("reset", "writev() failed (32: Broken pipe) while sending request to upstream"),
            ("reset", "SSL_read() failed (104: Connection reset by peer) while reading upstream"),
            (
                "premature_close",
                "upstream prematurely closed connection while reading response header from upstream",
            ),
            (
                "read_timeout",
                "upstream timed out (110: Connection timed out) while reading response header from upstream",
            ),
            ("read_timeout", "upstream timed out (110: Connection timed out) while reading upstream"),
            (
                "send_timeout",
                "upstream timed out (110: Connection timed out) while sending request to upstream",
            ),
            ("kernel_timeout", "connect() failed (110: Connection timed out) while connecting to upstream"),
            (
                "kernel_timeout",
                "recv() failed (113: No route to host) while reading response header from upstream",
            ),
            ("rejected_response", "upstream sent too big header while reading response header from upstream"),
            (
                "rejected_response",
                "upstream sent unexpected FastCGI record: 3 while reading response header from upstream",
            ),
            (
                "rejected_response",
                "upstream prematurely closed FastCGI stdout while reading response header from upstream",
            ),
            (
                "local_error",
                "connect() to 10.0.0.1:80 failed (99: Cannot assign requested address) while connecting to upstream",
            ),
        ];
        // Kinds of a family that nginx logs in other words than the rest of it.
        let apart = [
            (
                Cause::ConnectTlsHandshake,
                "upstream timed out (110: Connection timed out) while SSL handshaking to upstream",
            ),
            (
                Cause::ResetHttp2Stream,
                "upstream rejected request with error 7 while reading response header from upstream",
            ),
            (
                Cause::ResetHttp2Goaway,
                "upstream sent goaway with error 2 while reading response header from upstream",
            ),
            (
                Cause::LocalTempFile,
                "open() \"/var/lib/nginx/proxy/1\" failed (13: Permission denied) while reading upstream",
            ),
        ];
        for (cause, text) in &apart[..3] {
            let kind = Kind::of_error(text, errno(text).as_deref()).unwrap();
            assert!(logged_as(*cause).contains(&kind), "{cause}: {text}");
        }
        for (family, text) in rows {
            let kind = Kind::of_error(text, errno(text).as_deref()).unwrap();
            let is_apart = |cause: &Cause| apart.iter().any(|(other, _)| other == cause);
            let causes = Cause::ALL.iter().filter(|cause| cause.cause() == family && !is_apart(cause));
            let causes: Vec<_> = causes.collect();
            assert!(!causes.is_empty(), "{family}");
            assert!(causes.iter().all(|cause| logged_as(**cause).contains(&kind)), "{family}: {text}");
        }
    }

    #[test]
    fn a_cause_is_not_taken_for_another_kind_of_failure() {
        assert!(!logged_as(Cause::RefusedNoListener).contains(&Kind::TimedOutConnecting));
        assert!(!logged_as(Cause::QueueSynDropped).contains(&Kind::TimedOut));
        assert!(!logged_as(Cause::TimeoutSlowWorker).contains(&Kind::TimedOutConnecting));
        assert!(!logged_as(Cause::ResetWorkerKilled).contains(&Kind::Closed));
        assert!(logged_as(Cause::NginxKilled).is_empty());
        assert_eq!(logged_as(Cause::NotEnoughFacts), ALL);
    }

    #[test]
    fn warnings_and_the_clients_side_are_no_failures_of_an_upstream() {
        for text in [
            "upstream server temporarily disabled while connecting to upstream",
            "an upstream response is buffered to a temporary file /x while reading upstream",
            "no live upstreams while connecting to upstream",
            "FastCGI sent in stderr: \"upstream timed out\" while reading response header from upstream",
            "open() \"/x\" failed (2: No such file or directory)",
            "socket() failed (24: Too many open files) while connecting to upstream",
            "recv() returned zero",
        ] {
            assert_eq!(Kind::of_error(text, errno(text).as_deref()), None, "{text}");
        }
        let broken = "writev() failed (32: Broken pipe) while sending to client";
        assert_eq!(Kind::of_info(broken), Some((Kind::ClientAbort, false)));
        assert_eq!(Kind::of_info("client 127.0.0.1 closed keepalive connection"), None);
        // The upstream goes on.
        assert_eq!(Kind::of_info("epoll_wait() reported that client prematurely closed connection"), None);
    }
}
