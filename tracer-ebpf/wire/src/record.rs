//! What goes through the ring buffer: one record per ended, not plainly clean socket.

use core::mem::offset_of;

use crate::{COMM_LEN, Endpoint, NginxEnd, PATH_LEN, Stops, Task, WorkerEnd};

/// The ring buffer's size in bytes. 20,000 refused connections a second fill it in not quite half a second if nobody reads. Userspace
/// has it mapped twice, one after the other, so that each of its pages counts twice in what is resident.
pub const RING_BYTES: u32 = 4 << 20;

/// One byte for each port.
pub const PORTS_LEN: usize = 1 << 16;

/// What a record holds.
#[repr(u32)]
#[cfg_attr(feature = "user", derive(zerocopy::TryFromBytes))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`ExchangeRecord`].
    Exchange = 1,
    /// [`NextAction`].
    NextAction = 2,
    /// [`WorkerGone`].
    WorkerGone = 3,
    /// [`Served`].
    Served = 4,
    /// [`NginxOnly`].
    NginxOnly = 5,
    /// [`Word`].
    Word = 6,
    /// [`WordOf`].
    WordOf = 7,
    /// [`Started`].
    Started = 8,
    /// [`Hop`].
    Hop = 9,
}

/// Stands at the start of each record.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// A [`Kind`].
    pub kind: u32,
    /// The whole record's length in bytes.
    pub len: u32,
}

/// An exchange whose nginx end has ended and that did not succeed.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug)]
pub struct ExchangeRecord {
    /// [`Kind::Exchange`].
    pub header: Header,
    /// nginx's end.
    pub nginx: NginxEnd,
    /// The worker's end; its `sock` is zero where none was seen.
    pub worker: WorkerEnd,
    /// Who had told the worker to stop; all zero where its end had not ended.
    pub stops: Stops,
    /// The unix socket's path, closed by a zero; empty for TCP.
    pub path: [u8; PATH_LEN],
    /// Always zero.
    pub reserved: u32,
}

/// How many words of a [`NginxEnd`] stand before what only an established connection has.
pub const UNCONNECTED_WORDS: usize = offset_of!(NginxEnd, refused_ns) / size_of::<u64>();

/// The same of a TCP exchange whose connection did not come about: half as long, and most failures of a storm are such.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug)]
pub struct NginxOnly {
    /// [`Kind::NginxOnly`].
    pub header: Header,
    /// nginx's end, a [`NginxEnd`] as far as it has anything; the rest is zero.
    pub nginx: [u64; UNCONNECTED_WORDS],
}

/// What nginx did first after it closed an unfinished exchange of its own accord.
#[repr(u32)]
#[cfg_attr(feature = "user", derive(zerocopy::TryFromBytes))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It sent bytes on another socket: an answer to the client.
    Sent = 1,
    /// It closed another socket, whose state before is emitted.
    Closed = 2,
    /// It connected elsewhere: the next upstream.
    Connected = 3,
    /// It ended its own side of another socket's connection and keeps the socket, to read what may still come (`lingering_close`). So it ends
    /// what it has refused. Where the peer had ended its side before, this is a [`Action::Closed`].
    ShutDown = 4,
}

/// What nginx's thread did first after it closed an unfinished exchange: it tells a timeout from a client
/// that went away, for nginx closes the upstream before it deals with the client.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug)]
pub struct NextAction {
    /// [`Kind::NextAction`].
    pub header: Header,
    /// nginx's socket of the exchange.
    pub sock: u64,
    /// `connect_ns` of the exchange.
    pub connect_ns: u64,
    /// When nginx acted.
    pub ns: u64,
    /// When nginx closed the exchange's socket.
    pub closed_ns: u64,
    /// The first socket that nginx's thread received from in between, or zero: then it acted in the same turn of its loop.
    pub turned_to: u64,
    /// The socket it acted on.
    pub other_sock: u64,
    /// An [`Action`].
    pub action: u32,
    /// Bytes sent; where it closed or shut down the client's socket after it had answered that, the answer's.
    pub bytes: u32,
    /// The state the other socket was in before (`tcp_state`); CLOSE for one that was reset earlier.
    pub old_state: u32,
    /// The other socket's peer.
    pub peer: Endpoint,
    /// When nginx said the word that is about the exchange, of one that the network had ended ([`Word::ns`]); else zero.
    pub word_ns: u64,
}

