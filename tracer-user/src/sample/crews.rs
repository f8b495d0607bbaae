//! What the workers of php-fpm's pools are doing at this moment, idle ones included.

use procfs::process::Process;

use super::doing;
use crate::{
    model::doing::{Doing, Target},
    procfs::processes,
};

/// Workers that are looked at in one round.
const MOST_WORKERS: usize = 256;

/// How a worker begins its title (`fpm_env_setproctitle`, sapi/fpm/fpm/fpm_env.c).
const TITLE: &str = "php-fpm: ";

/// The workers of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crew {
    /// The pid of their master.
    pub master: i32,
    /// As its processes call it: `pool www`.
    pub name: String,
    /// Each worker, and what it does; none where that could not be found out.
    pub workers: Vec<(u32, Option<Doing>)>,
}

impl Crew {
    /// Those that wait for a connection.
    pub fn idle(&self) -> usize {
        let is_idle = |doing: &Option<Doing>| matches!(doing, Some(Doing::Waiting(Target::Connection)));
        self.workers.iter().filter(|(_, doing)| is_idle(doing)).count()
    }

    /// Those that do something else, and what.
    pub fn busy(&self) -> impl Iterator<Item = (u32, &Doing)> {
        let all = self.workers.iter().filter_map(|(pid, doing)| Some((*pid, doing.as_ref()?)));
        all.filter(|(_, doing)| !matches!(doing, Doing::Waiting(Target::Connection)))
    }
}

/// Every pool of this host, by the masters' pids and the pools' names. A worker that ends meanwhile is in none.
pub fn crews() -> Vec<Crew> {
    let mut crews = Vec::<Crew>::new();
    let mut looked_at = 0;
    for pid in processes::pids().unwrap_or_default() {
        let Ok(process) = Process::new(pid) else { continue };
        let Ok(stat) = process.stat() else { continue };
        if !stat.comm.starts_with("php-fpm") || stat.state == 'Z' {
            continue;
        }
        let title = process.cmdline().unwrap_or_default().join(" ");
        let Some(name) = title.strip_prefix(TITLE).filter(|name| name.starts_with("pool ")) else { continue };
        let name = name.trim_end().to_owned();
        looked_at += 1;
        let doing = if looked_at <= MOST_WORKERS { doing(pid) } else { None };
        let worker = (pid.cast_unsigned(), doing);
        match crews.iter_mut().find(|crew| crew.master == stat.ppid && crew.name == name) {
            Some(crew) => crew.workers.push(worker),
            None => crews.push(Crew { master: stat.ppid, name, workers: vec![worker] }),
        }
    }
    crews
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_connection_is_idle() {
        let crew = Crew {
            master: 1,
            name: "pool www".to_owned(),
            workers: vec![
                (2, Some(Doing::Waiting(Target::Connection))),
                (3, Some(Doing::Running)),
                (4, Some(Doing::Waiting(Target::Lock))),
                (5, None),
            ],
        };
        let busy: Vec<_> = crew.busy().map(|(pid, _)| pid).collect();
        assert_eq!((crew.idle(), busy), (1, vec![3, 4]));
    }
}
