//! nginx's word, read from a line of its error log: the same that a uprobe hears, as far as the line has it.

use wire::{Beginning, WordOf};
use zerocopy::FromZeros as _;

use super::line::{self, Named};
use crate::model::upstream::Upstream;

/// What a line says of an upstream.
#[derive(Clone, Debug)]
pub struct Spoken {
    /// The process, as its own pid namespace counts.
    pub pid: u32,
    /// The word; who said it and when is left open.
    pub word: Box<WordOf>,
    /// The upstream that the line names: an address, a path, or the name in `proxy_pass`; none if it names none or several.
    pub upstream: Option<Upstream>,
}

/// What stands behind the message.
const CLIENT: &str = ", client: ";

/// What stands between the message and what nginx was doing.
const DOING: &str = " while ";

impl Spoken {
    /// Reads a line of level error or above; none if it is about no upstream. What a request or a response made of the message is left
    /// out.
    pub fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once(" [")?;
        let (level, rest) = rest.split_once("] ")?;
        let level = match level {
            "emerg" => 1,
            "alert" => 2,
            "crit" => 3,
            "error" => 4,
            _ => return None,
        };
        // What is cut off before that may be known all the same by how it begins.
        let is_cut = line.len() >= line::CUT_LENGTH;
        let (text, context) = match rest.split_once(CLIENT) {
            Some((text, context)) => (text, Some(context)),
            None if is_cut => (rest, None),
            None => return None,
        };
        let (pid, text) = text.split_once('#')?;
        let (_, text) = text.split_once(": *")?;
        let (connection, text) = text.split_once(' ')?;
        let (said, doing) = match context {
            Some(_) => text.rsplit_once(DOING).unwrap_or((text, "")),
            // It stands behind the message, which may have such a word of its own.
            None => (text, ""),
        };
        let context = context.unwrap_or_default();
        // Of a flood of lines about no upstream, most go no further than this.
        if !is_cut && !is_with_upstream(doing) && !is_of_upstream(said) && !said.contains(NOT_RESOLVED) {
            return None;
        }
        let (said, errno) = without_errno(said);
        let Form { format, subject, number } = Form::of(said);
        let is_note = is_cut && Beginning::of(format.as_bytes()).is_note();
        if !is_with_upstream(doing) && !is_of_upstream(&format) && !is_note {
            return None;
        }
        // A file's name is a client's to choose, and may go on as a line does; then nginx's own end of it comes later, or is cut off.
        let is_whole = !is_cut && !context.contains(CLIENT);
        if !is_nginxs_own(&format) && !is_whole {
            return None;
        }
        let mut word = Box::new(WordOf::new_zeroed());
        (word.word.level, word.word.errno, word.word.number) = (level, errno, number);
        word.word.connection = connection.parse().ok()?;
        put(&mut word.word.message, &format);
        put(&mut word.word.action, doing);
        put(&mut word.subject, &subject);
        word.is_of_session = is_of_session(context).into();
        Some(Self { pid: pid.parse().ok()?, word, upstream: upstream(context, is_cut) })
    }

    /// Whether a line, of which nothing can be read, is one of level error that nginx cut off before it says what it is about.
    pub fn is_cut_off(line: &str) -> bool {
        let levels = [" [emerg] ", " [alert] ", " [crit] ", " [error] "];
        let is_error =
            line.get(TIME..).is_some_and(|rest| levels.iter().any(|level| rest.starts_with(level)));
        is_error && line.len() >= line::CUT_LENGTH && !line.contains(CLIENT)
    }
}

/// How long the time is that a line begins with.
const TIME: usize = 19;

/// In a message that begins with a name.
const NOT_RESOLVED: &str = " could not be resolved (";

/// Writes a text that a zero closes, cut where there is no more room.
fn put<const LEN: usize>(to: &mut [u8; LEN], text: &str) {
    let end = text.floor_char_boundary(LEN - 1);
    to[..end].copy_from_slice(&text.as_bytes()[..end]);
}

/// `connect() failed (111: Connection refused)`: nginx writes the errno last.
fn without_errno(said: &str) -> (&str, u32) {
    let found = || {
        let (message, errno) = said.strip_suffix(')')?.rsplit_once(" (")?;
        let (number, _) = errno.split_once(": ")?;
        // The resolver's own numbers are no errnos.
        let number = number.parse().ok().filter(|_| !message.ends_with(" could not be resolved"))?;
        Some((message, number))
    };
    found().unwrap_or((said, 0))
}

/// As nginx's `c->log->action` has it, and nothing more: a file's name is a client's to choose, and may look like one.
fn is_with_upstream(doing: &str) -> bool {
    matches!(
        doing,
        "connecting to upstream"
            | "SSL handshaking to upstream"
            | "sending request to upstream"
            | "reading response header from upstream"
            | "reading upstream"
            | "proxying upgraded connection"
            | "proxying connection"
            | "proxying and reading from upstream"
            | "proxying and sending to upstream"
    )
}

