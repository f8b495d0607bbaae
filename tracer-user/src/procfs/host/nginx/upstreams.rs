//! Where a configuration passes requests on to, and how long nginx waits for what comes back.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use super::{
    Configuration, Directive,
    groups::{PASSES, destination, place, seconds},
};
use crate::model::{groups::Place, upstream::Upstream};

/// What each module waits between two reads unless it is told otherwise (`ngx_http_fastcgi_merge_loc_conf` and its like).
const DEFAULT_READ_TIMEOUT_MS: u64 = 60_000;

/// The one name that stands for the same on every host.
const LOCALHOST: &str = "localhost";

/// A directive that passes requests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    /// Its name, as in `fastcgi_pass`.
    pub directive: String,
    /// Where it may lead, as far as that needs no name to be resolved.
    pub places: Vec<Upstream>,
    /// A name or a variable in it, which only nginx knows the addresses of.
    pub unresolved: Option<String>,
    /// The directive that says how long nginx waits between two reads, and for how long that is (ms); none outside of `http`.
    pub read_timeout: Option<(String, u64)>,
    /// The file that it stands in.
    pub file: Arc<Path>,
    /// The line that it begins at.
    pub line: u32,
}

/// All that pass requests on, in order. `http` and `stream` have groups of their own.
pub(crate) fn passes(configuration: &Configuration) -> Vec<Pass> {
    let mut found = Vec::new();
    let blocks = configuration.directives.iter();
    for block in blocks.filter(|block| ["http", "stream"].contains(&block.name())) {
        let groups = block.inside().iter().filter(|directive| directive.name() == "upstream");
        let walk = Walk { groups: groups.collect(), is_http: block.name() == "http" };
        walk.block(block, &BTreeMap::new(), &mut found);
    }
    found
}

struct Walk<'a> {
    groups: Vec<&'a Directive>,
    is_http: bool,
}

impl<'a> Walk<'a> {
    /// What is set in a block holds for those in it, too, wherever in the block it stands.
    fn block(&self, block: &'a Directive, around: &BTreeMap<&'a str, Option<u64>>, found: &mut Vec<Pass>) {
        let mut timeouts = around.clone();
        for directive in block.inside().iter().filter(|inner| inner.name().ends_with("_read_timeout")) {
            timeouts.insert(directive.name(), directive.words.get(1).and_then(|word| milliseconds(word)));
        }
        for directive in block.inside() {
            found.extend(self.pass(directive, &timeouts));
            if directive.name() != "upstream" {
                self.block(directive, &timeouts, found);
            }
        }
    }

    fn pass(&self, directive: &Directive, timeouts: &BTreeMap<&str, Option<u64>>) -> Option<Pass> {
        let (_, port) = PASSES.iter().find(|(name, _)| *name == directive.name())?;
        let target = directive.words.get(1)?;
        let (mut places, mut unresolved) = (Vec::new(), None);
        match destination(target, *port) {
            None => unresolved = Some(target.clone()),
            Some((host, at)) => match self.group(&host) {
                Some(servers) => {
                    let addresses = servers.filter_map(|server| server.words.get(1));
                    for address in addresses {
                        locate(address, place(address, 80), &mut places, &mut unresolved);
                    }
                }
                None => locate(&host, at, &mut places, &mut unresolved),
            },
        }
        let read_timeout = self.is_http.then(|| directive.name().replace("_pass", "_read_timeout"));
        let read_timeout = read_timeout.and_then(|name| {
            let ms = timeouts.get(name.as_str()).copied().unwrap_or(Some(DEFAULT_READ_TIMEOUT_MS))?;
            Some((name, ms))
        });
        Some(Pass {
            directive: directive.name().to_owned(),
            places,
            unresolved,
            read_timeout,
            file: Arc::clone(&directive.file),
            line: directive.line,
        })
    }

    /// The servers of the group that has this name.
    fn group(&self, name: &str) -> Option<impl Iterator<Item = &'a Directive> + use<'a>> {
        let group = self.groups.iter().find(|group| group.words.get(1).is_some_and(|word| word == name))?;
        Some(group.inside().iter().filter(|directive| directive.name() == "server"))
    }
}

fn locate(host: &str, place: Place, places: &mut Vec<Upstream>, unresolved: &mut Option<String>) {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    match place {
        Place::At(upstream) => places.push(upstream),
        Place::Named(port) if name == LOCALHOST => {
            let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            places.extend(both.map(|ip| Upstream::Inet(SocketAddr::new(ip, port))));
        }
        Place::Named(_) => *unresolved = unresolved.take().or_else(|| Some(host.to_owned())),
    }
}

/// A time in milliseconds; a number alone is in seconds (`ngx_parse_time`, src/core/ngx_parse.c).
fn milliseconds(text: &str) -> Option<u64> {
    match text.strip_suffix("ms") {
        Some(number) => number.parse().ok(),
        None => Some(u64::from(seconds(text)?) * 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<(Vec<String>, Option<String>, Option<u64>)> {
        let passes = passes(&Configuration::of_text(text).unwrap());
        let places = |pass: &Pass| pass.places.iter().map(ToString::to_string).collect();
        passes
            .iter()
            .map(|pass| {
                (places(pass), pass.unresolved.clone(), pass.read_timeout.as_ref().map(|(_, ms)| *ms))
            })
            .collect()
    }

    fn to(places: &[&str], unresolved: Option<&str>, ms: u64) -> (Vec<String>, Option<String>, Option<u64>) {
        (places.iter().map(ToString::to_string).collect(), unresolved.map(str::to_owned), Some(ms))
    }

    #[test]
    fn each_pass_has_its_addresses_and_the_timeout_that_holds_for_it() {
        let text = "http { fastcgi_read_timeout 30s; upstream a { server 10.0.0.1:81; server unix:/run/a.sock; server php:9000; }\n\
                    server { location /a { fastcgi_pass a; } location /b { fastcgi_pass unix:/run/b.sock; fastcgi_read_timeout 1500ms; }\n\
                    location /c { proxy_pass http://localhost:8081/x; location /c/d { if ($x) { fastcgi_pass 127.0.0.1:9000; } }\n\
                    fastcgi_read_timeout 2m; } location /e { proxy_pass https://$host; } } }";
        assert_eq!(
            of(text),
            [
                to(&["10.0.0.1:81", "/run/a.sock"], Some("php:9000"), 30_000),
                to(&["/run/b.sock"], None, 1_500),
                to(&["127.0.0.1:8081", "[::1]:8081"], None, 60_000),
                to(&["127.0.0.1:9000"], None, 120_000),
                to(&[], Some("https://$host"), 60_000),
            ]
        );
    }

    #[test]
    fn of_streams_and_of_times_that_are_none_no_timeout_is_known() {
        let stream = of("stream { upstream a { server 10.0.0.1:5432; } server { listen 1; proxy_pass a; } }");
        assert_eq!(stream, [(vec!["10.0.0.1:5432".to_owned()], None, None)]);
        let odd =
            of("http { server { location / { proxy_read_timeout soon; proxy_pass http://10.0.0.1; } } }");
        assert_eq!(odd, [(vec!["10.0.0.1:80".to_owned()], None, None)]);
    }
}
