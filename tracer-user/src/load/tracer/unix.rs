//! Unix sockets: whether they are seen, and the hooks on system calls that see them.

use wire::{Attached, gate};

use super::Tracer;
use crate::{
    load::hooks,
    model::{facts::Fact, failure::Failure},
};

impl Tracer {
    /// Whether unix sockets are watched only once [`Self::trace_system_calls`] is called.
    pub fn may_trace_system_calls(&self) -> bool {
        let is_seen = self.plan.sources.has(Fact::UnixSockets) && self.plan.sources.has(Fact::ConnectErrors);
        !self.traces_system_calls && !is_seen && self.plan.may_trace_system_calls
    }

    /// Whether the end of every unix socket is seen, and not only that of those whose process closes them.
    pub fn sees_unix_ends(&self) -> bool {
        !self.traces_system_calls && self.plan.sources.has(Fact::UnixSockets)
    }

    /// The processes of the name that held a connection to a path which may be a unix upstream's when the tracer started, whoever
    /// runs them; none where such connections are watched anyway.
    pub fn unix_clients(&self) -> impl Iterator<Item = u32> {
        self.showing.unix_clients().iter().copied()
    }

    /// Begins to watch unix sockets, if it is not done already. It taxes every system call of the host, so it waits until
    /// unix upstreams are asked for, configured or seen. Returns whether it began now.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn trace_system_calls(&mut self) -> Result<bool, Failure> {
        if !self.may_trace_system_calls() {
            return Ok(false);
        }
        // First: TCP's own connects are to be taken out of those under way.
        let attached = self.attached.get(&gate::ATTACHED, 0).map_err(anyhow::Error::from)?;
        self.attached
            .set(gate::ATTACHED, Attached { system_calls: 1, ..attached }, 0)
            .map_err(anyhow::Error::from)?;
        let source = hooks::attach_system_calls(&mut self.object, self.has_standby)?;
        for (fact, _) in hooks::by_system_calls() {
            self.plan.sources.set(fact, source.clone());
        }
        self.traces_system_calls = true;
        Ok(true)
    }
}
