use wire::{
    Action, Client, DropReason, ExchangeRecord, Icmp, ListenerView, Origin, PacketDrop, Reset, Signal,
    WordOf, WorkerEnd, nginx_flag, tcp_state,
};
use zerocopy::FromZeros as _;

use super::*;
use crate::{
    ledger::{Ledger, Whole, samples::*},
    model::{
        doing::{Doing, Peer, Target},
        record::Record,
    },
    sample::Activity,
};

struct Epoch;

impl WallClock for Epoch {
    fn unix_ns(&self, monotonic_ns: u64) -> i64 {
        i64::try_from(monotonic_ns).unwrap()
    }
}

fn context(evidence_lost: bool) -> Context<'static> {
    static NONE: std::sync::LazyLock<Sources> = std::sync::LazyLock::new(Sources::default);
    Context { clock: &Epoch, sources: &NONE, evidence_lost, outer: None }
}

/// What becomes of a record, with what nginx does next, if it is seen.
fn outcome(record: ExchangeRecord, next: Option<(Action, u8)>) -> Outcome {
    let mut ledger = Ledger::default();
    let mut whole: Vec<Whole> = ledger.take(Record::Exchange(Box::new(record))).into_iter().collect();
    if let Some((action, old_state)) = next {
        whole.extend(ledger.take(next_action(&record, action, old_state)));
    }
    whole.extend(ledger.drain());
    match &whole[..] {
        [Whole::Exchange(joined)] => attribute(joined, &context(false)),
        other => panic!("not one exchange: {other:?}"),
    }
}

fn verdict(record: ExchangeRecord, next: Option<(Action, u8)>) -> Verdict {
    match outcome(record, next) {
        Outcome::Failed(verdict) => *verdict,
        other => panic!("no verdict: {other:?}"),
    }
}

const ANSWERS: Option<(Action, u8)> = Some((Action::Sent, tcp_state::ESTABLISHED));
const CLIENT_LEFT: Option<(Action, u8)> = Some((Action::Closed, tcp_state::CLOSE_WAIT));

#[test]
fn a_reset_without_a_socket_is_a_proven_refusal() {
    let mut record = connecting(0, 111);
    record.nginx.reset = reset_without_socket();
    record.nginx.flags |= nginx_flag::RESET_RECEIVED;
    let verdict = verdict(record, ANSWERS);
    assert_eq!((verdict.cause, verdict.confidence), (Cause::RefusedNoListener, Confidence::Proven));
    assert_eq!(verdict.errno.as_deref(), Some("ECONNREFUSED"));
    assert_eq!(
        verdict.error_log.as_deref(),
        Some("connect() failed (111: Connection refused) while connecting to upstream")
    );
}

#[test]
fn a_reset_from_elsewhere_is_inferred_only() {
    let mut record = connecting(1, 111);
    record.nginx.upstream = endpoint(9, 80);
    record.nginx.upstream.addr[3] = u32::from_ne_bytes([192, 0, 2, 1]);
    record.nginx.flags |= nginx_flag::RESET_RECEIVED;
    let verdict = verdict(record, ANSWERS);
    assert_eq!((verdict.cause, verdict.confidence), (Cause::RefusedNoListener, Confidence::Inferred));
}

#[test]
fn a_rejecting_rule_is_not_taken_for_a_missing_listener() {
    let mut record = connecting(1, 111);
    record.nginx.flags |= nginx_flag::RESET_RECEIVED;
    record.nginx.dropped = PacketDrop { ns: at(0), reason: DropReason::Netfilter as u32, packets: 1 };
    assert_eq!(verdict(record, ANSWERS).cause, Cause::RefusedByFirewall);
}

#[test]
fn a_full_queue_at_each_look_is_an_overflow_and_only_then() {
    let mut record = connecting(2_000, 0);
    record.nginx.listener_first = queue(5, 4);
    record.nginx.listener_last = ListenerView { drops: 2, ..queue(5, 4) };
    record.nginx.syn_retransmits = 1;
    record.nginx.flags |= nginx_flag::QUEUE_FULL_AT_CONNECT;
    let full = verdict(record, ANSWERS);
    assert_eq!((full.cause, full.status), (Cause::QueueSynDropped, Some(504)));
    assert!(full.explanation.contains("5 connections waited where the backlog is 4"), "{}", full.explanation);
    record.nginx.flags &= !nginx_flag::QUEUE_FULL_AT_CONNECT;
    assert_eq!(verdict(record, ANSWERS).cause, Cause::ConnectSynUnanswered);
}

#[test]
fn a_full_queue_that_dropped_nothing_is_not_where_the_syn_went() {
    let mut record = connecting(2_000, 0);
    (record.nginx.listener_first, record.nginx.listener_last) = (queue(5, 4), queue(5, 4));
    record.nginx.flags |= nginx_flag::QUEUE_FULL_AT_CONNECT;
    assert_eq!(verdict(record, ANSWERS).cause, Cause::ConnectSynUnanswered);
    record.nginx.listener_last.drops = 1;
    record.nginx.dropped = PacketDrop { ns: at(1), reason: DropReason::Netfilter as u32, packets: 1 };
    assert_eq!(verdict(record, ANSWERS).cause, Cause::ConnectDroppedFirewall);
}

#[test]
fn a_listener_that_may_have_been_left_out_is_not_taken_for_absent() {
    let mut record = connecting(2_000, 0);
    assert_eq!(verdict(record, ANSWERS).cause, Cause::ConnectSynUnanswered);
    record.nginx.flags |= nginx_flag::LISTENER_LEFT_OUT;
    let left_out = verdict(record, ANSWERS);
    assert_eq!((left_out.cause, left_out.confidence), (Cause::EvidenceLost, Confidence::Incomplete));
    assert_eq!(left_out.errno.as_deref(), Some("ETIMEDOUT"));
    // It was looked up since, and yet nobody knows how full it was at first.
    record.nginx.listener_last = ListenerView { drops: 2, ..queue(5, 4) };
    assert_eq!(verdict(record, ANSWERS).confidence, Confidence::Incomplete);
    // What was seen to happen stands.
    record.nginx.dropped = PacketDrop { ns: at(1), reason: DropReason::AcceptQueueFull as u32, packets: 2 };
    let seen = verdict(record, ANSWERS);
    // nginx's word was not heard: that it gave up connecting is what follows from its answer.
    assert_eq!((seen.cause, seen.confidence), (Cause::QueueSynDropped, Confidence::Inferred));
    assert!(!seen.explanation.contains("waited"), "{}", seen.explanation);
}

