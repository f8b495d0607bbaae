//! What nginx judges for itself, and says: no error of the kernel's shows it. `tls_failed`, `rejected_response`, and a response that is
//! cut short.

use super::{Cause, Finding, client_abort::who, errors, signals, stopped};
use crate::{
    ledger::{Exchange, Said},
    model::{
        verdict::{Confidence, Word},
        words::{count, span},
    },
};

/// What one thing that nginx says means.
struct Rule {
    /// How its message begins.
    beginnings: &'static [&'static str],
    /// What else must hold of it.
    when: fn(&Said) -> bool,
    cause: Cause,
    /// What happened, in one sentence: the exchange, and the word.
    sentence: fn(&Exchange, &Said) -> String,
    advice: &'static str,
}

impl Rule {
    /// Whether it is about a word, which has this message.
    fn fits(&self, said: &Said, message: &str) -> bool {
        self.beginnings.iter().any(|beginning| message.starts_with(beginning)) && (self.when)(said)
    }

    fn finding(&self, exchange: &Exchange, said: &Said) -> Finding {
        Finding::proven(self.cause, (self.sentence)(exchange, said), self.advice)
    }
}

/// Of the first that fits any of the words: the finer one comes before.
const RULES: &[Rule] = &[
    Rule {
        beginnings: &["upstream timed out"],
        when: |said| said.doing.starts_with("SSL handshaking"),
        cause: Cause::ConnectTlsHandshake,
        sentence: |exchange, _| {
            format!(
                "{} took the connection and did not finish the TLS handshake; nginx's connect timer, which covers it, ended the \
                 exchange after {}.",
                exchange.upstream(),
                span(exchange.lasted_ns())
            )
        },
        advice: "whether the upstream's port speaks TLS, and what keeps it; proxy_connect_timeout is how long nginx waits.",
    },
    Rule {
        // src/http/ngx_http_request_body.c, src/http/v2/ngx_http_v2.c, src/http/ngx_http_core_module.c
        beginnings: &["client intended to send too large"],
        when: |_| true,
        cause: Cause::ClientBodyTooLarge,
        sentence: |exchange, _| {
            format!(
                "{} sent more than nginx takes, after {} of its request had been passed on, {} into the exchange.",
                who(exchange),
                count(exchange.nginx.sent, "byte"),
                span(exchange.lasted_ns())
            )
        },
        advice: "client_max_body_size, or what the client sends: its length was not said beforehand.",
    },
    Rule {
        // `ngx_http_request_body_chunked_filter`, src/http/ngx_http_request_body.c
        beginnings: &["client sent invalid chunked body"],
        when: |_| true,
        cause: Cause::ClientBodyInvalid,
        sentence: |exchange, _| {
            format!(
                "{} sent an invalid chunk, after {} of its request had been passed on, {} into the exchange.",
                who(exchange),
                count(exchange.nginx.sent, "byte"),
                span(exchange.lasted_ns())
            )
        },
        advice: "the client: how it makes its requests' bodies.",
    },
    Rule {
        beginnings: &["upstream SSL certificate"],
        when: |_| true,
        cause: Cause::TlsCertificate,
        sentence: |exchange, _| {
            format!(
                "nginx refused the certificate of {}, {} into the exchange: {}.",
                exchange.upstream(),
                span(exchange.lasted_ns()),
                reason(exchange)
            )
        },
        advice: "proxy_ssl_trusted_certificate, proxy_ssl_name and proxy_ssl_verify_depth, and what certificate the upstream shows.",
    },
    Rule {
        beginnings: &["SSL_do_handshake()"],
        when: |said| said.errno == 0,
        cause: Cause::TlsHandshake,
        sentence: |exchange, _| {
            format!(
                "The TLS handshake with {} failed after {}: {}.",
                exchange.upstream(),
                span(exchange.lasted_ns()),
                reason(exchange)
            )
        },
        advice: "proxy_ssl_protocols, proxy_ssl_ciphers, proxy_ssl_server_name (SNI), and whether the upstream's port speaks TLS at all.",
    },
    Rule {
        beginnings: &["upstream sent too big header"],
        when: |_| true,
        cause: Cause::HeaderTooBig,
        sentence: |exchange, _| {
            format!(
                "nginx read {} of the response, and its header had not ended: it is larger than the buffer for it.",
                count(exchange.nginx.received, "byte")
            )
        },
        advice: "proxy_buffer_size or fastcgi_buffer_size, and what makes the header so large (cookies, mostly).",
    },
    Rule {
        beginnings: &["upstream rejected request with error"],
        when: |_| true,
        cause: Cause::ResetHttp2Stream,
        sentence: |exchange, said| {
            format!(
                "{} reset the request's HTTP/2 stream with {}, {} into the exchange.",
                exchange.upstream(),
                http2_error(said),
                span(exchange.lasted_ns())
            )
        },
        advice: "the upstream's log for this request: it chose to reset it.",
    },
    Rule {
        beginnings: &["upstream sent goaway with error"],
        when: |_| true,
        cause: Cause::ResetHttp2Goaway,
        sentence: |exchange, said| {
            format!(
                "{} ended the HTTP/2 connection (GOAWAY) with {}, {} into the exchange.",
                exchange.upstream(),
                http2_error(said),
                span(exchange.lasted_ns())
            )
        },
        advice: "the upstream's log: it ended the whole connection.",
    },
    Rule {
        beginnings: &[
            "upstream sent no valid ",
            "upstream sent unsupported FastCGI",
            "upstream sent unexpected FastCGI",
            "upstream sent invalid FastCGI",
            "upstream sent too long FastCGI",
            "upstream sent invalid chunked",
            "upstream prematurely sent",
        ],
        when: |_| true,
        cause: Cause::WrongProtocol,
        sentence: |exchange, said| {
            format!(
                "What {} answered is not the protocol that nginx speaks with it: {}.",
                exchange.upstream(),
                said.message()
            )
        },
        advice: "whether proxy_pass, fastcgi_pass, grpc_pass or uwsgi_pass fits what listens there.",
    },
    Rule {
        beginnings: &["upstream sent", "upstream violated"],
        when: is_of_http2,
        cause: Cause::Http2Error,
        sentence: |exchange, _| {
            format!(
                "nginx would not go on with what {} sent over HTTP/2: {}.",
                exchange.upstream(),
                reason(exchange)
            )
        },
        advice: "the upstream's HTTP/2 or gRPC server.",
    },
    Rule {
        beginnings: &["upstream sent", "upstream violated", "memcached sent"],
        when: |_| true,
        cause: Cause::InvalidHeader,
        sentence: |exchange, _| {
            format!("nginx would not accept the response of {}: {}.", exchange.upstream(), reason(exchange))
        },
        advice: "the upstream's response: what it sent breaks the protocol.",
    },
];

