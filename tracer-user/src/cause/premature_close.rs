//! `premature_close`: the upstream closed properly, before it had answered.

use wire::{WorkerEnd, nginx_flag, tcp_state};

use super::{Cause, Finding, gone, nginx_says, signals, stopped, unknown};
use crate::{
    ledger::Exchange,
    model::{
        verdict::Confidence,
        words::{count, span},
    },
};

const LINE: &str = "upstream prematurely closed connection while reading response header from upstream";

pub(super) fn judge(exchange: &Exchange) -> Option<Finding> {
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
    // After bytes of a response, only a death by signal shows that it was not whole; and an idle connection fails no exchange.
    // nginx knows by the protocol, and says so.
    let has_died = gone::or_worker(exchange).is_some_and(|worker| signals::died_of(&worker).is_some());
    let is_whole = !has_died || !exchange.nginx_acted_at_once();
    if is_answered && is_whole && exchange.word().is_none() {
        return Some(Finding::well());
    }
    if worker.closer.tgid == 0 {
        return Some(Finding { error_log: Some(LINE.to_owned()), ..unknown::unseen(exchange) });
    }
    let kinds = gone::Kinds {
        killed: Cause::PrematureWorkerKilled,
        crashed: Cause::PrematureWorkerCrashed,
        out_of_memory: Cause::PrematureWorkerOom,
        exited: Cause::PrematureWorkerExited,
    };
    let outlived = gone::ended(exchange, worker, kinds, "the kernel closed the connection");
    let finding = match signals::died_of(worker) {
        _ if let Some(finding) = outlived => finding,
        Some(signal) => died(exchange, worker, signal),
        None => lived(exchange, worker, is_answered),
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

/// A signal ended the worker, which had nothing left to read.
fn died(exchange: &Exchange, worker: &WorkerEnd, signal: u32) -> Finding {
    let (name, after) = (signals::worker_in_words(worker), span(exchange.lasted_ns()));
    let signal_name = signals::name(signal);
    let had = if exchange.worker_ended_before_request() {
        "before nginx had sent the request"
    } else {
        "which had read the whole request"
    };
    if signals::is_crash(signal) {
        return Finding::proven(
            Cause::PrematureWorkerCrashed,
            format!(
                "{signal_name}{} ended the {name}, {had}, {after} into the exchange: it crashed, and the kernel closed its connection.",
                signals::by_another(worker)
            ),
            stopped::ADVICE_OF_CRASH,
        );
    }
    if signals::is_out_of_memory(worker) {
        return Finding::proven(
            Cause::PrematureWorkerOom,
            format!(
                "The kernel killed the {name}, {had}, with {signal_name} {after} into the exchange, because memory had run out; it \
                 closed its connection."
            ),
            stopped::ADVICE_OF_OOM,
        );
    }
    let by = match signals::sender_in_words(worker) {
        Some(sender) => format!(", sent by {}", sender.trim_end_matches(',')),
        None => String::new(),
    };
    Finding::proven(
        Cause::PrematureWorkerKilled,
        format!(
            "{signal_name} ended the {name}, {had}, {after} into the exchange{by}; the kernel closed its connection.{}",
            stopped::who_told_the_killer(exchange, worker)
        ),
        stopped::advice_of_kill(exchange, worker),
    )
}

/// The worker closed the connection, or exited.
fn lived(exchange: &Exchange, worker: &WorkerEnd, is_answered: bool) -> Finding {
    let (name, after) = (signals::worker_in_words(worker), span(exchange.lasted_ns()));
    let when = if is_answered { "in the middle of its response" } else { "before it had answered" };
    if let Some(stop) = stopped::of(exchange, worker) {
        return stop.finding(Cause::PrematureWorkerStopped, &format!("the connection was closed {when}"));
    }
    if worker.exiting != 0 {
        return stopped::exited(
            exchange,
            worker,
            Cause::PrematureWorkerExited,
            format!(
                "The {name} exited{} {after} into the exchange, {when}; the kernel closed its connection.",
                stopped::with_code(worker)
            ),
        );
    }
    Finding::proven(
        Cause::PrematurePeerClosed,
        format!(
            "The {name} closed the connection properly {after} into the exchange, without a byte of an answer."
        ),
        "the upstream's log for this request: it lives and chose to close.",
    )
}
