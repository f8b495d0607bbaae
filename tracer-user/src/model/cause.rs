//! The table of causes: it drives the classifier, the documentation and the tests.

use std::fmt;

macro_rules! causes {
    ($($variant:ident: $cause:literal / $detail:literal, $status:expr, $meaning:literal;)*) => {
        /// Why an exchange failed. The names are stable: scripts match them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Cause {
            $(#[doc = $meaning] $variant,)*
        }

        impl Cause {
            /// Every cause, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The first half of the name, as in `refused`.
            pub const fn cause(self) -> &'static str {
                match self { $(Self::$variant => $cause,)* }
            }

            /// The second half, as in `no_listener`.
            pub const fn detail(self) -> &'static str {
                match self { $(Self::$variant => $detail,)* }
            }

            /// What nginx answers the client, unless it tries another upstream or has begun to answer.
            pub const fn status(self) -> Option<u16> {
                match self { $(Self::$variant => $status,)* }
            }

            /// What it means, in one sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

causes! {
    RefusedNoListener: "refused" / "no_listener", Some(502),
        "Nobody listens at the upstream's address: its host answered the SYN with a reset.";
    RefusedSocketMissing: "refused" / "socket_missing", Some(502),
        "The upstream's unix socket does not exist.";
    RefusedPermission: "refused" / "permission_denied", Some(502),
        "nginx may not write to the upstream's unix socket.";
    RefusedDeniedByLsm: "refused" / "denied_by_lsm", Some(502),
        "A security module or filter (SELinux, AppArmor, Landlock, seccomp) forbids nginx to connect, though owner and mode allow it.";
    RefusedByFirewall: "refused" / "rejected_by_firewall", Some(502),
        "Something on the way answered for the upstream and rejected the connection.";
    RefusedNoRoute: "refused" / "no_route", Some(502),
        "No route leads to the upstream's address.";
    QueueSynDropped: "accept_queue_overflow" / "syn_dropped", Some(504),
        "The listener's accept queue was full, so its kernel dropped each SYN until nginx gave up connecting.";
    QueueAckDropped: "accept_queue_overflow" / "handshake_ack_dropped", Some(504),
        "The accept queue was full when the handshake ended: nginx believed it was connected, the worker never was.";
    QueueAborted: "accept_queue_overflow" / "aborted", Some(502),
        "The accept queue was full when the handshake ended, and tcp_abort_on_overflow made that a reset.";
    QueueUnixFull: "accept_queue_overflow" / "unix_backlog_full", Some(502),
        "The accept queue of the unix socket was full, and its kernel refused the connection at once.";
    ConnectDroppedFirewall: "connect_timeout" / "dropped_by_firewall", Some(504),
        "A netfilter rule of this host dropped the handshake's packets until nginx gave up connecting.";
    ConnectDroppedRpFilter: "connect_timeout" / "dropped_by_rp_filter", Some(504),
        "Reverse path filtering on this host dropped the handshake's packets until nginx gave up connecting.";
    ConnectConntrackFull: "connect_timeout" / "conntrack_full", Some(504),
        "This host's table of connections was full, so netfilter dropped the handshake's packets until nginx gave up connecting.";
    ConnectDroppedKernel: "connect_timeout" / "dropped_by_kernel", Some(504),
        "This host's kernel dropped the handshake's packets for a reason that it names (tc, XDP, qdisc, BPF, ...).";
    ConnectSynQueueFull: "connect_timeout" / "syn_queue_full", Some(504),
        "The listener had too many unfinished handshakes and dropped each SYN until nginx gave up connecting.";
    ConnectSynUnanswered: "connect_timeout" / "syn_unanswered", Some(504),
        "Nothing answered the SYN before nginx gave up connecting.";
    ConnectTlsHandshake: "connect_timeout" / "tls_handshake", Some(504),
        "The upstream took the connection and did not finish the TLS handshake before nginx gave up connecting.";
    TlsHandshake: "tls_failed" / "handshake", Some(502),
        "The TLS handshake with the upstream failed.";
    TlsCertificate: "tls_failed" / "certificate_rejected", Some(502),
        "nginx refused the upstream's certificate.";
    ResetWorkerKilled: "reset" / "worker_killed", Some(502),
        "A signal ended the worker while it served the exchange.";
    ResetWorkerCrashed: "reset" / "worker_crashed", Some(502),
        "The worker crashed while it served the exchange.";
    ResetWorkerOom: "reset" / "worker_oom_killed", Some(502),
        "The kernel killed the worker because memory ran out.";
    ResetWorkerStopped: "reset" / "worker_stopped", Some(502),
        "The worker, or its master, was told to stop by a signal, and ended without reading all of the request.";
    ResetWorkerExited: "reset" / "worker_exited", Some(502),
        "The worker exited without reading all of the request.";
    ResetListenerClosed: "reset" / "listener_closed", Some(502),
        "The listener was closed while the connection waited in its queue.";
    ResetPeerAborted: "reset" / "peer_aborted", Some(502),
        "The worker lives and closed the connection without reading all of the request, or on purpose with a reset.";
    ResetStaleKeepalive: "reset" / "stale_keepalive", Some(502),
        "The upstream closed a kept-alive connection without reading any of the request on it, and nginx met a reset.";
    ResetByRemote: "reset" / "by_remote", Some(502),
        "The upstream's host, which is not this one, reset the connection.";
    ResetByOwnHost: "reset" / "by_own_host", Some(502),
        "nginx's own host reset the connection: a rule of it rejected a packet, or took one for none of its connections.";
    ResetHttp2Stream: "reset" / "http2_stream", Some(502),
        "The upstream reset the request's HTTP/2 stream.";
    ResetHttp2Goaway: "reset" / "http2_goaway", Some(502),
        "The upstream ended the HTTP/2 connection with an error.";
    PrematureWorkerKilled: "premature_close" / "worker_killed", Some(502),
        "A signal ended the worker after it had read the request and before it answered.";
    PrematureWorkerCrashed: "premature_close" / "worker_crashed", Some(502),
        "The worker crashed after it had read the request and before it answered.";
    PrematureWorkerOom: "premature_close" / "worker_oom_killed", Some(502),
        "The kernel killed the worker because memory ran out, after it had read the request and before it answered.";
    PrematureWorkerStopped: "premature_close" / "worker_stopped", Some(502),
        "The worker, or its master, was told to stop by a signal, and ended before it answered.";
    PrematureWorkerExited: "premature_close" / "worker_exited", Some(502),
        "The worker exited before it answered.";
    PrematureStaleKeepalive: "premature_close" / "stale_keepalive", Some(502),
        "The upstream closed a kept-alive connection without reading any of the request on it, and nginx read its end.";
    PrematurePeerClosed: "premature_close" / "peer_closed", Some(502),
        "The upstream closed the connection properly before it answered.";
    ResponseCutShort: "premature_close" / "response_cut_short", None,
        "The upstream closed the connection properly in the middle of its response.";
    TimeoutNeverAccepted: "read_timeout" / "never_accepted", Some(504),
        "The connection waited in the accept queue, behind busy workers, until nginx stopped waiting.";
    TimeoutNobodyAccepts: "read_timeout" / "nobody_accepts", Some(504),
        "The connection waited in the accept queue of a listener from which nobody accepts, until nginx stopped waiting.";
    TimeoutSlowWorker: "read_timeout" / "slow_worker", Some(504),
        "A worker had the request and did not answer before nginx stopped waiting.";
    TimeoutWorkerGone: "read_timeout" / "worker_gone", Some(504),
        "The worker had died, and another process held its connection open until nginx stopped waiting.";
    TimeoutStalledResponse: "read_timeout" / "stalled_response", None,
        "The response began and then stalled until nginx stopped waiting.";
    TimeoutIdleUpgraded: "read_timeout" / "idle_upgraded", None,
        "Neither side of an upgraded connection (a WebSocket) sent anything until nginx's timer ended it.";
    TimeoutNoAnswer: "read_timeout" / "no_answer", Some(504),
        "The upstream's host, which is not this one, acknowledged the request and sent nothing.";
    TimeoutAnswerLost: "read_timeout" / "answer_lost", Some(504),
        "What the upstream sent did not come to nginx's socket, or not whole: later bytes came, earlier ones did not, or this host refused it.";
    TimeoutUnacked: "read_timeout" / "unacked", Some(504),
        "The upstream's host stopped acknowledging what nginx sent.";
    SendTimeout: "send_timeout" / "peer_not_reading", Some(504),
        "The upstream did not read the request before nginx stopped waiting.";
    KernelRetransmits: "kernel_timeout" / "retransmits_exhausted", Some(502),
        "The kernel gave up after sending the same bytes again and again.";
    KernelSynRetries: "kernel_timeout" / "syn_retries_exhausted", Some(502),
        "The kernel gave up after sending the SYN again and again.";
    ClientAbortBefore: "client_abort" / "before_response", Some(499),
        "The client went away before the upstream answered.";
    ClientAbortMid: "client_abort" / "mid_response", None,
        "The client went away while the response was on its way.";
    ClientCancelled: "client_abort" / "stream_cancelled", Some(499),
        "The client cancelled the request and stayed connected, as HTTP/2 lets it.";
    ClientBodyTooLarge: "client_error" / "body_too_large", Some(413),
        "The client sent more than client_max_body_size while nginx passed its request on.";
    ClientBodyInvalid: "client_error" / "invalid_body", Some(400),
        "What the client sent as its request's body broke the protocol while nginx passed it on.";
    ClientBodyTimeout: "client_error" / "body_timeout", Some(408),
        "The client stopped sending its request's body, and nginx stopped waiting for it.";
    ClientNotReading: "client_error" / "not_reading", None,
        "The client stopped reading the response, and nginx stopped waiting for it.";
    ClientHttp2Error: "client_error" / "http2_error", Some(499),
        "The client broke the rules of HTTP/2, and nginx gave up its connection with all that was under way on it, or this request.";
    HeaderTooBig: "rejected_response" / "header_too_big", Some(502),
        "The response's header is larger than nginx's buffer for it.";
    InvalidHeader: "rejected_response" / "invalid_header", Some(502),
        "nginx read a response that breaks the protocol, and would not accept it.";
    WrongProtocol: "rejected_response" / "wrong_protocol", Some(502),
        "The upstream does not speak the protocol that nginx speaks with it, or breaks it.";
    Http2Error: "rejected_response" / "http2_error", Some(502),
        "The upstream broke the rules of HTTP/2.";
    RejectedResponse: "rejected_response" / "header_too_big_or_invalid", Some(502),
        "nginx read a response that it would not accept and closed the connection.";
    NoLiveUpstreams: "not_attempted" / "no_live_upstreams", Some(502),
        "Each server of the group had failed before, and nginx asked none of them.";
    Unresolved: "not_attempted" / "unresolved", Some(502),
        "The upstream's name could not be resolved.";
    TooManyOpenFiles: "not_attempted" / "too_many_open_files", Some(500),
        "nginx had too many open files to make a socket for the upstream.";
    WorkerConnections: "not_attempted" / "worker_connections", Some(500),
        "nginx had no connection left for the upstream.";
    LocalPorts: "local_error" / "ports_exhausted", Some(502),
        "This host had no local port left for the connection.";
    LocalError: "local_error" / "connect_error", Some(502),
        "connect failed on this host, before anything was sent.";
    LocalCertificate: "local_error" / "certificate", Some(500),
        "nginx could not load the certificate that it was to show the upstream.";
    LocalTempFile: "local_error" / "temp_file", None,
        "nginx could not write a temporary file of its own.";
    UpgradedKilled: "upgraded" / "worker_killed", None,
        "A signal ended the worker, and with it a connection on which nginx only passed on what came (a WebSocket, a raw stream).";
    UpgradedCrashed: "upgraded" / "worker_crashed", None,
        "The worker crashed, and with it such a connection ended.";
    UpgradedExited: "upgraded" / "worker_exited", None,
        "The worker exited, and with it a connection ended that had been upgraded.";
    NginxKilled: "nginx_exit" / "worker_killed", None,
        "A signal ended the nginx worker.";
    NginxExited: "nginx_exit" / "worker_exited", None,
        "The nginx worker exited.";
    NginxShutdownTimeout: "nginx_exit" / "shutdown_timeout", None,
        "The nginx worker had been told to quit, and closed what was under way after worker_shutdown_timeout.";
    EvidenceLost: "unknown" / "evidence_lost", None,
        "Facts that would tell were lost.";
    NotEnoughFacts: "unknown" / "not_enough_facts", None,
        "The facts that were seen do not tell.";
    NginxSays: "unknown" / "nginx_says", None,
        "nginx says why, in words that no rule knows.";
}

impl fmt::Display for Cause {
    /// `cause/detail`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cause(), self.detail())
    }
}