/// nginx's own troubles: they end the exchange only if nothing was said of it after them.
const OWN_TROUBLES: &[Rule] = &[
    Rule {
        beginnings: CERTIFICATE,
        when: |_| true,
        cause: Cause::LocalCertificate,
        sentence: |_, said| own_certificate(said),
        advice: CERTIFICATE_ADVICE,
    },
    Rule {
        // `ngx_create_temp_file`, `ngx_write_chain_to_file` (src/os/unix/ngx_files.c), `ngx_create_path`.
        beginnings: &["open() \"", "pwritev() ", "pwrite() ", "mkdir() \"", "write() \""],
        when: |_| true,
        cause: Cause::LocalTempFile,
        sentence: |exchange, said| {
            format!(
                "nginx could not write a file of its own while it had the exchange with {}: {}.",
                exchange.upstream(),
                line(said)
            )
        },
        advice: "the owner and mode of nginx's temporary folders (proxy_temp_path and the like), and the disk's free room.",
    },
];

pub(super) fn judge(exchange: &Exchange) -> Option<Finding> {
    let messages: Vec<_> = exchange.said.iter().map(|said| (said, said.message())).collect();
    let (last, last_message) = messages.last()?;
    let of_any = RULES.iter().find_map(|rule| {
        let (said, _) = messages.iter().rev().find(|(said, message)| rule.fits(said, message))?;
        Some(rule.finding(exchange, said))
    });
    let of_last = || {
        let rule = OWN_TROUBLES.iter().find(|rule| rule.fits(last, last_message))?;
        Some(rule.finding(exchange, last))
    };
    of_any.or_else(|| cut_short(exchange, last)).or_else(of_last)
}

/// A word that no rule knows, about an exchange that nothing else explains: what nginx said is all that is sure.
pub(super) fn quoted(exchange: &Exchange, said: &Said) -> Finding {
    Finding::inferred(
        Cause::NginxSays,
        format!(
            "nginx ended the exchange with {} after {} and said: {}. No rule of why502 knows why.",
            exchange.upstream(),
            span(exchange.lasted_ns()),
            line(said)
        ),
        "nginx's error log for this moment; `-v` shows the facts.",
    )
}

/// What only nginx's log says: the kernel's account of its exchange is a success.
pub(super) fn of_line(said: &Said) -> Finding {
    let message = said.message();
    let rule = RULES.iter().chain(OWN_TROUBLES).find(|rule| rule.fits(said, &message));
    let is_cut_short = said.format.starts_with("upstream prematurely closed") && !is_before_response(said);
    let cause = match rule {
        Some(rule) => rule.cause,
        None if is_cut_short => Cause::ResponseCutShort,
        None => Cause::NginxSays,
    };
    Finding::inferred(
        cause,
        format!(
            "nginx logged: {}. This rests on nginx's log alone: the kernel shows no exchange that failed and belongs to it.",
            line(said)
        ),
        "nginx's error log for this moment; without --no-uprobe, and where uprobes work, the exchange itself is told.",
    )
}

/// The line as nginx writes it, up to the request's own part.
pub fn line(said: &Said) -> String {
    let (message, doing) = (said.message(), &said.doing);
    match (said.errno, doing.is_empty()) {
        (0, true) => message.into_owned(),
        (0, false) => format!("{message} while {doing}"),
        (errno, true) => format!("{message} ({errno}: {})", errors::text(errno)),
        (errno, false) => format!("{message} ({errno}: {}) while {doing}", errors::text(errno)),
    }
}

