//! The lines.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Header,
    ends::{NginxEnd, Stops, Task, WorkerEnd},
    inquiry::{About, Found},
    look::Look,
    member::Member,
    pressure::Reading,
};

/// What a word's line that names no source comes from.
fn uprobe() -> String {
    UPROBE.to_owned()
}

/// What is not said of a server.
fn yes() -> bool {
    true
}

/// The sources of words.
pub(super) const UPROBE: &str = "uprobe";
pub(super) const ERROR_LOG: &str = "error_log";

/// One line. `at` is the recording's own time in nanoseconds since it began: at that moment all was known that came before the
/// line. It never goes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    /// What was recorded, where and how: the first line of each file.
    Header(Box<Header>),
    /// nginx's end of an exchange that did not succeed, with the worker's end as it was then.
    Exchange {
        /// The recording's time.
        at: i64,
        /// nginx's end.
        nginx: Box<NginxEnd>,
        /// The worker's end, if it is on this host.
        worker: Option<Box<WorkerEnd>>,
        /// Who had told the worker to stop; null where its end had not ended, and in recordings from before this was told.
        #[serde(default)]
        stops: Option<Box<Stops>>,
        /// The unix socket's path.
        path: Option<String>,
    },
    /// What nginx did right after such an end.
    Aftermath {
        /// The recording's time.
        at: i64,
        /// nginx's socket of the exchange.
        sock: Option<u64>,
        /// The exchange's connect.
        connect_ns: Option<i64>,
        /// When nginx acted.
        ns: Option<i64>,
        /// When nginx closed the exchange's socket.
        closed_ns: Option<i64>,
        /// The first socket from which nginx received in between.
        turned_to: Option<u64>,
        /// The socket it acted on.
        other_sock: Option<u64>,
        /// What it did.
        action: Action,
        /// Bytes sent.
        bytes: u32,
        /// The state in which the other socket was before.
        old_state: Option<String>,
        /// The other socket's peer.
        peer: Option<String>,
        /// When nginx said its word on the exchange: it names a line of type `word`, of an exchange that the network had ended.
        word_ns: Option<i64>,
    },
    /// What nginx does next, it does on a socket that is the worker's end of an open exchange of another nginx's. Comes before that.
    Hop {
        /// The recording's time.
        at: i64,
        /// nginx's socket of the exchange that it closed.
        sock: Option<u64>,
        /// That exchange's connect.
        connect_ns: Option<i64>,
        /// nginx's socket of the open exchange.
        outer_sock: Option<u64>,
        /// The open exchange's connect.
        outer_connect_ns: Option<i64>,
        /// The open exchange's request was first sent from.
        asked_ns: Option<i64>,
        /// Its response was first read from.
        answered_ns: Option<i64>,
        /// The thread that connected for it.
        nginx: Task,
        /// That nginx's own address.
        local: Option<String>,
        /// Where it connected to.
        upstream: Option<String>,
        /// The unix socket's path.
        path: Option<String>,
    },
    /// The worker's end of such an exchange, when it ended after nginx's.
    WorkerGone {
        /// The recording's time.
        at: i64,
        /// The worker's end.
        worker: Box<WorkerEnd>,
    },
    /// The end of a connection that a listener of this host took up, while nginx is on another one.
    Served {
        /// The recording's time.
        at: i64,
        /// The first data bytes' sequence numbers, nginx's and the worker's: both hosts know both.
        handshake: Option<[u32; 2]>,
        /// Who connected.
        peer: Option<String>,
        /// The worker's end.
        worker: Box<WorkerEnd>,
        /// Who had told the worker to stop; null in recordings from before this was told.
        #[serde(default)]
        stops: Option<Box<Stops>>,
    },
    /// nginx said something of an upstream: one call of `ngx_log_error_core`.
    Word {
        /// The recording's time.
        at: i64,
        /// When it was said; with the thread it names the word.
        ns: Option<i64>,
        /// The number of the client's connection.
        connection: u64,
        /// The first number among the message's arguments; zero where it has none.
        number: i64,
        /// The thread; its name is empty where the exchange has it.
        nginx: Task,
        /// nginx's own number for the level: 1 emerg, 2 alert, 3 crit, 4 error.
        level: u32,
        /// The errno in its line, or zero.
        errno: u32,
        /// The peer's name or the reason among its arguments; null where it has none, or where names are replaced.
        subject: Option<String>,
        /// The message as nginx's source has it, with its conversions.
        message: String,
        /// What nginx was doing.
        r#while: Option<String>,
        /// How it came to be known: `uprobe`, or `error_log` where it was read there; then its moment is when that was read.
        #[serde(default = "uprobe")]
        source: String,
        /// Whether what became no connection was to be one of `stream {}`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_of_session: bool,
        /// The upstream that the log's line names, if it names one, or that a note is of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        upstream: Option<String>,
    },
    /// Whether nginx's error log is read from now on, since its word is not heard.
    Following {
        /// The recording's time.
        at: i64,
        /// Whether it is.
        is_followed: bool,
        /// How often it has come to that because hearing nginx's word had become too dear.
        stepped_back: u64,
    },
    /// What a slow worker was found doing.
    Look {
        /// The recording's time.
        at: i64,
        /// The look.
        #[serde(flatten)]
        look: Look,
    },
    /// How full a listener's accept queue was.
    Depth {
        /// The recording's time.
        at: i64,
        /// When it was looked at.
        ns: Option<i64>,
        /// Where it listens: an address and port, or a path.
        listener: String,
        /// Connections that waited to be accepted.
        depth: u32,
        /// The effective backlog; one more than this fits.
        limit: u32,
    },
    /// Something was lost.
    Loss {
        /// The recording's time.
        at: i64,
        /// When it was noticed.
        ns: Option<i64>,
        /// Why.
        reason: String,
        /// How much, since the line before with this reason.
        count: u64,
    },
    /// What is only counted, since the recording began.
    Counts {
        /// The recording's time.
        at: i64,
        /// Exchanges that ended.
        exchanges: u64,
        /// Connections.
        connections: u64,
        /// Connections that were not watched because too many were open at once.
        untracked: u64,
        /// Connections of processes that only have nginx's name.
        #[serde(default)]
        strangers: u64,
        /// Upstreams that are not counted one by one.
        #[serde(default)]
        upstreams_left_out: u64,
        /// Words that may be about upstreams other than those asked for.
        #[serde(default)]
        words_left_out: u64,
    },
    /// A process that only has nginx's name.
    Stranger {
        /// The recording's time.
        at: i64,
        /// Its pid.
        pid: u32,
        /// Its user; null where that is not known.
        uid: Option<u32>,
        /// Its executable; null where that is not known.
        exe: Option<String>,
        /// Why it is not believed to be nginx.
        why: String,
    },
    /// The same for one upstream, whenever it has changed within a second.
    Upstream {
        /// The recording's time.
        at: i64,
        /// When it was read.
        ns: Option<i64>,
        /// The upstream: an address and port, or a path.
        upstream: String,
        /// Exchanges that ended.
        exchanges: u64,
    },
    /// Facts have these sources from now on.
    Sources {
        /// The recording's time.
        at: i64,
        /// The source of each fact.
        sources: BTreeMap<String, String>,
    },
    /// The wall clock was set.
    Clock {
        /// The recording's time.
        at: i64,
        /// How far it is ahead of the monotonic one, in ns; a string, for it is larger than a double holds.
        distance_ns: String,
    },
    /// What was looked up about the failure of the line that comes next.
    Inquiry {
        /// The recording's time.
        at: i64,
        /// Which failure.
        about: About,
        /// What was found.
        found: Found,
    },
    /// What nginx's configuration says of its groups of upstreams: read when a worker found no server of one alive.
    Groups {
        /// The recording's time.
        at: i64,
        /// The processes that run by it.
        workers: Vec<u32>,
        /// The groups.
        groups: Vec<Group>,
        /// Whether only some of their servers are watched.
        #[serde(default)]
        is_narrowed: bool,
        /// Whether a response's status may take a server out, too (`proxy_next_upstream http_500` and the like).
        counts_statuses: bool,
        /// Why not all of it is known; null if it is.
        gaps: Option<String>,
    },
    /// What the kernel counts of shortages, while nginx waits for somebody.
    Pressure {
        /// The recording's time.
        at: i64,
        /// The figures.
        #[serde(flatten)]
        reading: Reading,
    },
    /// Who a process is that a later line names: its control group.
    Member {
        /// The recording's time.
        at: i64,
        /// The process.
        #[serde(flatten)]
        member: Member,
    },
    /// A status that a client got, as an access log of nginx's has it.
    Answer {
        /// The recording's time.
        at: i64,
        /// When it was logged, at the earliest.
        ns: Option<i64>,
        /// How much later that may have been (ns).
        within_ns: u64,
        /// 499, 502, 503 or 504.
        status: u16,
        /// Each server that was tried; null where the log does not say.
        tries: Option<Vec<Try>>,
        /// The only rule of nginx's configuration that gives this status: `limit_req`, `limit_conn` or `return`; null where that is not known.
        #[serde(default)]
        rule: Option<String>,
    },
    /// Whether access logs are followed, from now on.
    AccessLogs {
        /// The recording's time.
        at: i64,
        /// How many.
        logs: u64,
        /// Lines with such a status that were left out since the recording began, or whole stretches of a log.
        left_out: u64,
    },
    /// Who listens near an upstream at which nobody does.
    Near {
        /// The recording's time.
        at: i64,
        /// When it was looked.
        ns: Option<i64>,
        /// The upstream.
        upstream: String,
        /// From where nginx asked: its network namespace's inode number, or on a unix socket its pid.
        from: u32,
        /// On the same port, or under the same name.
        neighbours: Vec<Neighbour>,
        /// How many more there were.
        others: u32,
        /// The listener that was closed there within the last minute; null where none was seen to be.
        #[serde(default)]
        closed: Option<Closed>,
    },
    /// The recording is over.
    End {
        /// The recording's time.
        at: i64,
    },
}

