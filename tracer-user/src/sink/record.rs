//! A verdict as a log record: its sentence, and what is known of it as attributes. Where OpenTelemetry's semantic conventions have a name
//! for one, it is called so.

use crate::{
    model::{
        cause::Cause,
        cgroup::Cgroup,
        upstream::Upstream,
        verdict::{Process, Verdict},
    },
    terminal::printable,
};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// The client left: nobody missed an answer.
    Info,
    /// nginx answered with an error.
    Error,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Number(i64),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// A log record. All its text is printable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// When the exchange failed (ns since 1970).
    pub(super) unix_ns: i64,
    /// When the verdict was given.
    pub(super) observed_ns: i64,
    pub(super) severity: Severity,
    /// What happened, in one sentence.
    pub(super) body: String,
    /// Those that are known, in the order of [`ATTRIBUTES`].
    pub(super) attributes: Vec<(&'static str, Value)>,
}

macro_rules! attributes {
    ($($attribute:ident: $name:literal, $meaning:literal;)*) => {
        $(const $attribute: &str = $name;)*

        /// Every attribute that a record may have, and its meaning. One that is not known is left out.
        pub const ATTRIBUTES: &[(&str, &str)] = &[$(($name, $meaning)),*];
    };
}

attributes! {
    ERROR_TYPE: "error.type", "Cause and detail: `reset/worker_killed`.";
    CONFIDENCE: "why502.confidence", "`proven`, `inferred` or `incomplete`.";
    STATUS: "http.response.status_code", "What nginx answers, or logs as `$upstream_status`.";
    ADDRESS: "server.address", "The upstream: an IP address, or a unix socket's path.";
    PORT: "server.port", "Its port.";
    TRANSPORT: "network.transport", "`tcp` or `unix`.";
    LOCAL_ADDRESS: "network.local.address", "nginx's own address toward the upstream.";
    LOCAL_PORT: "network.local.port", "Its port.";
    GROUP: "why502.group", "The name in `proxy_pass` of the group of which no server was alive.";
    PID: "process.pid", "The nginx worker.";
    NAME: "process.executable.name", "Its name.";
    CONTAINER: "container.id", "The container that nginx is in.";
    UNIT: "why502.unit", "The systemd unit that nginx is of.";
    WORKER_PID: "why502.worker.pid", "The process that served the exchange, or should have.";
    WORKER_NAME: "why502.worker.name", "Its name.";
    WORKER_SIGNAL: "why502.worker.signal", "The signal that it died of, or that told it to stop.";
    WORKER_CONTAINER: "why502.worker.container", "Its container.";
    WORKER_UNIT: "why502.worker.unit", "Its systemd unit.";
    KILLER_PID: "why502.killer.pid", "The process that sent the signal.";
    KILLER_NAME: "why502.killer.name", "Its name.";
    ERRNO: "why502.errno", "The error that nginx met: `ECONNRESET`.";
    ERROR_LOG: "why502.error_log", "What nginx's error log says, in nginx's words.";
    DURATION: "why502.duration_us", "From connect to the end of nginx's side, in microseconds.";
    ADVICE: "why502.advice", "Which setting to look at.";
}

