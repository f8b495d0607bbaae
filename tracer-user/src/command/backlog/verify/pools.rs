//! What the pools of the running php-fpm are configured with, held against the kernel, the workers that run, and what nginx waits for.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use procfs::process::Process;

use super::{Check, Configured, Scene, Whose, enforced};
use crate::{
    command::backlog::{
        Queue,
        choice::{answers, is_same, netns_of},
        masters::Known,
    },
    model::upstream::Upstream,
    procfs::{
        host::{
            nginx::{Configuration, passes},
            php_fpm::{Pool, Pools},
        },
        processes,
    },
};

/// What each worker of php-fpm's calls itself, before the name of its pool (`fpm_env_setproctitle` in `fpm_unix_init_child`).
const WORKER: &str = "php-fpm: pool ";

/// How many places in nginx's configuration have a check of their own for one pool.
const PLACES: usize = 16;

/// Checks the pools whose listeners are emitted, and adds to `known` what they ask for. A pool whose file the user has named is checked by
/// that already, but for its workers and timeouts.
pub(super) fn checks(
    scene: &Scene<'_>,
    masters: &[Known<Pools>],
    nginx: &[Known<Configuration>],
    known: &mut Vec<Configured>,
) -> Vec<Check> {
    let mut checks = Vec::new();
    let emitted = |pid: u32| scene.emitted.iter().filter(move |queue| Whose::Process(pid).has(queue));
    let running = Running::now();
    for Known { pid, comm, said } in masters.iter().filter(|master| emitted(master.pid).next().is_some()) {
        let master = format!("{comm} {pid}");
        let unread = |figures: &str| Check {
            claim: format!("{master} runs its pools as configured"),
            holds: None,
            figures: figures.to_owned(),
        };
        let pools = match said {
            Ok(pools) => pools,
            Err(reason) => {
                checks.push(unread(reason));
                continue;
            }
        };
        checks.extend(pools.gap.as_ref().map(|gap| unread(&format!("not all of them were read: {gap}"))));
        for pool in &pools.pools {
            let is_its =
                |queue: &&Queue| Whose::Process(*pid).has(queue) && is_same(&pool.listen, &queue.addr);
            // Another one was asked for.
            if scene.queues.iter().any(|queue| is_its(&queue))
                && !scene.emitted.iter().any(|queue| is_its(&queue))
            {
                continue;
            }
            let configured = Configured {
                by: format!("the pool {} of {master}", pool.name),
                whose: Whose::Process(*pid),
                addr: pool.listen.clone(),
                backlog: pool.backlog,
            };
            let is_known =
                |other: &Configured| other.whose == configured.whose && other.addr == configured.addr;
            if !known.iter().any(is_known) {
                checks.extend(enforced(&configured, scene));
            }
            checks.extend(workers(pool, &configured.by, *pid, &running));
            let queue = scene.queues.iter().find(is_its);
            checks.extend(
                queue.into_iter().flat_map(|queue| timeouts(pool, &configured.by, queue, nginx, scene)),
            );
            known.push(configured);
        }
    }
    checks
}

/// How many workers run, by master and pool.
struct Running(Result<HashMap<(u32, String), u32>, String>);

impl Running {
    fn now() -> Self {
        let count = || {
            let mut found = HashMap::new();
            for pid in processes::pids().map_err(|error| error.to_string())? {
                let look = || {
                    let process = Process::new(pid)?;
                    Ok((process.cmdline()?, process.stat()?.ppid))
                };
                // Who has gone meanwhile runs no more.
                let Some((line, parent)) = processes::still(look()).map_err(|error| error.to_string())?
                else {
                    continue;
                };
                let pool = line.first().and_then(|title| title.strip_prefix(WORKER));
                if let Some(pool) = pool {
                    *found.entry((parent.cast_unsigned(), pool.trim_end().to_owned())).or_default() += 1;
                }
            }
            Ok(found)
        };
        Self(count())
    }

    fn of(&self, master: u32, pool: &str) -> Result<u32, &str> {
        let found = self.0.as_ref().map_err(String::as_str)?;
        Ok(found.get(&(master, pool.to_owned())).copied().unwrap_or_default())
    }
}

/// Whether as many workers run as `pm.max_children` says, or may still begin.
fn workers(pool: &Pool, by: &str, master: u32, running: &Running) -> Option<Check> {
    let most = pool.max_children?;
    let (claim, is_so): (_, fn(u32, u32) -> bool) = match pool.is_static {
        true => (format!("{by} has all its workers (pm.max_children, pm = static)"), |now, most| now == most),
        false => (format!("{by} may begin more workers (pm.max_children)"), |now, most| now < most),
    };
    let (holds, figures) = match running.of(master, &pool.name) {
        Err(error) => (None, format!("/proc cannot be read: {error}")),
        Ok(now) => {
            let holds = is_so(now, most);
            let then = match (holds, pool.is_static) {
                (false, false) => ": what comes while all of them are busy waits in the accept queue",
                (false, true) => ": it was configured otherwise when it began, or some have just ended",
                (true, _) => "",
            };
            (Some(holds), format!("{now} of {most} run{then}"))
        }
    };
    Some(Check { claim, holds, figures })
}

