//! How single values are written, and read again as they were.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use wire::{COMM_LEN, Endpoint, FAMILY_INET, FAMILY_INET6, PATH_LEN, nginx_flag, tcp_state};

use super::Names;
use crate::model::from_wire::address;

/// Moments are earlier than this (ns, monotonic), so that no difference of two overflows: 146 years.
pub const LATEST_NS: u64 = 1 << 62;

/// Counters are smaller than this: every reader of JSON takes them for what they are.
const MOST: u64 = 1 << 53;

/// Why a line of evidence cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum Bad {
    /// It is no JSON, or not of this form.
    #[error("{0}")]
    Form(#[from] serde_json::Error),
    /// A value that cannot be.
    #[error("{0}")]
    Value(String),
}

pub(super) fn bad(what: impl Into<String>) -> Bad {
    Bad::Value(what.into())
}

/// What a recording's values are relative to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Base {
    /// When it began (ns, monotonic).
    pub(super) started_ns: u64,
}

/// What values are written by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) base: Base,
    pub(super) names: &'a Names,
}

/// One kind of value.
pub(super) trait Codec<T> {
    type Json;

    fn encode(value: &T, context: Context<'_>) -> Self::Json;

    fn decode(json: Self::Json, base: Base) -> Result<T, Bad>;
}

/// Nanoseconds since the recording began; null for what did not happen.
pub(super) struct Moment;

impl Codec<u64> for Moment {
    type Json = Option<i64>;

    fn encode(ns: &u64, Context { base, .. }: Context<'_>) -> Option<i64> {
        (*ns != 0).then(|| ns.cast_signed().wrapping_sub(base.started_ns.cast_signed()))
    }

    fn decode(json: Option<i64>, base: Base) -> Result<u64, Bad> {
        let Some(ns) = json else { return Ok(0) };
        let ns = base.started_ns.checked_add_signed(ns).filter(|ns| *ns < LATEST_NS && *ns != 0);
        ns.ok_or_else(|| bad("a moment lies before the machine's start or beyond all time"))
    }
}

/// The name of a kernel's object; null for none.
pub(super) struct Id;

impl Codec<u64> for Id {
    type Json = Option<u64>;

    fn encode(address: &u64, Context { names, .. }: Context<'_>) -> Option<u64> {
        (*address != 0).then(|| names.id(*address))
    }

    fn decode(json: Option<u64>, _: Base) -> Result<u64, Bad> {
        Ok(json.unwrap_or(0))
    }
}

/// A number as it is.
pub(super) struct Number;

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Codec<$type> for Number {
            type Json = $type;

            fn encode(value: &$type, _: Context<'_>) -> $type {
                *value
            }

            fn decode(json: $type, _: Base) -> Result<$type, Bad> {
                Ok(json)
            }
        }
    )*};
}
number!(u8, u16, u32, i32);

impl Codec<u64> for Number {
    type Json = u64;

    fn encode(value: &u64, _: Context<'_>) -> u64 {
        (*value).min(MOST - 1)
    }

    fn decode(json: u64, _: Base) -> Result<u64, Bad> {
        if json < MOST { Ok(json) } else { Err(bad("a counter is larger than any can be")) }
    }
}

/// A truth, which the kernel side keeps as one or zero.
pub(super) struct Truth;

macro_rules! truth {
    ($($type:ty),*) => {$(
        impl Codec<$type> for Truth {
            type Json = bool;

            fn encode(value: &$type, _: Context<'_>) -> bool {
                *value != 0
            }

            fn decode(json: bool, _: Base) -> Result<$type, Bad> {
                Ok(json.into())
            }
        }
    )*};
}
truth!(u16, u32);

/// The handshake's two sequence numbers: nginx's and the worker's; null before it was over.
pub(super) struct Handshake;

impl Codec<u64> for Handshake {
    type Json = Option<[u32; 2]>;

    fn encode(value: &u64, _: Context<'_>) -> Option<[u32; 2]> {
        (*value != 0).then_some([(*value >> 32) as u32, *value as u32])
    }

