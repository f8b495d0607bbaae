//! The groups of upstreams in a configuration: `upstream NAME { server ...; }`, and names in proxy_pass and the like.

use std::net::{IpAddr, SocketAddr};

use super::{Configuration, Directive};
use crate::model::{
    groups::{DEFAULT_FAIL_TIMEOUT_S, Group, Place, Server},
    upstream::Upstream,
    verdict::Limits,
};

/// What nginx takes where a server sets nothing.
const DEFAULT: Limits = Limits { max_fails: 1, fail_timeout_s: DEFAULT_FAIL_TIMEOUT_S };

/// Directives that pass a request on, and the port of an address that has none.
pub(super) const PASSES: [(&str, u16); 6] = [
    ("proxy_pass", 80),
    ("fastcgi_pass", 80),
    ("grpc_pass", 80),
    ("uwsgi_pass", 80),
    ("scgi_pass", 80),
    ("memcached_pass", 80),
];

/// The groups of `http` and `stream`, and the names that may stand for several addresses: nginx makes a group of them, too.
pub(crate) fn groups(configuration: &Configuration) -> Vec<Group> {
    let blocks = configuration.directives.iter();
    let mut groups = Vec::new();
    for block in blocks.filter(|block| ["http", "stream"].contains(&block.name())) {
        let first = groups.len();
        let named = block.inside().iter().filter(|directive| directive.name() == "upstream");
        groups.extend(named.filter_map(group));
        let mut passes = Vec::new();
        names(block, &mut passes);
        for (name, port) in passes {
            let is_known = |group: &Group| group.name == name;
            if !groups[first..].iter().any(is_known) {
                let place = Place::Named(port);
                let server =
                    Server { place, limits: DEFAULT, is_down: false, has_max_conns: false, is_watched: true };
                groups.push(Group { name, is_shared: false, servers: vec![server] });
            }
        }
    }
    groups
}

/// Whether a server may be taken out by its response's status (`ngx_http_upstream_test_next`): for 403 and 404 none is.
pub(crate) fn counts_statuses(directives: &[Directive]) -> bool {
    let is_counted = |word: &String| word.starts_with("http_5") || word == "http_429";
    directives.iter().any(|directive| {
        directive.name().ends_with("_next_upstream") && directive.words.iter().any(is_counted)
            || counts_statuses(directive.inside())
    })
}

fn group(directive: &Directive) -> Option<Group> {
    let name = directive.words.get(1)?.clone();
    let is_shared = directive.inside().iter().any(|inner| inner.name() == "zone");
    let servers = directive.inside().iter().filter(|inner| inner.name() == "server");
    Some(Group { name, is_shared, servers: servers.filter_map(server).collect() })
}

fn server(directive: &Directive) -> Option<Server> {
    let [_, address, options @ ..] = &directive.words[..] else { return None };
    let value = |name: &str| options.iter().find_map(|option| option.strip_prefix(name));
    let max_fails = value("max_fails=").and_then(|value| value.parse().ok());
    let fail_timeout_s = value("fail_timeout=").and_then(seconds);
    let limits = Limits {
        max_fails: max_fails.unwrap_or(DEFAULT.max_fails),
        fail_timeout_s: fail_timeout_s.unwrap_or(DEFAULT.fail_timeout_s),
    };
    Some(Server {
        place: place(address, 80),
        limits,
        is_down: options.iter().any(|option| option == "down"),
        has_max_conns: value("max_conns=").is_some_and(|most| most != "0"),
        is_watched: true,
    })
}

/// Names that requests are passed on to. With a variable in it nginx resolves it anew for each request, and counts no failures.
fn names(directive: &Directive, found: &mut Vec<(String, u16)>) {
    for inner in directive.inside() {
        let port = PASSES.iter().find(|(name, _)| *name == inner.name()).map(|(_, port)| *port);
        if let (Some(port), Some(target)) = (port, inner.words.get(1)) {
            found.extend(name(target, port));
        }
        names(inner, found);
    }
}

fn name(target: &str, port: u16) -> Option<(String, u16)> {
    match destination(target, port)? {
        (host, Place::Named(port)) => Some((host, port)),
        (_, Place::At(_)) => None,
    }
}

