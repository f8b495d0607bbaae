//! What nginx's configuration asks for: `listen ... backlog=N`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
};

use procfs::process::Process;

use super::{Check, Configured, Scene};
use crate::verdict::Upstream;

/// `NGX_LISTEN_BACKLOG` on Linux (src/os/unix/ngx_linux_config.h).
const DEFAULT: i64 = 511;

/// What the configuration of each running nginx asks for, or a check that cannot be made because it cannot be read.
pub(super) fn configured(scene: &Scene<'_>) -> Vec<Result<Vec<Configured>, Check>> {
    let owners = scene.queues.iter().filter_map(|queue| queue.owner.as_ref());
    let masters: BTreeSet<u32> =
        owners.filter(|owner| owner.comm == scene.comm).map(|owner| owner.pid).collect();
    masters.into_iter().map(|pid| configured_by(pid, scene.comm)).collect()
}

fn configured_by(pid: u32, comm: &str) -> Result<Vec<Configured>, Check> {
    let by = format!("{comm} {pid}");
    let text = dump(pid).map_err(|reason| Check {
        claim: format!("{by} has the backlogs that it is configured with"),
        holds: None,
        figures: reason,
    })?;
    let listens = listens(&text).into_iter();
    Ok(listens.map(|(addr, backlog)| Configured { by: by.clone(), pid: Some(pid), addr, backlog }).collect())
}

/// The whole configuration of a running nginx, as `nginx -T` prints it when it is given the same arguments.
fn dump(pid: u32) -> Result<String, String> {
    let mounts = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    if mounts(&pid.to_string()) != mounts("self") {
        return Err("it runs in a container, where its configuration cannot be read from here".to_owned());
    }
    let process = Process::new(pid.cast_signed()).map_err(|error| error.to_string())?;
    // nginx sets its title to "nginx: master process " and its arguments.
    let title = process.cmdline().map_err(|error| error.to_string())?.join(" ");
    let arguments = title.split_once("master process").map_or("", |(_, arguments)| arguments);
    let exe = process.exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(exe);
    command.args(arguments.split_whitespace().skip(1)).args(["-T", "-q"]).stdin(Stdio::null());
    if let Ok(folder) = process.cwd() {
        command.current_dir(folder);
    }
    let output = command.output().map_err(|error| format!("`nginx -T` cannot be run: {error}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`nginx -T` fails: {}", complaint.lines().last().unwrap_or_default()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Each address of a `listen`, with its backlog. One of several that name the same address may set it.
fn listens(text: &str) -> BTreeMap<Upstream, i64> {
    let mut found: BTreeMap<Upstream, Option<i64>> = BTreeMap::new();
    for directive in
        directives(text).iter().filter(|words| words.first().is_some_and(|word| word == "listen"))
    {
        // Of UDP there is no queue; a name would have to be resolved as nginx did.
        let Some(addr) = directive.get(1).and_then(|word| address(word)) else { continue };
        if directive.iter().any(|word| word == "udp" || word == "quic") {
            continue;
        }
        let backlog = directive.iter().find_map(|word| word.strip_prefix("backlog=")?.parse().ok());
        let entry = found.entry(addr).or_default();
        *entry = backlog.or(*entry);
    }
    found.into_iter().map(|(addr, backlog)| (addr, backlog.unwrap_or(DEFAULT))).collect()
}

fn address(word: &str) -> Option<Upstream> {
    if let Some(path) = word.strip_prefix("unix:") {
        return Some(Upstream::Unix(path.into()));
    }
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let inet = if let Ok(port) = word.parse() {
        SocketAddr::new(any, port)
    } else if let Some(port) = word.strip_prefix("*:") {
        SocketAddr::new(any, port.parse().ok()?)
    } else if let Ok(ip) = word.trim_matches(['[', ']']).parse() {
        SocketAddr::new(ip, 80)
    } else {
        word.parse().ok()?
    };
    Some(Upstream::Inet(inet))
}

/// The directives of a configuration, each as its words; those that open a block, too.
fn directives(text: &str) -> Vec<Vec<String>> {
    let (mut all, mut words, mut word) = (Vec::new(), Vec::new(), String::new());
    let mut letters = text.chars();
    let mut quote = None;
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (_, '\\') => word.extend(letters.next()),
            (Some(open), _) if open == letter => quote = None,
            (Some(_), _) => word.push(letter),
            (None, '"' | '\'') => quote = Some(letter),
            (None, '#') if word.is_empty() => {
                letters.by_ref().find(|letter| *letter == '\n').map_or((), drop)
            }
            (None, ';' | '{' | '}') => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                all.push(std::mem::take(&mut words));
            }
            (None, letter) if letter.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (None, letter) => word.push(letter),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_listen_has_its_backlog_or_the_default() {
        let text = "http { # listen 1 backlog=9;\n log_format x '{;';\n server { listen 127.0.0.1:8080 backlog=1000; listen 80; }\n\
                    server { listen *:80 backlog=64 default_server; listen [::1]:81; listen unix:/run/n.sock backlog=7;\n\
                    listen 443 quic; listen example.org:82; } }";
        let found: Vec<(String, i64)> =
            listens(text).into_iter().map(|(addr, backlog)| (addr.to_string(), backlog)).collect();
        let expected = [("0.0.0.0:80", 64), ("127.0.0.1:8080", 1000), ("[::1]:81", 511), ("/run/n.sock", 7)];
        assert_eq!(found, expected.map(|(addr, backlog)| (addr.to_owned(), backlog)));
    }
}
