//! Groups of upstreams, as lines have them.

use super::{
    Names,
    codec::{Bad, bad},
    line::{Group, Server},
    upstream::{named, upstream},
};
use crate::model::{
    budget,
    groups::{self, Configured, Place},
    verdict::Limits,
};

pub(super) fn encode(group: &groups::Group, names: &Names) -> Group {
    let groups::Group { name, is_shared, servers } = group;
    let server = |groups::Server { place, limits, is_down, has_max_conns, is_watched }: &groups::Server| {
        let Limits { max_fails, fail_timeout_s } = *limits;
        let (upstream, port) = match place {
            Place::At(upstream) => (Some(named(names, upstream)), None),
            Place::Named(port) => (None, Some(*port)),
        };
        Server {
            upstream,
            port,
            max_fails,
            fail_timeout_s,
            down: *is_down,
            max_conns: *has_max_conns,
            watched: *is_watched,
        }
    };
    Group {
        name: names.group(name).into_owned(),
        zone: *is_shared,
        servers: servers.iter().map(server).collect(),
    }
}

/// What was left out of a configuration names files.
pub(super) fn gaps(gaps: Option<&String>, names: &Names) -> Option<String> {
    let gaps = gaps?;
    Some(if names.is_anonymous() { "something was left out".to_owned() } else { gaps.clone() })
}

pub(super) fn decode(
    workers: Vec<u32>,
    groups: Vec<Group>,
    is_narrowed: bool,
    counts_statuses: bool,
    gaps: Option<String>,
) -> Result<Configured, Bad> {
    let servers: usize = groups.iter().map(|group| group.servers.len().max(1)).sum();
    if servers > budget::GROUP_SERVERS || workers.len() > budget::GROUP_SERVERS {
        return Err(bad("a configuration has more servers or workers than any is asked for"));
    }
    let groups = groups.into_iter().map(group).collect::<Result<_, _>>()?;
    Ok(Configured { workers, groups, is_narrowed, counts_statuses, gaps })
}

fn group(Group { name, zone, servers }: Group) -> Result<groups::Group, Bad> {
    if name.len() > budget::GROUP_NAME {
        return Err(bad("a group's name is longer than any is kept"));
    }
    let servers = servers.into_iter().map(server).collect::<Result<_, _>>()?;
    Ok(groups::Group { name, is_shared: zone, servers })
}

fn server(server: Server) -> Result<groups::Server, Bad> {
    let Server { upstream: address, port, max_fails, fail_timeout_s, down, max_conns, watched } = server;
    let place = match (address, port) {
        (Some(address), None) => Place::At(upstream(&address)?),
        (None, Some(port)) => Place::Named(port),
        _ => return Err(bad("a server has either an address or the port of a name")),
    };
    let limits = Limits { max_fails, fail_timeout_s };
    Ok(groups::Server { place, limits, is_down: down, has_max_conns: max_conns, is_watched: watched })
}