#[test]
fn no_figure_contradicts_a_full_queue() {
    let mut record = connecting(0, 11);
    record.nginx.upstream.family = wire::FAMILY_UNIX;
    for (view, figures) in
        [(queue(3, 2), "3 connections waited where the backlog is 2"), (queue(0, 777), "was full. A")]
    {
        (record.nginx.listener_first, record.nginx.listener_last) = (view, view);
        let full = verdict(record, ANSWERS);
        assert_eq!((full.cause, full.confidence), (Cause::QueueUnixFull, Confidence::Proven));
        assert!(full.explanation.contains(figures), "{}", full.explanation);
    }
    // Another of its SYNs than the first was seen to meet a full queue.
    let mut record = connecting(2_000, 0);
    record.nginx.listener_first = queue(1, 4);
    record.nginx.dropped = PacketDrop { ns: at(1), reason: DropReason::AcceptQueueFull as u32, packets: 1 };
    let full = verdict(record, ANSWERS);
    assert_eq!(full.cause, Cause::QueueSynDropped);
    assert!(!full.explanation.contains("waited"), "{}", full.explanation);
}

#[test]
fn a_full_listener_that_was_looked_up_elsewhere_is_an_inference() {
    let mut record = connecting(2_000, 0);
    let view = ListenerView { elsewhere: 1, ..queue(5, 4) };
    (record.nginx.listener_first, record.nginx.listener_last) = (view, ListenerView { drops: 1, ..view });
    record.nginx.flags |= nginx_flag::QUEUE_FULL_AT_CONNECT;
    let verdict = verdict(record, ANSWERS);
    assert_eq!((verdict.cause, verdict.confidence), (Cause::QueueSynDropped, Confidence::Inferred));
}

#[test]
fn unfinished_handshakes_are_told_from_a_full_accept_queue() {
    let mut record = connecting(2_000, 0);
    record.nginx.listener_first = ListenerView { syn_queue: 2, ..queue(0, 1) };
    record.nginx.listener_last = ListenerView { syn_queue: 2, drops: 1, ..queue(0, 1) };
    record.nginx.flags |= nginx_flag::SYN_QUEUE_FULL_AT_CONNECT;
    assert_eq!(verdict(record, ANSWERS).cause, Cause::ConnectSynQueueFull);
}

#[test]
fn a_reset_by_the_listener_is_an_abort_and_by_nobody_seen_is_none() {
    let mut record = given_up(3);
    record.worker = WorkerEnd::new_zeroed();
    record.nginx.error = 104;
    record.nginx.new_state = tcp_state::CLOSE;
    record.nginx.flags = nginx_flag::RESET_RECEIVED | nginx_flag::NEXT_ACTION_FOLLOWS;
    assert_eq!(verdict(record, ANSWERS).cause, Cause::ResetByRemote);
    record.nginx.reset = Reset { ns: at(3), by_listener: 1, ..Reset::default() };
    let verdict = verdict(record, ANSWERS);
    assert_eq!((verdict.cause, verdict.confidence), (Cause::QueueAborted, Confidence::Proven));
}

#[test]
fn a_reset_after_the_drop_is_the_answer_to_a_later_syn() {
    let mut record = connecting(1_100, 111);
    record.nginx.flags |= nginx_flag::RESET_RECEIVED;
    record.nginx.dropped = PacketDrop { ns: at(0), reason: DropReason::Netfilter as u32, packets: 1 };
    record.nginx.reset = Reset { ns: at(1_000), without_socket: 1, ..Reset::default() };
    assert_eq!(verdict(record, ANSWERS).cause, Cause::RefusedNoListener);
}

#[test]
fn an_icmp_message_tells_a_firewall_from_a_missing_route() {
    for (errno, code, cause) in [
        (111, 3, Cause::RefusedByFirewall),
        (113, 13, Cause::RefusedByFirewall),
        (113, 1, Cause::RefusedNoRoute),
    ] {
        let mut record = connecting(1, errno);
        record.nginx.icmp = Icmp { ns: at(1), errno, is_v6: 0, kind: 3, code };
        let verdict = verdict(record, ANSWERS);
        // What nginx was doing when it met the error is not seen.
        assert_eq!((verdict.cause, verdict.error_log), (cause, None));
    }
}

#[test]
fn a_full_queue_does_not_hide_a_client_that_went_away() {
    let mut record = connecting(300, 0);
    record.nginx.listener_first = queue(5, 4);
    record.nginx.flags |= nginx_flag::QUEUE_FULL_AT_CONNECT;
    assert_eq!(verdict(record, CLIENT_LEFT).cause, Cause::ClientAbortBefore);
}

#[test]
fn packets_dropped_on_this_host_name_their_reason() {
    for (reason, cause) in [
        (DropReason::Netfilter, Cause::ConnectDroppedFirewall),
        (DropReason::ReversePath, Cause::ConnectDroppedRpFilter),
        (DropReason::TcEgress, Cause::ConnectDroppedKernel),
        (DropReason::QdiscOverlimit, Cause::ConnectDroppedKernel),
    ] {
        let mut record = connecting(2_000, 0);
        record.nginx.dropped = PacketDrop { ns: at(1), reason: reason as u32, packets: 2 };
        assert_eq!(verdict(record, ANSWERS).cause, cause);
    }
}

#[test]
fn no_port_left_is_a_local_error() {
    let mut record = connecting(0, 0);
    record.nginx.local.port = 0;
    let verdict = verdict(record, ANSWERS);
    assert_eq!((verdict.cause, verdict.local), (Cause::LocalPorts, None));
}

#[test]
fn no_address_of_its_own_is_no_want_of_ports() {
    let mut record = connecting(0, 0);
    record.nginx.local.port = 0;
    record.nginx.error = 99;
    let verdict = verdict(record, ANSWERS);
    assert_eq!((verdict.cause, verdict.confidence), (Cause::LocalError, Confidence::Inferred));
    assert!(verdict.explanation.contains("no address of its own"), "{}", verdict.explanation);
}

#[test]
fn the_master_that_sent_the_signal_is_the_killer() {
    let mut record = killed(3_259, 15);
    record.worker.signal.from_parent = 1;
    let verdict = verdict(record, ANSWERS);
    assert_eq!(verdict.cause, Cause::ResetWorkerKilled);
    assert_eq!(verdict.killer.unwrap().pid, 24938);
    assert_eq!(verdict.worker.unwrap().signal.as_deref(), Some("SIGTERM"));
    assert_eq!(verdict.bytes.unread, Some(8));
    assert!(
        verdict.explanation.contains("php-fpm's master process 24938 sent SIGTERM"),
        "{}",
        verdict.explanation
    );
}

