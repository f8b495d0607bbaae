//! `upgraded`: a connection on which nginx only passed on what came was cut by the death of its worker. An idle one is ended by nginx's timer
//! (`read_timeout/idle_upgraded`). Whatever else ends one is no failure, or an error of the kernel's that nginx says.

use wire::{nginx_flag, tcp_state};

use super::{Cause, Finding, signals};
use crate::{
    ledger::Exchange,
    model::words::{count, sentence, span},
};

const ADVICE: &str =
    "what stops or kills the upstream's workers while clients are connected, and whether these connect anew.";

pub(super) fn judge(exchange: &Exchange) -> Option<Finding> {
    if let Some(finding) = idle(exchange) {
        Some(finding)
    } else if exchange.is_passed_through() {
        cut(exchange).or_else(|| ordinary(exchange))
    } else if exchange.has(nginx_flag::OF_MODULE) && is_closed_by_choice(exchange) {
        ordinary(exchange)
    } else {
        None
    }
}

/// nginx's timer is shorter than that in no configuration that anybody means (ns).
const SHORTEST_NS: u64 = 1_000_000_000;

/// Neither side sent a byte for proxy_read_timeout, which then ends the connection (`ngx_http_upstream_process_upgraded`): it is said for the
/// client's side, at level info, for which it is ordinary.
fn idle(exchange: &Exchange) -> Option<Finding> {
    let nginx = &exchange.nginx;
    // What nginx did since for a `mirror` of the request stands there instead.
    let is_said = exchange.word().is_some_and(|said| {
        said.is_of_timer()
            && (exchange.has(nginx_flag::UPGRADED) || said.doing == "proxying upgraded connection")
    });
    let idle_ns = nginx.ended_ns.saturating_sub(nginx.last_received_ns.max(nginx.last_sent_ns));
    // Nothing else has nginx close it while its client is there and nothing came from either.
    let is_shown = exchange.has(nginx_flag::UPGRADED | nginx_flag::NOTHING_READ)
        && exchange.nginx_closed_first()
        && nginx.client.state == tcp_state::ESTABLISHED
        && nginx.flags
            & (nginx_flag::SHUTTING_DOWN
                | nginx_flag::CLOSER_EXITING
                | nginx_flag::CLIENT_BLOCKED
                | nginx_flag::SEND_BLOCKED)
            == 0
        && exchange.word().is_none()
        && nginx.word_ns == 0
        && idle_ns >= SHORTEST_NS;
    if !is_said && !is_shown {
        return None;
    }
    let finding = Finding::inferred(
        Cause::TimeoutIdleUpgraded,
        format!(
            "Neither side sent a byte for {} on a connection with {} that had been upgraded (101), so nginx's timer ended it, {} after it \
             had begun. It was idle: nobody was waited for.",
            span(idle_ns),
            exchange.upstream(),
            span(exchange.lasted_ns())
        ),
        "pings at intervals shorter than proxy_read_timeout, from the application or its client; or a longer proxy_read_timeout.",
    );
    Some(finding.logged(
        "ETIMEDOUT",
        "upstream timed out (110: Connection timed out) while proxying upgraded connection",
    ))
}

/// Whoever it was that closed it, that is what it was for.
fn ordinary(exchange: &Exchange) -> Option<Finding> {
    (exchange.word().is_none() && exchange.nginx.word_ns == 0 && exchange.nginx.error == 0)
        .then(Finding::well)
}

/// A module closes what it has made when it likes; its timers are said.
fn is_closed_by_choice(exchange: &Exchange) -> bool {
    exchange.is_connected() && exchange.nginx_closed_first()
}

/// The worker died and took the connection with it.
fn cut(exchange: &Exchange) -> Option<Finding> {
    let worker = exchange.worker.as_ref()?;
    let died_first =
        worker.exiting != 0 && worker.ended_ns != 0 && worker.ended_ns <= exchange.nginx.ended_ns;
    if !died_first || exchange.nginx_closed_first() {
        return None;
    }
    let name = signals::worker_in_words(worker);
    let what = format!(
        "a connection that {}, {} after it had begun",
        if exchange.has(nginx_flag::UPGRADED) {
            "had been upgraded (101) was cut"
        } else {
            "nginx passed on as it was (stream) was cut"
        },
        span(exchange.lasted_ns())
    );
    let read = match exchange.nginx.received {
        0 => String::new(),
        received => format!(" nginx had read {} from it.", count(received, "byte")),
    };
    let Some(signal) = signals::died_of(worker) else {
        // A server that has a process for each connection ends both in this way.
        if !exchange.has(nginx_flag::UPGRADED) {
            return None;
        }
        return Some(Finding::proven(
            Cause::UpgradedExited,
            format!("The {name} exited, so {what}.{read}"),
            ADVICE,
        ));
    };
    let signal_name = signals::name(signal);
    if signals::is_crash(signal) {
        return Some(Finding::proven(
            Cause::UpgradedCrashed,
            format!("The {name} crashed with {signal_name}, so {what}.{read}"),
            "the core dump and the upstream's log at that moment.",
        ));
    }
    let sender = if signals::is_out_of_memory(worker) {
        "the kernel, because memory had run out,".to_owned()
    } else {
        signals::sender_in_words(worker).unwrap_or_else(|| "somebody not seen".to_owned())
    };
    Some(Finding::proven(
        Cause::UpgradedKilled,
        format!("{} sent {signal_name} to the {name}, so {what}.{read}", sentence(&sender)),
        ADVICE,
    ))
}
