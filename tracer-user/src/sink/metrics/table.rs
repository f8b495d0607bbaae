//! The table of metrics: it drives the page, and `docs/serve.md` is held against it.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How many values fell below each of some bounds.
    Histogram,
    /// Always one: its labels say it.
    Info,
}

impl Kind {
    /// As documents call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its whole name, as a query has it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($metric:ident: $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)*) => {
        $(pub(super) const $metric: Metric =
            Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*

        /// Every metric, in the order of the page.
        pub const METRICS: &[Metric] = &[$($metric),*];
    };
}

metrics! {
    EXCHANGES: "why502_exchanges_total", Counter, ["upstream"],
        "Exchanges between nginx and an upstream that have ended, well or not.";
    FAILURES: "why502_failures_total", Counter, ["upstream", "cause", "detail", "confidence"],
        "Failed exchanges by cause: each has its verdict.";
    FAILURE_SECONDS: "why502_failure_seconds", Histogram, ["cause"],
        "How long failed exchanges took, from connect to the end of nginx's side.";
    DELAYED: "why502_delayed_total", Counter, ["upstream"],
        "Exchanges that succeeded late, because the handshake had to be tried again.";
    CLIENT_ABORTS: "why502_client_aborts_total", Counter, [],
        "Exchanges that ended because the client left; failures have them as well.";
    WORKERS_KILLED: "why502_workers_killed_total", Counter, ["upstream", "signal", "killer"],
        "Workers that a signal ended while they served an exchange, by the name of the process that sent it.";
    QUEUE_DEPTH: "why502_accept_queue_depth", Gauge, ["listener"],
        "Connections that wait to be accepted, as the last look found it.";
    QUEUE_LIMIT: "why502_accept_queue_limit", Gauge, ["listener"],
        "The effective backlog; one connection more than this fits.";
    QUEUE_FULL: "why502_accept_queue_full_seconds_total", Counter, ["listener"],
        "How long the accept queue was full, by looks that come once a second.";
    OVERFLOWS: "why502_accept_queue_overflows_total", Counter, ["listener", "stage"],
        "Exchanges that met a full accept queue, by what became of them; a listener is named as nginx calls it.";
    WAITS: "why502_accept_queue_wait_seconds", Histogram, ["listener"],
        "How long every connection waited in the accept queue, whoever its client is; only where queue-waits of [metrics] is on.";
    DROPS: "why502_accept_queue_drops_total", Counter, ["listener", "stage"],
        "SYNs, ends of handshakes and unix connects that met the full accept queue, whoever sent them; only where queue-waits is on.";
    WAITS_LOST: "why502_accept_queue_waits_lost_total", Counter, ["reason"],
        "What is not in these two: waits, listeners, or the last second of a listener; only where queue-waits is on.";
    LOST: "why502_lost_records_total", Counter, ["reason"],
        "Records that were lost: verdicts that they may touch are incomplete.";
    UNTRACKED: "why502_untracked_total", Counter, [],
        "Connections that were not watched because too many were open at once.";
    UNEXPLAINED: "why502_unexplained_total", Counter, [],
        "Failures that nginx logged and that have no verdict.";
    LINES_LOST: "why502_json_lines_lost_total", Counter, [],
        "Lines that could not be written to the file of JSON Lines.";
    DROPPED: "why502_verdicts_dropped_total", Counter, ["sink", "reason"],
        "Verdicts that did not get to a collector, the journal or syslog, for each that is in use.";
    BPF_SECONDS: "why502_bpf_run_seconds_total", Counter, [],
        "Processor time of the BPF programs; only where the kernel measures it (sysctl kernel.bpf_stats_enabled).";
    SOURCE: "why502_source_info", Info, ["fact", "source"],
        "Which hook sees each fact on this kernel; none for what is not seen.";
    BUILD: "why502_build_info", Info, ["version", "commit"],
        "Which why502 this is.";
    CPU: "process_cpu_seconds_total", Counter, [],
        "Processor time of why502 itself, without its BPF programs.";
    MEMORY: "process_resident_memory_bytes", Gauge, [],
        "Resident memory of why502.";
    STARTED: "process_start_time_seconds", Gauge, [],
        "When why502 was started, in seconds since 1970.";
}
