//! What nginx judges for itself, and says: no error of the kernel's tells it. `tls_failed`, `rejected_response`, a response that is cut
//! short, and what never became a connection.

use super::{Cause, Finding, errors, refused, signals};
use crate::{
    ledger::{Joined, Said},
    verdict::{Confidence, Word},
    words::{count, span},
};

/// What TLS needs from an upstream.
const TLS: &str = "proxy_ssl_protocols, proxy_ssl_ciphers, proxy_ssl_server_name (SNI), and whether the upstream's port speaks TLS at all.";

pub(super) fn judge(exchange: &Joined) -> Option<Finding> {
    let said = exchange.word()?;
    let after = span(exchange.lasted_ns());
    let upstream = exchange.upstream();
    let message = said.message();
    let finding = if is_tls_timeout(said) {
        Finding::proven(
            Cause::ConnectTlsHandshake,
            format!(
                "{upstream} took the connection and did not finish the TLS handshake; nginx's connect timer, which covers it, ended the \
                 exchange after {after}."
            ),
            "whether the upstream's port speaks TLS, and what keeps it; proxy_connect_timeout is how long nginx waits.",
        )
    } else if exchange.nginx_says("upstream SSL certificate") {
        Finding::proven(
            Cause::TlsCertificate,
            format!(
                "nginx refused the certificate of {upstream}, {after} into the exchange: {}.",
                reason(exchange)
            ),
            "proxy_ssl_trusted_certificate, proxy_ssl_name and proxy_ssl_verify_depth, and what certificate the upstream shows.",
        )
    } else if exchange.nginx_says("SSL_do_handshake()") && said.errno == 0 {
        Finding::proven(
            Cause::TlsHandshake,
            format!("The TLS handshake with {upstream} failed after {after}: {}.", reason(exchange)),
            TLS,
        )
    } else if exchange.nginx_says("upstream sent too big header") {
        Finding::proven(
            Cause::HeaderTooBig,
            format!(
                "nginx read {} of the response, and its header had not ended: it is larger than the buffer for it.",
                count(exchange.nginx.received, "byte")
            ),
            "proxy_buffer_size or fastcgi_buffer_size, and what makes the header so large (cookies, mostly).",
        )
    } else if exchange.nginx_says("upstream rejected request with error") {
        Finding::proven(
            Cause::ResetHttp2Stream,
            format!(
                "{upstream} reset the request's HTTP/2 stream with {}, {after} into the exchange.",
                http2_error(said)
            ),
            "the upstream's log for this request: it chose to reset it.",
        )
    } else if exchange.nginx_says("upstream sent goaway with error") {
        Finding::proven(
            Cause::ResetHttp2Goaway,
            format!(
                "{upstream} ended the HTTP/2 connection (GOAWAY) with {}, {after} into the exchange.",
                http2_error(said)
            ),
            "the upstream's log: it ended the whole connection.",
        )
    } else if is_wrong_protocol(&message) {
        Finding::proven(
            Cause::WrongProtocol,
            format!("What {upstream} answered is not the protocol that nginx speaks with it: {message}."),
            "whether proxy_pass, fastcgi_pass, grpc_pass or uwsgi_pass fits what listens there.",
        )
    } else if exchange.said.iter().any(is_http2) {
        Finding::proven(
            Cause::Http2Error,
            format!("nginx would not go on with what {upstream} sent over HTTP/2: {}.", reason(exchange)),
            "the upstream's HTTP/2 or gRPC server.",
        )
    } else if is_rejection(&message) {
        Finding::proven(
            Cause::InvalidHeader,
            format!("nginx would not accept the response of {upstream}: {}.", reason(exchange)),
            "the upstream's response: what it sent breaks the protocol.",
        )
    } else if message.starts_with("upstream prematurely closed") && is_cut_short(exchange, said) {
        return cut_short(exchange, said);
    } else if is_certificate(&message) {
        own_certificate(&message)
    } else if is_temp_file(&message) {
        Finding::proven(
            Cause::LocalTempFile,
            format!(
                "nginx could not write a file of its own while it had the exchange with {upstream}: {}.",
                line(said)
            ),
            "the owner and mode of nginx's temporary folders (proxy_temp_path and the like), and the disk's free room.",
        )
    } else {
        return None;
    };
    Some(finding)
}

