//! `not_attempted`, and what else nginx says of no connection: it had nobody to ask, or no means to.

use super::{Cause, Finding, nginx_says, reached::Reached, refused, source};
use crate::{
    ledger::Said,
    model::{
        groups::{DEFAULT_FAIL_TIMEOUT_S, Outage, Unnamed},
        verdict::{Evidence, Limits, OutOfUse},
        words::span,
    },
};

const ENFILE: u32 = 23;
const EMFILE: u32 = 24;

/// What nginx's configuration says stands in evidence under this name.
const CONFIGURATION: &str = "nginx's configuration";

/// What a word of no connection comes to. `outage` is what is known of a group without a live server.
pub(super) fn judge(said: &Said, outage: Option<&Outage>) -> Finding {
    let is = |beginning: &str| said.format.starts_with(beginning);
    if let Some(outage) = outage {
        no_live_upstreams(outage, said.group())
    } else if said.is_of_name() || is("no resol") {
        unresolved(said)
    } else if is("socket()") && matches!(said.errno, EMFILE | ENFILE) {
        Finding::proven(
            Cause::TooManyOpenFiles,
            "nginx could not make a socket for the upstream: its worker has as many open files as it may have.",
            "worker_rlimit_nofile, which must be larger than twice worker_connections, and who holds the files.",
        )
    } else if is("%ui work") {
        Finding::proven(
            Cause::WorkerConnections,
            format!(
                "nginx could not connect to the upstream: all of its worker's {} connections are in use.",
                said.number
            ),
            "worker_connections: clients and upstreams count, each. Then what holds them: keepalive_timeout, slow upstreams.",
        )
    } else if nginx_says::CERTIFICATE.iter().any(|beginning| is(beginning)) {
        let sentence = nginx_says::own_certificate(said);
        Finding::proven(Cause::LocalCertificate, sentence, nginx_says::CERTIFICATE_ADVICE)
    } else if said.is_of_connect()
        && let Some(refused) = said.peer().and_then(|peer| refused::at_once(&peer, said))
    {
        refused
    } else {
        Finding::inferred(
            Cause::NginxSays,
            format!(
                "nginx said of an upstream: {}. No exchange that was seen belongs to it.",
                nginx_says::line(said)
            ),
            "nginx's error log for this moment.",
        )
    }
}

/// The facts under it: what nginx says, and what took the servers out before.
pub(super) fn facts(
    said: &Said,
    line: &str,
    servers: &[OutOfUse],
    reached: Option<Reached>,
) -> Vec<Evidence> {
    let of_server = |server: &OutOfUse| {
        let OutOfUse { upstream, failed, limits, is_down } = server;
        // What is not watched is no fact.
        let is_known = failed.is_some() || *is_down || limits.is_some();
        is_known.then(|| match failed {
            Some(failed) => Evidence {
                us: i64::try_from(failed.ago_ns / 1_000).map_or(i64::MIN, |us| -us),
                source: "verdict".to_owned(),
                fact: format!("the exchange with {upstream} failed: {}", failed.cause),
            },
            None => Evidence {
                us: 0,
                source: CONFIGURATION.to_owned(),
                fact: format!("{upstream} {}", if *is_down { "is marked down" } else { "has max_conns" }),
            },
        })
    };
    let mut facts: Vec<_> = servers.iter().filter_map(of_server).collect();
    facts.extend(reached.map(|reached| reached.evidence(said.ns)));
    let source = source(said).to_owned();
    facts.push(Evidence { us: 0, source, fact: format!("nginx {} says: {line}", said.nginx.pid) });
    facts.sort_by_key(|fact| fact.us);
    facts
}

