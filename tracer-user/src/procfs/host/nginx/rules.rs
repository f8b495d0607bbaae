//! Which directives of nginx's own answer a request with an error status, without an upstream.

use std::collections::BTreeSet;

use super::{Configuration, Directive};
use crate::model::answers::Kind;

/// A directive that limits, the one that says what whoever is limited is answered, and the one that makes it only say so.
const LIMITS: [(Kind, &str, &str, &str); 2] = [
    (Kind::LimitReq, "limit_req", "limit_req_status", "limit_req_dry_run"),
    (Kind::LimitConn, "limit_conn", "limit_conn_status", "limit_conn_dry_run"),
];

/// What they answer unless told otherwise (`ngx_http_limit_req_merge_conf`, src/http/modules/ngx_http_limit_req_module.c; the same in
/// ngx_http_limit_conn_module.c).
const LIMITED: u16 = 503;

/// Modules that nginx itself has and that may be built apart: with another one loaded, any status may come from that.
const OWN_MODULES: [&str; 8] = [
    "ngx_http_geoip_module",
    "ngx_http_image_filter_module",
    "ngx_http_xslt_filter_module",
    "ngx_http_js_module",
    "ngx_http_perl_module",
    "ngx_stream_module",
    "ngx_stream_geoip_module",
    "ngx_mail_module",
];

/// Where words stand that are no directives.
const TABLES: [&str; 4] = ["map", "geo", "types", "split_clients"];

/// What may give each status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    given: BTreeSet<(u16, Kind)>,
    /// Statuses that something else may give, too.
    others: BTreeSet<u16>,
    /// Any status may come from what is not understood.
    is_open: bool,
}

impl Rules {
    /// The only rule that gives this status; none where several do, or something else may.
    pub(crate) fn only(&self, status: u16) -> Option<Kind> {
        if self.is_open || self.others.contains(&status) {
            return None;
        }
        let mut kinds = self.given.iter().filter(|(given, _)| *given == status).map(|(_, kind)| *kind);
        let only = kinds.next()?;
        kinds.next().is_none().then_some(only)
    }
}

/// What a configuration says of it.
pub(crate) fn rules(configuration: &Configuration) -> Rules {
    let mut rules = Rules { is_open: configuration.gaps.sentence().is_some(), ..Rules::default() };
    for directive in &configuration.directives {
        match directive.name() {
            "load_module" => {
                let file = directive.words.get(1).map_or("", String::as_str);
                rules.is_open |= !OWN_MODULES.iter().any(|own| file.ends_with(&format!("{own}.so")));
            }
            "http" => walk(directive, &mut rules),
            _ => {}
        }
    }
    rules
}

fn walk(block: &Directive, rules: &mut Rules) {
    for directive in block.inside() {
        let name = directive.name();
        if TABLES.contains(&name) {
            continue;
        }
        // A script answers as it likes.
        rules.is_open |= name.contains("lua") || name.starts_with("js_") || name.starts_with("perl");
        let number = |word: &String| word.parse::<u16>().ok();
        let value = directive.words.get(1);
        for (kind, limits, says, dry) in LIMITS {
            if name == limits {
                rules.given.insert((LIMITED, kind));
            } else if name == says {
                let status = value.and_then(number);
                rules.is_open |= status.is_none();
                rules.given.extend(status.map(|status| (status, kind)));
            } else if name == dry {
                rules.is_open |= value.is_none_or(|value| value != "off");
            }
        }
        match name {
            "return" => rules.given.extend(value.and_then(number).map(|status| (status, Kind::Return))),
            "error_page" | "try_files" => {
                let replaced = directive.words.iter().filter_map(|word| word.strip_prefix('='));
                rules.others.extend(replaced.filter_map(|word| word.parse::<u16>().ok()));
            }
            _ => {}
        }
        walk(directive, rules);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str, status: u16) -> Option<Kind> {
        rules(&Configuration::of_text(text).unwrap()).only(status)
    }

    #[test]
    fn a_status_that_one_directive_alone_gives_is_its() {
        let limit =
            "http { limit_req_zone $uri zone=a:1m rate=1r/s; server { location / { limit_req zone=a; } } }";
        assert_eq!(only(limit, 503), Some(Kind::LimitReq));
        assert_eq!(only(limit, 502), None);
        assert_eq!(only("http { server { limit_conn a 1; } }", 503), Some(Kind::LimitConn));
        assert_eq!(
            only("http { limit_conn_status 502; server { limit_conn a 1; } }", 502),
            Some(Kind::LimitConn)
        );
        assert_eq!(only("http { server { if ($a) { return 503 busy; } } }", 503), Some(Kind::Return));
        assert_eq!(only("http { map $a $b { return 503; } server { return 302 /x; } }", 503), None);
    }

    #[test]
    fn what_else_may_give_it_makes_it_nobodys() {
        for more in [
            "server { return 503; }",
            "server { limit_conn a 1; }",
            "server { error_page 404 =503 /x; }",
            "server { location / { try_files $uri =503; } }",
            "server { location / { content_by_lua_block { ngx.exit(503) } } }",
            "server { limit_req_dry_run on; }",
        ] {
            assert_eq!(
                only(&format!("http {{ server {{ limit_req zone=a; }} {more} }}"), 503),
                None,
                "{more}"
            );
        }
        let limit = "http { server { limit_req zone=a; } }";
        assert_eq!(only(&format!("load_module modules/ngx_http_waf_module.so; {limit}"), 503), None);
        assert_eq!(
            only(&format!("load_module modules/ngx_http_geoip_module.so; {limit}"), 503),
            Some(Kind::LimitReq)
        );
        assert_eq!(only(&format!("include /nowhere/at.conf; {limit}"), 503), None);
    }
}
