//! What a pool file of php-fpm's asks for: `listen` and `listen.backlog`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use ini::{Ini, ParseOption, Properties};

use super::Configured;
use crate::verdict::Upstream;

/// `FPM_BACKLOG_DEFAULT` on Linux (sapi/fpm/fpm/fpm_sockets.h).
const DEFAULT: i64 = 511;

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pool {
    /// Its name.
    pub name: String,
    /// What it asks listen for.
    pub configured: Configured,
    /// Its status page, if it has one: the path, and where it is to be reached.
    pub status: Option<(String, Upstream)>,
}

/// The pools that a file configures.
///
/// # Errors
/// Why it configures none.
pub(super) fn read(path: &Path) -> Result<Vec<Pool>, String> {
    // php-fpm takes a backslash as it is.
    let option = ParseOption { enabled_escape: false, ..ParseOption::default() };
    let file =
        Ini::load_from_file_opt(path, option).map_err(|error| format!("it cannot be read: {error}"))?;
    let pools = pools(&file)?;
    if pools.is_empty() {
        Err("it has no pool with a listen that can be understood".to_owned())
    } else {
        Ok(pools)
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
        configured: Configured { by: format!("the pool {name}"), pid: None, addr, backlog },
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
        let option = ParseOption { enabled_escape: false, ..ParseOption::default() };
        let pools = pools(&Ini::load_from_str_opt(text, option).unwrap()).unwrap();
        assert_eq!(pools.len(), 2, "{pools:?}");
        let www = Upstream::Unix("/run/php/www.sock".into());
        assert_eq!((&pools[0].configured.addr, pools[0].configured.backlog), (&www, 64));
        assert_eq!(pools[0].status, Some(("/status".to_owned(), www)));
        assert_eq!(
            (pools[1].configured.addr.to_string(), pools[1].configured.backlog),
            ("0.0.0.0:9001".into(), 511)
        );
        let reached = Upstream::Inet("127.0.0.1:9002".parse().unwrap());
        assert_eq!(pools[1].status, Some(("/s".to_owned(), reached)));
    }

    #[test]
    fn a_backlog_that_is_no_number_is_told() {
        let file = Ini::load_from_str("[www]\nlisten = 9000\nlisten.backlog = many\n").unwrap();
        assert!(pools(&file).unwrap_err().contains("many"));
    }
}
