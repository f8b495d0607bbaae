//! What an nginx logs: `error_log FILE [LEVEL]`.

use super::{Configuration, Directive};

/// Those that do not let level error through (`ngx_log_set_levels`, src/core/ngx_log.c).
const DEAF: [&str; 3] = ["emerg", "alert", "crit"];

impl Configuration {
    /// Whether nginx says each error wherever it comes to it: no `error_log` of any block keeps back what is of level error, which is the
    /// default. None where not all of the configuration was read.
    pub fn says_errors(&self) -> Option<bool> {
        self.gaps.sentence().is_none().then(|| !self.directives.iter().any(keeps_errors))
    }
}

fn keeps_errors(directive: &Directive) -> bool {
    let is_deaf = directive.name() == "error_log"
        && directive.words.iter().skip(2).any(|level| DEAF.contains(&level.as_str()));
    is_deaf || directive.inside().iter().any(keeps_errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_log_above_error_in_any_block_keeps_errors_back() {
        for (text, says) in [
            ("events {}", true),
            ("error_log /crit; http { server { location / { error_log stderr info; } } }", true),
            ("error_log syslog:server=unix:/dev/log,nohostname; http { error_log off; }", true),
            ("error_log /x debug_http;", true),
            ("error_log /x crit;", false),
            ("error_log /x info; http { server { location / { if ($a) { } error_log /y alert; } } }", false),
        ] {
            assert_eq!(Configuration::of_text(text).unwrap().says_errors(), Some(says), "{text}");
        }
        let gap = Configuration::of_text("include /nowhere/at.conf; error_log /x info;").unwrap();
        assert_eq!(gap.says_errors(), None);
    }
}
