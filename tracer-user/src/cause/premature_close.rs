//! `premature_close`: the upstream closed properly, before it had answered.

use tracer_ebpf::{nginx_flag, tcp_state};

use super::{Cause, Finding, nginx_says, signals, unknown};
use crate::{
    ledger::Joined,
    verdict::Confidence,
    words::{count, span},
};

const LINE: &str = "upstream prematurely closed connection while reading response header from upstream";

pub(super) fn judge(exchange: &Joined) -> Option<Finding> {
    // Closing with bytes unread enters CLOSE instead: then nginx did not want them. So does a reset that answers what nginx still sent;
    // it reads the end of the stream all the same, and never asks for the error.
    let nginx = &exchange.nginx;
    let read_the_end = nginx.new_state == tcp_state::LAST_ACK
        || nginx.new_state == tcp_state::CLOSE && exchange.has(nginx_flag::END_READ) && nginx.unread == 0;
    let is_another = exchange.timer_went_off();
    if nginx.old_state != tcp_state::CLOSE_WAIT || !read_the_end || nginx.error != 0 || is_another {
        return None;
    }
    let is_answered = nginx_says::is_answered(exchange);
    let after = span(exchange.lasted_ns());
    let upstream = exchange.upstream();
    let Some(worker) = &exchange.worker else {
        if is_answered {
            return None;
        }
        return Some(Finding {
            error_log: Some(LINE.to_owned()),
            ..Finding::inferred(
                Cause::PrematurePeerClosed,
                format!(
                    "{upstream} closed the connection {after} into the exchange without an answer; its end is not on this host."
                ),
                "the upstream's log, or why502 on its host.",
            )
        });
    };
    let name = signals::worker_in_words(worker);
    let died = worker.exiting != 0;
    // After bytes of a response, only a death by signal tells that it was not whole; and an idle connection fails no exchange.
    // nginx knows by the protocol, and says so.
    let is_whole = signals::died_of(worker).is_none() || !exchange.nginx_acted_at_once();
    if is_answered && is_whole && exchange.word().is_none() {
        return Some(Finding::well());
    }
    if worker.closer.tgid == 0 {
        return Some(Finding { error_log: Some(LINE.to_owned()), ..unknown::unseen(exchange) });
    }
    let finding = match signals::died_of(worker) {
        Some(signal) => Finding::proven(
            Cause::PrematureWorkerKilled,
            format!(
                "{} ended the {name}, {}, {after} into the exchange{}; the kernel closed its connection.",
                signals::name(signal),
                if nginx.first_sent_ns > worker.ended_ns {
                    "before nginx had sent the request"
                } else {
                    "which had read the whole request"
                },
                match signals::sender_in_words(worker) {
                    _ if signals::is_out_of_memory(worker) =>
                        ", sent by the kernel because memory had run out".to_owned(),
                    Some(sender) => format!(", sent by {}", sender.trim_end_matches(',')),
                    None => String::new(),
                }
            ),
            "who signals the upstream's workers, and its log.",
        ),
        None if died => Finding::proven(
            Cause::PrematureWorkerExited,
            format!(
                "The {name} exited {after} into the exchange, {}; the kernel closed its connection.",
                if is_answered { "in the middle of its response" } else { "before it had answered" }
            ),
            "the upstream's log: an exit in the code, or a limit such as pm.max_requests reached at the wrong moment.",
        ),
        None => Finding::proven(
            Cause::PrematurePeerClosed,
            format!(
                "The {name} closed the connection properly {after} into the exchange, without a byte of an answer."
            ),
            "the upstream's log for this request: it lives and chose to close.",
        ),
    };
    if !is_answered || exchange.word().is_some() {
        return Some(Finding { error_log: Some(LINE.to_owned()), ..finding });
    }
    // It may have died between its last byte and its close: then nginx has all that it wants.
    let explanation = format!(
        "{} Whether the {} that nginx had read by then were the whole response is not seen.",
        finding.explanation,
        count(exchange.nginx.received, "byte")
    );
    Some(Finding { confidence: Confidence::Inferred, explanation, ..finding })
}