/// What the verdict says of the word.
pub(super) fn word(said: &Said) -> Word {
    Word {
        level: match said.level {
            1 => "emerg",
            2 => "alert",
            3 => "crit",
            _ => "error",
        },
        errno: (said.errno != 0).then_some(said.errno),
        message: said.message().into_owned(),
        doing: Some(said.doing.clone()).filter(|doing| !doing.is_empty()),
        connection: said.connection,
    }
}

/// nginx's reasons, the finer one first.
fn reason(exchange: &Exchange) -> String {
    let mut reasons: Vec<_> = exchange.said.iter().map(Said::message).collect();
    reasons.dedup();
    reasons.join("; ")
}

/// Whether a response has begun: nginx says what it was reading, else bytes show it. Those of a TLS handshake are no response.
pub(super) fn is_answered(exchange: &Exchange) -> bool {
    exchange.word().map_or(exchange.nginx.received > 0, |said| is_cut_short(exchange, said))
}

/// Whether the response had begun, as far as the message shows: what stands behind "while" was true before nginx read what it complains
/// of, and header and body may come in one read. FastCGI and HTTP/2 know the response's own end, apart from the connection's.
fn is_cut_short(exchange: &Exchange, said: &Said) -> bool {
    let of_protocol = ["upstream prematurely closed FastCGI", "upstream prematurely closed stream"];
    !is_before_response(said)
        || exchange.nginx.received > 0
            && of_protocol.iter().any(|beginning| said.format.starts_with(beginning))
}

/// Whether nginx has begun to answer its client: then the status is the response's own. What is no HTTP/1 is passed on as HTTP/0.9.
pub(super) fn has_begun(exchange: &Exchange) -> bool {
    is_answered(exchange)
        || exchange.nginx_says("upstream sent no valid HTTP")
        || exchange.nginx_says("upstream sent invalid chunked")
}

/// Whether nginx had not accepted a header yet.
pub(super) fn is_before_response(said: &Said) -> bool {
    let has_accepted = matches!(said.doing.as_str(), "reading upstream" | "sending to client");
    // What was upgraded, and `stream {}`.
    !has_accepted && !said.doing.starts_with("proxying ")
}

/// src/http/modules/ngx_http_grpc_module.c.
fn is_of_http2(said: &Said) -> bool {
    let of_frames = ["http2", "frame", "stream", "window", "settings", "hpack", "grpc"];
    let what = said.format.strip_prefix("upstream");
    what.is_some_and(|what| of_frames.iter().any(|word| what.contains(word)))
}

/// `ngx_ssl_certificate` and its kind (src/event/ngx_event_openssl.c).
pub(super) const CERTIFICATE: &[&str] = &["cannot load certificate"];
pub(super) const CERTIFICATE_ADVICE: &str =
    "proxy_ssl_certificate and proxy_ssl_certificate_key: the files that they name, and who may read them.";

pub(super) fn own_certificate(said: &Said) -> String {
    format!("nginx could not load the certificate that it was to show the upstream: {}.", said.message())
}

/// The upstream closed in the middle: nginx knows by the protocol that more was to come.
fn cut_short(exchange: &Exchange, said: &Said) -> Option<Finding> {
    if !said.format.starts_with("upstream prematurely closed") || !is_cut_short(exchange, said) {
        return None;
    }
    let worker = exchange.worker.as_ref();
    if worker.is_some_and(|worker| worker.exiting != 0) {
        // Who died is named as before an answer; nginx says that the response was not whole.
        return None;
    }
    if let Some(stop) = worker.and_then(|worker| stopped::of(exchange, worker)) {
        let consequence = "the connection was closed in the middle of its response";
        let finding = stop.finding(Cause::PrematureWorkerStopped, consequence);
        return Some(Finding { error_log: Some(line(said)), ..finding });
    }
    let read = count(exchange.nginx.received, "byte");
    let who = worker.map_or_else(
        || exchange.upstream().to_string(),
        |worker| format!("The {}", signals::worker_in_words(worker)),
    );
    let finding = Finding::proven(
        Cause::ResponseCutShort,
        format!(
            "{who} closed the connection properly in the middle of its response, {} into the exchange: nginx had read {read}, \
             and by the protocol more was to come.",
            span(exchange.lasted_ns())
        ),
        "the upstream's log for this request: it lives and stopped early (an exception, a wrong Content-Length, a limit).",
    );
    let confidence = if worker.is_some() { Confidence::Proven } else { Confidence::Inferred };
    Some(Finding { confidence, error_log: Some(line(said)), ..finding })
}

/// The names of RFC 9113, section 7.
fn http2_error(said: &Said) -> String {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    let name = usize::try_from(said.number).ok().and_then(|number| NAMES.get(number));
    name.map_or_else(|| format!("error {}", said.number), ToString::to_string)
}