/// Which of the two ends a request that takes too long: what nginx waits for, or what php-fpm allows, for each time that nginx waits.
fn timeouts(
    pool: &Pool,
    by: &str,
    queue: &Queue,
    nginx: &[Known<Configuration>],
    scene: &Scene<'_>,
) -> Vec<Check> {
    let mut found: BTreeMap<(u32, &str, String, u64), BTreeSet<String>> = BTreeMap::new();
    for Known { pid, comm, said } in nginx {
        // A file that was left out may set another one.
        let Some(configuration) = said.as_ref().ok().filter(|said| said.gaps.sentence().is_none()) else {
            continue;
        };
        let is_near = |place: &Upstream| {
            matches!(place, Upstream::Unix(_)) || netns_of(*pid, scene.queues) == Some(queue.netns)
        };
        for pass in passes(configuration) {
            if !pass.places.iter().any(|place| answers(&queue.addr, place) && is_near(place)) {
                continue;
            }
            let Some((directive, ms)) = pass.read_timeout else { continue };
            let place = format!("line {} of {}", pass.line, pass.file.display());
            found.entry((*pid, comm.as_str(), directive, ms)).or_default().insert(place);
        }
    }
    let check = |((pid, comm, directive, ms), places): ((u32, &str, String, u64), BTreeSet<String>)| {
        let more = places.len().saturating_sub(1);
        let more = if more > 0 { format!(", and {more} more") } else { String::new() };
        let place = places.into_iter().next().unwrap_or_default();
        let (holds, figures) = which_fires(&directive, ms, pool.terminate_after_s);
        Check {
            claim: format!(
                "{by} ends a slow request before {comm} {pid} stops waiting for it ({place}{more})"
            ),
            holds,
            figures,
        }
    };
    found.into_iter().take(PLACES).map(check).collect()
}

/// php-fpm looks at its workers each third of its shortest timeout (`fpm_conf_process_all_pools`, sapi/fpm/fpm/fpm_conf.c), and ends those
/// whose request was accepted so long ago (`fpm_request_check_timed_out`, fpm_request.c).
fn which_fires(directive: &str, ms: u64, terminate_after_s: Option<u64>) -> (Option<bool>, String) {
    let nginx = format!("{directive} ({})", seconds(ms));
    let Some(after_s) = terminate_after_s else {
        return (None, format!("{nginx}; what request_terminate_timeout is cannot be told"));
    };
    if after_s == 0 {
        let figures = format!(
            "{nginx} fires, and nginx answers 504; request_terminate_timeout is off, so that the worker goes on"
        );
        return (Some(false), figures);
    }
    let (earliest, latest) = (after_s.saturating_mul(1_000), after_s.saturating_mul(4_000).div_ceil(3));
    let fpm = format!("request_terminate_timeout ({after_s} s)");
    if ms < earliest {
        (
            Some(false),
            format!("{nginx} fires first, and nginx answers 504; the worker goes on until {fpm} ends it"),
        )
    } else if ms > latest {
        let between = format!("{} to {} after it was accepted", seconds(earliest), seconds(latest));
        (Some(true), format!("{fpm} fires first, {between}, and nginx, at {nginx}, answers 502"))
    } else {
        let between = format!("{} to {}", seconds(earliest), seconds(latest));
        (
            None,
            format!(
                "either may fire first: {nginx}, or {fpm}, at which php-fpm looks now and then: after {between}"
            ),
        )
    }
}

fn seconds(ms: u64) -> String {
    match ms % 1_000 {
        0 => format!("{} s", ms / 1_000),
        _ => format!("{}.{:03} s", ms / 1_000, ms % 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_timer_fires_first_is_said_where_that_is_certain() {
        let fires = |ms, after| which_fires("fastcgi_read_timeout", ms, after);
        let (holds, figures) = fires(60_000, Some(0));
        assert!(holds == Some(false) && figures.contains("is off"), "{figures}");
        let (holds, figures) = fires(60_000, Some(120));
        assert!(
            holds == Some(false) && figures.starts_with("fastcgi_read_timeout (60 s) fires first"),
            "{figures}"
        );
        let (holds, figures) = fires(60_000, Some(30));
        assert!(holds == Some(true) && figures.contains("30 s to 40 s after"), "{figures}");
        for ms in [30_000, 35_500, 40_000] {
            let (holds, figures) = fires(ms, Some(30));
            assert!(holds.is_none() && figures.starts_with("either"), "{figures}");
        }
        assert_eq!(fires(1, None).0, None);
        assert_eq!((seconds(1_500), seconds(2_000)), ("1.500 s".to_owned(), "2 s".to_owned()));
    }
}
