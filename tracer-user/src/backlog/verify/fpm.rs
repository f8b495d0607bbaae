//! What a pool file of php-fpm's asks for: `listen` and `listen.backlog`.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use ini::{Ini, Properties};

use super::{Scene, listeners};
use crate::{
    host::{
        Identity, Master,
        php_fpm::{is_configured_by, option},
    },
    verdict::Upstream,
};

/// `FPM_BACKLOG_DEFAULT` on Linux (sapi/fpm/fpm/fpm_sockets.h).
const DEFAULT: i64 = 511;

/// How many of those that are not asked are told with their reason.
const REASONS: usize = 4;

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pool {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub listen: Upstream,
    /// The backlog that it asks listen for.
    pub backlog: i64,
    /// Its status page, if it has one: the path, and where it is to be reached.
    pub status: Option<(String, Upstream)>,
}

/// The pools that a file configures.
///
/// # Errors
/// Why it configures none.
pub(super) fn read(text: &str) -> Result<Vec<Pool>, String> {
    let file =
        Ini::load_from_str_opt(text, option()).map_err(|error| format!("it cannot be read: {error}"))?;
    let pools = pools(&file)?;
    if pools.is_empty() {
        Err("it has no pool with a listen that can be understood".to_owned())
    } else {
        Ok(pools)
    }
}

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

fn pools(file: &Ini) -> Result<Vec<Pool>, String> {
    let sections = file.iter().filter_map(|(name, section)| Some((name?, section)));
    let pools = sections.filter(|(name, _)| !name.eq_ignore_ascii_case("global"));
    pools.filter_map(|(name, section)| pool(name, section).transpose()).collect()
}

fn pool(name: &str, section: &Properties) -> Result<Option<Pool>, String> {
    let value = |key: &str| section.get(key).map(|value| value.replace("$pool", name));
    let Some(addr) = value("listen").as_deref().and_then(address) else { return Ok(None) };
    let backlog = match value("listen.backlog") {
        None => DEFAULT,
        Some(word) => word.parse().map_err(|_| format!("listen.backlog of [{name}] is no number: {word}"))?,
    };
    let reached = value("pm.status_listen").as_deref().and_then(address).unwrap_or_else(|| addr.clone());
    Ok(Some(Pool {
        name: name.to_owned(),
        listen: addr,
        backlog,
        status: value("pm.status_path").map(|path| (path, reached)),
    }))
}

/// `ip:port`, `[ip6]:port`, a port alone, or a path.
fn address(word: &str) -> Option<Upstream> {
    if word.starts_with('/') {
        return Some(Upstream::Unix(word.into()));
    }
    match word.parse() {
        Ok(port) => Some(Upstream::Inet(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))),
        Err(_) => word.parse().ok().map(Upstream::Inet),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_file_says_where_and_how_many() {
        let text = "[global]\nerror_log = /x\n[www]\n; a comment\nlisten = /run/php/$pool.sock\nlisten.backlog = 64 ; short\n\
                    pm.status_path = /status\nphp_admin_value[error_log] = /var/log/x\\y\n[api]\nlisten = 9001\n\
                    pm.status_path = /s\npm.status_listen = 127.0.0.1:9002\n[odd]\npm = static\n";
        let pools = read(text).unwrap();
        assert_eq!(pools.len(), 2, "{pools:?}");
        let www = Upstream::Unix("/run/php/www.sock".into());
        assert_eq!((&pools[0].listen, pools[0].backlog), (&www, 64));
        assert_eq!(pools[0].status, Some(("/status".to_owned(), www)));
        assert_eq!((pools[1].listen.to_string(), pools[1].backlog), ("0.0.0.0:9001".into(), 511));
        let reached = Upstream::Inet("127.0.0.1:9002".parse().unwrap());
        assert_eq!(pools[1].status, Some(("/s".to_owned(), reached)));
    }

    #[test]
    fn a_backlog_that_is_no_number_is_told() {
        assert!(read("[www]\nlisten = 9000\nlisten.backlog = many\n").unwrap_err().contains("many"));
    }
}
