//! Who a process is: its unit, container and pod.

use serde::Serialize;

use crate::model::cgroup::{Cgroup, Places};

/// Stands in each process; all null where its control group is not known or has no name.
#[derive(Clone, Copy, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Home<'a> {
    unit: Option<&'a str>,
    container: Option<&'a str>,
    pod: Option<&'a str>,
}

impl<'a> Home<'a> {
    /// That of a process.
    pub(super) fn of(pid: u32, places: &'a Places) -> Self {
        places.of(pid).map_or_else(Self::default, |Cgroup { path: _, unit, container, pod }| Self {
            unit: unit.as_deref(),
            container: container.as_deref(),
            pod: pod.as_deref(),
        })
    }
}