/// Whether a line's fields, from the client's address on, are those of a session of `stream {}` (`ngx_stream_log_error`,
/// src/stream/ngx_stream_handler.c), which has no request.
fn is_of_session(context: &str) -> bool {
    let fields = context.split_once(", server: ").and_then(|(_, server)| server.split_once(", "));
    fields
        .is_some_and(|(_, next)| next.starts_with("upstream: ") || next.starts_with("bytes from/to client:"))
}

/// Whether a message begins with nginx's own words, and names no file.
fn is_nginxs_own(format: &str) -> bool {
    const CALLS: [&str; 13] = [
        "connect() ",
        "recv() ",
        "readv() ",
        "send() ",
        "writev() ",
        "sendfile() ",
        "socket() ",
        "setsockopt(",
        "ioctl(",
        "fcntl(",
        "bind(%V)",
        "epoll_ctl(",
        "%ui worker_connections",
    ];
    const SAID: [&str; 4] =
        ["%*s", "peer closed connection in SSL", "FastCGI sent in stderr", "memcached sent"];
    is_of_upstream(format) || CALLS.iter().chain(&SAID).any(|beginning| format.starts_with(beginning))
}

/// Whether this is said of an upstream whatever nginx is doing.
fn is_of_upstream(format: &str) -> bool {
    ["upstream", "%V could", "no resol", "no live "].iter().any(|beginning| format.starts_with(beginning))
}

/// A message as nginx's source has it, with what was put into it.
struct Form {
    format: String,
    subject: String,
    number: i64,
}

impl Form {
    fn of(said: &str) -> Self {
        let form = |format: &str, subject: &str, number| Self {
            format: format.to_owned(),
            subject: subject.to_owned(),
            number,
        };
        let between = |before: &str, after: &str| said.strip_prefix(before)?.strip_suffix(after);
        if said.starts_with("cannot load certificate")
            || said.starts_with("SSL_") && said.contains("() failed (SSL:")
        {
            // `ngx_ssl_error` (src/event/ngx_event_openssl.c) makes the whole text.
            return form("%*s", said, 0);
        }
        if let Some(peer) = between("connect() to ", " failed") {
            return form("connect() to %V failed", peer, 0);
        }
        if let Some(local) = between("bind(", ") failed") {
            return form("bind(%V) failed", local, 0);
        }
        if let Some((name, (number, _))) = said
            .split_once(NOT_RESOLVED)
            .and_then(|(name, why)| Some((name, why.split_once(": ")?)))
            .filter(|(name, _)| !name.contains([' ', '"']))
        {
            return form("%V could not be resolved (%i: %s)", name, number.parse().unwrap_or_default());
        }
        if let Some(name) = between("no resolver defined to resolve ", "") {
            return form("no resolver defined to resolve %V", name, 0);
        }
        if let Some(count) = between("", " worker_connections are not enough") {
            return form("%ui worker_connections are not enough", "", count.parse().unwrap_or_default());
        }
        if let Some((number, why)) =
            between("upstream SSL certificate verify error: (", ")").and_then(|why| why.split_once(':'))
        {
            return form(
                "upstream SSL certificate verify error: (%l:%s)",
                why,
                number.parse().unwrap_or_default(),
            );
        }
        if let Some(name) = between("upstream SSL certificate does not match \"", "\"") {
            return form("upstream SSL certificate does not match \"%V\"", name, 0);
        }
        Self::of_others(said)
    }

    /// What is quoted is the upstream's or the client's, and left out. The first number is nginx's.
    fn of_others(said: &str) -> Self {
        let (mut format, mut number) = (String::new(), None);
        for (place, piece) in said.split('"').enumerate() {
            if place % 2 == 1 {
                format += "\"%*s\"";
                continue;
            }
            for (place, word) in piece.split(' ').enumerate() {
                if place > 0 {
                    format.push(' ');
                }
                match word.parse::<i64>() {
                    Ok(found) if number.is_none() => {
                        number = Some(found);
                        format += "%i";
                    }
                    // A conversion is what this would be taken for.
                    _ => format += &word.replace('%', ""),
                }
            }
        }
        Self { format, subject: String::new(), number: number.unwrap_or_default() }
    }
}