    fn decode(json: Option<[u32; 2]>, _: Base) -> Result<u64, Bad> {
        Ok(json.map_or(0, |[nginx, worker]| u64::from(nginx) << 32 | u64::from(worker)))
    }
}

/// An address and port, as in `10.0.0.1:80` or `[::1]:80`; null for none. A socket that was made for IPv6 keeps that form for
/// IPv4 addresses. Of other families only the family's number is written, as in `family 1`.
pub(super) struct Address;

impl Codec<Endpoint> for Address {
    type Json = Option<String>;

    fn encode(endpoint: &Endpoint, Context { names, .. }: Context<'_>) -> Option<String> {
        match endpoint.family {
            0 if *endpoint == Endpoint::default() => None,
            FAMILY_INET | FAMILY_INET6 => Some(names.address(address(endpoint)).to_string()),
            family => Some(format!("family {family}")),
        }
    }

    fn decode(json: Option<String>, _: Base) -> Result<Endpoint, Bad> {
        let Some(text) = json else { return Ok(Endpoint::default()) };
        if let Some(family) = text.strip_prefix("family ").and_then(|number| number.parse().ok()) {
            return Ok(Endpoint { family, ..Endpoint::default() });
        }
        let address: SocketAddr = text.parse().map_err(|_| bad("an address is none"))?;
        let (octets, family) = match address.ip() {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped().octets(), FAMILY_INET),
            IpAddr::V6(v6) => (v6.octets(), FAMILY_INET6),
        };
        let mut addr = [0; 4];
        for (word, bytes) in addr.iter_mut().zip(octets.as_chunks::<4>().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        Ok(Endpoint { addr, port: address.port(), family })
    }
}

/// A name of the kernel's, closed by a zero.
pub(super) struct Name;

impl Codec<[u8; COMM_LEN]> for Name {
    type Json = String;

    fn encode(bytes: &[u8; COMM_LEN], _: Context<'_>) -> String {
        text(bytes)
    }

    fn decode(json: String, _: Base) -> Result<[u8; COMM_LEN], Bad> {
        bytes(&json)
    }
}

/// A text that a zero closes; null for an empty one.
pub(super) struct Text;

impl<const LEN: usize> Codec<[u8; LEN]> for Text {
    type Json = Option<String>;

    fn encode(bytes: &[u8; LEN], _: Context<'_>) -> Option<String> {
        (bytes[0] != 0).then(|| text(bytes))
    }

    fn decode(json: Option<String>, _: Base) -> Result<[u8; LEN], Bad> {
        json.map_or(Ok([0; LEN]), |text| bytes(&text))
    }
}

/// A unix socket's path, closed by a zero.
pub(super) struct SocketPath;

impl Codec<[u8; PATH_LEN]> for SocketPath {
    type Json = Option<String>;

    fn encode(bytes: &[u8; PATH_LEN], Context { names, .. }: Context<'_>) -> Option<String> {
        (bytes[0] != 0).then(|| names.path(&text(bytes)).into_owned())
    }

    fn decode(json: Option<String>, _: Base) -> Result<[u8; PATH_LEN], Bad> {
        json.map_or(Ok([0; PATH_LEN]), |path| bytes(&path))
    }
}

/// Bytes up to the first zero as text: those that are no UTF-8 as `\xNN`, and a backslash twice.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let mut text = String::new();
    for chunk in bytes[..end].utf8_chunks() {
        text += &chunk.valid().replace('\\', "\\\\");
        for byte in chunk.invalid() {
            text += &format!("\\x{byte:02x}");
        }
    }
    text
}

/// The bytes of such a text.
pub(super) fn unescaped(text: &str) -> Result<Vec<u8>, Bad> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        found.extend(before.as_bytes());
        rest = if let Some(after) = after.strip_prefix('\\') {
            found.push(b'\\');
            after
        } else {
            let digits = after.strip_prefix('x').and_then(|after| after.get(..2));
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            found.push(byte.ok_or_else(|| bad("a name has a backslash that means nothing"))?);
            after.get(3..).unwrap_or_default()
        };
    }
    found.extend(rest.as_bytes());
    Ok(found)
}