/// What nginx did next, it did on a socket that is the worker's end of an exchange which another nginx, or itself, has open: nginx before
/// nginx. Comes right before the [`NextAction`].
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug)]
pub struct Hop {
    /// [`Kind::Hop`].
    pub header: Header,
    /// nginx's socket of the exchange that nginx closed.
    pub sock: u64,
    /// `connect_ns` of that exchange.
    pub connect_ns: u64,
    /// nginx's socket of the open exchange.
    pub outer_sock: u64,
    /// `connect_ns` of the open exchange.
    pub outer_connect_ns: u64,
    /// When the open exchange's request was first sent from.
    pub asked_ns: u64,
    /// When its response was first read from, or zero.
    pub answered_ns: u64,
    /// The thread that connected for it.
    pub nginx: Task,
    /// That nginx's own address.
    pub local: Endpoint,
    /// The address it connected to.
    pub upstream: Endpoint,
    /// The unix socket's path, closed by a zero; empty for TCP.
    pub path: [u8; PATH_LEN],
    /// Always zero.
    pub reserved: u32,
}

/// A worker's end that ended after nginx's end of a failed exchange.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug)]
pub struct WorkerGone {
    /// [`Kind::WorkerGone`].
    pub header: Header,
    /// The worker's end, whole.
    pub worker: WorkerEnd,
}

/// The end of a connection that a listener of this host took up and that did not succeed. nginx is on another host, which
/// knows the same handshake.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// [`Kind::Served`].
    pub header: Header,
    /// The handshake's sequence numbers, as in [`NginxEnd::handshake`].
    pub handshake: u64,
    /// Who connected.
    pub peer: Endpoint,
    /// Always zero.
    pub reserved: u32,
    /// The worker's end; it names no socket of nginx's.
    pub worker: WorkerEnd,
    /// Who had told the worker to stop.
    pub stops: Stops,
}

/// How much is kept of the message in a [`Word`], in bytes; a zero closes it.
pub const MESSAGE_LEN: usize = 80;

/// How much is kept of what nginx was doing, in bytes; a zero closes it.
pub const ACTION_LEN: usize = 40;

/// How much is kept of the name or the reason in a [`Word`], in bytes; a zero closes it.
pub const SUBJECT_LEN: usize = 128;

/// One call of nginx's `ngx_log_error_core` about a connection to an upstream, at level error or above. In a storm each failure has one:
/// it is as short as can be.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// [`Kind::Word`], or [`Kind::WordOf`] within a [`WordOf`].
    pub header: Header,
    /// When it was said; with the thread it names the word.
    pub ns: u64,
    /// `log->connection`: the number behind the asterisk in nginx's line.
    pub connection: u64,
    /// The first argument of the message that is a number, if it has one.
    pub number: i64,
    /// The process that said it.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// `NGX_LOG_EMERG` (1) to `NGX_LOG_ERR` (4).
    pub level: u32,
    /// The errno in nginx's line, or zero.
    pub errno: u32,
    /// The message as nginx's source has it, with its conversions (`connect() to %V failed`), closed by a zero.
    pub message: [u8; MESSAGE_LEN],
    /// What nginx was doing (`log->action`): what stands behind "while" in its line; closed by a zero.
    pub action: [u8; ACTION_LEN],
}

/// The same of a name or with a reason, and who said it: it may be about no connection. Or some of its texts could not be read.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug)]
pub struct WordOf {
    /// The word.
    pub word: Word,
    /// The process's name.
    pub comm: [u8; COMM_LEN],
    /// The name or the reason among the message's arguments, closed by a zero; empty where it has none. The path of a unix upstream that a
    /// note is of.
    pub subject: [u8; SUBJECT_LEN],
    /// Where the message is in nginx's memory, where it could not be read; else zero.
    pub unread_message: u64,
    /// The same of what nginx was doing.
    pub unread_action: u64,
    /// The upstream that a note is of (`FastCGI sent in stderr`), or that a message which could not be read is of if it is one; of family
    /// zero where that is not known, and for what is no note.
    pub upstream: Endpoint,
    /// Whether what became no connection was to be one of `stream {}`: zero or one.
    pub is_of_session: u32,
}

/// A process whose exchanges are watched runs a new binary, whose word is to be heard, too; or it is told to read its configuration
/// again, which may name upstreams of another kind.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// [`Kind::Started`].
    pub header: Header,
    /// The process.
    pub task: Task,
}
