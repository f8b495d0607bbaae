//! The running masters whose configurations say which listeners matter: nginx's, and php-fpm's.

use std::collections::BTreeSet;

use super::Queue;
use crate::procfs::host::{
    Master, Refusal,
    nginx::{Configuration, configuration},
    php_fpm::{Pools, pools},
};

/// How many masters' configurations are read. More are not on a host that serves anybody.
const MASTERS: usize = 64;

/// How php-fpm calls itself, whatever its version.
const PHP_FPM: &str = "php-fpm";

/// What is known of a master.
#[derive(Debug)]
pub(super) struct Known<T> {
    /// Its pid.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// What its configuration says now, or why it was not asked.
    pub said: Result<T, String>,
}

/// The configurations of those that own a listener and are called so.
pub(super) fn nginx(queues: &[Queue], comm: &str) -> Vec<Known<Configuration>> {
    ask(owners(queues, |name| name == comm), configuration)
}

/// The pools of each php-fpm that owns a listener.
pub(super) fn php_fpm(queues: &[Queue]) -> Vec<Known<Pools>> {
    ask(owners(queues, |name| name.starts_with(PHP_FPM)), pools)
}

/// The pids of both, to see whether there are others than were asked.
pub(super) fn pids(queues: &[Queue], comm: &str) -> BTreeSet<u32> {
    let is_one = |name: &str| name == comm || name.starts_with(PHP_FPM);
    owners(queues, is_one).into_iter().map(|(pid, _)| pid).collect()
}

fn owners(queues: &[Queue], is_one: impl Fn(&str) -> bool) -> BTreeSet<(u32, &str)> {
    let owners = queues.iter().filter_map(|queue| queue.owner.as_ref());
    owners.filter(|owner| is_one(&owner.comm)).map(|owner| (owner.pid, owner.comm.as_str())).collect()
}

fn ask<T>(masters: BTreeSet<(u32, &str)>, what: impl Fn(&Master) -> Result<T, Refusal>) -> Vec<Known<T>> {
    let mut read = 0;
    let mut said = |pid| {
        let asked = Master::believe(pid).and_then(|master| {
            read += 1;
            if read <= MASTERS { what(&master).map(Some) } else { Ok(None) }
        });
        match asked {
            Ok(Some(said)) => Ok(said),
            Ok(None) => Err(format!("it was not asked: the configurations of {MASTERS} others were read")),
            Err(refusal) => Err(format!("it was not asked: {refusal}")),
        }
    };
    masters.into_iter().map(|(pid, comm)| Known { pid, comm: comm.to_owned(), said: said(pid) }).collect()
}