fn bytes<const LEN: usize>(text: &str) -> Result<[u8; LEN], Bad> {
    let found = unescaped(text)?;
    let mut bytes = [0; LEN];
    let room = bytes.get_mut(..found.len()).ok_or_else(|| bad("a name is longer than any can be"))?;
    room.copy_from_slice(&found);
    Ok(bytes)
}

/// A TCP state by its name in `include/net/tcp_states.h`.
pub(super) struct State;

const STATES: [(u8, &str); 9] = [
    (tcp_state::ESTABLISHED, "ESTABLISHED"),
    (tcp_state::SYN_SENT, "SYN_SENT"),
    (tcp_state::SYN_RECV, "SYN_RECV"),
    (tcp_state::FIN_WAIT1, "FIN_WAIT1"),
    (tcp_state::FIN_WAIT2, "FIN_WAIT2"),
    (tcp_state::CLOSE, "CLOSE"),
    (tcp_state::CLOSE_WAIT, "CLOSE_WAIT"),
    (tcp_state::LAST_ACK, "LAST_ACK"),
    (tcp_state::LISTEN, "LISTEN"),
];

impl Codec<u8> for State {
    type Json = Option<String>;

    fn encode(state: &u8, _: Context<'_>) -> Option<String> {
        let name = STATES.iter().find(|(number, _)| number == state).map(|(_, name)| (*name).to_owned());
        (*state != 0).then(|| name.unwrap_or_else(|| state.to_string()))
    }

    fn decode(json: Option<String>, _: Base) -> Result<u8, Bad> {
        let Some(text) = json else { return Ok(0) };
        let number = STATES.iter().find(|(_, name)| *name == text).map(|(number, _)| *number);
        number.or_else(|| text.parse().ok()).ok_or_else(|| bad("a state is none of TCP's"))
    }
}

impl Codec<u32> for State {
    type Json = Option<String>;

    fn encode(state: &u32, context: Context<'_>) -> Option<String> {
        <Self as Codec<u8>>::encode(&u8::try_from(*state).unwrap_or(u8::MAX), context)
    }

    fn decode(json: Option<String>, base: Base) -> Result<u32, Bad> {
        <Self as Codec<u8>>::decode(json, base).map(u32::from)
    }
}

/// What else is known of nginx's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Flag {
    /// A reset arrived.
    ResetReceived,
    /// The accept queue was full at each look taken while the SYN was unanswered.
    QueueFullAtConnect,
    /// The process that closed this end was exiting.
    CloserExiting,
    /// The exchange succeeded; its connection was slow to come about.
    EndedWell,
    /// What nginx does next is told in a line of its own.
    AftermathFollows,
    /// The last thing that happened was bytes read.
    ReadLast,
    /// The worker's socket had been handed to a process.
    WorkerAccepted,
    /// The worker's end was still open.
    WorkerOpen,
    /// The peer's close was read.
    EndRead,
    /// nginx peeked at the connection, which it keeps for later.
    Peeked,
    /// nginx still wanted to send.
    SendBlocked,
    /// The SYN queue was full at each look taken while the SYN was unanswered.
    SynQueueFullAtConnect,
    /// Each reset that this host's TCP sent was seen.
    OwnResetsSeen,
    /// The upstream's listener may have been among those that found no room.
    ListenerLeftOut,
    /// Something of this exchange was lost.
    FactsLost,
    /// nginx's word on this exchange would have been heard, had there been one.
    WordAudible,
    /// The connection had been upgraded.
    Upgraded,
    /// The connection was made for a session of `stream {}`.
    Stream,
    /// A module of nginx's made the connection for itself.
    OfModule,
    /// What nginx was given last came from this end.
    UpstreamRead,
    /// It came from the client.
    ClientRead,
    /// It came from neither.
    OtherRead,
    /// nginx had slept since: a timer woke it, or an event that gave it nothing to read.
    NothingRead,
    /// The client's socket had no room for what nginx wanted to send.
    ClientBlocked,
    /// The nginx worker was shutting down.
    ShuttingDown,
    RequestUnderWay,
    /// To nginx, the client's connection was over.
    ClientEnded,
    /// Whether it was, and whether a timer had gone off, nginx's memory did not tell.
    ClientUntold,
    /// nginx had closed another exchange right before.
    SameTurn,
    /// No timer of nginx's had gone off.
    Untimed,
    /// nginx's timer for the request's body had gone off.
    BodyTimed,
    /// Another process held this end's file when nginx closed it.
    ClosedLate,
}

