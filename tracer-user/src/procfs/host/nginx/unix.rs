//! Whether a configuration makes nginx connect to unix sockets.

use super::{Configuration, Directive};

/// How nginx writes the address of one (`ngx_parse_unix_domain_url`, src/core/ngx_inet.c).
const ADDRESS: &str = "unix:";

/// Directives that name one as something else than an upstream: where nginx listens, whom it believes, where it logs.
const OTHERS: [&str; 6] = ["access_log", "allow", "deny", "error_log", "listen", "set_real_ip_from"];

impl Configuration {
    /// Whether some directive may name a unix socket as an upstream: `server` and every `*_pass`, and whatever gives variables their
    /// values, be it the entries of a `map`.
    pub(crate) fn names_unix_upstreams(&self) -> bool {
        any(&self.directives)
    }
}

fn any(directives: &[Directive]) -> bool {
    directives.iter().any(|directive| {
        let names = || directive.words.iter().skip(1).any(|word| word.contains(ADDRESS));
        !OTHERS.contains(&directive.name()) && names() || any(directive.inside())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_sockets_that_are_no_upstreams_do_not_count() {
        for text in [
            "http { upstream a { server unix:/run/a.sock weight=2; } }",
            "http { server { location / { fastcgi_pass unix:/run/a.sock; } } }",
            "http { server { location / { if ($a) { proxy_pass http://unix:/run/a.sock:/b; } } } }",
            "http { server { set $a 'unix:/run/a.sock'; location / { uwsgi_pass $a; } } }",
            "http { map $host $a { default unix:/run/a.sock; } }",
            "stream { server { listen 1; proxy_pass unix:/run/a.sock; } }",
        ] {
            assert!(Configuration::of_text(text).unwrap().names_unix_upstreams(), "{text}");
        }
        let others = "error_log syslog:server=unix:/dev/log; http { access_log syslog:server=unix:/dev/log; set_real_ip_from unix:; \
                      # proxy_pass unix:/a;\nserver { listen unix:/run/n.sock; allow unix:; location / { proxy_pass http://unix; } } }";
        assert!(!Configuration::of_text(others).unwrap().names_unix_upstreams());
    }
}
