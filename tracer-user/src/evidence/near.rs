//! Who listens near an upstream at which nobody does, as evidence tells it.

use super::{
    Line,
    codec::{Bad, Codec as _, Context, Moment, bad},
    entry::{named, upstream},
    line::Neighbour,
};
use crate::{
    budget,
    near::{Asked, Near},
    verdict::{self, Process},
};

pub(super) fn encode(near: &Near, at: i64, context: Context<'_>) -> Line {
    let Near { ns, asked: (asked, from), neighbours, others } = near;
    let neighbour = |neighbour: &verdict::Neighbour| {
        let verdict::Neighbour { process: Process { pid, comm }, listens, is_elsewhere } = neighbour;
        Neighbour {
            pid: *pid,
            comm: comm.clone(),
            listens: named(context.names, listens),
            elsewhere: *is_elsewhere,
        }
    };
    Line::Near {
        at,
        ns: Moment::encode(ns, context),
        upstream: named(context.names, asked),
        from: *from,
        neighbours: neighbours.iter().map(neighbour).collect(),
        others: *others,
    }
}

pub(super) fn decode(ns: u64, asked: Asked, neighbours: Vec<Neighbour>, others: u32) -> Result<Near, Bad> {
    if neighbours.len() > budget::NEIGHBOURS {
        return Err(bad("an upstream has more neighbours than are named"));
    }
    let neighbour = |neighbour: Neighbour| {
        let Neighbour { pid, comm, listens, elsewhere } = neighbour;
        if comm.len() >= tracer_ebpf::COMM_LEN * 4 {
            return Err(bad("a process's name is longer than any is"));
        }
        let process = Process { pid, comm };
        Ok(verdict::Neighbour { process, listens: upstream(&listens)?, is_elsewhere: elsewhere })
    };
    let neighbours = neighbours.into_iter().map(neighbour).collect::<Result<_, _>>()?;
    Ok(Near { ns, asked, neighbours, others })
}
