//! Records as OTLP's log records.

use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
};
use prost::Message as _;

use super::words::{attribute, number, resource, scope, text, unix};
use crate::sink::record::{Record, Severity, Value};

/// All such records are called so.
const EVENT: &str = "why502.verdict";

pub(super) fn request(records: &[Record]) -> ExportLogsServiceRequest {
    let log_records = records.iter().map(log_record).collect();
    let scope_logs = vec![ScopeLogs { scope: Some(scope()), log_records, ..ScopeLogs::default() }];
    let resource_logs =
        vec![ResourceLogs { resource: Some(resource()), scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }
}

fn log_record(record: &Record) -> LogRecord {
    let Record { unix_ns, observed_ns, severity, body, attributes } = record;
    let (severity, name) = match severity {
        Severity::Info => (SeverityNumber::Info, "INFO"),
        Severity::Error => (SeverityNumber::Error, "ERROR"),
    };
    let attributes = attributes.iter().map(|(name, value)| {
        attribute(
            name,
            match value {
                Value::Text(own) => text(own),
                Value::Number(own) => number(*own),
            },
        )
    });
    LogRecord {
        time_unix_nano: unix(*unix_ns),
        observed_time_unix_nano: unix(*observed_ns),
        severity_number: severity.into(),
        severity_text: name.to_owned(),
        body: Some(text(body)),
        attributes: attributes.collect(),
        event_name: EVENT.to_owned(),
        ..LogRecord::default()
    }
}

/// How many records a collector says that it has refused of those that it took, and why; none if it took them all.
pub(super) fn refused(body: &[u8]) -> Option<(usize, String)> {
    // One that says something else has taken them, too.
    let partial = ExportLogsServiceResponse::decode(body).ok()?.partial_success?;
    let count = usize::try_from(partial.rejected_log_records).ok().filter(|count| *count > 0)?;
    Some((count, partial.error_message))
}
