//! From a ring buffer's bytes to records. Pure.

use wire::{
    Header,
    accept_queue::{Kind, Listener, ListenerClosed, Victim, VictimEnded},
};
use zerocopy::{FromBytes as _, try_transmute};

use crate::decode::{DecodeError, whole};

/// One record of the kernel side.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    /// A victim's fate is known.
    Ended(Victim),
    /// A listener was closed.
    Closed(Box<Listener>),
}

/// Decodes one record.
///
/// # Errors
/// If the bytes are not exactly one record.
pub(crate) fn decode(bytes: &bytes::Bytes) -> Result<Record, DecodeError> {
    let (header, _) = Header::read_from_prefix(bytes).map_err(|_| DecodeError::NoHeader)?;
    let kind: Result<Kind, _> = try_transmute!(header.kind);
    match kind.map_err(|_| DecodeError::Kind(header.kind))? {
        Kind::VictimEnded => {
            whole::<VictimEnded>(bytes, header.kind).map(|record| Record::Ended(record.victim))
        }
        Kind::ListenerClosed => whole::<ListenerClosed>(bytes, header.kind)
            .map(|record| Record::Closed(Box::new(record.listener))),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;

    #[test]
    fn a_whole_record_is_decoded_and_a_cut_one_refused() {
        let mut record = VictimEnded::new_zeroed();
        record.header.kind = Kind::VictimEnded as u32;
        record.victim.syn_drops = 3;
        let bytes = Bytes::copy_from_slice(record.as_bytes());
        assert!(matches!(decode(&bytes), Ok(Record::Ended(victim)) if victim.syn_drops == 3));
        assert!(decode(&bytes.slice(..bytes.len() - 1)).is_err());
    }

    #[test]
    fn a_kind_without_a_meaning_is_refused() {
        let mut record = VictimEnded::new_zeroed();
        record.header.kind = 9;
        assert_eq!(decode(&Bytes::copy_from_slice(record.as_bytes())).err(), Some(DecodeError::Kind(9)));
    }
}