/// What nginx did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It sent bytes on another socket.
    Sent,
    /// It closed another socket.
    Closed,
    /// It connected elsewhere.
    Connected,
    /// It ended its own side of another socket, and kept that.
    ShutDown,
}

/// A group of upstreams, or a name that may have several addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Whether all workers count its failures together.
    pub zone: bool,
    /// Its servers.
    pub servers: Vec<Server>,
}

/// A server of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// Its address and port, or its path; null where it is a name, which only nginx has resolved.
    pub upstream: Option<String>,
    /// The port of such a name.
    pub port: Option<u16>,
    /// After so many failures nginx leaves it alone; zero for never.
    pub max_fails: u32,
    /// Within so many seconds, and then for as long.
    pub fail_timeout_s: u32,
    /// Whether it is marked `down`.
    pub down: bool,
    /// Whether it has `max_conns`.
    pub max_conns: bool,
    /// Whether exchanges with it are watched.
    #[serde(default = "yes")]
    pub watched: bool,
}

/// A server that was tried for a client's request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Try {
    /// Its address and port, its path, or the name of a group; null where the log does not say.
    pub upstream: Option<String>,
    /// What it answered, or what nginx made of its failure; null where there was nothing, or the log does not say.
    pub status: Option<u16>,
}

/// A listener that was closed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Closed {
    /// The process that closed it.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// When.
    pub ns: Option<i64>,
    /// Since when somebody listens there again; null where nobody did by then.
    pub again_ns: Option<i64>,
    /// The process's exit code, if it was ending; null otherwise.
    pub exit: Option<u32>,
    /// Where else processes of that name listen.
    pub namesakes: Vec<Neighbour>,
}

/// A listener near an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Neighbour {
    /// The oldest process that holds it.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Where it listens: an address and port, or a path.
    pub listens: String,
    /// Whether that is in another namespace than nginx's.
    pub elsewhere: bool,
}

/// A process at the recording's start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// Its name.
    pub comm: String,
    /// How many workers it has.
    pub workers: usize,
    /// Where it listens; null where that could not be seen.
    pub listeners: Option<Vec<String>>,
}
