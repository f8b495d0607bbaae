//! `read_timeout`: nginx stopped waiting for the response.

use wire::{WorkerEnd, nginx_flag};

use super::{Cause, Finding, doing, gone, lost, nginx_says, nobody_accepts, sharers, signals};
use crate::{
    ledger::Exchange,
    model::{
        verdict::Confidence,
        words::{count, sentence, span},
    },
};

const HEADER: &str =
    "upstream timed out (110: Connection timed out) while reading response header from upstream";
const SENDING: &str = "upstream timed out (110: Connection timed out) while sending request to upstream";
const BODY: &str = "upstream timed out (110: Connection timed out) while reading upstream";

pub(super) fn judge(exchange: &Exchange) -> Option<Finding> {
    let gave_up = exchange.is_connected() && exchange.nginx_closed_first() && exchange.nginx.sent > 0;
    if !gave_up {
        return None;
    }
    if nginx_says::is_answered(exchange) {
        return stalled(exchange);
    }
    // Where something of a response had come and nginx had not read it, the worker had answered: nginx itself was late.
    let is_late = exchange.nginx.unread > 0;
    if !exchange.nginx_gave_up() || exchange.arrived() > 0 && (is_late || exchange.word().is_none()) {
        return None;
    }
    let finding = match &exchange.worker {
        Some(worker) if is_undelivered(exchange, worker) => undelivered(exchange),
        Some(worker) if !exchange.was_accepted() => {
            nobody_accepts::timeout(exchange, worker.created_ns, &waited(exchange))
                .unwrap_or_else(|| sharers::add(exchange, never_accepted(exchange, worker)))
        }
        Some(worker) if worker.arrived == 0 && exchange.nginx.unacked > 0 => unacked(exchange),
        Some(worker) => answer_lost(exchange)
            .or_else(|| gone::timeout(exchange, &waited(exchange)))
            .unwrap_or_else(|| slow_worker(exchange, worker)),
        None => answer_lost(exchange).unwrap_or_else(|| match exchange.nginx.unacked {
            0 => no_answer(exchange),
            _ => unacked(exchange),
        }),
    };
    Some(match (exchange.has(nginx_flag::SEND_BLOCKED), &exchange.path) {
        (false, _) => finding.logged("ETIMEDOUT", HEADER),
        (true, None) => finding.logged("ETIMEDOUT", SENDING),
        // Whether all of the request could be sent later is not seen.
        (true, Some(_)) => finding.met("ETIMEDOUT"),
    })
}

/// Whether what nginx sent did not arrive: the worker's end, which is on this host, has it not, though there is room.
fn is_undelivered(exchange: &Exchange, worker: &WorkerEnd) -> bool {
    let nginx = &exchange.nginx;
    let again = nginx.retransmits > nginx.syn_retransmits;
    let is_short = !exchange.is_on_kept_connection() && worker.arrived < nginx.sent;
    exchange.path.is_none() && nginx.unacked > 0 && worker.unread == 0 && (again || is_short)
}

/// How long nginx waited after it last sent.
fn waited(exchange: &Exchange) -> String {
    span(exchange.nginx.ended_ns.saturating_sub(exchange.nginx.last_sent_ns))
}

fn never_accepted(exchange: &Exchange, worker: &WorkerEnd) -> Finding {
    let queue =
        exchange.listener().map_or_else(String::new, |view| match u64::from(view.depth).saturating_sub(1) {
            0 => format!(" (backlog {}), first in line", view.limit),
            others => format!(" (backlog {}), with {} beside it", view.limit, count(others, "other")),
        });
    Finding::proven(
        Cause::TimeoutNeverAccepted,
        format!(
            "No worker ever took this request up: the connection waited {} in the accept queue of {}{queue}, until nginx \
             stopped waiting after {}.",
            span(exchange.nginx.ended_ns.saturating_sub(worker.created_ns)),
            exchange.upstream(),
            waited(exchange),
        ),
        format!(
            "{} The request still waits there and may be executed later, for nobody.",
            match exchange.holders() {
                Some(_) => "what keeps the workers busy, then pm.max_children: all of them were taken.",
                None =>
                    "what its workers do: busy (then pm.max_children), or not accepting. It could not be looked at in this moment.",
            }
        ),
    )
}

