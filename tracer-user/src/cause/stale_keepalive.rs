//! `stale_keepalive`: the upstream closed a kept connection while a request was on its way, and read nothing of that.

use std::borrow::Cow;

use wire::{WorkerEnd, tcp_state};

use super::{Cause, Finding, errors, lost, signals};
use crate::{
    ledger::Exchange,
    model::{
        from_wire::comm,
        verdict::{Alike, Kept},
        words::span,
    },
};

const ECONNRESET: u32 = 104;
const EPIPE: u32 = 32;

/// A turn of a busy event loop may take as long (ns).
const RACE_NS: u64 = 1_000_000_000;

/// So many closes after the same idle time, and all that there were, show a timer.
const SHOW_A_TIMER: u32 = 3;

/// nginx meets it as an error or as an end of the stream, whichever comes first.
pub(super) fn judge(exchange: &Exchange) -> Option<Finding> {
    let nginx = &exchange.nginx;
    let met_end = nginx.error == 0 && nginx.old_state == tcp_state::CLOSE_WAIT;
    let met = matches!(nginx.error, ECONNRESET | EPIPE) || met_end;
    // What comes and goes on a connection that is only passed on are no requests.
    if !exchange.has_request()
        || !exchange.is_on_kept_connection()
        || nginx.received > 0
        || nginx.sent == 0
        || !met
    {
        return None;
    }
    let is_end = match exchange.word() {
        Some(said) => said.message().starts_with("upstream prematurely closed"),
        None => met_end,
    };
    let cause = if is_end { Cause::PrematureStaleKeepalive } else { Cause::ResetStaleKeepalive };
    let finding = match &exchange.worker {
        Some(worker) => by_worker(exchange, worker, cause)?,
        // What had reached the peer's kernel before it closed is acknowledged by its end at the latest.
        None if exchange.is_unacknowledged() && !lost::is_own_reset(exchange) => {
            let how = if is_end { "closed" } else { "reset" };
            Finding::inferred(
                cause,
                format!(
                    "nginx sent this request on a connection that had been {}, and {} acknowledged none of it but {how} the \
                     connection: it had closed it already.{}",
                    idle(exchange),
                    exchange.upstream(),
                    timer(exchange)
                ),
                advice(None),
            )
        }
        None => return None,
    };
    Some(match nginx.error {
        0 => Finding {
            error_log: Some(
                "upstream prematurely closed connection while reading response header from upstream"
                    .to_owned(),
            ),
            ..finding
        },
        error => finding.met(errors::name(error)),
    })
}

/// Its worker's end is on this host.
fn by_worker(exchange: &Exchange, worker: &WorkerEnd, cause: Cause) -> Option<Finding> {
    let nginx = &exchange.nginx;
    let who = signals::worker_in_words(worker);
    let explanation = if worker.ended_ns == 0 || worker.error != 0 {
        return None;
    } else if exchange.worker_ended_before_request() {
        format!(
            "nginx sent this request on a connection that had been {}, and that the {who} had closed {} before.",
            idle(exchange),
            span(nginx.first_sent_ns - worker.ended_ns),
        )
    } else if worker.exiting == 0
        && is_race(exchange, worker)
        && exchange.unread_by_worker().is_some_and(|unread| unread >= nginx.sent)
    {
        // What ends a worker is named as that.
        let when = match worker.ended_ns.saturating_sub(nginx.first_sent_ns) {
            0 => "in that moment".to_owned(),
            ns => format!("{} later", span(ns)),
        };
        format!(
            "nginx sent this request on a connection that had been {}. The {who} closed it {when} and had read nothing of \
             the request, so the kernel reset it.",
            idle(exchange),
        )
    } else {
        return None;
    };
    let is_exit = worker.exiting != 0;
    Some(Finding::proven(
        cause,
        format!("{explanation}{}", timer(exchange)),
        if is_exit {
            "what ended this worker, at which the connections closed that nginx keeps to it: the upstream's log.".to_owned()
        } else {
            advice(Some(worker))
        },
    ))
}

/// Whether the request was only on its way when the connection was closed. One that lay there for longer than that had been idle met
/// a worker that stood still.
fn is_race(exchange: &Exchange, worker: &WorkerEnd) -> bool {
    let lay_ns = worker.ended_ns.saturating_sub(exchange.nginx.first_sent_ns);
    lay_ns <= RACE_NS.max(exchange.idle_ns().unwrap_or(0))
}

/// How long it had been idle, in words.
fn idle(exchange: &Exchange) -> String {
    match exchange.idle_ns() {
        Some(ns) => format!("idle for {}", span(ns)),
        // So in old recordings.
        None => {
            let nginx = &exchange.nginx;
            format!("open for {}", span(nginx.first_sent_ns.saturating_sub(nginx.connect_ns)))
        }
    }
}

/// What the upstream's other closes show of a timer of its own, as one more sentence.
fn timer(exchange: &Exchange) -> String {
    let (Some(ns), Some(Alike { closes, alike, are_spread })) = (exchange.idle_at_close_ns(), exchange.alike)
    else {
        return String::new();
    };
    let idle = span(ns);
    let seen = format!(" It was closed after {idle} of idling");
    if alike >= SHOW_A_TIMER && alike == closes && are_spread {
        format!("{seen}, as were {alike} of {closes} under a request: an idle timeout of about {idle}.")
    } else if closes > 1 {
        format!(
            "{seen}; {alike} of the last {closes} that it closed under a request had been idle for about as long."
        )
    } else {
        format!("{seen}.")
    }
}

