//! What was looked up about a failure, as evidence has it.

use serde::{Deserialize, Serialize};

use super::{
    codec::{Bad, Base, Codec, Context, Id, Moment, bad},
    look::{self, Doing},
};
use crate::model::{budget, inquiry, verdict::Process};

/// Which failure: an exchange by its connection, or what nginx said by its thread and moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct About {
    /// nginx's socket of the exchange; null where a word is meant.
    pub sock: Option<u64>,
    /// The exchange's connect.
    pub connect_ns: Option<i64>,
    /// The thread that said the word; zero where an exchange is meant.
    pub thread: u32,
    /// When it was said.
    pub word_ns: Option<i64>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
pub enum Found {
    /// connect had failed with EACCES.
    Denial {
        /// What owner and mode, or routes, say to it: `allow`, `forbid`, `unknown`, or `left_out` where there were too many failures at a time.
        ordinary: String,
        /// Whether SELinux enforces.
        selinux: bool,
        /// The process's SELinux context or AppArmor profile; null where it has none.
        label: Option<String>,
        /// Whether a seccomp filter is on.
        seccomp: bool,
    },
    /// Netfilter had dropped packets of the handshake: the table of connections.
    Conntrack {
        /// Connections in it.
        entries: u64,
        /// As many as it may have.
        max: u64,
        /// Packets that were dropped because it was full.
        drops: u64,
        /// The same since it was looked at before; null where it was not.
        risen: Option<u64>,
    },
    /// connect to a unix socket was refused.
    Place {
        /// What the path leads to: `socket`, `regular`, `folder`, `other` or `unknown`.
        kind: String,
        /// Who has a socket that was bound to it; null where that is not known.
        bound: Option<Vec<Holder>>,
    },
    /// connect to a unix socket found nothing at its path.
    Missing {
        /// Whether the folder that it should be in is there.
        folder: bool,
    },
    /// Nothing answered nginx's connect over TCP, or there was no way.
    Reached {
        /// When a connection with the upstream's address, whatever the port, was last known to work, as the kernel remembers it.
        last_ns: Option<i64>,
    },
    /// nginx stopped waiting on a connection in the queue of one of several listeners that share an address.
    #[serde(alias = "neighbours")]
    Sharers {
        /// They.
        listeners: Vec<Sharer>,
    },
    /// nginx stopped waiting on a connection in a listener's queue, or found that full.
    Queue {
        /// Who holds the listener.
        holders: Vec<Waiter>,
        /// How many more do.
        others: u32,
        /// Whether some process that does not stand still has, or may have, a connection that came from it.
        served: bool,
        /// Since when nobody has accepted from it; null where that is not known.
        since_ns: Option<i64>,
        /// Whether one of its holders is known to have taken up an exchange before.
        accepted: bool,
    },
    /// nginx stopped waiting on a connection that had outlived its worker.
    Holders {
        /// Who had it then.
        processes: Vec<Holder>,
    },
    /// php-fpm's master had killed the worker.
    TerminateAfter {
        /// request_terminate_timeout of its pool, zero for none; null where it could not be looked up.
        seconds: Option<u64>,
    },
}

/// One of several listeners that share an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Sharer {
    /// Who has it.
    pub process: Holder,
    /// Connections that waited in its queue.
    pub waiting: u32,
    /// Whether that process was stopped or frozen.
    pub stands_still: bool,
}

/// A process that held a listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Waiter {
    /// The process.
    pub process: Holder,
    /// What its first thread did; null where that is not known.
    pub doing: Option<Doing>,
    /// To what, or on what, where that has a name.
    pub target: Option<String>,
}

/// A process that held a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// Its pid.
    pub pid: u32,
    /// Its name.
    pub comm: String,
}

/// The longest text in it.
const MOST_TEXT: usize = 4_096;

fn to_holders(processes: &[Process]) -> Vec<Holder> {
    processes.iter().map(|Process { pid, comm }| Holder { pid: *pid, comm: comm.clone() }).collect()
}

fn of_holders(holders: Vec<Holder>) -> Result<Vec<Process>, Bad> {
    if holders.len() > budget::HOLDERS || holders.iter().any(|holder| holder.comm.len() > MOST_TEXT) {
        return Err(bad("a socket has more holders than are told"));
    }
    Ok(holders.into_iter().map(|Holder { pid, comm }| Process { pid, comm }).collect())
}

impl About {
    pub(super) fn encode(about: inquiry::About, context: Context<'_>) -> Self {
        match about {
            inquiry::About::Exchange((sock, connect_ns)) => Self {
                sock: Id::encode(&sock, context),
                connect_ns: Moment::encode(&connect_ns, context),
                thread: 0,
                word_ns: None,
            },
            inquiry::About::Word { thread, ns } => {
                Self { sock: None, connect_ns: None, thread, word_ns: Moment::encode(&ns, context) }
            }
        }
    }

    pub(super) fn decode(self, base: Base) -> Result<inquiry::About, Bad> {
        let Self { sock, connect_ns, thread, word_ns } = self;
        Ok(if sock.is_some() {
            inquiry::About::Exchange((Id::decode(sock, base)?, Moment::decode(connect_ns, base)?))
        } else {
            inquiry::About::Word { thread, ns: Moment::decode(word_ns, base)? }
        })
    }
}