/// The attributes of a record, as they are put together.
#[derive(Default)]
struct Attributes(Vec<(&'static str, Value)>);

impl Attributes {
    fn text(&mut self, name: &'static str, text: Option<&str>) {
        self.0.extend(text.map(|text| (name, Value::Text(printable(text).into_owned()))));
    }

    fn number(&mut self, name: &'static str, number: Option<impl Into<i64>>) {
        self.0.extend(number.map(|number| (name, Value::Number(number.into()))));
    }

    fn upstream(&mut self, verdict: &Verdict) {
        match &verdict.upstream {
            Upstream::Inet(address) => {
                self.text(ADDRESS, Some(&address.ip().to_string()));
                self.number(PORT, Some(address.port()));
                self.text(TRANSPORT, Some("tcp"));
            }
            Upstream::Unix(path) => {
                self.text(ADDRESS, Some(&path.to_string_lossy()));
                self.text(TRANSPORT, Some("unix"));
            }
            Upstream::Named(_) => {}
        }
        self.text(LOCAL_ADDRESS, verdict.local.map(|local| local.ip().to_string()).as_deref());
        self.number(LOCAL_PORT, verdict.local.map(|local| local.port()));
        match &verdict.upstream {
            // Any other name may be one that a request chose.
            Upstream::Named(name) if verdict.cause == Cause::NoLiveUpstreams => self.text(GROUP, Some(name)),
            _ => {}
        }
    }

    fn processes(&mut self, verdict: &Verdict) {
        let home = |process: &Process| {
            let cgroup = verdict.places.of(process.pid);
            let of = |name: fn(&Cgroup) -> &Option<String>| cgroup.and_then(|cgroup| name(cgroup).as_deref());
            (of(|cgroup| &cgroup.container), of(|cgroup| &cgroup.unit))
        };
        self.number(PID, Some(verdict.nginx.pid));
        self.text(NAME, Some(&verdict.nginx.comm));
        let (container, unit) = home(&verdict.nginx);
        self.text(CONTAINER, container);
        self.text(UNIT, unit);
        if let Some(worker) = &verdict.worker {
            self.number(WORKER_PID, Some(worker.process.pid));
            self.text(WORKER_NAME, Some(&worker.process.comm));
            self.text(WORKER_SIGNAL, worker.signal.as_deref());
            let (container, unit) = home(&worker.process);
            self.text(WORKER_CONTAINER, container);
            self.text(WORKER_UNIT, unit);
        }
        self.number(KILLER_PID, verdict.killer.as_ref().map(|killer| killer.pid));
        self.text(KILLER_NAME, verdict.killer.as_ref().map(|killer| &*killer.comm));
    }
}

impl Record {
    /// Of a verdict that is given at this time (ns since 1970).
    pub(super) fn of(verdict: &Verdict, observed_ns: i64) -> Self {
        let mut attributes = Attributes::default();
        let name = format!("{}/{}", verdict.cause.cause(), verdict.cause.detail());
        attributes.text(ERROR_TYPE, Some(&name));
        attributes.text(CONFIDENCE, Some(verdict.confidence.name()));
        attributes.number(STATUS, verdict.status);
        attributes.upstream(verdict);
        attributes.processes(verdict);
        attributes.text(ERRNO, verdict.errno.as_deref());
        attributes.text(ERROR_LOG, verdict.error_log.as_deref());
        attributes.number(DURATION, verdict.moments.ended);
        attributes.text(ADVICE, Some(&*verdict.advice).filter(|advice| !advice.is_empty()));
        let severity = if verdict.cause.cause() == "client_abort" { Severity::Info } else { Severity::Error };
        Self {
            unix_ns: verdict.unix_ns,
            observed_ns,
            severity,
            body: printable(&verdict.explanation).into_owned(),
            attributes: attributes.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::samples;

    fn all() -> Vec<Record> {
        samples::verdicts().iter().map(|verdict| Record::of(verdict, 7)).collect()
    }

    fn of(record: &Record, name: &str) -> Option<String> {
        record.attributes.iter().find(|(own, _)| *own == name).map(|(_, value)| value.to_string())
    }

    #[test]
    fn a_verdict_names_who_did_what_to_whom() {
        let record = &all()[0];
        for (name, value) in [
            ("error.type", "reset/worker_killed"),
            ("http.response.status_code", "502"),
            ("server.address", "127.0.0.1"),
            ("server.port", "19001"),
            ("network.local.port", "52654"),
            ("process.pid", "24945"),
            ("why502.worker.signal", "SIGTERM"),
            ("why502.worker.unit", "php8.2-fpm.service"),
            ("why502.killer.pid", "24938"),
            ("why502.duration_us", "3259000"),
        ] {
            assert_eq!(of(record, name).as_deref(), Some(value), "{name}");
        }
        assert_eq!((record.severity, record.observed_ns), (Severity::Error, 7));
        assert_eq!(of(&all()[1], "server.address").as_deref(), Some("/run/php/php8.2-fpm.sock"));
        assert_eq!(of(&all()[5], "why502.group").as_deref(), Some("pair"));
    }

    #[test]
    fn attributes_stand_in_the_order_of_their_table_and_each_once() {
        for record in all() {
            let places = record.attributes.iter().map(|(name, _)| {
                ATTRIBUTES.iter().position(|(own, _)| own == name).unwrap_or_else(|| panic!("{name}"))
            });
            assert!(places.is_sorted_by(|one, other| one < other), "{record:?}");
        }
    }

    #[test]
    fn what_others_name_is_printable_and_a_requests_name_is_left_out() {
        for record in all() {
            let texts = record.attributes.iter().map(|(_, value)| value.to_string()).chain([record.body]);
            for text in texts {
                assert!(!text.contains(|char: char| char.is_control() || char == '\u{202e}'), "{text:?}");
            }
        }
        let mut verdict = samples::no_live_upstreams();
        (verdict.cause, verdict.upstream) = (Cause::Unresolved, Upstream::Named("secret.example".to_owned()));
        assert!(!format!("{:?}", Record::of(&verdict, 0).attributes).contains("secret"));
    }
}
