//! Where a configuration lets nginx log requests, and in which format.

use std::{collections::BTreeMap, ffi::OsString, path::Path};

use super::{Configuration, Directive};
use crate::procfs::host::nginx::log_format::COMBINED;

/// Directives that name a log of requests.
const ACCESS_LOG: &str = "access_log";

/// The name of the format that a log has unless it names another one.
const DEFAULT: &str = "combined";

/// One that exists without being named (`ngx_http_log_init`, src/http/modules/ngx_http_log_module.c): the file is compiled in.
const COMPILED_IN: &str = "access.log";

/// An `access_log` to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessLog {
    /// The last part of its path.
    pub name: OsString,
    /// Its format; none where that is not known, or where what clients send stands in it as they sent it (`escape=none`).
    pub format: Option<String>,
}

/// The logs of requests in `http`, each file and format once. Sessions of `stream` have no such statuses.
pub(crate) fn access_logs(configuration: &Configuration) -> Vec<AccessLog> {
    let mut found = Vec::new();
    for http in configuration.directives.iter().filter(|block| block.name() == "http") {
        let formats = http.inside().iter().filter(|directive| directive.name() == "log_format");
        let mut formats: BTreeMap<&str, Option<String>> = formats.filter_map(format).collect();
        formats.entry(DEFAULT).or_insert_with(|| Some(COMBINED.to_owned()));
        let default = formats.get(DEFAULT).cloned().flatten();
        found.push(AccessLog { name: COMPILED_IN.into(), format: default });
        walk(http, &formats, &mut found);
    }
    let mut once: Vec<AccessLog> = Vec::new();
    for log in found {
        if !once.contains(&log) {
            once.push(log);
        }
    }
    once
}

fn walk(block: &Directive, formats: &BTreeMap<&str, Option<String>>, found: &mut Vec<AccessLog>) {
    for directive in block.inside() {
        let path = directive.words.get(1).filter(|_| directive.name() == ACCESS_LOG);
        // Of `off` and of a variable in it no file is known; and what goes to syslog is none.
        let is_file = |path: &&String| *path != "off" && !path.contains('$') && !path.starts_with("syslog:");
        if let Some(name) = path.filter(is_file).and_then(|path| Path::new(path).file_name()) {
            let named = directive.words.get(2).filter(|word| !word.contains('='));
            let format = formats.get(named.map_or(DEFAULT, String::as_str)).cloned().flatten();
            found.push(AccessLog { name: name.to_owned(), format });
        }
        walk(directive, formats, found);
    }
}

fn format(directive: &Directive) -> Option<(&str, Option<String>)> {
    let [_, name, parts @ ..] = &directive.words[..] else { return None };
    let is_escape = |part: &&String| part.starts_with("escape=");
    let is_raw = parts.first().is_some_and(|part| part == "escape=none");
    let text: String = parts.iter().skip_while(is_escape).map(String::as_str).collect();
    Some((name, (!is_raw).then_some(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_log_has_the_format_that_it_names() {
        let text = "http { log_format a escape=json '$status ' '$upstream_status'; log_format raw escape=none '$uri $status'; access_log logs/a.log a;\n\
                    server { access_log /var/log/nginx/b.log; access_log /x/c.log raw buffer=4k; access_log syslog:server=127.0.0.1 a;\n\
                    location / { access_log off; } location /d { access_log /x/$host.log a; access_log /x/d.log buffer=1k; } } }\n\
                    stream { access_log /x/e.log; }";
        let found = access_logs(&Configuration::of_text(text).unwrap());
        let log = |name: &str, format: Option<&str>| AccessLog {
            name: name.into(),
            format: format.map(str::to_owned),
        };
        assert_eq!(
            found,
            [
                log("access.log", Some(COMBINED)),
                log("a.log", Some("$status $upstream_status")),
                log("b.log", Some(COMBINED)),
                log("c.log", None),
                log("d.log", Some(COMBINED)),
            ]
        );
    }
}
