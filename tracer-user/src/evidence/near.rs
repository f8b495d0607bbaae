//! Who listens near an upstream at which nobody does, as evidence has it.

use super::{
    Line,
    codec::{Bad, Base, Codec as _, Context, Moment, bad},
    line::{Closed, Neighbour},
    upstream::{named, upstream},
};
use crate::model::{
    budget,
    near::{self, Near},
    verdict::{self, Process},
};

pub(super) fn encode(near: &Near, at: i64, context: Context<'_>) -> Line {
    let Near { ns, asked: (asked, from), neighbours, others, closed } = near;
    let neighbour = |neighbour: &verdict::Neighbour| {
        let verdict::Neighbour { process: Process { pid, comm }, listens, is_elsewhere } = neighbour;
        Neighbour {
            pid: *pid,
            comm: comm.clone(),
            listens: named(context.names, listens),
            elsewhere: *is_elsewhere,
        }
    };
    let closed = closed.as_ref().map(|closed| {
        let near::Closed { process: Process { pid, comm }, ns, again_ns, exit, namesakes } = closed;
        Closed {
            pid: *pid,
            comm: comm.clone(),
            ns: Moment::encode(ns, context),
            again_ns: again_ns.and_then(|ns| Moment::encode(&ns, context)),
            exit: *exit,
            namesakes: namesakes.iter().map(neighbour).collect(),
        }
    });
    Line::Near {
        at,
        ns: Moment::encode(ns, context),
        upstream: named(context.names, asked),
        from: *from,
        neighbours: neighbours.iter().map(neighbour).collect(),
        others: *others,
        closed,
    }
}

pub(super) fn neighbours(neighbours: Vec<Neighbour>) -> Result<Vec<verdict::Neighbour>, Bad> {
    if neighbours.len() > budget::NEIGHBOURS {
        return Err(bad("an upstream has more neighbours than are named"));
    }
    let neighbour = |Neighbour { pid, comm, listens, elsewhere }| {
        let process = process(pid, comm)?;
        Ok(verdict::Neighbour { process, listens: upstream(&listens)?, is_elsewhere: elsewhere })
    };
    neighbours.into_iter().map(neighbour).collect()
}

pub(super) fn closed(closed: Option<Closed>, base: Base) -> Result<Option<near::Closed>, Bad> {
    let Some(Closed { pid, comm, ns, again_ns, exit, namesakes }) = closed else { return Ok(None) };
    Ok(Some(near::Closed {
        process: process(pid, comm)?,
        ns: Moment::decode(ns, base)?,
        again_ns: again_ns.map(|ns| Moment::decode(Some(ns), base)).transpose()?,
        exit,
        namesakes: neighbours(namesakes)?,
    }))
}

fn process(pid: u32, comm: String) -> Result<Process, Bad> {
    if comm.len() >= wire::COMM_LEN * 4 {
        return Err(bad("a process's name is longer than any is"));
    }
    Ok(Process { pid, comm })
}