fn no_live_upstreams(outage: &Outage, named: Option<&str>) -> Finding {
    let Outage { group, is_sure, servers, more } = outage;
    let mut said: Vec<_> = servers.iter().map(in_words).collect();
    if *more > 0 {
        said.push(format!("{more} more"));
    }
    let said = said.join("; ");
    let advice = "the failures before this one: they took the servers out. max_fails and fail_timeout of the group's servers say when, \
                  and for how long.";
    let why = match group {
        Ok(group) => {
            let sentence =
                format!("nginx asked nobody, for it left each server of the group {group} alone: {said}.");
            return if *is_sure {
                Finding::proven(Cause::NoLiveUpstreams, sentence, advice)
            } else {
                let rule = "Of the groups in its configuration this is the only one all of whose servers are known to have failed.";
                Finding::inferred(Cause::NoLiveUpstreams, format!("{sentence} {rule}"), advice)
            };
        }
        Err(Unnamed::Unread(why)) => format!("for its configuration was not read: {why}"),
        Err(Unnamed::NoneFits) => {
            "for no group of its configuration has only servers that are known to have failed".to_owned()
        }
        Err(Unnamed::SeveralFit) => {
            "for several groups of its configuration have only servers that have failed".to_owned()
        }
    };
    let lately = match said.is_empty() {
        true => format!(
            "Within {DEFAULT_FAIL_TIMEOUT_S} s before, no exchange of this worker's was seen to fail."
        ),
        false => format!(
            "Within {DEFAULT_FAIL_TIMEOUT_S} s before (nginx's default for fail_timeout), this worker had failed with {said}."
        ),
    };
    let (group, unknown) = match named {
        Some(name) => (format!("the group {name}"), "What took each of them out"),
        None => ("a group".to_owned(), "Which group"),
    };
    Finding::proven(
        Cause::NoLiveUpstreams,
        format!(
            "nginx asked nobody, for it left each server of {group} alone, because of max_fails failures within fail_timeout (by \
             default 1 and 10 s), down or max_conns. {unknown} is not known, {why}. {lately}"
        ),
        advice,
    )
}

/// A server, what took it out, how long ago, and for how long.
fn in_words(server: &OutOfUse) -> String {
    let OutOfUse { upstream, failed, limits, is_down } = server;
    let what = match failed {
        Some(failed) => format!("{upstream}, {} before ({})", span(failed.ago_ns), failed.cause),
        None if *is_down => return format!("{upstream}, marked down"),
        None if limits.is_none() => return format!("{upstream}, which is not watched (-u)"),
        None => return format!("{upstream}, which may have max_conns connections"),
    };
    match limits {
        Some(Limits { max_fails: 1, fail_timeout_s }) => format!("{what}, for {fail_timeout_s} s from then"),
        // How often it had failed before nginx alone knows: what succeeds is not emitted.
        Some(Limits { max_fails, fail_timeout_s }) => {
            format!("{what}, max_fails={max_fails} fail_timeout={fail_timeout_s}s")
        }
        None => what,
    }
}

/// What became of the question, by the resolver's own number (src/core/ngx_resolver.h), and where to look.
const ANSWERS: [(i64, &str, &str); 6] = [
    (
        110,
        "no answer came within resolver_timeout (30 s unless it is set)",
        "whether the name server that the resolver directive names runs, and can be reached from nginx.",
    ),
    (
        3,
        "the name server says that there is no such name, or none with an address that nginx asked for",
        "how the name is spelt (nginx's resolver knows no search domains), and what the name server has for it.",
    ),
    (
        2,
        "the name server failed to find it out (server failure)",
        "the name server's own log: it cannot reach those that it asks, or does not believe them.",
    ),
    (
        5,
        "the name server refused to answer",
        "whether the name server that the resolver directive names serves nginx's host, and this name.",
    ),
    (1, "the name server did not understand the question (format error)", ODD_SERVER),
    (4, "the name server does not answer such questions (unimplemented)", ODD_SERVER),
];

const ODD_SERVER: &str =
    "what runs at the address that the resolver directive names: it speaks no ordinary DNS.";

fn unresolved(said: &Said) -> Finding {
    let name = match said.subject.as_str() {
        "" => "the upstream's name".to_owned(),
        name => format!("the name {name}"),
    };
    if !said.is_of_name() {
        return Finding::proven(
            Cause::Unresolved,
            format!("nginx asked nobody: it was to resolve {name}, and it knows no name server."),
            "the resolver directive: a name that stands in a variable is resolved while nginx runs, by the servers named there alone.",
        );
    }
    let known = ANSWERS.iter().find(|(number, ..)| *number == said.number);
    let (became, advice) = known.map_or_else(
        || {
            let became = format!("nginx says: {}", said.message());
            (
                became,
                "the resolver directive, and whether the name server that it names answers for this name.",
            )
        },
        |(_, became, advice)| ((*became).to_owned(), *advice),
    );
    Finding::proven(
        Cause::Unresolved,
        format!("nginx asked nobody, for it could not resolve {name}: {became}."),
        advice,
    )
}
