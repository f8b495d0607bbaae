//! What is to be traced.

use wire::{Endpoint, Filters, PATH_LEN};

use crate::model::hook_kind::HookKind;

/// Which exchanges to watch, and how many at a time.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Handed to the kernel side as it is.
    pub filters: Filters,
    /// The upstreams asked for; empty for all. A port alone has the unspecified address.
    pub upstreams: Vec<Endpoint>,
    /// The unix sockets asked for, closed by a zero.
    pub paths: Vec<[u8; PATH_LEN]>,
    /// The listeners whose connections are emitted though nginx is on another host. A port alone has the unspecified address.
    pub listeners: Vec<Endpoint>,
    /// Whether to see connects that fail before TCP's own hooks do.
    pub connect_errors: bool,
    /// Whether to hear what nginx says.
    pub words: bool,
    /// Whether standby instances of the programs see what the first ones miss from the start, as [`super::Tracer::attach_standby`] lets them later.
    pub standby: bool,
    /// The kinds of hooks to use; empty for any.
    pub only: Vec<HookKind>,
    /// Open exchanges that fit at a time.
    pub max_open: u32,
}
