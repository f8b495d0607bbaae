//! What the files of a php-fpm say of its pools.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use ini::{Ini, Properties};

use super::{Master, main_file, option};
use crate::{
    model::upstream::Upstream,
    procfs::host::{Budget, Identity, Refusal, Root},
};

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub listen: Upstream,
    /// The backlog that it asks listen for; none for php-fpm's own, which differs by release.
    pub backlog: Option<i64>,
    /// Its status page, if it has one: the path, and where it is to be reached.
    pub status: Option<(String, Upstream)>,
    /// Whether it always has all its workers (`pm = static`).
    pub is_static: bool,
    /// `pm.max_children`: how many workers it may have; none if that is no number.
    pub max_children: Option<u32>,
    /// `request_terminate_timeout` (s): how long a request may take, zero for ever; none if that is no time.
    pub terminate_after_s: Option<u64>,
}

/// The pools of a master, as its files say them now.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    /// Those that are understood.
    pub pools: Vec<Pool>,
    /// What was left out, and why; the first of it.
    pub gap: Option<String>,
}

/// The pools of a master that is believed to be php-fpm's.
///
/// # Errors
/// If it is no php-fpm, or the file that configures it cannot be read.
pub(crate) fn pools(master: &Master) -> Result<Pools, Refusal> {
    all_of(master.root(), master.absolute(&main_file(master.command_line())?)?)
}

/// The pools of a file and of those that it includes.
fn all_of(root: &Root, main: PathBuf) -> Result<Pools, Refusal> {
    let mut budget = Budget::default();
    let (mut all, mut read, mut is_main) = (Pools::default(), Vec::<Identity>::new(), true);
    let mut files = vec![main];
    while let Some(path) = files.pop() {
        let found = one(root, &path, &read, &mut budget);
        match found {
            Ok(None) => {}
            Ok(Some(File { identity, pools, included, gap })) => {
                read.push(identity);
                all.pools.extend(pools);
                files.extend(included);
                all.gap = all.gap.or(gap);
            }
            Err(refusal) if is_main || refusal.is_exhaustion() => return Err(refusal),
            // Beyond the part with `*` names are tried.
            Err(refusal) if refusal.is_missing() => {}
            Err(refusal) => all.gap = all.gap.or_else(|| Some(refusal.to_string())),
        }
        is_main = false;
    }
    Ok(all)
}

/// What one file says.
struct File {
    identity: Identity,
    pools: Vec<Pool>,
    included: Vec<PathBuf>,
    gap: Option<String>,
}

/// Reads one file, unless it has been read.
fn one(root: &Root, path: &Path, read: &[Identity], budget: &mut Budget) -> Result<Option<File>, Refusal> {
    let (text, stat) = root.read(path, budget)?;
    let identity = Identity::from(&stat);
    if read.contains(&identity) {
        return Ok(None);
    }
    let text = Ini::load_from_str_opt(&text, option()).map_err(|_| Refusal::NoIni(path.to_owned()))?;
    let (pools, mut gap) = match of(&text) {
        Ok(pools) => (pools, None),
        Err(reason) => (Vec::new(), Some(reason)),
    };
    let mut included = Vec::new();
    for pattern in text.iter().flat_map(|(_, section)| section.get_all("include")).map(Path::new) {
        if pattern.is_absolute() {
            included.extend(root.expand(pattern, budget)?);
        } else {
            // It goes from a folder that is compiled in.
            gap = gap.or_else(|| Some(Refusal::RelativeInclude(path.to_owned()).to_string()));
        }
    }
    Ok(Some(File { identity, pools, included, gap }))
}

/// The pools that a file configures.
///
/// # Errors
/// Why it configures none.
pub(crate) fn read(text: &str) -> Result<Vec<Pool>, String> {
    let file =
        Ini::load_from_str_opt(text, option()).map_err(|error| format!("it cannot be read: {error}"))?;
    let pools = of(&file)?;
    if pools.is_empty() {
        Err("it has no pool with a listen that can be understood".to_owned())
    } else {
        Ok(pools)
    }
}