#[test]
fn crashes_and_the_oom_killer_are_told_from_kills() {
    assert_eq!(verdict(killed(10, 11), ANSWERS).cause, Cause::ResetWorkerCrashed);
    let mut record = killed(10, 9);
    assert_eq!(verdict(record, ANSWERS).cause, Cause::ResetWorkerKilled);
    record.worker.signal.code = 0x80;
    // As for a container that ends with its first process.
    assert_eq!(verdict(record, ANSWERS).cause, Cause::ResetWorkerKilled);
    record.worker.signal.out_of_memory = 1;
    let verdict = verdict(record, ANSWERS);
    assert_eq!((verdict.cause, verdict.killer), (Cause::ResetWorkerOom, None));
}

#[test]
fn only_a_process_is_a_killer_and_the_rest_is_named_as_what_it_is() {
    let of = |origin: Origin, signal| {
        let mut record = killed(10, signal);
        record.worker.signal.origin = origin as u16;
        verdict(record, ANSWERS)
    };
    assert_eq!(of(Origin::Process, 15).killer.unwrap().pid, 24938);
    for (origin, signal, words) in [
        (Origin::Timer, 15, "A timer of its own sent SIGTERM"),
        (Origin::Kernel, 14, "An alarm of its own sent SIGALRM"),
        (Origin::Kernel, 2, "Its terminal sent SIGINT"),
        (Origin::Kernel, 9, "The kernel itself sent SIGKILL"),
        (
            Origin::ParentDeath,
            9,
            "its parent process php-fpm8.2 24938 (or that thread of it) had ended, sent SIGKILL",
        ),
        (Origin::Event, 15, "An event on a file or a message queue"),
    ] {
        let verdict = of(origin, signal);
        assert_eq!((verdict.cause, &verdict.killer), (Cause::ResetWorkerKilled, &None));
        assert_eq!(verdict.confidence, Confidence::Proven);
        assert!(verdict.explanation.contains(words), "{}", verdict.explanation);
    }
    let lost = of(Origin::Lost, 15);
    assert_eq!((lost.killer, lost.confidence), (None, Confidence::Incomplete));
    assert!(lost.explanation.contains("not known any more"), "{}", lost.explanation);
}

/// A worker that closed its end after 2 s without an answer, `exiting` or not, after its parent had sent it this signal.
fn stopped(signal: u32, before_ms: u64, exiting: u32) -> ExchangeRecord {
    let mut record = killed(2_000, 0);
    record.nginx.error = 0;
    (record.nginx.old_state, record.nginx.new_state) = (tcp_state::CLOSE_WAIT, tcp_state::LAST_ACK);
    record.worker.exiting = exiting;
    record.worker.unread = 0;
    record.stops.worker = Signal {
        ns: record.worker.ended_ns - before_ms * 1_000_000,
        number: signal,
        origin: Origin::Process as u16,
        ..record.worker.signal
    };
    record.worker.signal = Signal::default();
    record.stops.parent_task = record.stops.worker.sender;
    record
}

#[test]
fn an_exit_soon_after_a_signal_to_stop_is_a_worker_that_was_stopped() {
    const TERM: u32 = 15;
    let of = |signal, before_ms, exiting| {
        let verdict = verdict(stopped(signal, before_ms, exiting), ANSWERS);
        (verdict.cause, verdict.confidence)
    };
    assert_eq!(of(TERM, 2, 1), (Cause::PrematureWorkerStopped, Confidence::Proven));
    assert_eq!(of(TERM, 30_000, 1), (Cause::PrematureWorkerStopped, Confidence::Inferred));
    assert_eq!(of(TERM, 61_000, 1), (Cause::PrematureWorkerExited, Confidence::Proven));
    assert_eq!(of(TERM, 2, 0), (Cause::PrematureWorkerStopped, Confidence::Inferred));
    assert_eq!(of(TERM, 1_001, 0), (Cause::PrematurePeerClosed, Confidence::Proven));
    let verdict = verdict(stopped(TERM, 2, 1), ANSWERS);
    assert_eq!(verdict.killer.map(|killer| killer.pid), Some(24938));
    assert_eq!(verdict.worker.unwrap().signal.as_deref(), Some("SIGTERM"));
}

#[test]
fn a_signal_at_which_many_only_open_their_logs_stops_whom_it_ends() {
    for signal in [1, 10, 12] {
        let of = |exiting| verdict(stopped(signal, 2, exiting), ANSWERS);
        assert_eq!((of(1).cause, of(1).confidence), (Cause::PrematureWorkerStopped, Confidence::Inferred));
        assert_eq!(of(0).cause, Cause::PrematurePeerClosed);
        let mut by_parent = stopped(signal, 2, 1);
        by_parent.stops.worker.from_parent = 1;
        assert_eq!(verdict(by_parent, ANSWERS).confidence, Confidence::Proven);
    }
}

#[test]
fn what_a_worker_sends_itself_tells_nobody_to_stop() {
    let mut record = stopped(15, 2, 1);
    record.stops.worker.sender = record.worker.closer;
    assert_eq!(verdict(record, ANSWERS).cause, Cause::PrematureWorkerExited);
    record.stops.worker.origin = Origin::Timer as u16;
    assert_eq!(verdict(record, ANSWERS).cause, Cause::PrematureWorkerExited);
    record.stops.worker = Signal { origin: Origin::Lost as u16, ..Signal::default() };
    let lost = verdict(record, ANSWERS);
    assert_eq!((lost.cause, lost.confidence), (Cause::PrematureWorkerExited, Confidence::Incomplete));
}

#[test]
fn a_master_that_was_told_to_stop_is_traced_one_step_up() {
    let mut record = stopped(2, 2, 1);
    let told = Signal { ns: at(1_990), number: 15, sender: task(1, "systemd"), ..record.stops.worker };
    record.stops.parent = told;
    let whole = verdict(record, ANSWERS);
    let chain =
        "systemd 1 sent SIGTERM to php-fpm8.2 24938, which sent SIGINT to the php-fpm8.2 worker 24940";
    assert!(whole.explanation.contains(chain), "{}", whole.explanation);
    // Told by a pipe, or by its parent's end.
    record.stops.worker = Signal::default();
    let by_parent = verdict(record, ANSWERS);
    assert_eq!((by_parent.cause, by_parent.killer), (Cause::PrematureWorkerStopped, None));
    assert_eq!(by_parent.confidence, Confidence::Inferred);
    assert!(by_parent.explanation.contains("24938, the parent of the"), "{}", by_parent.explanation);
}

