//! How short the host, and the worker's control group, were of something.

use serde::Serialize;

use crate::model::pressure;

/// Between two readings; microseconds.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Pressure<'a> {
    us: u64,
    host: Stalls,
    running: Option<u32>,
    cpus: Option<u32>,
    cgroup: Option<Group<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Stalls {
    cpu: Stall,
    io: Stall,
    memory: Stall,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Stall {
    some_us: Option<u64>,
    full_us: Option<u64>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Group<'a> {
    us: u64,
    path: &'a str,
    cpu: Stall,
    io: Stall,
    memory: Stall,
    quota: Option<Quota<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Quota<'a> {
    path: &'a str,
    throttled_us: u64,
    throttled_periods: u64,
    periods: u64,
}

fn stall(pressure::Stall { some, full }: pressure::Stall) -> Stall {
    Stall { some_us: some, full_us: full }
}

impl<'a> From<&'a pressure::Pressure> for Pressure<'a> {
    fn from(pressure: &'a pressure::Pressure) -> Self {
        let pressure::Pressure { us, host, running, cpus, group } = pressure;
        let pressure::Stalls { cpu, io, memory } = *host;
        Self {
            us: *us,
            host: Stalls { cpu: stall(cpu), io: stall(io), memory: stall(memory) },
            running: *running,
            cpus: *cpus,
            cgroup: group.as_ref().map(Group::from),
        }
    }
}

impl<'a> From<&'a pressure::GroupPressure> for Group<'a> {
    fn from(group: &'a pressure::GroupPressure) -> Self {
        let pressure::GroupPressure { us, path, stalls: pressure::Stalls { cpu, io, memory }, quota } = group;
        Self {
            us: *us,
            path,
            cpu: stall(*cpu),
            io: stall(*io),
            memory: stall(*memory),
            quota: quota.as_ref().map(|pressure::Quota { path, throttled_us, throttled, periods }| Quota {
                path,
                throttled_us: *throttled_us,
                throttled_periods: *throttled,
                periods: *periods,
            }),
        }
    }
}