impl Found {
    pub(super) fn encode(found: &inquiry::Found, context: Context<'_>) -> Self {
        match found {
            inquiry::Found::Missing { has_folder } => Self::Missing { folder: *has_folder },
            inquiry::Found::Reached(ns) => Self::Reached { last_ns: Moment::encode(ns, context) },
            inquiry::Found::Sharers(listeners) => {
                let sharer = |inquiry::Sharer { process, waiting, stands_still }: &inquiry::Sharer| Sharer {
                    process: Holder { pid: process.pid, comm: process.comm.clone() },
                    waiting: *waiting,
                    stands_still: *stands_still,
                };
                Self::Sharers { listeners: listeners.iter().map(sharer).collect() }
            }
            inquiry::Found::Queue(inquiry::Queue { holders, others, is_served, since_ns, has_accepted }) => {
                let waiter = |inquiry::Holder { process, doing }: &inquiry::Holder| {
                    let (doing, target) = doing.as_ref().map(|doing| look::encode(doing, context)).unzip();
                    Waiter {
                        process: Holder { pid: process.pid, comm: process.comm.clone() },
                        doing,
                        target: target.flatten(),
                    }
                };
                Self::Queue {
                    holders: holders.iter().map(waiter).collect(),
                    others: *others,
                    served: *is_served,
                    since_ns: since_ns.and_then(|ns| Moment::encode(&ns, context)),
                    accepted: *has_accepted,
                }
            }
            inquiry::Found::Holders(processes) => Self::Holders { processes: to_holders(processes) },
            inquiry::Found::TerminateAfter(seconds) => Self::TerminateAfter { seconds: *seconds },
            inquiry::Found::Conntrack(inquiry::Conntrack { entries, max, drops, risen }) => {
                Self::Conntrack { entries: *entries, max: *max, drops: *drops, risen: *risen }
            }
            inquiry::Found::Place(inquiry::Place { kind, bound }) => {
                let name = inquiry::Kind::ALL.iter().find(|(_, one)| one == kind);
                Self::Place {
                    kind: name.map_or("unknown", |(name, _)| name).to_owned(),
                    bound: bound.as_deref().map(to_holders),
                }
            }
            inquiry::Found::Denial(inquiry::Denial { ordinary, selinux, label, seccomp }) => {
                let name = inquiry::Ordinary::ALL.iter().find(|(_, one)| one == ordinary);
                Self::Denial {
                    ordinary: name.map_or("unknown", |(name, _)| name).to_owned(),
                    selinux: *selinux,
                    label: label.clone().filter(|_| !context.names.is_anonymous()),
                    seccomp: *seccomp,
                }
            }
        }
    }

    pub(super) fn decode(self, base: Base) -> Result<inquiry::Found, Bad> {
        Ok(match self {
            Self::Missing { folder } => inquiry::Found::Missing { has_folder: folder },
            Self::Reached { last_ns } => inquiry::Found::Reached(Moment::decode(last_ns, base)?),
            Self::Sharers { listeners } => {
                let (rest, processes): (Vec<_>, Vec<_>) = listeners
                    .into_iter()
                    .map(|Sharer { process, waiting, stands_still }| ((waiting, stands_still), process))
                    .unzip();
                let sharer =
                    |(process, (waiting, stands_still))| inquiry::Sharer { process, waiting, stands_still };
                inquiry::Found::Sharers(of_holders(processes)?.into_iter().zip(rest).map(sharer).collect())
            }
            Self::Queue { holders, others, served, since_ns, accepted } => {
                let (doings, processes): (Vec<_>, Vec<_>) = holders
                    .into_iter()
                    .map(|Waiter { process, doing, target }| ((doing, target), process))
                    .unzip();
                let holder = |(process, (doing, target)): (Process, (Option<Doing>, Option<String>))| {
                    let doing = doing.map(|doing| look::decode(doing, target)).transpose()?;
                    Ok(inquiry::Holder { process, doing })
                };
                inquiry::Found::Queue(inquiry::Queue {
                    holders: of_holders(processes)?
                        .into_iter()
                        .zip(doings)
                        .map(holder)
                        .collect::<Result<_, Bad>>()?,
                    others,
                    is_served: served,
                    since_ns: since_ns.map(|ns| Moment::decode(Some(ns), base)).transpose()?,
                    has_accepted: accepted,
                })
            }
            Self::Holders { processes } => inquiry::Found::Holders(of_holders(processes)?),
            Self::TerminateAfter { seconds } => inquiry::Found::TerminateAfter(seconds),
            Self::Conntrack { entries, max, drops, risen } => {
                inquiry::Found::Conntrack(inquiry::Conntrack { entries, max, drops, risen })
            }
            Self::Place { kind, bound } => {
                let known = inquiry::Kind::ALL.iter().find(|(name, _)| *name == kind);
                let (_, kind) = *known.ok_or_else(|| bad("there is no such kind of file"))?;
                inquiry::Found::Place(inquiry::Place { kind, bound: bound.map(of_holders).transpose()? })
            }
            Self::Denial { ordinary, selinux, label, seccomp } => {
                let known = inquiry::Ordinary::ALL.iter().find(|(name, _)| *name == ordinary);
                let (_, ordinary) = *known.ok_or_else(|| bad("no such rule says so"))?;
                if label.as_ref().is_some_and(|label| label.len() > MOST_TEXT) {
                    return Err(bad("a label is longer than any is kept"));
                }
                inquiry::Found::Denial(inquiry::Denial { ordinary, selinux, label, seccomp })
            }
        })
    }
}