#[test]
fn php_fpm_that_was_told_nothing_ends_a_request_by_its_timeout() {
    let mut record = killed(3_259, 15);
    record.worker.signal.from_parent = 1;
    record.worker.signal.origin = Origin::Process as u16;
    assert!(
        verdict(record, ANSWERS).advice.contains("or a reload or stop"),
        "who its parent is was not seen"
    );
    record.stops.parent_task = record.worker.signal.sender;
    let timeout = verdict(record, ANSWERS);
    assert!(timeout.advice.contains("request_terminate_timeout"), "{}", timeout.advice);
    assert!(timeout.advice.ends_with("nobody had told php-fpm to stop or to reload."), "{}", timeout.advice);
    let mut told = |number| {
        record.stops.parent =
            Signal { ns: at(3_250), number, sender: task(1, "systemd"), ..record.worker.signal };
        verdict(record, ANSWERS)
    };
    let (reload, stop, logs) = (told(12), told(3), told(10));
    assert!(reload.advice.starts_with("who reloads php-fpm (systemd 1)"), "{}", reload.advice);
    assert!(stop.advice.starts_with("who stops php-fpm (systemd 1)"), "{}", stop.advice);
    assert_eq!(logs.advice, timeout.advice);
    assert!(
        reload.explanation.contains("systemd 1 had sent SIGUSR2 to php-fpm8.2 24938"),
        "{}",
        reload.explanation
    );
}

#[test]
fn a_recording_from_before_origins_goes_by_the_code() {
    let killer = |code| {
        let mut record = killed(10, 15);
        record.worker.signal.code = code;
        verdict(record, ANSWERS).killer.map(|killer| killer.pid)
    };
    let (user, queue, tkill, timer, sigio) = (0, -1, -6, -2, -5);
    assert_eq!([user, queue, tkill].map(killer), [Some(24938); 3]);
    assert_eq!([timer, sigio, 0x80].map(killer), [None; 3]);
}

#[test]
fn what_lacks_a_fact_is_incomplete() {
    let mut record = killed(10, 15);
    assert_eq!(verdict(record, ANSWERS).confidence, Confidence::Proven);
    record.nginx.flags |= nginx_flag::FACTS_LOST;
    assert_eq!(verdict(record, ANSWERS).confidence, Confidence::Incomplete);
}

#[test]
fn a_queued_connection_that_is_reset_lost_its_listener() {
    let mut record = killed(10, 0);
    record.worker.accepted_ns = 0;
    record.worker.has_socket = 0;
    let verdict = verdict(record, ANSWERS);
    assert_eq!((verdict.cause, verdict.worker), (Cause::ResetListenerClosed, None));
}

#[test]
fn a_timeout_is_named_by_whether_a_worker_had_the_request() {
    let record = given_up(1_000);
    let slow = verdict(record, ANSWERS);
    assert_eq!((slow.cause, slow.worker.unwrap().process.pid), (Cause::TimeoutSlowWorker, 24940));
    let mut record = given_up(1_000);
    record.worker.accepted_ns = 0;
    record.worker.has_socket = 0;
    let queued = verdict(record, ANSWERS);
    assert_eq!((queued.cause, queued.worker), (Cause::TimeoutNeverAccepted, None));
}

#[test]
fn a_slow_workers_verdict_says_what_it_was_doing() {
    let mut ledger = Ledger::default();
    let record = given_up(60_000);
    assert!(ledger.take(Record::Exchange(Box::new(record))).is_none());
    let Some(Whole::Exchange(mut joined)) =
        ledger.take(next_action(&record, Action::Sent, tcp_state::ESTABLISHED))
    else {
        panic!("no exchange");
    };
    let database = Target::Peer(Peer::Tcp("10.0.0.5:3306".parse().unwrap()));
    let mut activity = Activity::new(at(1_000), &Doing::Running.into(), false);
    activity.add(at(2_000), &Doing::Waiting(database.clone()).into(), false);
    activity.add(at(59_000), &Doing::Waiting(database).into(), false);
    joined.activity = Some(activity);
    let Outcome::Failed(verdict) = attribute(&joined, &context(false)) else { panic!("no verdict") };
    assert_eq!(verdict.cause, Cause::TimeoutSlowWorker);
    let sentence = "In 2 of 3 samples it waited on 10.0.0.5:3306, in 1 it ran on the CPU.";
    assert!(verdict.explanation.ends_with(sentence), "{}", verdict.explanation);
    assert!(verdict.advice.starts_with("the server at 10.0.0.5:3306"), "{}", verdict.advice);
    let evidence = verdict.evidence.iter().find(|evidence| evidence.source == "/proc sampling").unwrap();
    assert_eq!(
        (evidence.us, evidence.fact.as_str()),
        (59_000_000, "the php-fpm8.2 worker 24940 in 3 samples: 2 waited on 10.0.0.5:3306, 1 ran on the CPU")
    );
    let doing = verdict.worker.unwrap().doing.unwrap();
    assert_eq!((doing.samples, doing.running), (3, 1));
    assert_eq!(doing.waits, [("10.0.0.5:3306".to_owned(), 2)]);
}

#[test]
fn the_same_end_is_a_clients_doing_if_its_socket_had_closed() {
    assert_eq!(verdict(given_up(500), CLIENT_LEFT).cause, Cause::ClientAbortBefore);
    let reset = Some((Action::Closed, tcp_state::CLOSE));
    assert_eq!(verdict(given_up(500), reset).cause, Cause::ClientAbortBefore);
}

#[test]
fn without_what_nginx_did_next_the_cause_is_unknown() {
    assert_eq!(verdict(given_up(1_000), None).cause, Cause::NotEnoughFacts);
}

#[test]
fn a_timeout_of_a_remote_upstream_does_not_pretend_to_see_the_worker() {
    let mut record = given_up(1_000);
    record.worker.sock = 0;
    let verdict = verdict(record, ANSWERS);
    assert_eq!((verdict.cause, verdict.confidence), (Cause::TimeoutNoAnswer, Confidence::Inferred));
    assert_eq!(verdict.bytes.unread, None);
}

#[test]
fn an_answer_that_is_lost_on_its_way_is_no_missing_one() {
    let drop = |packets| PacketDrop { ns: at(500), reason: DropReason::Netfilter as u32, packets };
    let mut record = given_up(1_000);
    record.worker.sock = 0;
    let judged = |record| {
        let verdict = verdict(record, ANSWERS);
        (verdict.cause, verdict.confidence)
    };
    let lost = |confidence| (Cause::TimeoutAnswerLost, confidence);
    // Once, that may be an empty packet.
    record.nginx.lost_in = drop(1);
    assert_eq!(judged(record).0, Cause::TimeoutNoAnswer);
    record.nginx.gap = 2_000;
    assert_eq!(judged(record), lost(Confidence::Inferred));
    record.nginx.lost_in = PacketDrop::default();
    assert_eq!(judged(record), lost(Confidence::Inferred));
    (record.nginx.gap, record.nginx.refused_ns) = (0, at(400));
    assert_eq!(judged(record), lost(Confidence::Inferred));
    // Of a worker here: what it sent only once may still have been on its way.
    let mut record = given_up(1_000);
    record.worker.sent = 300;
    assert_eq!(judged(record).0, Cause::TimeoutSlowWorker);
    record.nginx.worker_retransmits = 3;
    let verdict = verdict(record, ANSWERS);
    assert_eq!(verdict.cause, Cause::TimeoutAnswerLost);
    assert!(
        verdict.explanation.contains("the worker had sent 300 bytes, of which 0 had come"),
        "{verdict:?}"
    );
}

