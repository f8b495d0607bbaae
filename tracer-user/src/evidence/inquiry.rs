//! What was looked up about a failure, as evidence tells it.

use serde::{Deserialize, Serialize};

use super::codec::{Bad, Base, Codec, Context, Id, Moment, bad};
use crate::{budget, inquiry, verdict::Process};

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
    /// nginx stopped waiting on a connection in the queue of one of several listeners that share an address.
    Neighbours {
        /// They.
        listeners: Vec<Neighbour>,
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
pub struct Neighbour {
    /// Who has it.
    pub process: Holder,
    /// Connections that waited in its queue.
    pub waiting: u32,
    /// Whether that process was stopped or frozen.
    pub stands_still: bool,
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
            inquiry::Found::Neighbours(listeners) => {
                let neighbour =
                    |inquiry::Neighbour { process, waiting, stands_still }: &inquiry::Neighbour| Neighbour {
                        process: Holder { pid: process.pid, comm: process.comm.clone() },
                        waiting: *waiting,
                        stands_still: *stands_still,
                    };
                Self::Neighbours { listeners: listeners.iter().map(neighbour).collect() }
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

    pub(super) fn decode(self) -> Result<inquiry::Found, Bad> {
        Ok(match self {
            Self::Neighbours { listeners } => {
                let (rest, processes): (Vec<_>, Vec<_>) = listeners
                    .into_iter()
                    .map(|Neighbour { process, waiting, stands_still }| ((waiting, stands_still), process))
                    .unzip();
                let neighbour = |(process, (waiting, stands_still))| inquiry::Neighbour {
                    process,
                    waiting,
                    stands_still,
                };
                inquiry::Found::Neighbours(
                    of_holders(processes)?.into_iter().zip(rest).map(neighbour).collect(),
                )
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
