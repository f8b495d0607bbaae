//! From a joined exchange to its cause: a decision list, one file for each cause. Pure.

mod accept_queue_overflow;
mod client_abort;
mod client_error;
mod connect_timeout;
mod conntrack;
mod denied;
mod doing;
mod dropped;
mod errors;
mod evidence;
mod finding;
mod gone;
mod hop;
mod kernel_timeout;
mod local_error;
mod lost;
mod near;
mod nginx_exit;
mod nginx_says;
mod nobody_accepts;
mod not_attempted;
mod premature_close;
mod reached;
mod read_timeout;
mod refused;
mod rejected_response;
mod reset;
mod send_timeout;
mod sharers;
mod signals;
mod silence;
mod stale_keepalive;
mod stopped;
#[cfg(test)]
mod tests;
mod unheard;
mod unknown;
mod upgraded;
mod worker_outlived;

use crate::model::cause::Cause;
use finding::Finding;
pub use nginx_says::line;
use wire::{DropReason, nginx_flag};
pub use worker_outlived::worker_outlived;

use crate::{
    ledger::{Exchange, Said},
    model::{
        cgroup::Places,
        facts::Sources,
        groups::Outage,
        upstream::Upstream,
        verdict::{Bytes, Confidence, Delayed, Moments, Note, Queue, Verdict, Worker},
        words::{count, span},
    },
};

/// The decision list: the first that recognises an exchange names its cause. The order matters where two could:
/// what nginx decided for itself comes before what it met.
const LIST: &[fn(&Exchange) -> Option<Finding>] = &[
    nginx_exit::judge,
    upgraded::judge,
    nginx_says::judge,
    client_abort::judge,
    refused::judge,
    accept_queue_overflow::judge,
    local_error::judge,
    connect_timeout::judge,
    kernel_timeout::judge,
    stale_keepalive::judge,
    reset::judge,
    rejected_response::judge,
    premature_close::judge,
    send_timeout::judge,
    read_timeout::judge,
];

/// What an exchange came to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It failed.
    Failed(Box<Verdict>),
    /// It succeeded late.
    Delayed(Box<Delayed>),
    /// It ended well after all: nothing to emit.
    Succeeded,
    /// nginx ended it early and had nothing to say of it: no failure.
    EndedEarly,
}

/// Turns monotonic nanoseconds into nanoseconds since 1970.
pub trait WallClock {
    /// The moment `monotonic_ns` on the wall clock.
    fn unix_ns(&self, monotonic_ns: u64) -> i64;
}

/// What the exchanges' own records do not hold.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The wall clock.
    pub clock: &'a dyn WallClock,
    /// Which hook sees which fact.
    pub sources: &'a Sources,
    /// Whether records were lost, so that this exchange may not be whole.
    pub evidence_lost: bool,
    /// What the exchange before it came to, where one nginx asks another.
    pub outer: Option<Cause>,
}

/// Names the cause of one exchange.
pub fn attribute(exchange: &Exchange, context: &Context<'_>) -> Outcome {
    let evidence_lost = context.evidence_lost || exchange.has(nginx_flag::FACTS_LOST);
    let context = &Context { evidence_lost, ..*context };
    if exchange.has(nginx_flag::ENDED_WELL) {
        return Outcome::Delayed(Box::new(delayed(exchange, context.clock)));
    }
    // What was lost may have been nginx's word.
    let silence = if context.evidence_lost { None } else { silence::judge(exchange) };
    let is_ended_early =
        silence.as_ref().is_some_and(|finding| finding.cause.is_none()) && silence::is_early(exchange);
    let found = silence.or_else(|| LIST.iter().find_map(|judge| judge(exchange)));
    let is_recognised = found.is_some();
    let finding = match found {
        Some(finding) if context.evidence_lost && takes_lost_for_absent(exchange, &finding) => {
            // What nginx met is a fact all the same.
            Finding { errno: finding.errno, error_log: finding.error_log, ..unknown::judge(exchange, true) }
        }
        Some(finding) if takes_left_out_for_absent(exchange, &finding) => Finding {
            confidence: Confidence::Incomplete,
            errno: finding.errno,
            error_log: finding.error_log,
            ..unknown::left_out(exchange)
        },
        Some(finding) => finding,
        None => unknown::judge(exchange, context.evidence_lost),
    };
    let finding = match exchange.word() {
        // nginx says that it failed.
        Some(said) if !is_recognised || finding.cause.is_none() => nginx_says::quoted(exchange, said),
        // What it judged by cannot be read from the kernel's account, where it names no error.
        Some(said) if said.is_unreadable() && said.errno == 0 => nginx_says::quoted(exchange, said),
        _ => finding,
    };
    if finding.cause.is_none() {
        return if is_ended_early { Outcome::EndedEarly } else { Outcome::Succeeded };
    }
    // Which exchange a line of the log is about is a conclusion, too.
    let is_logged = exchange.word().is_some_and(Said::is_logged);
    let finding = if is_logged || unheard::is_inferred(exchange, &finding) {
        finding.at_most_inferred()
    } else {
        finding
    };
    Outcome::Failed(Box::new(verdict(exchange, context, finding)))
}