fn slow_worker(exchange: &Exchange, worker: &WorkerEnd) -> Finding {
    // What came before the response was TLS's: which of what nginx sent was the request, and when, is not seen.
    let is_over_tls = exchange.nginx.received > 0;
    let (queued, served) = if worker.accepted_ns == 0 || is_over_tls {
        (String::new(), String::new())
    } else if exchange.is_on_kept_connection() {
        (String::new(), format!(" It had it for {}.", span(exchange.lasted_ns())))
    } else {
        let queued = worker.accepted_ns.saturating_sub(worker.created_ns);
        let served = exchange.nginx.ended_ns.saturating_sub(worker.accepted_ns);
        (format!(" after {} in the accept queue", span(queued)), format!(" It had it for {}.", span(served)))
    };
    let name = if worker.accepted_ns == 0 {
        "a worker".to_owned()
    } else {
        format!("the {}", signals::worker_in_words(worker))
    };
    let what = if is_over_tls {
        format!(
            "nginx stopped waiting for the response to a request, which {name} took up{queued} and did not answer."
        )
    } else {
        format!(
            "nginx stopped waiting {} after it had sent the request, which {name} took up{queued} and did not answer.",
            waited(exchange)
        )
    };
    Finding::proven(
        Cause::TimeoutSlowWorker,
        format!("{what}{served}{}", doing::it(exchange)),
        format!(
            "{}. fastcgi_read_timeout or proxy_read_timeout is how long nginx waits.",
            doing::advice(exchange).unwrap_or_else(|| {
                "what this worker waited for or computed; request_slowlog_timeout shows it".to_owned()
            })
        ),
    )
}

/// Between two exchanges a kept-alive connection that nginx closes looks the same, but then nginx has nothing to do for a
/// client, and a server of this host closes in turn.
fn stalled(exchange: &Exchange) -> Option<Finding> {
    let nginx = &exchange.nginx;
    let is_said = exchange.timer_went_off();
    let lost = lost::of(exchange);
    let of_lost = lost.as_ref().map_or_else(String::new, |lost| format!(" {}.", sentence(&lost.what)));
    let acted = exchange.nginx_acted_at_once() && !exchange.worker_closed_in_turn();
    if !is_said && (!acted || !exchange.may_have_stalled()) {
        return exchange.may_have_stalled().then(Finding::well);
    }
    let confidence = if is_said { Confidence::Proven } else { Confidence::Inferred };
    Some(Finding {
        confidence,
        ..Finding::inferred(
            Cause::TimeoutStalledResponse,
            format!(
                "The response stalled: after {} nothing more came for {}, and nginx stopped waiting. The client saw the \
                 status it had been sent already, and a body cut short.{of_lost}{}",
                count(nginx.received, "byte"),
                span(nginx.ended_ns.saturating_sub(nginx.last_received_ns)),
                doing::the_worker(exchange),
            ),
            lost.map_or(
                "what the worker did in the middle of its output; then fastcgi_read_timeout or proxy_read_timeout.",
                |lost| lost.advice,
            ),
        )
        .logged("ETIMEDOUT", BODY)
    })
}

fn undelivered(exchange: &Exchange) -> Finding {
    Finding::proven(
        Cause::TimeoutUnacked,
        format!(
            "{} that nginx sent to {} never arrived at its socket, though both are on this host: {} in {}.",
            count(u64::from(exchange.nginx.unacked), "byte"),
            exchange.upstream(),
            count(u64::from(exchange.nginx.retransmits - exchange.nginx.syn_retransmits), "retransmission"),
            waited(exchange),
        ),
        "firewall rules between nginx and the upstream that drop packets of established connections: `nft list ruleset`.",
    )
}

fn unacked(exchange: &Exchange) -> Finding {
    Finding::inferred(
        Cause::TimeoutUnacked,
        format!(
            "{} stopped acknowledging: {} that nginx sent were never confirmed in {}, after {}.",
            exchange.upstream(),
            count(u64::from(exchange.nginx.unacked), "byte"),
            waited(exchange),
            count(u64::from(exchange.nginx.retransmits), "retransmission"),
        ),
        "the network between nginx and the upstream, and whether the upstream's host went away.",
    )
}

/// The upstream answered, or its host sent something, and nginx's socket had none of it to give.
fn answer_lost(exchange: &Exchange) -> Option<Finding> {
    let lost = lost::of(exchange)?;
    Some(Finding {
        confidence: lost.confidence,
        ..Finding::inferred(
            Cause::TimeoutAnswerLost,
            format!(
                "What {} sent did not come to nginx, which stopped waiting {} after it had sent the request: {}.",
                exchange.upstream(),
                waited(exchange),
                lost.what
            ),
            lost.advice,
        )
    })
}

fn no_answer(exchange: &Exchange) -> Finding {
    Finding::inferred(
        Cause::TimeoutNoAnswer,
        format!(
            "The host of {} acknowledged the whole request and then sent nothing for {}. Its end is not on this host, so \
             whether a worker ever had the request is not seen here.",
            exchange.upstream(),
            waited(exchange),
        ),
        "the upstream's workers and its accept queue: why502 on its host tells them apart.",
    )
}