#[test]
fn a_rule_that_rejects_is_told_from_the_upstreams_host() {
    let mut record = killed(1_000, 9);
    record.worker.sock = 0;
    record.nginx.flags |= nginx_flag::RESET_RECEIVED;
    record.nginx.error = 104;
    let judged = |record| {
        let verdict = verdict(record, ANSWERS);
        (verdict.cause, verdict.confidence)
    };
    assert_eq!(judged(record).0, Cause::ResetByRemote);
    let ns = record.nginx.ended_ns - 50_000;
    record.nginx.lost_out = PacketDrop { ns, reason: DropReason::Netfilter as u32, packets: 1 };
    assert_eq!(judged(record), (Cause::ResetByOwnHost, Confidence::Inferred));
    // What was dropped long before has nothing to do with it.
    record.nginx.lost_out.ns = record.nginx.ended_ns - 500_000_000;
    assert_eq!(judged(record).0, Cause::ResetByRemote);
}

#[test]
fn an_idle_kept_alive_connection_that_nginx_closes_is_no_failure() {
    let mut record = given_up(60_000);
    record.nginx.flags |= nginx_flag::READ_LAST;
    record.nginx.received = 300;
    record.nginx.last_received_ns = at(10);
    assert!(matches!(outcome(record, None), Outcome::Succeeded));
}

#[test]
fn what_nginx_does_in_a_later_turn_of_its_loop_shows_nothing() {
    let record = given_up(1_000);
    let mut ledger = Ledger::default();
    ledger.take(Record::Exchange(Box::new(record)));
    let Record::NextAction(mut later, action) = next_action(&record, Action::Sent, tcp_state::ESTABLISHED)
    else {
        panic!("no next action");
    };
    later.turned_to = 99;
    let Some(Whole::Exchange(joined)) = ledger.take(Record::NextAction(later, action)) else {
        panic!("no exchange")
    };
    let Outcome::Failed(verdict) = attribute(&joined, &context(false)) else { panic!("no verdict") };
    assert_eq!(verdict.cause, Cause::NotEnoughFacts);
}

#[test]
fn an_idle_connection_that_dies_fails_no_exchange() {
    let mut record = killed(60_000, 15);
    record.nginx.flags |= nginx_flag::READ_LAST;
    record.nginx.received = 300;
    record.nginx.last_received_ns = at(10);
    assert!(matches!(outcome(record, None), Outcome::Succeeded));
    // With a client to deal with it was in the middle of a response.
    assert_eq!(verdict(record, ANSWERS).cause, Cause::ResetWorkerKilled);
}

#[test]
fn a_worker_that_died_after_bytes_of_its_response_may_have_sent_all_of_it() {
    let mut record = killed(1_000, 9);
    record.nginx.error = 0;
    (record.nginx.old_state, record.nginx.new_state) = (tcp_state::CLOSE_WAIT, tcp_state::LAST_ACK);
    let none = verdict(record, ANSWERS);
    assert_eq!((none.cause, none.confidence), (Cause::PrematureWorkerKilled, Confidence::Proven));
    record.nginx.flags |= nginx_flag::READ_LAST;
    record.nginx.received = 300;
    let some = verdict(record, ANSWERS);
    assert_eq!((some.cause, some.confidence), (Cause::PrematureWorkerKilled, Confidence::Inferred));
    assert!(some.explanation.contains("were the whole response is not seen"), "{}", some.explanation);
}

#[test]
fn a_worker_that_died_before_the_request_closed_early_though_a_reset_answered_the_request() {
    let mut record = killed(10, 11);
    record.nginx.error = 0;
    record.nginx.flags |= nginx_flag::END_READ;
    (record.nginx.old_state, record.nginx.new_state) = (tcp_state::CLOSE_WAIT, tcp_state::CLOSE);
    record.nginx.first_sent_ns = at(15);
    record.nginx.unacked = u32::try_from(record.nginx.sent).unwrap();
    let early = verdict(record, ANSWERS);
    assert_eq!((early.cause, early.confidence), (Cause::PrematureWorkerCrashed, Confidence::Proven));
    assert!(early.explanation.contains("before nginx had sent the request"), "{}", early.explanation);
    // It closed with bytes unread, which it did not want.
    record.nginx.unread = 4;
    assert_ne!(verdict(record, ANSWERS).cause, Cause::PrematureWorkerCrashed);
}

#[test]
fn nobody_known_is_not_said_to_live() {
    let mut record = killed(1_000, 9);
    record.worker.accepted_ns = 0;
    (record.worker.exiting, record.worker.exit_code) = (0, 0);
    (record.worker.worker, record.worker.closer) = (task(0, ""), task(0, ""));
    let verdict = verdict(record, ANSWERS);
    assert_eq!((verdict.cause, verdict.errno.as_deref()), (Cause::NotEnoughFacts, Some("ECONNRESET")));
    assert!(verdict.worker.is_none(), "{:?}", verdict.worker);
}

#[test]
fn lost_records_make_verdicts_incomplete() {
    let mut ledger = Ledger::default();
    ledger.take(Record::Exchange(Box::new(given_up(1_000))));
    let Some(Whole::Exchange(joined)) = ledger.drain().pop() else { panic!("no exchange") };
    let Outcome::Failed(verdict) = attribute(&joined, &context(true)) else { panic!("no verdict") };
    assert_eq!((verdict.cause, verdict.confidence), (Cause::EvidenceLost, Confidence::Incomplete));
}

#[test]
fn a_worker_whose_end_was_lost_is_not_taken_for_one_on_another_host() {
    let lossy = |mut record: ExchangeRecord| {
        record.worker.sock = 0;
        let mut ledger = Ledger::default();
        ledger.take(Record::Exchange(Box::new(record)));
        let whole = ledger.take(next_action(&record, Action::Sent, tcp_state::ESTABLISHED));
        let Some(Whole::Exchange(joined)) = whole else { panic!("no exchange") };
        let Outcome::Failed(verdict) = attribute(&joined, &context(true)) else { panic!("no verdict") };
        assert_eq!(verdict.confidence, Confidence::Incomplete);
        (verdict.cause, verdict.errno)
    };
    let mut timed_out = given_up(1_000);
    let reset = lossy(killed(1_000, 9));
    assert_eq!(reset, (Cause::EvidenceLost, Some("ECONNRESET".into())));
    assert_eq!(lossy(timed_out), (Cause::EvidenceLost, Some("ETIMEDOUT".into())));
    timed_out.nginx.upstream.addr[3] = u32::from_ne_bytes([192, 0, 2, 1]);
    assert_eq!(lossy(timed_out), (Cause::TimeoutNoAnswer, Some("ETIMEDOUT".into())));
}

