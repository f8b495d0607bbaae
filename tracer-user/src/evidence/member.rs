//! Who a process is, as evidence has it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::codec::{Bad, Base, Codec, Context, Moment, bad};
use crate::model::cgroup::{self, Cgroup};

/// A process, and the control group that it is in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The process.
    pub pid: u32,
    /// It began.
    pub began_ns: Option<i64>,
    /// Whether it had ended, and the kernel side had kept its control group.
    pub kept: bool,
    /// The control group's path.
    pub cgroup: String,
    /// The systemd unit; null where it is none.
    pub unit: Option<String>,
    /// The container's id; null where it is in none.
    pub container: Option<String>,
    /// The pod's uid; null where it is in none.
    pub pod: Option<String>,
}

impl Codec<cgroup::Member> for Member {
    type Json = Self;

    fn encode(member: &cgroup::Member, context: Context<'_>) -> Self {
        let cgroup::Member { pid, began_ns, is_kept, cgroup } = member;
        let Cgroup { path, unit, container, pod } = cgroup.as_ref();
        let called = |kind, name: &Option<String>| {
            name.as_ref().map(|name| context.names.called(kind, name).into_owned())
        };
        Self {
            pid: *pid,
            began_ns: Moment::encode(began_ns, context),
            kept: *is_kept,
            cgroup: context.names.path(path).into_owned(),
            unit: called("unit-", unit),
            container: called("", container),
            pod: called("", pod),
        }
    }

    fn decode(json: Self, base: Base) -> Result<cgroup::Member, Bad> {
        let Self { pid, began_ns, kept, cgroup, unit, container, pod } = json;
        if cgroup.chars().count() > cgroup::PATH {
            return Err(bad("a control group's path is longer than any is kept"));
        }
        if ![&unit, &container, &pod].into_iter().flatten().all(|name| cgroup::is_name(name)) {
            return Err(bad("no unit, container or pod is called so"));
        }
        let cgroup = Arc::new(Cgroup { path: cgroup, unit, container, pod });
        Ok(cgroup::Member { pid, began_ns: Moment::decode(began_ns, base)?, is_kept: kept, cgroup })
    }
}