/// Which setting it is, by the name of who closed.
fn advice(worker: Option<&WorkerEnd>) -> String {
    let name = worker.map_or(Cow::Borrowed(""), |worker| comm(&worker.closer));
    let own = match () {
        () if name.starts_with("node") => {
            "node's server.keepAliveTimeout, 5 s unless it is set, to which its later versions add 1 s"
        }
        () if name.starts_with("gunicorn") => "gunicorn's --keep-alive, 2 s unless it is set",
        () if name.starts_with("puma") => "puma's persistent_timeout",
        () => "its idle or keep-alive timeout",
    };
    format!(
        "keepalive_timeout in nginx's upstream block (60 s unless it is set), which must be shorter than the upstream's own: {own}."
    )
}

/// What the connection had served before, if it was kept.
pub(super) fn kept(exchange: &Exchange, cause: Cause) -> Option<Kept> {
    let is_stale = cause.detail() == "stale_keepalive";
    exchange.is_on_kept_connection().then(|| Kept {
        exchange: exchange.nginx.exchange,
        idle_us: exchange.idle_ns().map(|ns| ns / 1_000),
        closed_after_us: exchange.idle_at_close_ns().filter(|_| is_stale).map(|ns| ns / 1_000),
        alike: exchange.alike.filter(|_| is_stale),
    })
}

#[cfg(test)]
mod tests {
    use wire::ExchangeRecord;

    use super::*;
    use crate::{
        ledger::samples::{CONNECT, at, given_up},
        model::verdict::Confidence,
    };

    /// The second request on a connection, sent 5 s after the first one's answer; the worker closes 20 ms later.
    fn raced() -> ExchangeRecord {
        let mut record = given_up(0);
        let nginx = &mut record.nginx;
        nginx.exchange = 2;
        nginx.idle_since_ns = CONNECT;
        nginx.first_sent_ns = at(5_000);
        nginx.ended_ns = at(5_020);
        nginx.error = ECONNRESET;
        let worker = &mut record.worker;
        worker.closer = worker.worker;
        worker.ended_ns = at(5_020);
        worker.unread = u32::try_from(nginx.sent).unwrap();
        record
    }

    fn found(record: &ExchangeRecord) -> Option<Finding> {
        judge(&Exchange::new(record))
    }

    #[test]
    fn only_a_request_of_which_nothing_was_read_is_stale() {
        let all = raced();
        let finding = found(&all).unwrap();
        assert_eq!(
            (finding.cause, finding.confidence),
            (Some(Cause::ResetStaleKeepalive), Confidence::Proven)
        );
        assert!(
            finding
                .explanation
                .contains("idle for 5.00 s. The php-fpm8.2 worker 24940 closed it 20.0 ms later")
        );
        let mut part = all;
        part.worker.unread -= 1;
        assert!(found(&part).is_none());
        let mut first = all;
        first.nginx.exchange = 1;
        assert!(found(&first).is_none());
        let mut stuck = all;
        stuck.worker.ended_ns = at(10_001);
        assert!(found(&stuck).is_none(), "it lay there for longer than any race");
        let mut exit = all;
        exit.worker.exiting = 1;
        assert!(found(&exit).is_none(), "what ended the worker is more");
    }

    #[test]
    fn only_an_end_before_which_nothing_came_was_before_the_request() {
        let mut record = raced();
        record.nginx.first_sent_ns = at(5_000);
        record.worker.ended_ns = at(4_990);
        record.worker.unread = 0;
        record.nginx.unacked = u32::try_from(record.nginx.sent).unwrap();
        let finding = found(&record).unwrap();
        assert!(finding.explanation.contains("had closed 10.0 ms before"), "{}", finding.explanation);
        // nginx's send returned after the worker had read the request and closed.
        record.nginx.unacked = 0;
        assert!(found(&record).is_none());
        record.worker.unread = u32::try_from(record.nginx.sent).unwrap();
        let finding = found(&record).unwrap();
        assert!(finding.explanation.contains("closed it in that moment"), "{}", finding.explanation);
    }

    #[test]
    fn a_remote_end_that_came_before_the_request_is_inferred() {
        let mut record = raced();
        record.worker = Default::default();
        (record.nginx.error, record.nginx.old_state) = (0, tcp_state::CLOSE_WAIT);
        assert!(found(&record).is_none(), "it had the request");
        record.nginx.unacked = u32::try_from(record.nginx.sent).unwrap();
        let finding = found(&record).unwrap();
        assert_eq!(
            (finding.cause, finding.confidence),
            (Some(Cause::PrematureStaleKeepalive), Confidence::Inferred)
        );
    }

    #[test]
    fn a_timer_is_named_when_nothing_else_fits() {
        let mut joined = Exchange::new(&raced());
        let mut said = |closes, alike, are_spread| {
            joined.alike = Some(Alike { closes, alike, are_spread });
            judge(&joined).unwrap().explanation
        };
        assert!(
            said(14, 14, true)
                .ends_with("as were 14 of 14 under a request: an idle timeout of about 5.02 s.")
        );
        for (closes, alike, are_spread) in [(14, 13, true), (3, 3, false), (2, 2, true)] {
            assert!(!said(closes, alike, are_spread).contains("timeout"));
        }
        // Recordings from before this was recorded.
        joined.nginx.idle_since_ns = 0;
        assert!(judge(&joined).unwrap().explanation.contains("had been open for 5.00 s"));
    }
}
