//! Verdicts in systemd's journal, by its own protocol: the sentence is the message, and what is known of it are fields.

use std::{io, sync::Arc, time::Duration};

use log::Level;
use systemd_journal_logger::JournalLog;

use super::{
    Sink,
    courier::{Carrier, Courier, Fate},
    metrics::Shared,
    record::{Record, Severity},
};
use crate::model::{failure::Failure, words::time};

/// So many verdicts may wait for it.
const QUEUE: usize = 2_048;

/// Where journald takes messages (systemd.io/JOURNAL_NATIVE_PROTOCOL).
const SOCKET: &str = "/run/systemd/journal/socket";

/// What all such messages have in common: `journalctl MESSAGE_ID=` finds them.
const MESSAGE_ID: &str = "5b0d1f6c3c7a4e7f9a2d6e8c41b35020";

/// A sink that writes verdicts to the journal.
///
/// # Errors
/// If nobody keeps one on this host.
pub fn to_journal(shared: &Arc<Shared>) -> Result<impl Sink + use<>, Failure> {
    let log = JournalLog::empty().map_err(|error| {
        Failure::CannotTrace(format!(
            "no journald takes messages at {SOCKET} ({error}): leave --journal out where systemd does not run"
        ))
    })?;
    let journal = Journal { log: log.with_syslog_identifier("why502".to_owned()) };
    Ok(Courier::start("journal", "the journal".to_owned(), QUEUE, &shared.drops_of("journal"), journal)?)
}

/// What speaks to journald. It waits where that one is busy.
struct Journal {
    log: JournalLog,
}

impl Carrier for Journal {
    const BATCH: usize = 1;
    const LINGER: Duration = Duration::ZERO;

    fn carry(&mut self, records: &[Record]) -> Fate {
        match records.iter().try_for_each(|record| self.send(record)) {
            Ok(()) => Fate::Taken { but: 0 },
            // It may be starting anew.
            Err(error) => Fate::Later { why: error.to_string(), after: None },
        }
    }
}

impl Journal {
    fn send(&self, record: &Record) -> io::Result<()> {
        let body = format_args!("{}", record.body);
        let fields = fields(record);
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        let mut message = log::Record::builder();
        message.level(level(record)).target("why502").args(body).key_values(&fields);
        self.log.journal_send(&message.build())
    }
}

/// The level that journald has under this priority: `info` is the logger's `Debug`, `err` its `Error`.
fn level(record: &Record) -> Level {
    match record.severity {
        Severity::Info => Level::Debug,
        Severity::Error => Level::Error,
    }
}

/// Fields beside the message: `ERROR_TYPE` for `error.type`.
fn fields(record: &Record) -> Vec<(String, String)> {
    let own =
        [("MESSAGE_ID".to_owned(), MESSAGE_ID.to_owned()), ("WHY502_TIME".to_owned(), time(record.unix_ns))];
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
