//! What a process that traces keeps of root's privileges once everything is attached, and what for.

use caps::Capability;

/// Which threads keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Each but the one that serves metrics, which keeps none.
    Each,
    /// Each, where a file is written in a folder that is another user's.
    EachThatWrites,
    /// One that works for the others, and those that it starts for a moment.
    Apart,
}

/// A capability that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Privilege {
    /// Which one.
    pub capability: Capability,
    /// Who keeps it.
    pub holder: Holder,
    /// What would not work without it.
    pub why: &'static str,
}

/// Those that are kept. All that is not here is given up.
pub const KEPT: [Privilege; 9] = [
    Privilege {
        capability: Capability::CAP_BPF,
        holder: Holder::Each,
        why: "what its programs have found, and programs that are loaded late",
    },
    Privilege {
        capability: Capability::CAP_PERFMON,
        holder: Holder::Each,
        why: "hooks that are attached late: unix sockets, standby instances",
    },
    Privilege {
        capability: Capability::CAP_SYS_PTRACE,
        holder: Holder::Each,
        why: "whose process holds which socket and runs which program, and what a slow one waits for",
    },
    Privilege {
        capability: Capability::CAP_DAC_READ_SEARCH,
        holder: Holder::Each,
        why: "logs and configurations, and what /proc has of processes, that are not root's",
    },
    Privilege {
        capability: Capability::CAP_DAC_OVERRIDE,
        holder: Holder::EachThatWrites,
        why: "only if a file is to be written in a folder that is another user's",
    },
    Privilege {
        capability: Capability::CAP_SYS_ADMIN,
        holder: Holder::Apart,
        why: "in a thread apart: to hear an nginx that starts later, hooks that are attached late where perf events take it (Debian's \
              kernels), accept queues and routes in the network namespaces of containers, and tracefs where the host has not mounted it; \
              nothing finer allows these",
    },
    Privilege {
        capability: Capability::CAP_SETUID,
        holder: Holder::Apart,
        why: "in a thread apart: to ask the kernel in a process's place why its connect failed with EACCES",
    },
    Privilege {
        capability: Capability::CAP_SETGID,
        holder: Holder::Apart,
        why: "in a thread apart: the same",
    },
    Privilege {
        capability: Capability::CAP_CHOWN,
        holder: Holder::Apart,
        why: "in a thread apart: the same, for its route",
    },
];

/// What a thread keeps; `writes_elsewhere` if a file is to be written in a folder that is another user's.
pub fn kept(is_apart: bool, writes_elsewhere: bool) -> impl Iterator<Item = Capability> {
    let is_kept = move |holder| match holder {
        Holder::Each => true,
        Holder::EachThatWrites => writes_elsewhere,
        Holder::Apart => is_apart,
    };
    KEPT.into_iter().filter(move |privilege| is_kept(privilege.holder)).map(|privilege| privilege.capability)
}
