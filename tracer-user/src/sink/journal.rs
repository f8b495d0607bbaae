//! Verdicts in systemd's journal, by its own protocol: the sentence is the message, and what is known of it are fields.

use std::{os::unix::net::UnixDatagram, sync::Arc, time::Duration};

use libsystemd::logging::{Priority, SD_JOURNAL_SOCK_PATH, journal_send};

use super::{
    Sink,
    courier::{Carrier, Courier, Fate},
    metrics::Shared,
    record::{Record, Severity},
};
use crate::model::{failure::Failure, words::time};

/// So many verdicts may wait for it.
const QUEUE: usize = 2_048;

/// What all such messages have in common: `journalctl MESSAGE_ID=` finds them.
const MESSAGE_ID: &str = "5b0d1f6c3c7a4e7f9a2d6e8c41b35020";

/// A sink that writes verdicts to the journal.
///
/// # Errors
/// If nobody keeps one on this host.
pub fn to_journal(shared: &Arc<Shared>) -> Result<impl Sink + use<>, Failure> {
    let reached = UnixDatagram::unbound().and_then(|socket| socket.connect(SD_JOURNAL_SOCK_PATH));
    if let Err(error) = reached {
        return Err(Failure::CannotTrace(format!(
            "no journald takes messages at {SD_JOURNAL_SOCK_PATH} ({error}): leave --journal out where systemd does not run"
        )));
    }
    Ok(Courier::start("journal", "the journal".to_owned(), QUEUE, &shared.drops_of("journal"), Journal)?)
}

/// What speaks to journald. It waits where that one is busy.
struct Journal;

impl Carrier for Journal {
    const BATCH: usize = 1;
    const LINGER: Duration = Duration::ZERO;

    fn carry(&mut self, records: &[Record]) -> Fate {
        match records
            .iter()
            .try_for_each(|record| journal_send(priority(record), &record.body, fields(record).into_iter()))
        {
            Ok(()) => Fate::Taken { but: 0 },
            // It may be starting anew.
            Err(error) => Fate::Later { why: error.to_string(), after: None },
        }
    }
}

fn priority(record: &Record) -> Priority {
    match record.severity {
        Severity::Info => Priority::Info,
        Severity::Error => Priority::Error,
    }
}

/// Fields beside the message: `ERROR_TYPE` for `error.type`.
fn fields(record: &Record) -> Vec<(String, String)> {
    let own = [
        ("SYSLOG_IDENTIFIER".to_owned(), "why502".to_owned()),
        ("MESSAGE_ID".to_owned(), MESSAGE_ID.to_owned()),
        ("WHY502_TIME".to_owned(), time(record.unix_ns)),
    ];
    let attributes = record.attributes.iter();
    own.into_iter().chain(attributes.map(|(name, value)| (field(name), value.to_string()))).collect()
}

/// How the journal has an attribute's name.
fn field(name: &str) -> String {
    name.replace('.', "_").to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{record::ATTRIBUTES, samples};

    #[test]
    fn each_attribute_has_a_name_that_the_journal_takes() {
        for (name, _) in ATTRIBUTES {
            let field = field(name);
            let is_plain =
                field.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
            assert!(is_plain && field.len() <= 64 && field.as_bytes()[0].is_ascii_uppercase(), "{field}");
        }
    }

    #[test]
    fn a_verdict_has_its_fields() {
        let fields = fields(&Record::of(&samples::killed(), 0));
        let of = |name: &str| fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        assert_eq!(of("ERROR_TYPE"), Some("reset/worker_killed"));
        assert_eq!(of("WHY502_TIME"), Some("2026-11-20T11:39:26.123456Z"));
        assert_eq!((of("SERVER_PORT"), of("PROCESS_PID")), (Some("19001"), Some("24945")));
    }
}
