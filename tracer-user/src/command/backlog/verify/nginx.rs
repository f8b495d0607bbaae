//! What nginx's configuration asks for: `listen ... backlog=N`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::{Check, Configured, Whose};
use crate::{
    command::backlog::masters::Known,
    model::upstream::Upstream,
    procfs::host::nginx::{Configuration, Directive, Gaps},
};

/// `NGX_LISTEN_BACKLOG` on Linux (src/os/unix/ngx_linux_config.h).
const DEFAULT: i64 = 511;

/// How many of those that are not believed have a check of their own.
const REFUSALS: usize = 8;

/// What the configuration of each running nginx asks for, and the checks that cannot be made because it cannot be read.
pub(super) fn configured(masters: &[Known<Configuration>], comm: &str) -> (Vec<Configured>, Vec<Check>) {
    let (mut all, mut unread) = (Vec::new(), Vec::new());
    for Known { pid, comm, said } in masters {
        let by = format!("{comm} {pid}");
        let reason = match said {
            Ok(configuration) => {
                let Listens { found, gaps } = Listens::of(configuration);
                all.extend(found.into_iter().map(|(addr, backlog)| Configured {
                    by: by.clone(),
                    whose: Whose::Process(*pid),
                    addr,
                    backlog: Some(backlog),
                }));
                gaps.sentence().map(|gaps| format!("not all of its configuration was read: {gaps}"))
            }
            Err(reason) => Some(reason.clone()),
        };
        unread.extend(reason.map(|figures| Check { claim: claim(&by), holds: None, figures }));
    }
    let more = unread.split_off(unread.len().min(REFUSALS));
    unread.extend(more.first().map(|first| Check {
        claim: claim(&format!("each of {} more called {comm}", more.len())),
        holds: None,
        figures: format!("the first of them: {}", first.figures),
    }));
    (all, unread)
}

fn claim(by: &str) -> String {
    format!("{by} has the backlogs that it is configured with")
}

/// Each address that is listened on, with its backlog.
struct Listens {
    found: BTreeMap<Upstream, i64>,
    /// What the configuration has left out, and addresses that only nginx can resolve.
    gaps: Gaps,
}

impl Listens {
    /// One of several directives that name the same address may set its backlog. Where one may be unseen, an address without a backlog
    /// is left out.
    fn of(configuration: &Configuration) -> Self {
        let mut found: BTreeMap<Upstream, Option<i64>> = BTreeMap::new();
        let mut gaps = configuration.gaps.clone();
        let mut unresolved = BTreeSet::new();
        let blocks = configuration.directives.iter();
        for block in blocks.filter(|block| ["http", "stream", "mail"].contains(&block.name())) {
            for server in block.inside().iter().filter(|directive| directive.name() == "server") {
                let mut listens =
                    server.inside().iter().filter(|directive| directive.name() == "listen").peekable();
                if block.name() == "http" && listens.peek().is_none() {
                    // ngx_http_core_server sets it, for a master that is root.
                    found.entry(Upstream::Inet(SocketAddr::new(ANY, 80))).or_default();
                }
                for Directive { words, file, line, .. } in listens {
                    // Of UDP there is no queue.
                    let Some(word) = words.get(1) else { continue };
                    if words.iter().any(|word| word == "udp" || word == "quic") {
                        continue;
                    }
                    let Some(addr) = address(word) else {
                        gaps.add(file, *line, &"it listens on a name, which only nginx resolves");
                        unresolved.insert(
                            word.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(80),
                        );
                        continue;
                    };
                    let backlog = words.iter().find_map(|word| word.strip_prefix("backlog=")?.parse().ok());
                    let entry = found.entry(addr).or_default();
                    *entry = backlog.or(*entry);
                }
            }
        }
        let is_whole = configuration.gaps.sentence().is_none();
        let is_certain = |addr: &Upstream| match addr {
            Upstream::Inet(addr) => is_whole && !unresolved.contains(&addr.port()),
            Upstream::Unix(_) | Upstream::Named(_) => is_whole,
        };
        let found = found.into_iter().filter_map(|(addr, backlog)| {
            let backlog = backlog.or_else(|| is_certain(&addr).then_some(DEFAULT))?;
            Some((addr, backlog))
        });
        Self { found: found.collect(), gaps }
    }
}

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

fn address(word: &str) -> Option<Upstream> {
    if let Some(path) = word.strip_prefix("unix:") {
        return Some(Upstream::Unix(path.into()));
    }
    let inet = if let Ok(port) = word.parse() {
        SocketAddr::new(ANY, port)
    } else if let Some(port) = word.strip_prefix("*:") {
        SocketAddr::new(ANY, port.parse().ok()?)
    } else if let Ok(ip) = word.trim_matches(['[', ']']).parse() {
        SocketAddr::new(ip, 80)
    } else {
        word.parse().ok()?
    };
    Some(Upstream::Inet(inet))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listens(text: &str) -> (Vec<(String, i64)>, Option<String>) {
        let configuration = Configuration::of_text(text).unwrap();
        let Listens { found, gaps } = Listens::of(&configuration);
        (found.into_iter().map(|(addr, backlog)| (addr.to_string(), backlog)).collect(), gaps.sentence())
    }

    #[test]
    fn each_listen_has_its_backlog_or_the_default() {
        let text = "http { # listen 1 backlog=9;\n log_format x '{;';\n server { listen 127.0.0.1:8080 backlog=1000; listen 80; }\n\
                    server { listen *:80 backlog=64 default_server; listen [::1]:81; listen unix:/run/n.sock backlog=7;\n\
                    listen 443 quic; } } stream { server { listen 53 udp; listen 54 backlog=5; } } listen 55;";
        let expected = [
            ("0.0.0.0:54", 5),
            ("0.0.0.0:80", 64),
            ("127.0.0.1:8080", 1000),
            ("[::1]:81", 511),
            ("/run/n.sock", 7),
        ];
        assert_eq!(
            listens(text),
            (expected.map(|(addr, backlog)| (addr.to_owned(), backlog)).to_vec(), None)
        );
        assert_eq!(listens("http { server { } }").0, [("0.0.0.0:80".to_owned(), 511)]);
    }

    #[test]
    fn where_a_backlog_may_be_unseen_none_is_claimed() {
        let text = "http { server { listen 127.0.0.1:82; listen 127.0.0.1:83; listen 84 backlog=9;\nlisten localhost:82; } }";
        let (found, gaps) = listens(text);
        assert_eq!(found, [("0.0.0.0:84".to_owned(), 9), ("127.0.0.1:83".to_owned(), 511)]);
        assert!(gaps.unwrap().contains("a name, which only nginx resolves (line 2 of "));
        let (found, gaps) =
            listens("http { include /nonexistent; server { listen 82; listen 84 backlog=9; } }");
        assert_eq!(found, [("0.0.0.0:84".to_owned(), 9)]);
        assert!(gaps.unwrap().contains("/nonexistent"));
    }
}