#[test]
fn what_nginx_closes_without_a_word_has_not_failed_by_the_upstream() {
    let audible = |mut record: ExchangeRecord| {
        record.nginx.flags |= nginx_flag::WORD_AUDIBLE;
        record
    };
    assert!(matches!(outcome(audible(given_up(1_000)), ANSWERS), Outcome::EndedEarly));
    assert!(matches!(outcome(audible(given_up(1_000)), None), Outcome::EndedEarly));
    // Which client it was for is not known: what nginx does next is a sign, and no proof.
    let left = verdict(audible(given_up(1_000)), CLIENT_LEFT);
    assert_eq!((left.cause, left.confidence), (Cause::ClientAbortBefore, Confidence::Inferred));
    // Its client was there, and was left without an answer.
    let unanswered = Some((Action::Closed, tcp_state::ESTABLISHED));
    assert_eq!(verdict(audible(given_up(1_000)), unanswered).cause, Cause::NotEnoughFacts);
    // Its worker answered, closed, and nginx had what it wanted; or it was idle.
    let mut idle = killed(1_000, 9);
    idle.nginx.flags |= nginx_flag::READ_LAST;
    assert!(matches!(outcome(audible(idle), ANSWERS), Outcome::Succeeded));
    // A word that was lost on its way was said.
    let mut lost = given_up(1_000);
    lost.nginx.word_ns = at(1_000);
    let lost = verdict(audible(lost), ANSWERS);
    assert_eq!((lost.cause, lost.confidence), (Cause::TimeoutSlowWorker, Confidence::Inferred));
    // What connect fails with, nginx may have yet to say.
    let mut refused = connecting(0, 111);
    refused.nginx.reset = reset_without_socket();
    assert_eq!(verdict(audible(refused), None).cause, Cause::RefusedNoListener);
}

/// The client of hand-made records: `next_action` acts on its socket.
const CLIENT: u64 = 0xffff_8880_0000_4000;

/// A record of which nginx said nothing, with what it had been given last and how its client's socket was.
fn silent(mut record: ExchangeRecord, read: u32, client: u8) -> ExchangeRecord {
    record.nginx.flags |= nginx_flag::WORD_AUDIBLE | read;
    record.nginx.client =
        Client { sock: CLIENT, peer: endpoint(1, 40000), state: client, ..Client::default() };
    record
}

#[test]
fn what_set_nginx_off_names_what_the_client_did() {
    use nginx_flag::{
        CLIENT_READ, NOTHING_READ, OTHER_READ, REQUEST_UNDER_WAY, SHUTTING_DOWN, UPSTREAM_READ,
    };
    use tcp_state::{CLOSE, CLOSE_WAIT, ESTABLISHED};
    const CLOSES: Option<(Action, u8)> = Some((Action::Closed, ESTABLISHED));
    const RETRIES: Option<(Action, u8)> = Some((Action::Connected, CLOSE));
    let named = |read, client, next| match outcome(silent(given_up(1_000), read, client), next) {
        Outcome::Failed(verdict) => Some((verdict.cause, verdict.confidence)),
        _ => None,
    };
    let proven = |cause| Some((cause, Confidence::Proven));
    // Its end: whatever nginx does next, be it a request of post_action's.
    for next in [None, ANSWERS, RETRIES] {
        for read in [CLIENT_READ, NOTHING_READ, OTHER_READ] {
            assert_eq!(named(read, CLOSE_WAIT, next), proven(Cause::ClientAbortBefore));
            assert_eq!(named(read, CLOSE, next), proven(Cause::ClientAbortBefore));
        }
    }
    // Its bytes, with its connection kept.
    for next in [None, RETRIES] {
        assert_eq!(named(CLIENT_READ, ESTABLISHED, next), proven(Cause::ClientCancelled));
        assert_eq!(named(CLIENT_READ | REQUEST_UNDER_WAY, ESTABLISHED, next), proven(Cause::ClientCancelled));
    }
    // What is cancelled has no answer: that may be another's.
    let inferred = |cause| Some((cause, Confidence::Inferred));
    assert_eq!(named(CLIENT_READ, ESTABLISHED, ANSWERS), inferred(Cause::ClientCancelled));
    let refused = named(CLIENT_READ | REQUEST_UNDER_WAY, ESTABLISHED, ANSWERS);
    assert_eq!(refused, inferred(Cause::ClientBodyInvalid));
    // Nothing of anybody's.
    assert_eq!(named(NOTHING_READ, ESTABLISHED, CLOSES), proven(Cause::ClientBodyTimeout));
    assert_eq!(named(OTHER_READ, ESTABLISHED, CLOSES), proven(Cause::ClientBodyTimeout));
    assert_eq!(named(NOTHING_READ | SHUTTING_DOWN, ESTABLISHED, CLOSES), proven(Cause::NginxShutdownTimeout));
    assert_eq!(named(NOTHING_READ | SHUTTING_DOWN, ESTABLISHED, RETRIES), None);
    // The upstream's bytes: nginx had what it wanted.
    assert_eq!(named(UPSTREAM_READ, ESTABLISHED, ANSWERS), None);
    // Another client than was thought.
    let Record::NextAction(mut other, action) = next_action(&given_up(1_000), Action::Closed, CLOSE_WAIT)
    else {
        panic!("no next action")
    };
    other.other_sock += 1;
    let mut ledger = Ledger::default();
    ledger.take(Record::Exchange(Box::new(silent(given_up(1_000), CLIENT_READ, ESTABLISHED))));
    let Some(Whole::Exchange(joined)) = ledger.take(Record::NextAction(other, action)) else {
        panic!("no exchange")
    };
    let Outcome::Failed(verdict) = attribute(&joined, &context(false)) else { panic!("no verdict") };
    assert_eq!((verdict.cause, verdict.confidence), (Cause::ClientAbortBefore, Confidence::Inferred));
}

