//! `reset`: the connection was reset after it was established.

use wire::{WorkerEnd, nginx_flag};

use super::{Cause, Finding, gone, lost, signals, stopped, unknown};
use crate::{
    ledger::Exchange,
    model::words::{count, sentence, span},
};

const ECONNRESET: u32 = 104;
const EPIPE: u32 = 32;

pub(super) fn judge(exchange: &Exchange) -> Option<Finding> {
    if exchange.was_connecting() || !matches!(exchange.nginx.error, ECONNRESET | EPIPE) {
        return None;
    }
    // A connection that has been answered may be idle: then its end fails no exchange, and nginx has no client to deal with.
    if exchange.has(nginx_flag::READ_LAST) && !exchange.nginx_acted_at_once() {
        return Some(Finding::well());
    }
    let finding = match &exchange.worker {
        Some(worker) if worker.ended_ns != 0 && worker.error == 0 => by_process(exchange, worker)?,
        _ if lost::is_own_reset(exchange) => by_own_host(exchange),
        Some(_) => return None,
        None if exchange.has(nginx_flag::RESET_RECEIVED) => by_remote(exchange),
        None => return None,
    };
    Some(match exchange.nginx.error {
        ECONNRESET if exchange.nginx.received == 0 => finding.logged(
            "ECONNRESET",
            "recv() failed (104: Connection reset by peer) while reading response header from upstream",
        ),
        ECONNRESET => finding
            .logged("ECONNRESET", "readv() failed (104: Connection reset by peer) while reading upstream"),
        _ => finding.met("EPIPE"),
    })
}

/// Where in the exchange the worker's end ended.
fn into(exchange: &Exchange, worker: &WorkerEnd) -> String {
    let ns = if worker.signal.ns != 0 { worker.signal.ns } else { worker.ended_ns };
    format!("{} into the request", span(ns.saturating_sub(exchange.began_ns())))
}

/// What nginx read of it.
fn consequence(exchange: &Exchange) -> String {
    let unread = exchange.unread_by_worker().unwrap_or_default();
    let why = if unread > 0 {
        let were = if unread == 1 { "was" } else { "were" };
        format!("{} {were} still unread, so the kernel reset the connection", count(unread, "byte"))
    } else {
        "the kernel reset the connection".to_owned()
    };
    let what = if exchange.nginx.received == 0 {
        "and nginx read ECONNRESET".to_owned()
    } else {
        format!("and nginx read ECONNRESET after {} of the response", count(exchange.nginx.received, "byte"))
    };
    format!("{why} {what}")
}

/// A process of this host closed the worker's end, knowingly or by dying.
fn by_process(exchange: &Exchange, worker: &WorkerEnd) -> Option<Finding> {
    let upstream = exchange.upstream();
    let consequence = consequence(exchange);
    if worker.has_socket == 0 {
        let waited = span(worker.ended_ns.saturating_sub(worker.created_ns));
        return Some(Finding::proven(
            Cause::ResetListenerClosed,
            format!(
                "The listener on {upstream} was closed while this connection had waited {waited} in its accept queue; no \
                 worker ever had the request, and nginx read ECONNRESET."
            ),
            "what stopped or restarted the upstream: its log, and systemd's.",
        ));
    }
    if worker.closer.tgid == 0 {
        return Some(unknown::unseen(exchange));
    }
    let kinds = gone::Kinds {
        killed: Cause::ResetWorkerKilled,
        crashed: Cause::ResetWorkerCrashed,
        out_of_memory: Cause::ResetWorkerOom,
        exited: Cause::ResetWorkerExited,
    };
    if let Some(finding) = gone::ended(exchange, worker, kinds, &consequence) {
        return Some(finding);
    }
    let name = signals::worker_in_words(worker);
    let into = into(exchange, worker);
    let Some(signal) = signals::died_of(worker) else {
        if let Some(stop) = stopped::of(exchange, worker) {
            return Some(stop.finding(Cause::ResetWorkerStopped, &consequence));
        }
        if worker.exiting != 0 {
            return Some(stopped::exited(
                exchange,
                worker,
                Cause::ResetWorkerExited,
                format!("The {name} exited{} {into}: {consequence}.", stopped::with_code(worker)),
            ));
        }
        return Some(Finding::proven(
            Cause::ResetPeerAborted,
            format!("The {name} lives and closed the connection {into}: {consequence}."),
            "why the upstream closes without reading the whole request or with SO_LINGER 0: its log.",
        ));
    };
    let signal_name = signals::name(signal);
    if signals::is_crash(signal) {
        return Some(Finding::proven(
            Cause::ResetWorkerCrashed,
            format!(
                "The {name} crashed with {signal_name}{}, {into}; {consequence}.",
                signals::by_another(worker)
            ),
            stopped::ADVICE_OF_CRASH,
        ));
    }
    if signals::is_out_of_memory(worker) {
        return Some(Finding::proven(
            Cause::ResetWorkerOom,
            format!(
                "The kernel killed the {name} with {signal_name} {into}, because memory had run out; {consequence}."
            ),
            stopped::ADVICE_OF_OOM,
        ));
    }
    let killer = signals::sender_in_words(worker).unwrap_or_else(|| "somebody not seen".to_owned());
    Some(Finding::proven(
        Cause::ResetWorkerKilled,
        format!(
            "{killer} sent {signal_name} to the {name}, {into}; {consequence}.{told}",
            killer = sentence(&killer),
            told = stopped::who_told_the_killer(exchange, worker),
        ),
        stopped::advice_of_kill(exchange, worker),
    ))
}

/// What is on the way on this host reset the connection, and no process did.
fn by_own_host(exchange: &Exchange) -> Finding {
    let upstream = exchange.upstream();
    let Some(before_ns) = lost::rejected(exchange) else {
        let nginx = &exchange.nginx;
        return Finding::inferred(
            Cause::ResetByOwnHost,
            format!(
                "nginx's own host answered a packet of {upstream} with a reset, {} after nginx connected, because no socket took it, though \
                 nginx's was open. That ended the upstream's end, and nginx met a reset {} later.",
                span(nginx.refused_ns.saturating_sub(nginx.connect_ns)),
                span(nginx.ended_ns.saturating_sub(nginx.refused_ns))
            ),
            lost::ADVICE_OF_REFUSAL,
        );
    };
    // The worker's end was seen to be open: then nothing but the rule can have sent the reset.
    let is_open = exchange.has(nginx_flag::WORKER_OPEN);
    let (finding, worker): (fn(_, _, _) -> _, _) = if is_open {
        (Finding::proven, " The worker's end was still open.")
    } else {
        (Finding::inferred, "")
    };
    finding(
        Cause::ResetByOwnHost,
        format!(
            "A netfilter rule of nginx's own host rejected what nginx sent to {upstream}: it dropped the packet, and within {} a reset came in \
             the upstream's name.{worker}",
            span(before_ns)
        ),
        "the rule: `nft list ruleset`, a REJECT with a TCP reset that matches packets of connections that are made, or that are taken for \
         INVALID."
            .to_owned(),
    )
}

fn by_remote(exchange: &Exchange) -> Finding {
    Finding::inferred(
        Cause::ResetByRemote,
        format!(
            "{} reset the connection {} after nginx connected; its end is not on this host, so who did it is not seen here.",
            exchange.upstream(),
            span(exchange.nginx.ended_ns.saturating_sub(exchange.nginx.established_ns))
        ),
        "the upstream's log, or why502 on its host.",
    )
}
