//! `--verify`: what is claimed about this host's backlogs, held against what the kernel enforces and has counted.

mod fpm;
mod nginx;
mod pools;
mod settings;
mod status;

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::choice::is_same;
use super::{Asked, Queue, masters, reconcile::Books};
use crate::{
    model::upstream::Upstream,
    procfs::host::{
        Master,
        php_fpm::{self, Pool},
        read_given,
    },
};

/// `FPM_BACKLOG_DEFAULT` on Linux (sapi/fpm/fpm/fpm_sockets.h): 511, but for the releases that ask for as many as the kernel allows, as 8.2.36
/// does.
const FPM_BACKLOG: u32 = 511;

/// A claim, and whether it holds on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The claim.
    pub claim: String,
    /// Whether it holds; none where that cannot be found out.
    pub holds: Option<bool>,
    /// The figures, or why there are none.
    pub figures: String,
}

/// What a configuration asks listen for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Configured {
    /// Whose configuration: `nginx 812`, `the pool www`.
    by: String,
    /// Who listens there: others may do so at the same address in another network namespace.
    whose: Whose,
    /// Where it listens; a port alone has the unspecified address.
    addr: Upstream,
    /// The backlog; negative for as many as the kernel allows, none for php-fpm's own.
    backlog: Option<i64>,
}

/// Whose listener a configuration means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// Of the process that it configures.
    Process(u32),
    /// Of whoever listens in a network namespace: it is not known which process it configures.
    Namespace(u32),
}

impl Whose {
    fn has(self, queue: &Queue) -> bool {
        match self {
            Self::Process(pid) => queue.owner.as_ref().is_some_and(|owner| owner.pid == pid),
            Self::Namespace(netns) => queue.netns == netns,
        }
    }
}

impl Configured {
    /// Whether this asks for that listener's backlog.
    fn is_of(&self, queue: &Queue) -> bool {
        is_same(&self.addr, &queue.addr) && self.whose.has(queue)
    }
}

/// What is there to check.
pub(super) struct Scene<'a> {
    /// Every listener of this host.
    pub queues: &'a [Queue],
    /// Those that are emitted.
    pub emitted: &'a [Queue],
    /// The network namespaces.
    pub books: &'a Books,
    /// The processes whose upstreams matter.
    pub comm: &'a str,
    /// Pool files of php-fpm's.
    pub fpm_pools: &'a [PathBuf],
}

/// Checks everything. `depth_of` reads a listener's depth as it is at that moment.
pub(super) fn checks(scene: &Scene<'_>, depth_of: &mut dyn FnMut(&Queue) -> Option<u32>) -> Vec<Check> {
    let mut checks: Vec<Check> = scene.emitted.iter().map(overflowed).collect();
    let nginx = masters::nginx(scene.queues, scene.comm);
    let (mut known, unread) = nginx::configured(&nginx, scene.comm);
    checks.extend(known.iter().flat_map(|configured| enforced(configured, scene)));
    checks.extend(unread);
    for path in scene.fpm_pools {
        match pools(path, scene) {
            Err(reason) => checks.push(Check {
                claim: format!("{} configures a pool", path.display()),
                holds: None,
                figures: reason,
            }),
            Ok(pools) => {
                for Running { pool, configured, master } in pools {
                    checks.extend(enforced(&configured, scene));
                    checks.extend(status::check(&pool, &master, scene, depth_of));
                    known.push(configured);
                }
            }
        }
    }
    checks.extend(pools::checks(scene, &masters::php_fpm(scene.queues), &nginx, &mut known));
    let is_known = |queue: &&Queue| known.iter().any(|configured| configured.is_of(queue));
    checks.extend(scene.emitted.iter().filter(|queue| !is_known(queue)).map(asked));
    checks.extend(settings::checks(scene));
    checks
}

/// A pool on this host.
struct Running {
    pool: Pool,
    /// What it asks for, and whose listener it means.
    configured: Configured,
    /// The php-fpm that reads the pool's file, or why none is known.
    master: Result<Master, String>,
}

/// The pools that a file of the user's configures.
fn pools(path: &Path, scene: &Scene<'_>) -> Result<Vec<Running>, String> {
    let (text, file) = read_given(path).map_err(|error| format!("it cannot be read: {error}"))?;
    let here = network().map_err(|error| format!("in which network this is cannot be told: {error}"))?;
    let running = |pool: Pool| {
        let master = fpm::master(&pool, file, scene);
        let whose = master.as_ref().map_or(Whose::Namespace(here), |master| Whose::Process(master.pid));
        let by = format!("the pool {}", pool.name);
        let configured = Configured { by, whose, addr: pool.listen.clone(), backlog: pool.backlog };
        Running { pool, configured, master }
    };
    Ok(php_fpm::read(&text)?.into_iter().map(running).collect())
}