const FLAGS: [(u32, Flag); 32] = [
    (nginx_flag::RESET_RECEIVED, Flag::ResetReceived),
    (nginx_flag::QUEUE_FULL_AT_CONNECT, Flag::QueueFullAtConnect),
    (nginx_flag::CLOSER_EXITING, Flag::CloserExiting),
    (nginx_flag::ENDED_WELL, Flag::EndedWell),
    (nginx_flag::NEXT_ACTION_FOLLOWS, Flag::AftermathFollows),
    (nginx_flag::READ_LAST, Flag::ReadLast),
    (nginx_flag::WORKER_ACCEPTED, Flag::WorkerAccepted),
    (nginx_flag::WORKER_OPEN, Flag::WorkerOpen),
    (nginx_flag::END_READ, Flag::EndRead),
    (nginx_flag::PEEKED, Flag::Peeked),
    (nginx_flag::SEND_BLOCKED, Flag::SendBlocked),
    (nginx_flag::SYN_QUEUE_FULL_AT_CONNECT, Flag::SynQueueFullAtConnect),
    (nginx_flag::OWN_RESETS_SEEN, Flag::OwnResetsSeen),
    (nginx_flag::LISTENER_LEFT_OUT, Flag::ListenerLeftOut),
    (nginx_flag::FACTS_LOST, Flag::FactsLost),
    (nginx_flag::WORD_AUDIBLE, Flag::WordAudible),
    (nginx_flag::UPGRADED, Flag::Upgraded),
    (nginx_flag::STREAM, Flag::Stream),
    (nginx_flag::OF_MODULE, Flag::OfModule),
    (nginx_flag::UPSTREAM_READ, Flag::UpstreamRead),
    (nginx_flag::CLIENT_READ, Flag::ClientRead),
    (nginx_flag::OTHER_READ, Flag::OtherRead),
    (nginx_flag::NOTHING_READ, Flag::NothingRead),
    (nginx_flag::CLIENT_BLOCKED, Flag::ClientBlocked),
    (nginx_flag::SHUTTING_DOWN, Flag::ShuttingDown),
    (nginx_flag::REQUEST_UNDER_WAY, Flag::RequestUnderWay),
    (nginx_flag::CLIENT_ENDED, Flag::ClientEnded),
    (nginx_flag::CLIENT_UNTOLD, Flag::ClientUntold),
    (nginx_flag::SAME_TURN, Flag::SameTurn),
    (nginx_flag::UNTIMED, Flag::Untimed),
    (nginx_flag::BODY_TIMED, Flag::BodyTimed),
    (nginx_flag::CLOSED_LATE, Flag::ClosedLate),
];

/// [`nginx_flag`] bits by name.
pub(super) struct Flags;

impl Codec<u32> for Flags {
    type Json = Vec<Flag>;

    fn encode(flags: &u32, _: Context<'_>) -> Vec<Flag> {
        FLAGS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, flag)| *flag).collect()
    }

    fn decode(json: Vec<Flag>, _: Base) -> Result<u32, Bad> {
        let bit = |flag: &Flag| FLAGS.iter().find(|(_, known)| known == flag).map_or(0, |(bit, _)| *bit);
        Ok(json.iter().map(bit).fold(0, |all, bit| all | bit))
    }
}

