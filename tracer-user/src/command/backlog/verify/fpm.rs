//! Which running php-fpm a pool file of the user's configures.

use std::collections::BTreeMap;

use super::{Scene, listeners};
use crate::procfs::host::{
    Identity, Master,
    php_fpm::{Pool, is_configured_by},
};

/// How many of those that are not asked are named with their reason.
const REASONS: usize = 4;

/// The php-fpm that reads a pool's file: among those that own a listener at the pool's address, the one that is believed and is
/// configured by that very file.
///
/// # Errors
/// Why there is none.
pub(super) fn master(pool: &Pool, file: Identity, scene: &Scene<'_>) -> Result<Master, String> {
    let owners = listeners(&pool.listen, scene.queues).filter_map(|queue| queue.owner.as_ref());
    let owners: BTreeMap<u32, &str> = owners.map(|owner| (owner.pid, &*owner.comm)).collect();
    let mut reasons = Vec::new();
    for (pid, comm) in owners {
        let is_it = Master::believe(pid).and_then(|master| Ok((is_configured_by(&master, file)?, master)));
        let reason = match is_it {
            Ok((true, master)) => return Ok(master),
            Ok((false, _)) => "another file configures it".to_owned(),
            Err(refusal) => refusal.to_string(),
        };
        reasons.push(format!("{comm} {pid} listens there: {reason}"));
    }
    let more = reasons.len().saturating_sub(REASONS);
    reasons.truncate(REASONS);
    match (&reasons[..], more) {
        ([], _) => Err("nobody listens there whose process is known".to_owned()),
        (_, 0) => Err(reasons.join("; ")),
        (_, more) => Err(format!("{}; and {more} more", reasons.join("; "))),
    }
}