/// What nginx said of no exchange: of an upstream that it never connected to, or in a line of its log whose exchange is not known. `outage` is
/// what is known of a group without a live server.
pub fn attribute_word(said: &Said, outage: Option<Outage>, context: &Context<'_>) -> Verdict {
    let finding = if said.is_logged() && !said.is_of_no_connection() {
        nginx_says::of_line(said)
    } else {
        not_attempted::judge(said, outage.as_ref())
    };
    let finding = if said.is_logged() { finding.at_most_inferred() } else { finding };
    let Finding { cause, confidence, errno: _, error_log: _, explanation, advice } = finding;
    let reached = reached::of_word(said, cause);
    let cause = cause.unwrap_or(Cause::NginxSays);
    let line = line(said);
    let (group, servers) =
        outage.map_or_else(|| (None, Vec::new()), |outage| (outage.group.ok(), outage.servers));
    Verdict {
        unix_ns: context.clock.unix_ns(said.ns),
        cause,
        confidence: if context.evidence_lost { Confidence::Incomplete } else { confidence },
        nginx: said.nginx.clone(),
        local: None,
        upstream: match (group, said.peer()) {
            (Some(group), _) => Upstream::Named(group),
            (None, Some(peer)) if cause.cause() != "not_attempted" || matches!(peer, Upstream::Named(_)) => {
                peer
            }
            _ => Upstream::Named(said.subject.clone()),
        },
        request: None,
        status: cause.status().filter(|_| !said.is_of_session),
        errno: (said.errno != 0).then(|| errors::name(said.errno)),
        evidence: not_attempted::facts(said, &line, &servers, reached),
        error_log: Some(line),
        word: Some(nginx_says::word(said)),
        servers,
        outer: None,
        worker: None,
        killer: None,
        places: Places::default(),
        pressure: None,
        moments: Moments::default(),
        bytes: Bytes::default(),
        queue: None,
        kept: None,
        near: None,
        closed: None,
        holders: None,
        reached: reached.map(|reached| reached::of_verdict(reached, said.ns)),
        explanation,
        advice,
    }
}

/// What nginx said and what is no failure.
pub fn note(said: &Said, context: &Context<'_>) -> Note {
    Note {
        unix_ns: context.clock.unix_ns(said.ns),
        nginx: said.nginx.clone(),
        upstream: said.peer(),
        word: nginx_says::word(said),
        places: Places::default(),
        explanation: "A FastCGI application wrote to its standard error; what, nginx's error log says."
            .to_owned(),
    }
}

/// What hears nginx's word.
const WORDS: &str = "uprobe/ngx_log_error_core";

/// What has it where that is not heard.
const LOG: &str = "error_log";

/// Where a word comes from, as evidence names it.
fn source(said: &Said) -> &'static str {
    if said.is_logged() { LOG } else { WORDS }
}

/// Whether a finding follows from this host's not having the worker's end, which was lost: it must have been here.
fn takes_lost_for_absent(exchange: &Exchange, finding: &Finding) -> bool {
    let says_elsewhere = matches!(
        finding.cause,
        Some(Cause::TimeoutNoAnswer | Cause::ResetByRemote | Cause::PrematurePeerClosed)
    );
    let is_here = exchange.path.is_some() || exchange.is_to_own_address() || exchange.listener().is_some();
    says_elsewhere && exchange.worker.is_none() && is_here
}

/// Whether a finding follows from what is not known of a listener that may be there and found no room among those that are known. What
/// was seen to happen stands.
fn takes_left_out_for_absent(exchange: &Exchange, finding: &Finding) -> bool {
    exchange.has(nginx_flag::LISTENER_LEFT_OUT)
        && exchange.worker.is_none()
        && !exchange.is_on_kept_connection()
        && finding.cause.is_some()
        && finding.confidence != Confidence::Proven
}

/// Whether no status can be named: mostly, for the response had begun. nginx has most likely sent its status on then, but whether the
/// header was whole is not seen. What it was doing by its own word is what it began with: header and body may come in one read. Then it
/// closes its client, whom it would have answered.
fn is_cut_short(exchange: &Exchange, cause: Cause) -> bool {
    // What the client does wrong while the response is on its way, nginx refuses without another status; what it was doing, it calls by what
    // it did for the request.
    if cause.cause() == "client_error" && exchange.nginx.received > 0 {
        return true;
    }
    if exchange.word().is_some() {
        return nginx_says::has_begun(exchange)
            || exchange.nginx.received > 0 && exchange.nginx_answered_no_more();
    }
    // An upload that is cancelled is in nginx's access log by another status than what is cancelled later.
    let is_ended = matches!(cause, Cause::ClientCancelled | Cause::ClientHttp2Error);
    if is_ended && exchange.has(nginx_flag::REQUEST_UNDER_WAY) {
        return true;
    }
    exchange.nginx.received > 0
        && (matches!(cause.cause(), "reset" | "premature_close" | "kernel_timeout")
            || cause == Cause::ClientCancelled)
}

