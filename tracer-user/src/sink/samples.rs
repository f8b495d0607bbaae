//! Small verdicts made by hand, for the tests of each output.

use crate::model::{
    audit::{Report, Unexplained, Unlogged},
    cause::Cause,
    cgroup::{Cgroup, Place, Places},
    upstream::Upstream,
    verdict::{
        Bytes, Confidence, Delayed, Doing, Evidence, Failed, Limits, Moments, Note, OutOfUse, Process, Queue,
        Summary, Verdict, Word, Words, Worker,
    },
};

/// 2026-11-20T11:39:26 UTC.
const SECOND: i64 = 1_795_174_766_000_000_000;

fn process(pid: u32, comm: &str) -> Process {
    Process { pid, comm: comm.to_owned() }
}

/// Where the worker runs.
fn places() -> Places {
    let cgroup = Cgroup::of("/system.slice/php8.2-fpm.service").into();
    Places(vec![Place { pid: 24940, is_kept: false, cgroup }])
}

fn evidence(us: i64, source: &str, fact: &str) -> Evidence {
    Evidence { us, source: source.to_owned(), fact: fact.to_owned() }
}

/// One of each kind that differs in what it has.
pub fn verdicts() -> [Verdict; 6] {
    [killed(), unknown(), never_accepted(), slow_worker(), hostile(), no_live_upstreams()]
}

/// The verdict of the design: a worker killed by its master.
pub fn killed() -> Verdict {
    Verdict {
        unix_ns: SECOND + 123_456_789,
        cause: Cause::ResetWorkerKilled,
        confidence: Confidence::Proven,
        nginx: process(24945, "nginx"),
        local: Some("127.0.0.1:52654".parse().unwrap()),
        upstream: Upstream::Inet("127.0.0.1:19001".parse().unwrap()),
        request: None,
        status: Some(502),
        errno: Some("ECONNRESET".to_owned()),
        word: None,
        servers: Vec::new(),
        outer: None,
        error_log: Some(
            "recv() failed (104: Connection reset by peer) while reading response header from upstream".to_owned(),
        ),
        worker: Some(Worker {
            process: process(24940, "php-fpm8.2"),
            signal: Some("SIGTERM".to_owned()),
            doing: None,
        }),
        killer: Some(process(24938, "php-fpm8.2")),
        places: places(),
        pressure: None,
        moments: Moments {
            connected: Some(45),
            accepted: Some(60),
            first_sent: Some(52),
            first_received: None,
            ended: Some(3_259_000),
            worker_ended: Some(3_259_010),
        },
        bytes: Bytes { sent: 552, received: 0, unread: Some(8) },
        queue: Some(Queue { depth: 0, limit: 4 }),
        kept: None,
        near: None,
        closed: None,
        holders: None,
        reached: None,
        evidence: vec![
            evidence(-400, "raw_tp/inet_sock_set_state", "nginx 24945 called connect"),
            evidence(3_256_900, "raw_tp/signal_generate", "php-fpm8.2 24938 sent SIGTERM to 24940"),
        ],
        explanation: "php-fpm master 24938 sent SIGTERM to worker 24940, 3.257 s into the request; 8 bytes were still \
                      unread, so the kernel reset the connection and nginx read ECONNRESET."
            .to_owned(),
        advice: "request_terminate_timeout of the pool on 127.0.0.1:19001 (this request was cut off at about 3 s)."
            .to_owned(),
    }
}

/// A verdict of which next to nothing is known.
pub fn unknown() -> Verdict {
    Verdict {
        unix_ns: SECOND + 1_000_000_000,
        cause: Cause::EvidenceLost,
        confidence: Confidence::Incomplete,
        nginx: process(24945, "nginx"),
        local: None,
        upstream: Upstream::Unix("/run/php/php8.2-fpm.sock".into()),
        request: None,
        status: None,
        errno: None,
        word: None,
        servers: Vec::new(),
        error_log: None,
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
        reached: None,
        evidence: Vec::new(),
        explanation: "Facts were lost.".to_owned(),
        advice: "the summary.".to_owned(),
    }
}

/// A verdict over IPv6.
pub fn never_accepted() -> Verdict {
    Verdict {
        cause: Cause::TimeoutNeverAccepted,
        confidence: Confidence::Inferred,
        upstream: Upstream::Inet("[2001:db8::7]:9000".parse().unwrap()),
        request: None,
        status: Some(504),
        moments: Moments { ended: Some(60_000_412), ..Moments::default() },
        ..unknown()
    }
}

