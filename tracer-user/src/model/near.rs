//! Who listens near an upstream at which nobody does.

use super::{
    upstream::Upstream,
    verdict::{Neighbour, Process},
};

/// Where nginx asked, and from where: its network namespace's inode number, or on a unix socket its pid.
pub type Asked = (Upstream, u32);

/// What one look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Near {
    /// When it was (ns, monotonic).
    pub ns: u64,
    /// Whose neighbours these are.
    pub asked: Asked,
    /// The first of them, those nearby before those elsewhere; at most [`budget::NEIGHBOURS`].
    pub neighbours: Vec<Neighbour>,
    /// How many more there were.
    pub others: u32,
    /// The listener that was closed there within the last minute, if one was seen to be.
    pub closed: Option<Closed>,
}

/// A listener that was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The process that closed it, as the last one that held it.
    pub process: Process,
    /// When (ns, monotonic).
    pub ns: u64,
    /// Since when somebody listens there again; none where nobody did by then.
    pub again_ns: Option<u64>,
    /// The process's exit code, if it was ending: the signal in the low seven bits.
    pub exit: Option<u32>,
    /// Where else processes of that name listen; at most [`budget::NEIGHBOURS`].
    pub namesakes: Vec<Neighbour>,
}