/// The number of this process's own network namespace.
fn network() -> io::Result<u32> {
    let number = fs::metadata("/proc/self/ns/net")?.ino();
    u32::try_from(number).map_err(io::Error::other)
}

fn overflowed(queue: &Queue) -> Check {
    Check {
        claim: format!("nothing overflowed at {} while watching", queue.addr),
        holds: Some(queue.overflows() == 0),
        figures: format!(
            "{} overflows; at most {} of {} waited",
            queue.overflows(),
            queue.max_depth,
            queue.fits()
        ),
    }
}

/// A listener whose configuration is not known: what it asked for shows as far as somaxconn lets it.
fn asked(queue: &Queue) -> Check {
    let Queue { addr, limit, .. } = queue;
    let fits = format!("the kernel enforces {limit}, so {} connections fit", queue.fits());
    let (holds, figures) = match queue.asked {
        Asked::Exactly(asked) => (Some(true), format!("it asked for {asked}; {fits}")),
        Asked::AtLeast(_) => {
            (None, format!("it asked for {limit} or more, which is net.core.somaxconn; {fits}"))
        }
        Asked::Unknown => (None, format!("net.core.somaxconn cannot be read there; {fits}")),
    };
    Check { claim: format!("whoever listens on {addr} has the backlog that it asked for"), holds, figures }
}

/// Whether the kernel enforces what a configuration asks for, for each listener there is.
fn enforced(configured: &Configured, scene: &Scene<'_>) -> Vec<Check> {
    let Configured { by, addr, backlog, .. } = configured;
    let asked = match backlog {
        None => "php-fpm's own backlog (listen.backlog is not set)".to_owned(),
        Some(..0) => "a backlog as long as possible".to_owned(),
        Some(backlog) => format!("a backlog of {backlog}"),
    };
    let claim = format!("{by} has {asked} on {addr}, as configured");
    let found: Vec<_> = scene.queues.iter().filter(|queue| configured.is_of(queue)).collect();
    if found.is_empty() {
        return vec![Check { claim, holds: None, figures: "nobody listens there".to_owned() }];
    }
    let judge = |queue: &Queue| {
        let somaxconn = scene.books.somaxconn(queue.netns);
        let cap = somaxconn.map_or_else(String::new, |cap| format!("; net.core.somaxconn is {cap}"));
        let is_all = somaxconn.is_none_or(|cap| queue.limit == cap);
        let holds = match backlog.map(u32::try_from) {
            None => is_all || queue.limit == FPM_BACKLOG,
            Some(Ok(backlog)) => queue.limit == backlog,
            // A negative one is the largest there is to the kernel.
            Some(Err(_)) => is_all,
        };
        let why = match somaxconn {
            _ if holds => "",
            Some(cap) if queue.limit == cap => ", which cuts it",
            _ => "; it was configured otherwise when listen was called",
        };
        Check {
            claim: claim.clone(),
            holds: Some(holds),
            figures: format!(
                "the kernel enforces {}, so {} connections fit{cap}{why}",
                queue.limit,
                queue.fits()
            ),
        }
    };
    found.into_iter().map(judge).collect()
}

/// The listeners at an address. Of several network namespaces' all are taken.
fn listeners<'a>(addr: &'a Upstream, queues: &'a [Queue]) -> impl Iterator<Item = &'a Queue> {
    queues.iter().filter(move |queue| is_same(addr, &queue.addr))
}

#[cfg(test)]
mod tests {
    use wire::accept_queue::Listener;
    use zerocopy::FromZeros as _;

    use super::*;

    fn queue(limit: u32) -> Queue {
        let mut listener = Listener::new_zeroed();
        listener.limit = limit;
        let queue = Queue::of(&listener, 0, None, None);
        Queue { addr: Upstream::Unix("/run/a.sock".into()), ..queue }
    }

    #[test]
    fn a_backlog_that_is_not_enforced_is_a_false_claim() {
        let queues = [queue(128)];
        let books = Books::default();
        let scene = Scene { queues: &queues, emitted: &[], books: &books, comm: "nginx", fpm_pools: &[] };
        let configured = |backlog| Configured {
            whose: Whose::Namespace(0),
            by: "the pool www".to_owned(),
            addr: Upstream::Unix("/run/a.sock".into()),
            backlog: Some(backlog),
        };
        assert_eq!(enforced(&configured(128), &scene)[0].holds, Some(true));
        assert_eq!(enforced(&configured(511), &scene)[0].holds, Some(false));
        let elsewhere = Configured { addr: Upstream::Unix("/run/b.sock".into()), ..configured(1) };
        assert_eq!(enforced(&elsewhere, &scene)[0].holds, None);
        let anothers = Configured { whose: Whose::Process(1), ..configured(128) };
        assert_eq!(enforced(&anothers, &scene)[0].holds, None);
    }
}
