//! What programs missed, and the standby instances that see it instead.

use anyhow::Context as _;
use wire::{Attached, gate};

use super::Tracer;
use crate::{
    load::{hooks, misses},
    model::failure::Failure,
};

impl Tracer {
    /// How many events the kernel did not show to a program because they interrupted the same program; by program.
    ///
    /// # Errors
    /// If /proc does not show this process's own descriptors.
    pub fn missed(&self) -> Result<Vec<(&str, u64)>, Failure> {
        Ok(misses::count(&self.object).context("the programs' own counters cannot be read")?)
    }

    /// How many of them are lost unless a standby instance saw them instead ([`Stats::stood_in`]).
    ///
    /// # Errors
    /// The same.
    pub fn missed_at_first(&self) -> Result<u64, Failure> {
        let missed = self.missed()?;
        Ok(missed.iter().filter(|(program, _)| !hooks::is_dispensable(program)).map(|(_, count)| count).sum())
    }

    /// Lets standby instances of the programs see what the first ones miss, if it is not done already. It makes each event
    /// a little dearer. Returns whether it was done now.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn attach_standby(&mut self) -> Result<bool, Failure> {
        if std::mem::replace(&mut self.has_standby, true) {
            return Ok(false);
        }
        // First: a standby instance that finds no note takes the event for missed.
        let attached = self.attached.get(&gate::ATTACHED, 0).map_err(anyhow::Error::from)?;
        self.attached
            .set(gate::ATTACHED, Attached { standby: 1, ..attached }, 0)
            .map_err(anyhow::Error::from)?;
        hooks::attach_standby(&mut self.object)?;
        Ok(true)
    }
}
