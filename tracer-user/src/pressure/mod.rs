//! How short the host, and a worker's control group, were of CPUs, disks and memory while nginx waited.
//!
//! The kernel counts for how long tasks stood still (PSI, Documentation/accounting/psi.rst) and for how long a CPU quota held a control group
//! back (`cpu.stat`, Documentation/admin-guide/cgroup-v2.rst): two readings show what came in between. They are taken about once a second
//! while nginx waits for somebody, and when an exchange fails.

mod explain;
mod readings;

use crate::model::pressure::{Group, GroupPressure, Pressure, Quota, Reading, Stall, Stalls};
pub use explain::{add, add_to_delayed};
pub use readings::Readings;