/// Also where its silence says nothing, and it closes a client's idle connection next.
#[test]
fn a_worker_that_is_told_to_quit_closes_what_it_has_kept() {
    let mut kept = given_up(1_000);
    kept.nginx.flags |= nginx_flag::READ_LAST;
    (kept.nginx.received, kept.nginx.last_received_ns) = (300, at(10));
    assert!(matches!(outcome(kept, ANSWERS), Outcome::Failed(_)));
    kept.nginx.flags |= nginx_flag::SHUTTING_DOWN;
    assert!(matches!(outcome(kept, ANSWERS), Outcome::Succeeded));
    kept.nginx.unread = 100;
    assert!(matches!(outcome(kept, ANSWERS), Outcome::Failed(_)));
}

/// The verdict on an exchange that nginx said it would not wait for any longer.
fn timed_out(mut record: ExchangeRecord, doing: &[u8]) -> Verdict {
    record.nginx.word_ns = record.nginx.ended_ns;
    let mut said = WordOf::new_zeroed();
    (said.word.ns, said.word.tid, said.word.errno) = (record.nginx.word_ns, record.nginx.nginx.tid, 110);
    said.word.message[..18].copy_from_slice(b"upstream timed out");
    said.word.action[..doing.len()].copy_from_slice(doing);
    let mut ledger = Ledger::default();
    let mut whole: Vec<Whole> = ledger.take(Record::Word(Box::new(said))).into_iter().collect();
    whole.extend(ledger.take(Record::Exchange(Box::new(record))));
    whole.extend(ledger.drain());
    let [Whole::Exchange(joined)] = &whole[..] else { panic!("not one exchange: {whole:?}") };
    let Outcome::Failed(verdict) = attribute(joined, &context(false)) else { panic!("no verdict") };
    *verdict
}

#[test]
fn one_that_is_told_to_quit_and_says_what_failed_has_failed() {
    let mut stalled = given_up(1_000);
    stalled.nginx.flags |= nginx_flag::READ_LAST | nginx_flag::SHUTTING_DOWN;
    (stalled.nginx.received, stalled.nginx.last_received_ns) = (300, at(10));
    assert_eq!(timed_out(stalled, b"reading upstream").cause, Cause::TimeoutStalledResponse);
}

/// On a host with more work than time, nginx may look at its timers before it looks at what has come.
#[test]
fn a_worker_whose_answer_nginx_had_not_read_is_not_slow() {
    const DOING: &[u8] = b"reading response header from upstream";
    let mut record = given_up(1_000);
    assert_eq!(timed_out(record, DOING).cause, Cause::TimeoutSlowWorker);
    (record.nginx.unread, record.worker.sent) = (300, 300);
    let verdict = timed_out(record, DOING);
    assert_eq!((verdict.cause, verdict.confidence), (Cause::NginxSays, Confidence::Inferred));
}

/// nginx's memory tells a cancelled request from one that ends with its client's connection.
#[test]
fn what_ends_with_the_clients_connection_is_named_by_how_nginx_ends_that() {
    use nginx_flag::{CLIENT_BLOCKED, CLIENT_ENDED, CLIENT_READ, CLIENT_UNTOLD, NOTHING_READ, UPSTREAM_READ};
    use tcp_state::ESTABLISHED;
    const SHUTS: Option<(Action, u8)> = Some((Action::ShutDown, ESTABLISHED));
    const CLOSES: Option<(Action, u8)> = Some((Action::Closed, ESTABLISHED));
    let named = |read, next| match outcome(silent(given_up(1_000), read, ESTABLISHED), next) {
        Outcome::Failed(verdict) => Some((verdict.cause, verdict.confidence)),
        _ => None,
    };
    let proven = |cause| Some((cause, Confidence::Proven));
    let inferred = |cause| Some((cause, Confidence::Inferred));
    assert_eq!(named(CLIENT_ENDED | CLIENT_READ, SHUTS), proven(Cause::ClientHttp2Error));
    for read in [NOTHING_READ, UPSTREAM_READ] {
        assert_eq!(named(CLIENT_ENDED | read, SHUTS), inferred(Cause::ClientHttp2Error));
    }
    for next in [CLOSES, None] {
        assert_eq!(named(CLIENT_ENDED | CLIENT_READ, next), inferred(Cause::ClientAbortBefore));
        let full = CLIENT_ENDED | CLIENT_BLOCKED | NOTHING_READ;
        assert_eq!(named(full, next), proven(Cause::ClientNotReading));
        assert_ne!(named(CLIENT_ENDED | NOTHING_READ, next), proven(Cause::ClientBodyTimeout));
    }
    assert_eq!(named(CLIENT_READ | CLIENT_UNTOLD, None), inferred(Cause::ClientCancelled));
    assert_eq!(named(CLIENT_READ | NOTHING_READ, None), inferred(Cause::ClientCancelled));
}

/// A stream that nginx resets, by as many bytes as that takes, with TLS or without.
#[test]
fn a_stream_that_nginx_resets_broke_the_rules() {
    let record = silent(given_up(1_000), nginx_flag::CLIENT_READ, tcp_state::ESTABLISHED);
    let named = |bytes| {
        let Record::NextAction(mut answer, action) =
            next_action(&record, Action::Sent, tcp_state::ESTABLISHED)
        else {
            panic!("no act")
        };
        answer.bytes = bytes;
        let mut ledger = Ledger::default();
        ledger.take(Record::Exchange(Box::new(record)));
        assert!(ledger.take(Record::NextAction(answer, action)).is_none());
        let Some(Whole::Exchange(joined)) = ledger.overdue(u64::MAX).pop() else { panic!("no exchange") };
        let Outcome::Failed(verdict) = attribute(&joined, &context(false)) else { panic!("no verdict") };
        (verdict.cause, verdict.confidence)
    };
    for bytes in [13, 34, 35, 42] {
        assert_eq!(named(bytes), (Cause::ClientHttp2Error, Confidence::Inferred), "{bytes}");
    }
    for bytes in [0, 12, 17, 26, 400] {
        assert_eq!(named(bytes), (Cause::ClientCancelled, Confidence::Inferred), "{bytes}");
    }
}

