//! How short the host was of something, as evidence has it.

use serde::{Deserialize, Serialize};

use super::codec::{Bad, Base, Codec, Context, Moment, Number, bad};
use crate::model::{cgroup, pressure};

/// For how long tasks have stood still for want of something, in microseconds since the host booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Stall {
    /// At least one task; null where the kernel does not count it.
    pub some: Option<u64>,
    /// All that had work to do.
    pub full: Option<u64>,
}

/// The same of each thing that there can be too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Stalls {
    /// CPUs.
    pub cpu: Stall,
    /// Disks.
    pub io: Stall,
    /// Memory.
    pub memory: Stall,
}

/// What a CPU quota has come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// The control group that has it.
    pub cgroup: String,
    /// For how long it held tasks back, in microseconds, on all CPUs together.
    pub throttled_us: u64,
    /// In how many of its periods it did.
    pub throttled: u64,
    /// How many periods there were.
    pub periods: u64,
}

/// What is counted of a control group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The workers in it.
    pub pids: Vec<u32>,
    /// Its path.
    pub cgroup: String,
    /// For how long its tasks have stood still.
    pub stalls: Stalls,
    /// Its quotas, and those above it.
    pub quotas: Vec<Quota>,
}

/// What is counted at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// The moment.
    pub ns: Option<i64>,
    /// For how long the host's tasks have stood still.
    pub host: Stalls,
    /// Tasks that run or want to.
    pub running: Option<u32>,
    /// CPUs.
    pub cpus: Option<u32>,
    /// The control groups of workers.
    pub groups: Vec<Group>,
}

fn of_stalls(stalls: &pressure::Stalls) -> Stalls {
    let stall = |pressure::Stall { some, full }: pressure::Stall| Stall { some, full };
    let pressure::Stalls { cpu, io, memory } = *stalls;
    Stalls { cpu: stall(cpu), io: stall(io), memory: stall(memory) }
}

fn to_stalls(stalls: Stalls, base: Base) -> Result<pressure::Stalls, Bad> {
    let figure = |json: Option<u64>| json.map(|json| <Number as Codec<u64>>::decode(json, base)).transpose();
    let stall =
        |Stall { some, full }| Ok::<_, Bad>(pressure::Stall { some: figure(some)?, full: figure(full)? });
    let Stalls { cpu, io, memory } = stalls;
    Ok(pressure::Stalls { cpu: stall(cpu)?, io: stall(io)?, memory: stall(memory)? })
}

fn path(path: String) -> Result<String, Bad> {
    match path.chars().count() <= cgroup::PATH {
        true => Ok(path),
        false => Err(bad("a control group's path is longer than any is kept")),
    }
}

impl Codec<pressure::Reading> for Reading {
    type Json = Self;

    fn encode(reading: &pressure::Reading, context: Context<'_>) -> Self {
        let pressure::Reading { ns, host, running, cpus, groups } = reading;
        let quota = |pressure::Quota { path, throttled_us, throttled, periods }: &pressure::Quota| Quota {
            cgroup: context.names.path(path).into_owned(),
            throttled_us: *throttled_us,
            throttled: *throttled,
            periods: *periods,
        };
        let group = |pressure::Group { pids, path, stalls, quotas }: &pressure::Group| Group {
            pids: pids.clone(),
            cgroup: context.names.path(path).into_owned(),
            stalls: of_stalls(stalls),
            quotas: quotas.iter().map(quota).collect(),
        };
        Self {
            ns: Moment::encode(ns, context),
            host: of_stalls(host),
            running: *running,
            cpus: *cpus,
            groups: groups.iter().map(group).collect(),
        }
    }

    fn decode(json: Self, base: Base) -> Result<pressure::Reading, Bad> {
        let Self { ns, host, running, cpus, groups } = json;
        let figure = |json: u64| <Number as Codec<u64>>::decode(json, base);
        let quota = |Quota { cgroup, throttled_us, throttled, periods }: Quota| {
            Ok(pressure::Quota {
                path: path(cgroup)?,
                throttled_us: figure(throttled_us)?,
                throttled: figure(throttled)?,
                periods: figure(periods)?,
            })
        };
        let group = |Group { pids, cgroup, stalls, quotas }: Group| {
            if pids.len() > pressure::PIDS || quotas.len() > pressure::QUOTAS {
                return Err(bad("a control group has more in it than is ever read"));
            }
            Ok(pressure::Group {
                pids,
                path: path(cgroup)?,
                stalls: to_stalls(stalls, base)?,
                quotas: quotas.into_iter().map(quota).collect::<Result<_, Bad>>()?,
            })
        };
        if groups.len() > pressure::GROUPS {
            return Err(bad("a reading has more control groups than are ever read"));
        }
        Ok(pressure::Reading {
            ns: Moment::decode(ns, base)?,
            host: to_stalls(host, base)?,
            running,
            cpus,
            groups: groups.into_iter().map(group).collect::<Result<_, Bad>>()?,
        })
    }
}