fn of(file: &Ini) -> Result<Vec<Pool>, String> {
    let sections = file.iter().filter_map(|(name, section)| Some((name?, section)));
    let pools = sections.filter(|(name, _)| !name.eq_ignore_ascii_case("global"));
    pools.filter_map(|(name, section)| pool(name, section).transpose()).collect()
}

fn pool(name: &str, section: &Properties) -> Result<Option<Pool>, String> {
    let value = |key: &str| section.get(key).map(|value| value.replace("$pool", name));
    let Some(addr) = value("listen").as_deref().and_then(address) else { return Ok(None) };
    let backlog = match value("listen.backlog") {
        None => None,
        Some(word) => {
            Some(word.parse().map_err(|_| format!("listen.backlog of [{name}] is no number: {word}"))?)
        }
    };
    let reached = value("pm.status_listen").as_deref().and_then(address).unwrap_or_else(|| addr.clone());
    Ok(Some(Pool {
        name: name.to_owned(),
        listen: addr,
        backlog,
        status: value("pm.status_path").map(|path| (path, reached)),
        is_static: value("pm").is_some_and(|pm| pm.eq_ignore_ascii_case("static")),
        max_children: value("pm.max_children").and_then(|most| most.parse().ok()),
        terminate_after_s: value("request_terminate_timeout").map_or(Some(0), |word| seconds(&word)),
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

/// A time in seconds, which may end in its unit (`fpm_conf_set_time`, sapi/fpm/fpm/fpm_conf.c).
fn seconds(word: &str) -> Option<u64> {
    let units = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
    let (number, unit) = units
        .into_iter()
        .find_map(|(letter, unit)| Some((word.strip_suffix(letter)?, unit)))
        .unwrap_or((word, 1));
    number.parse::<u64>().ok()?.checked_mul(unit)
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
        assert_eq!((&pools[0].listen, pools[0].backlog), (&www, Some(64)));
        assert_eq!(pools[0].status, Some(("/status".to_owned(), www)));
        assert_eq!((pools[1].listen.to_string(), pools[1].backlog), ("0.0.0.0:9001".into(), None));
        let reached = Upstream::Inet("127.0.0.1:9002".parse().unwrap());
        assert_eq!(pools[1].status, Some(("/s".to_owned(), reached)));
    }

    #[test]
    fn a_backlog_that_is_no_number_is_reported() {
        assert!(read("[www]\nlisten = 9000\nlisten.backlog = many\n").unwrap_err().contains("many"));
    }

    #[test]
    fn a_pool_says_how_many_workers_it_has_and_how_long_each_may_take() {
        let of = |lines: &str| {
            let pools = read(&format!("[www]\nlisten = 9000\n{lines}")).unwrap();
            (pools[0].is_static, pools[0].max_children, pools[0].terminate_after_s)
        };
        assert_eq!(
            of("pm = static\npm.max_children = 7\nrequest_terminate_timeout = 2m\n"),
            (true, Some(7), Some(120))
        );
        assert_eq!(
            of("pm = dynamic\npm.max_children = 5\nrequest_terminate_timeout = 30\n"),
            (false, Some(5), Some(30))
        );
        assert_eq!(of("pm = ondemand\n"), (false, None, Some(0)));
        assert_eq!(of("request_terminate_timeout = ${LONG}\n"), (false, None, None));
    }

    #[test]
    fn a_masters_pools_are_those_of_all_that_its_file_includes() {
        let folder = tempfile::TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("pool.d")).unwrap();
        for (name, text) in [
            (
                "main.conf",
                "[global]\nerror_log = /x\n[own]\nlisten = 9000\ninclude=/pool.d/*.conf\ninclude=/main.conf\n",
            ),
            ("pool.d/a.conf", "[a]\nlisten = 9001\n"),
            ("pool.d/b.conf", "[b]\nlisten = 9002\ninclude=etc/c.conf\n"),
        ] {
            std::fs::write(at(name), text).unwrap();
        }
        let root = Root::new(std::fs::File::open(folder.path()).unwrap().into());
        let Pools { pools, gap } = all_of(&root, "/main.conf".into()).unwrap();
        let mut names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "b", "own"]);
        assert!(gap.unwrap().contains("b.conf"));
        assert!(all_of(&root, "/other.conf".into()).is_err());
    }
}