/// The line as nginx writes it: of what a module does with a connection of its own, it does not say "while".
fn as_logged(exchange: &Exchange, line: String) -> String {
    if !exchange.has(nginx_flag::OF_MODULE) || exchange.word().is_some() {
        return line;
    }
    match line.split_once(" while ") {
        Some((said, _)) => said.to_owned(),
        None => line,
    }
}

fn verdict(exchange: &Exchange, context: &Context<'_>, finding: Finding) -> Verdict {
    let nginx = &exchange.nginx;
    let worker = exchange.worker.as_ref();
    let Finding { cause, confidence, errno, error_log, explanation, advice } = finding;
    let reached = reached::of(exchange, cause);
    let cause = cause.unwrap_or(Cause::NotEnoughFacts);
    let lacks_facts = context.evidence_lost
        || worker.is_some_and(signals::is_lost)
        || stopped::may_have_been_told(exchange, cause);
    let dead = gone::or_worker(exchange);
    let stop = worker.filter(|_| cause.detail() == "worker_stopped");
    let stop = stop.and_then(|worker| stopped::of(exchange, worker));
    Verdict {
        unix_ns: context.clock.unix_ns(nginx.ended_ns),
        cause,
        confidence: if lacks_facts { Confidence::Incomplete } else { confidence },
        nginx: crate::model::from_wire::process(&nginx.nginx),
        local: exchange.local(),
        upstream: exchange.upstream(),
        request: exchange.request,
        status: cause.status().filter(|_| exchange.has_request() && !is_cut_short(exchange, cause)),
        errno: errno
            .or_else(|| exchange.word().filter(|said| said.errno != 0).map(|said| errors::name(said.errno))),
        error_log: exchange.word().map(line).or(error_log).map(|line| as_logged(exchange, line)),
        word: exchange.word().map(nginx_says::word),
        servers: Vec::new(),
        outer: exchange.outer.as_ref().map(hop::outer),
        worker: signals::worker(exchange).map(|process| Worker {
            process,
            signal: match &stop {
                Some(stop) => stop.signal(),
                None => dead.as_ref().and_then(signals::died_of).map(signals::name),
            },
            doing: doing::found(exchange),
        }),
        killer: match &stop {
            Some(stop) => stop.sender(),
            None => dead.as_ref().and_then(signals::killer),
        },
        places: Places::default(),
        pressure: None,
        moments: Moments {
            connected: exchange.us(nginx.established_ns),
            accepted: worker.and_then(|worker| exchange.us(worker.accepted_ns)),
            first_sent: exchange.us(nginx.first_sent_ns),
            first_received: exchange.us(nginx.first_received_ns),
            ended: exchange.us(nginx.ended_ns),
            worker_ended: worker.and_then(|worker| exchange.us(worker.ended_ns)),
        },
        bytes: Bytes { sent: nginx.sent, received: nginx.received, unread: exchange.unread_by_worker() },
        queue: exchange.listener().map(|view| Queue { depth: view.depth, limit: view.limit }),
        kept: stale_keepalive::kept(exchange, cause),
        near: exchange.near.as_ref().map(|near| near.neighbours.clone()),
        closed: near::closed(exchange),
        holders: nobody_accepts::holders(exchange, cause),
        reached: reached.map(|reached| reached::of_verdict(reached, exchange.began_ns())),
        evidence: evidence::of(exchange, reached, context.sources),
        explanation: hop::with(explanation, exchange, context.outer),
        advice,
    }
}

fn delayed(exchange: &Exchange, clock: &dyn WallClock) -> Delayed {
    let nginx = &exchange.nginx;
    let delay_ns = nginx.established_ns.saturating_sub(nginx.connect_ns);
    let queue = exchange.listener().map(|_| &nginx.listener_first);
    let why = match (queue, exchange.dropped()) {
        (Some(view), _) if view.depth > view.limit => " because the accept queue was full".to_owned(),
        (_, Some(DropReason::Netfilter)) => {
            ", dropped by a netfilter rule or a full table of connections of this host".to_owned()
        }
        (_, Some(DropReason::ReversePath)) => ", dropped by reverse path filtering on this host".to_owned(),
        (_, Some(reason)) if let Some(by) = dropped::by(reason) => {
            format!(", dropped on this host by {by} ({})", reason.kernel_name())
        }
        _ => String::new(),
    };
    Delayed {
        unix_ns: clock.unix_ns(nginx.ended_ns),
        nginx: crate::model::from_wire::process(&nginx.nginx),
        upstream: exchange.upstream(),
        delay_us: delay_ns / 1_000,
        syn_retransmits: nginx.syn_retransmits,
        queue: queue.map(|view| Queue { depth: view.depth, limit: view.limit }),
        places: Places::default(),
        pressure: None,
        explanation: format!(
            "The exchange succeeded, but connecting took {}: {} went unanswered{why}.",
            span(delay_ns),
            count(u64::from(nginx.syn_retransmits), "SYN"),
        ),
    }
}