/// A verdict on a worker that waited for a database.
pub fn slow_worker() -> Verdict {
    let waits = vec![("10.0.0.5:3306".to_owned(), 58)];
    Verdict {
        cause: Cause::TimeoutSlowWorker,
        worker: Some(Worker {
            process: process(24940, "php-fpm8.2"),
            signal: None,
            doing: Some(Doing { samples: 60, waits, running: 2 }),
        }),
        ..never_accepted()
    }
}

/// A verdict whose names try to take over the terminal.
pub fn hostile() -> Verdict {
    Verdict {
        nginx: process(24945, "ngi\nnx"),
        upstream: Upstream::Unix("/run/\u{1b}[31m\u{202e}.sock".into()),
        evidence: vec![evidence(45, "raw_tp/sched_process_exit", "wor\rker\u{7} exited")],
        explanation: "wor\rker\n24940\u{1b}[2J exited.".to_owned(),
        ..killed()
    }
}

/// An exchange that a dropped SYN held up.
pub fn delayed() -> Delayed {
    Delayed {
        unix_ns: SECOND + 2_500_000_000,
        nginx: process(24945, "nginx"),
        upstream: Upstream::Inet("127.0.0.1:19001".parse().unwrap()),
        delay_us: 1_019_000,
        syn_retransmits: 1,
        queue: Some(Queue { depth: 5, limit: 4 }),
        places: Places::default(),
        pressure: None,
        explanation: "The accept queue was full.".to_owned(),
    }
}

/// A group of which no server is left.
pub fn no_live_upstreams() -> Verdict {
    let limits = Some(Limits { max_fails: 3, fail_timeout_s: 30 });
    let failed = Some(Failed { cause: Cause::RefusedNoListener, ago_ns: 1_200_000_999 });
    let one = OutOfUse { upstream: killed().upstream, failed, limits, is_down: false };
    let other = OutOfUse { upstream: unknown().upstream, failed: None, limits, is_down: true };
    Verdict {
        cause: Cause::NoLiveUpstreams,
        upstream: Upstream::Named("pair".to_owned()),
        servers: vec![one, other],
        ..unknown()
    }
}

/// What a FastCGI application wrote.
pub fn note() -> Note {
    let word = Word {
        level: "error",
        errno: None,
        message: "FastCGI sent in stderr: \"…\"".to_owned(),
        doing: Some("reading response header from upstream".to_owned()),
        connection: 17,
    };
    Note {
        unix_ns: SECOND + 4_000_000_000,
        nginx: process(24945, "nginx"),
        upstream: Some(Upstream::Unix("/run/php.sock".into())),
        word,
        places: Places::default(),
        explanation: "A FastCGI application wrote.".to_owned(),
    }
}

/// An audit that found something of everything.
pub fn audit() -> Report {
    let line = "2026/11/20 11:39:26 [error] 24945#24945: *7 upstream timed out (110: Connection timed out) while connecting to \
                upstream, client: 127.0.0.1, server: , request: \"GET /\u{1b}[2J HTTP/1.0\", upstream: \"http://10.0.0.1:80/\"";
    let unexplained = Unexplained {
        unix_ns: SECOND,
        pid: 24945,
        upstream: Some("10.0.0.1:80".to_owned()),
        line: line.to_owned(),
    };
    let unlogged = Unlogged {
        unix_ns: SECOND + 500_000_000,
        cause: Cause::ResetWorkerKilled,
        pid: 24946,
        upstream: Upstream::Unix("/run/php/php8.2-fpm.sock".into()),
    };
    Report {
        logged: 12,
        explained: 11,
        unexplained: [unexplained].into_iter().collect(),
        unlogged: [unlogged].into_iter().collect(),
        ambiguous: std::iter::empty().collect(),
        early: 1,
        unaudited: 2,
        given_up: 0,
    }
}

/// A run with failures of two causes.
pub fn summary() -> Summary {
    Summary {
        elapsed_ns: 90_500_000_000,
        exchanges: 12_345,
        failures: vec![(Cause::RefusedNoListener, 12), (Cause::ResetWorkerKilled, 3)],
        delayed: 2,
        ended_early: 0,
        lost: 0,
        forgotten: 0,
        untracked: 0,
        strangers: 0,
        named_strangers: Vec::new(),
        stepped_back: 0,
        system_calls: false,
        words: Some(Words { said: 15, explained: 15, ..Words::default() }),
        answers: None,
    }
}