/// A thread may sleep where no timer of its own wakes it (issue 20, on 6.1).
#[test]
fn where_no_timer_went_off_sleep_is_none() {
    use nginx_flag::{BODY_TIMED, CLIENT_READ, CLIENT_UNTOLD, NOTHING_READ, UNTIMED, UPSTREAM_READ};
    let closes = Some((Action::Closed, tcp_state::ESTABLISHED));
    let named = |record, read| match outcome(silent(record, read, tcp_state::ESTABLISHED), closes) {
        Outcome::Failed(verdict) => Some((verdict.cause, verdict.confidence, verdict.status)),
        _ => None,
    };
    let mut early = given_up(1_000);
    early.nginx.flags |= nginx_flag::READ_LAST;
    (early.nginx.received, early.nginx.unread) = (4_096, 90_000);
    early.nginx.new_state = tcp_state::CLOSE;
    let not_reading = |confidence| Some((Cause::ClientNotReading, confidence, None));
    assert_eq!(named(early, NOTHING_READ), not_reading(Confidence::Proven));
    assert_eq!(named(early, NOTHING_READ | CLIENT_UNTOLD), not_reading(Confidence::Inferred));
    for read in [NOTHING_READ, NOTHING_READ | UPSTREAM_READ] {
        assert_eq!(named(early, read | UNTIMED), None);
        assert_ne!(
            named(given_up(1_000), read | UNTIMED),
            Some((Cause::ClientBodyTimeout, Confidence::Proven, Some(408)))
        );
    }
    assert_ne!(named(early, NOTHING_READ | CLIENT_READ | UNTIMED), not_reading(Confidence::Proven));
    // A body that stops in the middle of a response, of which nginx has read all that came.
    early.nginx.unread = 0;
    assert_eq!(
        named(early, NOTHING_READ | BODY_TIMED),
        Some((Cause::ClientBodyTimeout, Confidence::Proven, None))
    );
}

#[test]
fn a_client_that_does_not_read_is_told_from_a_connection_that_is_idle() {
    use nginx_flag::{CLIENT_BLOCKED, NOTHING_READ, READ_LAST};
    let mut answered = given_up(60_000);
    answered.nginx.flags |= READ_LAST;
    answered.nginx.received = 70_000;
    let closes = Some((Action::Closed, tcp_state::ESTABLISHED));
    let named = |record, read, next| match outcome(silent(record, read, tcp_state::ESTABLISHED), next) {
        Outcome::Failed(verdict) => Some((verdict.cause, verdict.status)),
        _ => None,
    };
    let not_reading = Some((Cause::ClientNotReading, None));
    assert_eq!(named(answered, NOTHING_READ, None), None);
    assert_eq!(named(answered, NOTHING_READ | CLIENT_BLOCKED, None), None);
    assert_eq!(named(answered, NOTHING_READ | CLIENT_BLOCKED, closes), not_reading);
    answered.nginx.unread = 9_000;
    answered.nginx.new_state = tcp_state::CLOSE;
    assert_eq!(named(answered, NOTHING_READ, closes), not_reading);
}

#[test]
fn where_nginx_is_not_heard_what_it_does_next_proves_nothing() {
    for next in [ANSWERS, CLIENT_LEFT] {
        assert_eq!(verdict(given_up(1_000), next).confidence, Confidence::Inferred);
    }
    assert_eq!(verdict(killed(10, 9), ANSWERS).confidence, Confidence::Proven);
}

#[test]
fn what_was_upgraded_fails_only_with_its_worker() {
    let upgraded = |mut record: ExchangeRecord| {
        record.nginx.flags |= nginx_flag::UPGRADED;
        record
    };
    for next in [ANSWERS, CLIENT_LEFT, None] {
        assert!(matches!(outcome(upgraded(given_up(1_000)), next), Outcome::Succeeded));
    }
    let cut = verdict(upgraded(killed(1_000, 9)), ANSWERS);
    assert_eq!((cut.cause, cut.confidence, cut.status), (Cause::UpgradedKilled, Confidence::Proven, None));
    assert!(cut.explanation.contains("had been upgraded"), "{}", cut.explanation);
}

#[test]
fn an_upgraded_connection_that_nginxs_timer_ends_was_idle() {
    let mut record = given_up(5_000);
    record.nginx.flags |= nginx_flag::UPGRADED | nginx_flag::NOTHING_READ | nginx_flag::WORD_AUDIBLE;
    record.nginx.client.state = tcp_state::ESTABLISHED;
    let idle = verdict(record, None);
    assert_eq!((idle.cause, idle.status), (Cause::TimeoutIdleUpgraded, None));
    // A worker that is told to quit closes what is idle, and a client may not take what is sent.
    for flag in [nginx_flag::SHUTTING_DOWN, nginx_flag::CLIENT_BLOCKED] {
        let mut other = record;
        other.nginx.flags |= flag;
        assert!(
            !matches!(outcome(other, None), Outcome::Failed(found) if found.cause == Cause::TimeoutIdleUpgraded)
        );
    }
}

#[test]
fn a_connection_that_outlives_its_worker_is_named_by_how_the_worker_died() {
    let mut record = given_up(5_000);
    record.worker.accepted_ns = at(1);
    record.worker.worker = task(24_940, "php-fpm8.2");
    record.stops.gone.ns = at(2_001);
    record.stops.gone.exit_code = 15;
    record.stops.gone.signal = Signal {
        ns: at(2_000),
        number: 15,
        sender: task(24_938, "php-fpm8.2"),
        origin: Origin::Process as u16,
        ..Signal::default()
    };
    let gone = verdict(record, ANSWERS);
    assert_eq!(gone.cause, Cause::TimeoutWorkerGone);
    assert_eq!(gone.killer.map(|killer| killer.pid), Some(24_938));
    assert_eq!(gone.worker.and_then(|worker| worker.signal).as_deref(), Some("SIGTERM"));
    // The kernel closed it only when the command that held it on had ended.
    let mut late = killed(9_000, 15);
    late.stops.gone = record.stops.gone;
    late.worker.worker = task(24_940, "php-fpm8.2");
    (late.worker.closer, late.worker.exit_code) = (task(24_999, "sleep"), 0);
    let late = verdict(late, ANSWERS);
    assert_eq!(late.cause, Cause::ResetWorkerKilled);
    assert_eq!(late.killer.map(|killer| killer.pid), Some(24_938));
    assert!(late.explanation.contains("sleep 24999 had it, too"), "{}", late.explanation);
}

#[test]
fn what_is_no_request_has_no_status() {
    let mut record = connecting(0, 111);
    record.nginx.reset = reset_without_socket();
    for (flag, line) in [
        (nginx_flag::STREAM, "connect() failed (111: Connection refused) while connecting to upstream"),
        (nginx_flag::OF_MODULE, "connect() failed (111: Connection refused)"),
    ] {
        record.nginx.flags = nginx_flag::RESET_RECEIVED | flag;
        let refused = verdict(record, None);
        assert_eq!((refused.cause, refused.status), (Cause::RefusedNoListener, None));
        assert_eq!(refused.error_log.as_deref(), Some(line));
    }
}

#[test]
fn names_are_unique_and_lower_case() {
    let names: std::collections::BTreeSet<String> = Cause::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(names.len(), Cause::ALL.len());
    assert!(
        names
            .iter()
            .all(|name| name.chars().all(|letter| letter.is_ascii_lowercase() || "/_2".contains(letter)))
    );
}
