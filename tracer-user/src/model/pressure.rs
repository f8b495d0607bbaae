//! How short the host, and a worker's control group, were of CPUs, disks and memory.

/// For how long tasks have stood still for want of something, in microseconds; none where the kernel does not count it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// At least one task.
    pub some: Option<u64>,
    /// All of those at once that had work to do.
    pub full: Option<u64>,
}

/// The same of each thing that there can be too little of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// CPUs.
    pub cpu: Stall,
    /// Disks.
    pub io: Stall,
    /// Memory.
    pub memory: Stall,
}

/// What a CPU quota has come to (`cpu.max`, or `cpu.cfs_quota_us` of cgroup v1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// The control group that has it: the worker's own, or one above.
    pub path: String,
    /// For how long it held tasks back, in microseconds: the sum over all CPUs, so it may be more than the time that went by.
    pub throttled_us: u64,
    /// In how many of its periods it did.
    pub throttled: u64,
    /// How many periods there were in which tasks had work to do.
    pub periods: u64,
}

/// What is counted of one control group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The workers in it that were asked for.
    pub pids: Vec<u32>,
    /// Its path.
    pub path: String,
    /// For how long its tasks have stood still.
    pub stalls: Stalls,
    /// Its quotas, and those above it.
    pub quotas: Vec<Quota>,
}

/// What is counted at one moment, since the host booted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The moment (ns, monotonic).
    pub ns: u64,
    /// For how long the host's tasks have stood still.
    pub host: Stalls,
    /// Tasks that run or want to, at this moment; none where that is not known.
    pub running: Option<u32>,
    /// CPUs.
    pub cpus: Option<u32>,
    /// The control groups of workers.
    pub groups: Vec<Group>,
}

/// What came between two readings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// The time between them, in microseconds.
    pub us: u64,
    /// For how long the host's tasks stood still.
    pub host: Stalls,
    /// Most tasks that ran or wanted to, at any of the readings.
    pub running: Option<u32>,
    /// CPUs.
    pub cpus: Option<u32>,
    /// The worker's control group; none where it was not read twice.
    pub group: Option<GroupPressure>,
}

/// The same of a worker's control group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupPressure {
    /// The time between the two readings of it, in microseconds.
    pub us: u64,
    /// Its path.
    pub path: String,
    /// For how long its tasks stood still.
    pub stalls: Stalls,
    /// The quota that held it back for longest; none where it has none.
    pub quota: Option<Quota>,
}

/// Control groups in one reading.
pub const GROUPS: usize = 32;

/// Quotas above one control group: runtimes set one for a container and one for its pod.
pub const QUOTAS: usize = 8;

/// Workers in one reading.
pub const PIDS: usize = 256;