/// Where a signal came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A process sent it.
    Process,
    /// A timer.
    Timer,
    /// The kernel.
    Kernel,
    /// A fault of the process's own.
    Fault,
    /// Its parent's death.
    ParentDeath,
    /// An event on a file or a message queue, or a process that forged its code.
    Event,
    /// It is not known any more.
    Lost,
}

const ORIGINS: [(wire::Origin, Origin); 7] = [
    (wire::Origin::Process, Origin::Process),
    (wire::Origin::Timer, Origin::Timer),
    (wire::Origin::Kernel, Origin::Kernel),
    (wire::Origin::Fault, Origin::Fault),
    (wire::Origin::ParentDeath, Origin::ParentDeath),
    (wire::Origin::Event, Origin::Event),
    (wire::Origin::Lost, Origin::Lost),
];

/// A signal's origin by name; null where it is not known.
pub(super) struct Origins;

impl Codec<u16> for Origins {
    type Json = Option<Origin>;

    fn encode(origin: &u16, _: Context<'_>) -> Option<Origin> {
        let number = wire::Origin::from_u16(*origin)?;
        ORIGINS.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
    }

    fn decode(json: Option<Origin>, _: Base) -> Result<u16, Bad> {
        let number =
            |name| ORIGINS.iter().find(|(_, known)| *known == name).map_or(0, |(number, _)| *number as u16);
        Ok(json.map_or(0, number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were() {
        for name in [&b"nginx"[..], b"a\\b", b"\xff\xfe", "é".as_bytes(), b"cut \xc3", b""] {
            let mut array = [0; COMM_LEN];
            array[..name.len()].copy_from_slice(name);
            assert_eq!(bytes::<COMM_LEN>(&text(&array)).unwrap(), array);
        }
        assert_eq!(text(b"a\\b\xff\0rest"), "a\\\\b\\xff");
        for bad in ["\\", "\\x", "\\x0", "\\q", "\\xzz", "\\x\u{e9}", "0123456789abcdef0"] {
            assert!(bytes::<COMM_LEN>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_come_back_as_they_were_and_other_families_say_nothing() {
        let (base, names) = (Base { started_ns: 0 }, Names::new(false));
        let context = Context { base, names: &names };
        for text in ["10.0.0.1:80", "[::1]:0", "[::ffff:10.0.0.1]:9000", "0.0.0.0:0", "family 1"] {
            let endpoint = Address::decode(Some(text.to_owned()), base).unwrap();
            assert_eq!(Address::encode(&endpoint, context).as_deref(), Some(text));
        }
        let unix = Endpoint { addr: [0xdead_beef; 4], port: 7, family: 1 };
        assert_eq!(Address::encode(&unix, context).as_deref(), Some("family 1"));
        assert_eq!(Address::encode(&Endpoint::default(), context), None);
    }

    #[test]
    fn moments_are_relative_and_bounded() {
        let (base, names) = (Base { started_ns: 1_000 }, Names::new(false));
        let context = Context { base, names: &names };
        for (ns, json) in [(0, None), (1, Some(-999)), (1_000, Some(0)), (5_000, Some(4_000))] {
            assert_eq!(Moment::encode(&ns, context), json);
            assert_eq!(Moment::decode(json, base).unwrap(), ns);
        }
        for json in [i64::MAX, i64::MIN, -1_000, -1_001] {
            assert!(Moment::decode(Some(json), base).is_err(), "{json}");
        }
    }

    #[test]
    fn every_origin_comes_back_as_it_was() {
        let (base, names) = (Base { started_ns: 0 }, Names::new(false));
        let context = Context { base, names: &names };
        let encoded: Vec<_> = (0..10).map(|number| Origins::encode(&number, context)).collect();
        assert_eq!(encoded.iter().flatten().count(), 7);
        for (number, json) in (0..8).zip(encoded) {
            assert_eq!(Origins::decode(json, base).unwrap(), number);
        }
    }

    #[test]
    fn every_flag_has_a_name() {
        let all = FLAGS.iter().fold(0, |all, (bit, _)| all | bit);
        assert_eq!(all, nginx_flag::ALL);
    }
}
