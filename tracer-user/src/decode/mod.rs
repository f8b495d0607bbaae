//! From a ring buffer's bytes to records. Pure.

use bytes::Bytes;
use thiserror::Error;
use wire::{Action, ExchangeRecord, Header, Kind, NextAction, NginxOnly, Started, WordOf};
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes as _, KnownLayout, try_transmute};

use crate::model::record::Record;

/// What the kernel side sends.
#[derive(Clone, Debug)]
pub enum Event {
    /// A record: evidence.
    Record(Record),
    /// A process that is watched runs a new binary.
    Started(Started),
}

/// Why bytes are no record.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// They end within the record.
    #[error("a record of kind {kind} has {actual} bytes instead of {expected}")]
    Length {
        /// The kind it says it is.
        kind: u32,
        /// Bytes there are.
        actual: usize,
        /// Bytes there should be.
        expected: usize,
    },
    /// They end within the header.
    #[error("a record has no whole header")]
    NoHeader,
    /// No record has such a kind.
    #[error("no record has kind {0}")]
    Kind(u32),
    /// nginx cannot have done that.
    #[error("no next action is {0}")]
    Action(u32),
}

/// Decodes one record.
///
/// # Errors
/// If the bytes are not exactly one record.
pub fn decode(bytes: &Bytes) -> Result<Event, DecodeError> {
    let (header, _) = Header::read_from_prefix(bytes).map_err(|_| DecodeError::NoHeader)?;
    let kind: Result<Kind, _> = try_transmute!(header.kind);
    let record = match kind.map_err(|_| DecodeError::Kind(header.kind))? {
        Kind::Exchange => Record::Exchange(whole(bytes, header.kind)?),
        Kind::NginxOnly => {
            let alone = whole::<NginxOnly>(bytes, header.kind)?;
            let mut exchange = ExchangeRecord { header: alone.header, ..ExchangeRecord::new_zeroed() };
            let begins = alone.nginx.as_bytes();
            exchange.nginx.as_mut_bytes()[..begins.len()].copy_from_slice(begins);
            Record::Exchange(Box::new(exchange))
        }
        Kind::Hop => Record::Hop(whole(bytes, header.kind)?),
        Kind::WorkerGone => Record::WorkerGone(whole(bytes, header.kind)?),
        Kind::Served => Record::Served(whole(bytes, header.kind)?),
        Kind::WordOf => Record::Word(whole(bytes, header.kind)?),
        Kind::Word => {
            let word = *whole(bytes, header.kind)?;
            Record::Word(Box::new(WordOf { word, ..WordOf::new_zeroed() }))
        }
        Kind::Started => return Ok(Event::Started(*whole(bytes, header.kind)?)),
        Kind::NextAction => {
            let next_action: Box<NextAction> = whole(bytes, header.kind)?;
            let action: Result<Action, _> = try_transmute!(next_action.action);
            let action = action.map_err(|_| DecodeError::Action(next_action.action))?;
            Record::NextAction(next_action, action)
        }
    };
    Ok(Event::Record(record))
}

pub(crate) fn whole<T: FromBytes + KnownLayout + Immutable>(
    bytes: &Bytes,
    kind: u32,
) -> Result<Box<T>, DecodeError> {
    T::read_from_bytes(bytes).map(Box::new).map_err(|_| DecodeError::Length {
        kind,
        actual: bytes.len(),
        expected: size_of::<T>(),
    })
}

#[cfg(test)]
mod tests {
    use wire::{NginxEnd, WorkerGone};
    use zerocopy::IntoBytes;

    use super::*;

    fn bytes_of(record: &(impl IntoBytes + Immutable)) -> Bytes {
        Bytes::copy_from_slice(record.as_bytes())
    }

    #[test]
    fn a_whole_record_is_decoded() {
        let mut record = ExchangeRecord::new_zeroed();
        record.header.kind = Kind::Exchange as u32;
        record.nginx.sent = 552;
        let Ok(Event::Record(Record::Exchange(decoded))) = decode(&bytes_of(&record)) else {
            panic!("not an exchange")
        };
        assert_eq!(decoded.nginx.sent, 552);
    }

    #[test]
    fn an_end_alone_is_an_exchange_without_a_worker() {
        let mut nginx = NginxEnd::new_zeroed();
        (nginx.error, nginx.client.state) = (111, 8);
        let mut record = NginxOnly::new_zeroed();
        record.header.kind = Kind::NginxOnly as u32;
        let begins = &nginx.as_bytes()[..size_of_val(&record.nginx)];
        record.nginx.as_mut_bytes().copy_from_slice(begins);
        let Ok(Event::Record(Record::Exchange(decoded))) = decode(&bytes_of(&record)) else {
            panic!("not an exchange")
        };
        assert_eq!((decoded.nginx.error, decoded.nginx.client.state), (111, 8));
        assert_eq!((decoded.worker.sock, decoded.path[0]), (0, 0));
    }

    #[test]
    fn a_cut_record_is_refused() {
        let mut record = WorkerGone::new_zeroed();
        record.header.kind = Kind::WorkerGone as u32;
        let bytes = bytes_of(&record);
        let expected = bytes.len();
        let error = decode(&bytes.slice(..expected - 1)).err();
        assert_eq!(error, Some(DecodeError::Length { kind: 3, actual: expected - 1, expected }));
        assert_eq!(decode(&bytes.slice(..4)).err(), Some(DecodeError::NoHeader));
    }

    #[test]
    fn numbers_without_a_meaning_are_refused() {
        let mut record = NextAction::new_zeroed();
        record.header.kind = 99;
        assert_eq!(decode(&bytes_of(&record)).err(), Some(DecodeError::Kind(99)));
        record.header.kind = Kind::NextAction as u32;
        record.action = 7;
        assert_eq!(decode(&bytes_of(&record)).err(), Some(DecodeError::Action(7)));
    }
}