/// Whom a target names, without its scheme and its path, and where that is; none with a variable in it.
pub(super) fn destination(target: &str, port: u16) -> Option<(String, Place)> {
    if target.contains('$') {
        return None;
    }
    let (scheme, rest) = target.split_once("://").unwrap_or(("", target));
    let port = if matches!(scheme, "https" | "grpcs") { 443 } else { port };
    if let Some(path) = rest.strip_prefix("unix:") {
        // Behind a colon a URI follows.
        let path = path.split(':').next().unwrap_or(path);
        return Some((path.to_owned(), Place::At(Upstream::Unix(path.into()))));
    }
    let host = rest.split('/').next().unwrap_or(rest);
    Some((host.to_owned(), place(host, port)))
}

/// As `ngx_parse_url` takes it (src/core/ngx_inet.c).
pub(super) fn place(address: &str, port: u16) -> Place {
    if let Some(path) = address.strip_prefix("unix:") {
        return Place::At(Upstream::Unix(path.into()));
    }
    if let Ok(address) = address.parse() {
        return Place::At(Upstream::Inet(address));
    }
    if let Ok(ip) = address.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Place::At(Upstream::Inet(SocketAddr::new(ip, port)));
    }
    let own = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    Place::Named(own.unwrap_or(port))
}

/// A time in seconds, as in `1m 30s` (`ngx_parse_time`, src/core/ngx_parse.c).
pub(super) fn seconds(text: &str) -> Option<u32> {
    let (mut sum, mut number) = (0_u32, None::<u32>);
    for letter in text.chars() {
        if let Some(digit) = letter.to_digit(10) {
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
            continue;
        }
        let unit = match letter {
            's' | ' ' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 604_800,
            'M' => 2_592_000,
            'y' => 31_536_000,
            _ => return None,
        };
        sum = sum.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    sum.checked_add(number.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<Group> {
        groups(&Configuration::of_text(text).unwrap())
    }

    fn at(address: &str) -> Place {
        Place::At(Upstream::Inet(address.parse().unwrap()))
    }

    #[test]
    fn groups_have_their_servers_and_when_they_are_left_alone() {
        let found = of(
            "http { upstream a { zone a 64k; server 10.0.0.1 max_fails=3 fail_timeout=1m30s weight=5; server [::1]:81 down;\n\
             server unix:/run/a.sock backup max_conns=7; server php:9000; }\n\
             server { location / { proxy_pass http://a/x; } location /b { if ($x) { fastcgi_pass localhost:9001; } }\n\
             location /c { proxy_pass https://$host:80; } location /d { proxy_pass http://127.0.0.1:8080/; }\n\
             location /e { proxy_pass https://other; } } }",
        );
        let limits = Limits { max_fails: 3, fail_timeout_s: 90 };
        let server =
            |place, limits| Server { place, limits, is_down: false, has_max_conns: false, is_watched: true };
        let a = Group {
            name: "a".to_owned(),
            is_shared: true,
            servers: vec![
                server(at("10.0.0.1:80"), limits),
                Server { is_down: true, ..server(at("[::1]:81"), DEFAULT) },
                Server {
                    has_max_conns: true,
                    ..server(Place::At(Upstream::Unix("/run/a.sock".into())), DEFAULT)
                },
                server(Place::Named(9000), DEFAULT),
            ],
        };
        let named = |name: &str, port| Group {
            name: name.to_owned(),
            is_shared: false,
            servers: vec![server(Place::Named(port), DEFAULT)],
        };
        assert_eq!(found, [a, named("localhost:9001", 9001), named("other", 443)]);
    }

    #[test]
    fn statuses_that_count_as_failures_are_noticed() {
        let counts = |text: &str| counts_statuses(&Configuration::of_text(text).unwrap().directives);
        assert!(counts("http { server { location / { proxy_next_upstream error http_503; } } }"));
        assert!(!counts("http { proxy_next_upstream error timeout http_404 non_idempotent; }"));
    }

    #[test]
    fn times_are_in_seconds() {
        assert_eq!(["10", "10s", "1m", "1h30m", "0"].map(seconds), [10, 10, 60, 5_400, 0].map(Some));
        assert_eq!(["5ms", "x", "99999999999"].map(seconds), [None; 3]);
    }
}
