//! Who listens near an upstream at which nobody does, who did before, and who holds the listener.

use serde::Serialize;

use crate::model::verdict;

/// A listener near an upstream at which nobody listens.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Neighbour<'a> {
    pid: u32,
    comm: &'a str,
    addr: String,
    elsewhere: bool,
}

/// A listener that was closed before nginx asked.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Closed<'a> {
    pid: u32,
    comm: &'a str,
    us: i64,
    again_us: Option<i64>,
    signal: Option<&'a str>,
    namesakes: Vec<Neighbour<'a>>,
}

/// A process that holds a listener.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Holder<'a> {
    pid: u32,
    comm: &'a str,
    doing: Option<&'a str>,
}

impl<'a> From<&'a verdict::Neighbour> for Neighbour<'a> {
    fn from(neighbour: &'a verdict::Neighbour) -> Self {
        let verdict::Neighbour { process: verdict::Process { pid, comm }, listens, is_elsewhere } = neighbour;
        Self { pid: *pid, comm, addr: listens.to_string(), elsewhere: *is_elsewhere }
    }
}

impl<'a> From<&'a verdict::Closed> for Closed<'a> {
    fn from(closed: &'a verdict::Closed) -> Self {
        let verdict::Closed { process: verdict::Process { pid, comm }, us, again_us, signal, namesakes } =
            closed;
        let namesakes = namesakes.iter().map(Neighbour::from).collect();
        Self { pid: *pid, comm, us: *us, again_us: *again_us, signal: signal.as_deref(), namesakes }
    }
}

impl<'a> From<&'a verdict::Holder> for Holder<'a> {
    fn from(holder: &'a verdict::Holder) -> Self {
        let verdict::Holder { process: verdict::Process { pid, comm }, doing } = holder;
        Self { pid: *pid, comm, doing: doing.as_deref() }
    }
}
