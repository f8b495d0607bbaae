//! Whether records come in a storm.

/// For so long records are counted at least (ns) to know whether they come in a storm, and so many in that time make one.
const COUNTED_NS: u64 = 10_000_000;
const STORM: u64 = 100;

/// How fast records come.
#[derive(Default)]
pub(super) struct Rate {
    pub(super) since_ns: u64,
    pub(super) records: u32,
    pub(super) is_storm: bool,
}

impl Rate {
    /// Concludes from what has been counted for long enough.
    pub(super) fn look(&mut self, now: u64) {
        let counted_ns = now.saturating_sub(self.since_ns);
        if counted_ns >= COUNTED_NS {
            let is_storm = u64::from(self.records) * COUNTED_NS >= STORM * counted_ns;
            *self = Self { since_ns: now, records: 0, is_storm };
        }
    }
}