/// A word that no rule knows, about an exchange that nothing else explains: what nginx said is all that is sure.
pub(super) fn quoted(exchange: &Joined, said: &Said) -> Finding {
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

/// What never became a connection; none of what is no failure.
pub(super) fn of_no_exchange(said: &Said) -> Option<Finding> {
    let message = said.message();
    let is = |beginning: &str| said.format.starts_with(beginning);
    if said.is_note() {
        return None;
    }
    if said.is_logged() && !said.is_of_no_connection() {
        return Some(of_line(said));
    }
    Some(if is("no live ") {
        Finding::proven(
            Cause::NoLiveUpstreams,
            "nginx asked nobody: each server of the group had failed max_fails times within fail_timeout, and it leaves them \
             alone for as long.",
            "the failures before this one: they took the servers out. max_fails and fail_timeout of the group's servers say when.",
        )
    } else if is("%V could") || is("no resol") {
        Finding::proven(
            Cause::Unresolved,
            format!("nginx asked nobody: {}.", message),
            "the resolver directive, and whether the name server that it names answers for this name.",
        )
    } else if is("socket()") && matches!(said.errno, EMFILE | ENFILE) {
        Finding::proven(
            Cause::TooManyOpenFiles,
            "nginx could not make a socket for the upstream: its worker has as many open files as it may have.",
            "worker_rlimit_nofile, which must be larger than twice worker_connections, and who holds the files.",
        )
    } else if is("%ui work") {
        Finding::proven(
            Cause::WorkerConnections,
            format!(
                "nginx could not connect to the upstream: all of its worker's {} connections are in use.",
                said.number
            ),
            "worker_connections: clients and upstreams count, each. Then what holds them: keepalive_timeout, slow upstreams.",
        )
    } else if is_certificate(&message) {
        own_certificate(&message)
    } else if said.is_of_connect()
        && let Some(refused) = said.peer().and_then(|peer| refused::at_once(&peer, said.errno))
    {
        refused
    } else {
        Finding::inferred(
            Cause::NginxSays,
            format!("nginx said of an upstream: {}. No exchange that was seen belongs to it.", line(said)),
            "nginx's error log for this moment.",
        )
    })
}

/// What only nginx's log tells: the kernel's account of its exchange is a success, or it is not known which one it is.
fn of_line(said: &Said) -> Finding {
    let message = said.message();
    let begins = |beginning: &str| message.starts_with(beginning);
    let is_premature = begins("upstream prematurely closed");
    let cause = if is_tls_timeout(said) {
        Cause::ConnectTlsHandshake
    } else if begins("upstream SSL certificate") {
        Cause::TlsCertificate
    } else if begins("SSL_do_handshake()") && said.errno == 0 {
        Cause::TlsHandshake
    } else if begins("upstream sent too big header") {
        Cause::HeaderTooBig
    } else if begins("upstream rejected request with error") {
        Cause::ResetHttp2Stream
    } else if begins("upstream sent goaway with error") {
        Cause::ResetHttp2Goaway
    } else if is_wrong_protocol(&message) {
        Cause::WrongProtocol
    } else if is_http2(said) {
        Cause::Http2Error
    } else if is_rejection(&message) {
        Cause::InvalidHeader
    } else if is_premature && !is_before_response(said) {
        Cause::ResponseCutShort
    } else if is_certificate(&message) {
        Cause::LocalCertificate
    } else if is_temp_file(&message) {
        Cause::LocalTempFile
    } else {
        Cause::NginxSays
    };
    let known = match said.choices() {
        0 => "This rests on nginx's log alone: the kernel shows no exchange that failed and belongs to it."
            .to_owned(),
        several => format!(
            "This rests on nginx's log alone: {several} exchanges of that moment may be the one that it is about, and are told for \
             themselves."
        ),
    };
    Finding::inferred(
        cause,
        format!("nginx logged: {}. {known}", line(said)),
        "nginx's error log for this moment; without --no-uprobe, and where uprobes work, the exchange itself is told.",
    )
}

const ENFILE: u32 = 23;
const EMFILE: u32 = 24;

/// The line as nginx writes it, up to the request's own part.
pub(super) fn line(said: &Said) -> String {
    let mut line = said.message();
    if said.errno != 0 {
        line += &format!(" ({}: {})", said.errno, errors::text(said.errno));
    }
    if !said.doing.is_empty() {
        line += &format!(" while {}", said.doing);
    }
    line
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
        message: said.message(),
        doing: Some(said.doing.clone()).filter(|doing| !doing.is_empty()),
        connection: said.connection,
    }
}

