//! Groups of upstreams, as nginx's configuration has them.

use super::{
    upstream::Upstream,
    verdict::{Limits, OutOfUse},
};

/// `fail_timeout` where the configuration is not known, in seconds (`ngx_http_upstream_server`, src/http/ngx_http_upstream.c).
pub const DEFAULT_FAIL_TIMEOUT_S: u32 = 10;

/// What the configuration of an nginx says of its groups of upstreams, as it was read when one of its workers found no server alive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configured {
    /// The processes that run by it.
    pub workers: Vec<u32>,
    /// Its groups, and the names that stand for several addresses.
    pub groups: Vec<Group>,
    /// Whether only some of their servers are watched (`-u`).
    pub is_narrowed: bool,
    /// Whether a server may be taken out by the status of its response (`proxy_next_upstream http_500` and the like), of which no
    /// verdict names.
    pub counts_statuses: bool,
    /// Why not all of it is known; none if it is.
    pub gaps: Option<String>,
}

/// A group, or a name in proxy_pass and the like that may have several addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Whether all workers count its failures together (`zone`).
    pub is_shared: bool,
    /// Its servers, the `backup` ones, too.
    pub servers: Vec<Server>,
}

/// A server of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub place: Place,
    /// When nginx leaves it alone.
    pub limits: Limits,
    /// Whether it is marked `down`.
    pub is_down: bool,
    /// Whether `max_conns` may make nginx leave it alone, too.
    pub has_max_conns: bool,
    /// Whether exchanges with it are watched, so that its failures are known.
    pub is_watched: bool,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At this address.
    At(Upstream),
    /// At addresses that only nginx has resolved, with this port.
    Named(u16),
}

/// What is known of why nginx found no server alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// The group, or why it is not known.
    pub group: Result<String, Unnamed>,
    /// Whether no other group can be meant. Otherwise it is the only one all of whose servers are known to have failed.
    pub is_sure: bool,
    /// The group's servers; where the group is not known, those that this worker last failed with.
    pub servers: Vec<OutOfUse>,
    /// How many more there are.
    pub more: usize,
}

/// Why the group is not named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unnamed {
    /// The configuration was not read, for this reason.
    Unread(String),
    /// No group of the configuration has only servers that are known to have failed.
    NoneFits,
    /// Several have.
    SeveralFit,
}