fn upstream(context: &str, is_cut: bool) -> Option<Upstream> {
    match line::upstream(context, is_cut) {
        Some(Named::Inet(address)) => Some(Upstream::Inet(address)),
        Some(Named::Unix(path)) => Some(Upstream::Unix(path.into())),
        Some(Named::CutOff | Named::OneOf(_)) => None,
        // A name instead of an address: nobody was asked.
        None => {
            let (_, field) = context.split_once(line::FIELD)?;
            let (named, _) = field.split_once('"')?;
            let name = named.split_once("://").map_or(named, |(_, name)| name);
            let end = name.find(['/', '?']).unwrap_or(name.len());
            Some(Upstream::Named(name[..end].to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Said;

    fn said(text: &str, context: &str) -> Option<(Said, Option<Upstream>)> {
        let line = format!("2026/11/20 11:39:26 [error] 24945#24945: *17 {text}, client: 127.0.0.1{context}");
        let Spoken { pid, word, upstream } = Spoken::parse(&line)?;
        assert_eq!(pid, 24945);
        Some((Said::new(&word), upstream))
    }

    #[test]
    fn a_line_says_what_a_uprobe_hears() {
        let inet = r#", server: , request: "GET / HTTP/1.1", upstream: "http://127.0.0.1:9100/x", host: "x""#;
        let rows = [
            ("recv() failed (104: Connection reset by peer)", "recv() failed", 104, 0),
            ("upstream timed out (110: Connection timed out)", "upstream timed out", 110, 0),
            (
                "connect() to unix:/x.sock failed (2: No such file or directory)",
                "connect() to unix:/x.sock failed",
                2,
                0,
            ),
            (
                "x.test could not be resolved (3: Host not found)",
                "x.test could not be resolved (3: Host not found)",
                0,
                3,
            ),
            ("16 worker_connections are not enough", "16 worker_connections are not enough", 0, 16),
            (
                "upstream SSL certificate verify error: (18:self-signed certificate)",
                "upstream SSL certificate verify error: (18:self-signed certificate)",
                0,
                18,
            ),
            ("upstream rejected request with error 7", "upstream rejected request with error 7", 0, 7),
            ("upstream sent no valid HTTP/1.0 header", "upstream sent no valid HTTP/1.0 header", 0, 0),
            (
                "upstream sent invalid header: \"Secret: 100%\\x0d...\"",
                "upstream sent invalid header: \"…\"",
                0,
                0,
            ),
            (
                "SSL_do_handshake() failed (SSL: error:0A00010B:SSL routines::wrong version number)",
                "SSL_do_handshake() failed (SSL: error:0A00010B:SSL routines::wrong version number)",
                0,
                0,
            ),
        ];
        for (text, message, errno, number) in rows {
            let line = format!("{text} while reading response header from upstream");
            let (said, upstream) = said(&line, inet).unwrap();
            assert_eq!((said.message().as_ref(), said.errno, said.number), (message, errno, number));
            assert_eq!((said.level, said.connection), (4, 17));
            assert_eq!(said.doing, "reading response header from upstream");
            assert_eq!(upstream, Some(Upstream::Inet("127.0.0.1:9100".parse().unwrap())));
        }
    }

    #[test]
    fn a_line_that_is_cut_is_used_as_far_as_it_goes() {
        let cut = |text: &str| {
            let line = format!(
                "2026/11/20 11:39:26 [error] 24945#24945: *17 {text}{}",
                "x".repeat(line::CUT_LENGTH)
            );
            let line = &line[..line::CUT_LENGTH];
            (Spoken::parse(line).map(|spoken| Said::new(&spoken.word)), Spoken::is_cut_off(line))
        };
        let (header, _) = cut("upstream sent invalid header: \"Secret while reading upstream");
        let header = header.unwrap();
        assert_eq!(
            (header.message().as_ref(), header.doing.as_str()),
            ("upstream sent invalid header: \"…\"", "")
        );
        let (note, _) = cut("FastCGI sent in stderr: \"PHP message: secret while doing");
        assert!(note.is_some_and(|note| note.is_note() && note.doing.is_empty()));
        // What these are about stands behind the cut.
        for text in ["open() \"/srv/", "a.very.long.name."] {
            let (said, is_cut_off) = cut(text);
            assert!(said.is_none() && is_cut_off, "{text}");
        }
        assert!(!Spoken::is_cut_off("2026/11/20 11:39:26 [error] 24945#24945: *17 a"));
    }

    #[test]
    fn a_group_is_named_and_what_concerns_no_upstream_is_none() {
        let group = r#", server: , request: "GET / HTTP/1.1", upstream: "http://pair/x", host: "x""#;
        let (no_live, upstream) = said("no live upstreams while connecting to upstream", group).unwrap();
        assert!(no_live.is_of_no_connection());
        assert_eq!(upstream, Some(Upstream::Named("pair".to_owned())));
        let session = r#", server: 127.0.0.1:8081, upstream: "pair", bytes from/to client:0/0, bytes from/to upstream:0/0"#;
        let nameless = ", server: 127.0.0.1:8081, bytes from/to client:0/0, bytes from/to upstream:0/0";
        for (context, is_of_session) in [(session, true), (nameless, true), (group, false)] {
            let (said, _) = said("no live upstreams while connecting to upstream", context).unwrap();
            assert_eq!(said.is_of_session, is_of_session, "{context}");
        }
        for text in [
            "open() \"/srv/a while connecting to upstream\" failed (2: No such file or directory)",
            "open() \"/srv/a could not be resolved (3: b)\" failed (2: No such file or directory)",
            "open() \"/srv/upstream timed out while reading upstream\" failed (2: No such file or directory)",
            "limiting requests, excess: 1.000 by zone \"x\"",
            "user \"x\": password mismatch",
        ] {
            assert!(said(text, "").is_none(), "{text}");
        }
        let forged =
            "open() \"/srv/a\" failed (13: b) while reading upstream, client: c, upstream: \"http://d/\"";
        let real = "\" failed (2: No such file or directory), client: 127.0.0.1";
        assert!(said(&format!("{forged}{real}"), "").is_none());
        assert!(said(&format!("{forged}{}", "x".repeat(line::CUT_LENGTH)), "").is_none());
    }
}