/// nginx's reasons, the finer one first.
fn reason(exchange: &Joined) -> String {
    let mut reasons: Vec<_> = exchange.said.iter().map(Said::message).collect();
    reasons.dedup();
    reasons.join("; ")
}

fn is_tls_timeout(said: &Said) -> bool {
    said.format.starts_with("upstream timed out") && said.doing.starts_with("SSL handshaking")
}

/// Whether a response has begun: nginx says what it was reading, else bytes tell. Those of a TLS handshake are no response.
pub(super) fn is_answered(exchange: &Joined) -> bool {
    exchange.word().map_or(exchange.nginx.received > 0, |said| is_cut_short(exchange, said))
}

/// Whether the response had begun, as far as the message tells: what stands behind "while" was true before nginx read what it complains
/// of, and header and body may come in one read. FastCGI and HTTP/2 know the response's own end, apart from the connection's.
fn is_cut_short(exchange: &Joined, said: &Said) -> bool {
    let of_protocol = ["upstream prematurely closed FastCGI", "upstream prematurely closed stream"];
    !is_before_response(said)
        || exchange.nginx.received > 0
            && of_protocol.iter().any(|beginning| said.format.starts_with(beginning))
}

/// Whether nginx has begun to answer its client: then the status is the response's own. What is no HTTP/1 is passed on as HTTP/0.9.
pub(super) fn has_begun(exchange: &Joined) -> bool {
    is_answered(exchange)
        || exchange.nginx_says("upstream sent no valid HTTP")
        || exchange.nginx_says("upstream sent invalid chunked")
}

/// Whether nginx had not accepted a header yet.
pub(super) fn is_before_response(said: &Said) -> bool {
    !matches!(said.doing.as_str(), "reading upstream" | "sending to client" | "proxying upgraded connection")
}

fn is_wrong_protocol(message: &str) -> bool {
    [
        "no valid ",
        "unsupported FastCGI",
        "unexpected FastCGI",
        "invalid FastCGI",
        "too long FastCGI",
        "invalid chunked",
    ]
    .iter()
    .any(|what| message.strip_prefix("upstream sent ").is_some_and(|sent| sent.starts_with(what)))
        || message.starts_with("upstream prematurely sent")
}

/// src/http/modules/ngx_http_grpc_module.c.
fn is_http2(said: &Said) -> bool {
    let of_frames = ["http2", "frame", "stream", "window", "settings", "hpack", "grpc"];
    let what = said.format.strip_prefix("upstream sent").or(said.format.strip_prefix("upstream violated"));
    what.is_some_and(|what| of_frames.iter().any(|word| what.contains(word)))
}

fn is_rejection(message: &str) -> bool {
    ["upstream sent", "upstream prematurely sent", "upstream violated", "memcached sent"]
        .iter()
        .any(|beginning| message.starts_with(beginning))
}

/// `ngx_ssl_certificate` and its kind (src/event/ngx_event_openssl.c).
fn is_certificate(message: &str) -> bool {
    message.starts_with("cannot load certificate")
}

fn own_certificate(message: &str) -> Finding {
    Finding::proven(
        Cause::LocalCertificate,
        format!("nginx could not load the certificate that it was to show the upstream: {message}."),
        "proxy_ssl_certificate and proxy_ssl_certificate_key: the files that they name, and who may read them.",
    )
}

/// `ngx_create_temp_file`, `ngx_write_chain_to_file` (src/os/unix/ngx_files.c), `ngx_create_path`.
fn is_temp_file(message: &str) -> bool {
    ["open() \"", "pwritev() ", "pwrite() ", "mkdir() \"", "write() \""]
        .iter()
        .any(|beginning| message.starts_with(beginning))
}

/// The upstream closed in the middle: nginx knows by the protocol that more was to come.
fn cut_short(exchange: &Joined, said: &Said) -> Option<Finding> {
    let worker = exchange.worker.as_ref();
    if worker.is_some_and(|worker| worker.exiting != 0) {
        // Who died is told as before an answer; nginx says that the response was not whole.
        return None;
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
