use std::{env, fs, io::Read as _, path::PathBuf};

use wire::{Action, Endpoint, FAMILY_UNIX, Hop, Kind as RecordKind, PATH_LEN, Served, WordOf, tcp_state};
use zerocopy::FromZeros as _;

use super::*;
use crate::{
    ledger::samples::*,
    model::{
        answers::{Answer, Followed, Try},
        cgroup::{Cgroup, Member, Wanted},
        clock::ClockOffset,
        doing::{Doing, Look, Peer, Target},
        facts::{Fact, Sources},
        groups::{self, Configured, Place as At, Server},
        inquiry::{About, Conntrack, Denial, Found, Holder, Inquiry, Kind, Ordinary, Place, Queue, Sharer},
        near::{Closed, Near},
        pressure::{Group, Quota, Reading, Stall, Stalls},
        record::Record,
        stranger::{Stranger, Why},
        stream::{Counts, Depth, Entry, Following, Logged, Loss, LossReason, Start, UpstreamCounts, What},
        upstream::Upstream,
        verdict::{Limits, Neighbour, Process},
    },
};

fn header() -> Header {
    let mut sources = Sources::default();
    sources.set(Fact::Signals, "raw_tp/signal_generate".to_owned());
    let start = Start {
        started_ns: CONNECT,
        begins_ns: CONNECT,
        counts: Counts::default(),
        clock_offset: ClockOffset(1_795_000_000_000_000_000),
        sources,
        limit: Some(7),
        is_narrowed: false,
        wanted: Wanted::default(),
    };
    let args = <crate::args::Args as clap::Parser>::parse_from(["why502", "record", "-o", "x"]);
    let crate::args::Command::Record(args) = args.command else { panic!("not record") };
    Header::now(&args.trace, &["10.0.0.5:9000".to_owned()], &start, &Names::new(false))
}

/// What an application wrote that runs at this upstream, whose path is that if it is a unix one.
fn note(upstream: &Endpoint, path: &[u8]) -> WordOf {
    let mut note = WordOf { upstream: *upstream, ..WordOf::new_zeroed() };
    note.word.header.kind = RecordKind::WordOf as u32;
    (note.word.ns, note.word.tgid, note.word.tid, note.word.level) = (at(1_950), 7, 8, 4);
    note.word.message[..22].copy_from_slice(b"FastCGI sent in stderr");
    note.subject[..path.len()].copy_from_slice(path);
    note
}

/// What is counted of a host and of a control group.
fn reading() -> Reading {
    let stall = |some| Stall { some: Some(some), full: None };
    let stalls = Stalls { cpu: stall(9), io: stall(8), memory: Stall::default() };
    let quota = Quota { path: "/a".to_owned(), throttled_us: 3, throttled: 2, periods: 5 };
    let group = Group { pids: vec![7], path: "/a/b".to_owned(), stalls, quotas: vec![quota] };
    Reading { ns: at(9), host: stalls, running: Some(3), cpus: None, groups: vec![group] }
}

/// One entry of every kind, with everything in it that can be.
fn entries() -> Vec<Entry> {
    let mut unix = killed(2_000, 9);
    unix.nginx.upstream = Endpoint { family: FAMILY_UNIX, ..Endpoint::default() };
    unix.path[..4].copy_from_slice(b"/a\\\xff");
    let mut exchange = killed(3_000, 15);
    exchange.stops.worker = exchange.worker.signal;
    exchange.stops.parent = wire::Signal { number: 12, origin: 1, ..exchange.worker.signal };
    exchange.stops.parent_task = exchange.worker.signal.sender;
    exchange.stops.gone.ns = exchange.worker.signal.ns + 1;
    (exchange.stops.gone.exit_code, exchange.stops.gone.signal) = (15, exchange.worker.signal);
    let gone = gone(&exchange, 5_000);
    let next = next_action(&exchange, Action::Closed, tcp_state::CLOSE_WAIT);
    let mut hop = Hop::new_zeroed();
    hop.header.kind = RecordKind::Hop as u32;
    (hop.sock, hop.connect_ns) = (exchange.nginx.sock, CONNECT);
    (hop.outer_sock, hop.outer_connect_ns) = (exchange.nginx.sock, CONNECT - 7);
    (hop.asked_ns, hop.answered_ns, hop.nginx) = (CONNECT - 5, at(9), task(7, "nginx"));
    (hop.local, hop.upstream) = (endpoint(1, 40_000), endpoint(1, 8081));
    hop.path[..4].copy_from_slice(b"/a\\\xff");
    let mut served = Served::new_zeroed();
    (served.handshake, served.peer, served.worker) = (1 << 40 | 7, endpoint(9, 40_000), worker());
    served.header.kind = RecordKind::Served as u32;
    let mut word = WordOf::new_zeroed();
    word.word.header.kind = RecordKind::WordOf as u32;
    (word.word.ns, word.word.connection, word.word.number) = (at(1_900), 17, 18);
    (word.word.tgid, word.word.tid, word.word.level, word.word.errno) = (7, 8, 4, 110);
    word.comm[..5].copy_from_slice(b"nginx");
    word.subject[..4].copy_from_slice(b"a\\\xff\n");
    word.word.message[..18].copy_from_slice(b"upstream timed out");
    word.word.action[..16].copy_from_slice(b"reading upstream");
    let look = |doing| {
        What::Look(Look {
            ns: at(1_000),
            pid: 7,
            tid: 8,
            doing,
            has_other_threads: true,
            exchanges: vec![((exchange.nginx.sock, CONNECT), 1)],
        })
    };
    let mut sources = Sources::default();
    sources.set(Fact::UnixSockets, "tracepoint/syscalls/sys_enter_connect".to_owned());
    let upstream = Upstream::Inet("10.0.0.5:80".parse().unwrap());
    let server = |place| Server {
        place,
        limits: Limits { max_fails: 3, fail_timeout_s: 30 },
        is_down: true,
        has_max_conns: false,
        is_watched: false,
    };
    let configured = Configured {
        workers: vec![7, 8],
        groups: vec![groups::Group {
            name: "pair".to_owned(),
            is_shared: true,
            servers: vec![
                server(At::At(upstream.clone())),
                server(At::At(Upstream::Unix("/run/a.sock".into()))),
                server(At::Named(9000)),
            ],
        }],
        is_narrowed: true,
        counts_statuses: true,
        gaps: Some("/etc/nginx/more".to_owned()),
    };
    let inquiry = |about, found| What::Inquiry(Inquiry { about, found });
    let denial = Found::Denial(Denial {
        ordinary: Ordinary::Allow,
        selinux: true,
        label: Some("system_u:system_r:httpd_t:s0".to_owned()),
        seccomp: true,
    });
    let holder = Process { pid: 9, comm: "sleep".to_owned() };
    let place = Place { kind: Kind::Socket, bound: Some(vec![holder.clone()]) };
    let sharer = Sharer { process: holder.clone(), waiting: 3, stands_still: true };
    let holders = vec![
        Holder {
            process: sharer.process.clone(),
            doing: Some(Doing::Waiting(Target::Sleep("nanosleep".into()))),
        },
        Holder { process: sharer.process.clone(), doing: None },
    ];
    let queue = Queue { holders, others: 1, is_served: false, since_ns: Some(at(3)), has_accepted: true };
    let table = Conntrack { entries: 7, max: 8, drops: 9, risen: Some(1) };
    let whats = vec![
        What::Record(Record::Exchange(Box::new(exchange))),
        What::Record(Record::Exchange(Box::new(unix))),
        What::Record(Record::Hop(Box::new(hop))),
        What::Record(next),
        What::Record(gone),
        What::Record(Record::Served(Box::new(served))),
        What::Record(Record::Word(Box::new(word))),
        What::Logged(Box::new(Logged { word, upstream: Some(upstream.clone()) })),
        What::Record(Record::Word(Box::new(note(&endpoint(5, 80), b"")))),
        What::Record(Record::Word(Box::new(note(
            &Endpoint { family: FAMILY_UNIX, ..Endpoint::default() },
            b"/run/a.sock",
        )))),
        What::Following(Following { is_followed: true, stepped_back: 1 }),
        look(Doing::Running),
        look(Doing::Waiting(Target::Peer(Peer::Tcp("10.0.0.5:3306".parse().unwrap())))),
        look(Doing::Waiting(Target::FileLock("/var/lib/x".into()))),
        look(Doing::Waiting(Target::Sleep("nanosleep".into()))),
        What::Loss(Loss { ns: at(5), reason: LossReason::RingFull, count: 3 }),
        What::Counts(Counts {
            exchanges: 3,
            connections: 2,
            untracked: 1,
            strangers: 4,
            upstreams_left_out: 5,
            words_left_out: 6,
        }),
        What::Member(Member {
            pid: 7,
            began_ns: at(1),
            is_kept: true,
            cgroup: std::sync::Arc::new(Cgroup::of(
                "/a/\u{1b}/pod0123456789abcdef0123456789abcdef/x.service",
            )),
        }),
        What::Pressure(reading()),
        What::Stranger(Stranger { pid: 7, uid: Some(1000), exe: None, why: Why::ForeignExecutable }),
        What::Upstream(UpstreamCounts { ns: at(5), upstream: upstream.clone(), exchanges: 3 }),
        What::Depth(Depth { ns: at(5), listener: upstream, depth: 5, limit: 4 }),
        What::Sources(sources),
        What::Clock(ClockOffset(-5)),
        What::Groups(configured),
        What::Near(Near {
            ns: at(5),
            asked: (Upstream::Unix("/run/a.sock".into()), 7),
            neighbours: vec![Neighbour {
                process: Process { pid: 8, comm: "php-fpm8.2".to_owned() },
                listens: Upstream::Unix("/run/a.sock".into()),
                is_elsewhere: true,
            }],
            others: 1,
            closed: Some(Closed {
                process: Process { pid: 7, comm: "php-fpm8.2".to_owned() },
                ns: at(3),
                again_ns: Some(at(4)),
                exit: Some(9),
                namesakes: vec![Neighbour {
                    process: Process { pid: 9, comm: "php-fpm8.2".to_owned() },
                    listens: Upstream::Inet("127.0.0.1:9001".parse().unwrap()),
                    is_elsewhere: false,
                }],
            }),
        }),
        What::Answer(Box::new(Answer {
            ns: at(7),
            within_ns: 1_000,
            status: 499,
            tries: None,
            rule: None,
            request: None,
        })),
        What::Answer(Box::new(Answer {
            ns: at(8),
            within_ns: 1_000,
            status: 502,
            tries: Some(vec![
                Try { upstream: Some(Upstream::Named("pair".to_owned())), status: Some(502) },
                Try { upstream: Some(Upstream::Unix("/run/a.sock".into())), status: None },
                Try { upstream: None, status: Some(503) },
            ]),
            rule: Some(crate::model::answers::Kind::LimitReq),
            request: None,
        })),
        What::AccessLogs(Followed { logs: 2, left_out: 1 }),
        inquiry(About::Exchange((exchange.nginx.sock, CONNECT)), Found::TerminateAfter(Some(30))),
        inquiry(About::Exchange((exchange.nginx.sock, CONNECT)), denial.clone()),
        inquiry(About::Word { thread: 8, ns: at(1_900) }, denial),
        inquiry(About::Word { thread: 8, ns: at(1_901) }, Found::Place(place)),
        inquiry(About::Exchange((exchange.nginx.sock, CONNECT + 1)), Found::Holders(vec![holder])),
        inquiry(About::Exchange((exchange.nginx.sock, CONNECT + 2)), Found::Conntrack(table)),
        inquiry(About::Exchange((exchange.nginx.sock, CONNECT + 3)), Found::Sharers(vec![sharer])),
        inquiry(About::Exchange((exchange.nginx.sock, CONNECT + 4)), Found::Missing { has_folder: true }),
        inquiry(About::Exchange((exchange.nginx.sock, CONNECT + 5)), Found::Queue(queue)),
        inquiry(About::Exchange((exchange.nginx.sock, CONNECT + 6)), Found::Reached(at(0) - 1)),
        What::End,
    ];
    whats.into_iter().zip(1..).map(|(what, ms)| Entry { at_ns: at(ms), what }).collect()
}

fn file(header: &Header, entries: &[Entry], names: Names) -> Vec<u8> {
    let encoder = Encoder::new(CONNECT, names);
    let mut frames = Frames::default();
    frames.add(&Line::Header(Box::new(header.clone()))).unwrap();
    let mut bytes = frames.complete().unwrap().unwrap().bytes;
    for entry in entries {
        frames.add(&encoder.line(entry)).unwrap();
        bytes.extend(frames.complete().unwrap().unwrap().bytes);
    }
    bytes
}

fn read(bytes: &[u8]) -> Result<(Vec<Entry>, Option<String>), Unreadable> {
    let mut reader = Reader::new(bytes)?;
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        entries.push(entry);
    }
    Ok((entries, reader.cut().map(str::to_owned)))
}

#[test]
fn every_kind_of_entry_comes_back_as_it_was() {
    let before = entries();
    let (after, cut) = read(&file(&header(), &before, Names::kept(false))).unwrap();
    assert_eq!(cut, None);
    // Lengths of records are not evidence.
    let shown = |entry: &Entry| {
        let text = format!("{entry:?}");
        let (before, after) = text.split_once("Header {").unwrap_or((&text, ""));
        format!("{before}{}", after.split_once('}').map_or("", |(_, after)| after))
    };
    assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(shown(before), shown(after));
    }
}

#[test]
fn a_file_that_is_cut_anywhere_is_read_up_to_the_cut() {
    let entries = entries();
    let bytes = file(&header(), &entries, Names::new(false));
    for length in 0..bytes.len() {
        match read(&bytes[..length]) {
            // Without its last byte a checksum is not whole, and all the rest is.
            Ok((read, cut)) => assert!(read.len() < entries.len() || cut.is_some()),
            Err(error) => assert!(matches!(error, Unreadable::NotEvidence(_)), "{length}: {error}"),
        }
    }
}

#[test]
fn no_address_of_the_kernels_is_written() {
    let bytes = file(&header(), &entries(), Names::new(false));
    let mut text = String::new();
    zstd::stream::read::Decoder::new(&bytes[..]).unwrap().read_to_string(&mut text).unwrap();
    // Those of the samples begin with 0xffff8880.
    assert!(!text.contains("184466"), "{text}");
    for digits in text.split(|letter: char| !letter.is_ascii_digit()).filter(|digits| digits.len() > 16) {
        assert!(text.contains(&format!("\"{digits}\"")), "{digits} is larger than a double holds");
    }
}

#[test]
fn newer_versions_and_other_files_are_refused_with_a_sentence() {
    let mut header = header();
    header.v = VERSION + 1;
    let error = read(&file(&header, &[], Names::new(false))).err().unwrap();
    assert!(error.to_string().contains("use a newer why502"), "{error}");
    for bytes in [&b""[..], b"dear diary", &zstd::encode_all(&b"{}\n"[..], 1).unwrap()] {
        assert!(matches!(read(bytes), Err(Unreadable::NotEvidence(_))));
    }
}

#[test]
fn what_is_made_to_be_large_is_refused() {
    let start = file(&header(), &[], Names::new(false));
    let zeroes = std::io::repeat(b'0').take(256 << 20);
    let bomb = [start.clone(), zstd::encode_all(zeroes, 1).unwrap()].concat();
    assert!(matches!(read(&bomb), Err(Unreadable::LongLine(2))));
    let mut line = serde_json::to_string(&Line::End { at: 5 }).unwrap();
    line.push('\n');
    let lines = zstd::encode_all(line.repeat((32 << 20) / line.len()).as_bytes(), 1).unwrap();
    assert!(matches!(read(&[start, lines].concat()), Err(Unreadable::Bomb)));
}

fn schema() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/schema/evidence.json")
}

/// `RENEW=1 cargo test -p tracer-user schema` writes it anew.
#[test]
fn the_schema_is_that_of_the_lines() {
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(Line)).unwrap() + "\n";
    if env::var_os("RENEW").is_some() {
        fs::write(self::schema(), schema).unwrap();
    } else {
        assert_eq!(fs::read_to_string(self::schema()).unwrap(), schema);
    }
}

#[test]
fn every_line_fits_the_schema() {
    let schema = serde_json::from_str(&fs::read_to_string(schema()).unwrap()).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let encoder = Encoder::new(CONNECT, Names::new(true));
    let lines = entries().into_iter().map(|entry| encoder.line(&entry));
    for line in lines.chain([Line::Header(Box::new(header()))]) {
        let json = serde_json::to_value(&line).unwrap();
        let errors: Vec<_> = schema.iter_errors(&json).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{json}: {errors:?}");
    }
    assert!(!schema.is_valid(&serde_json::json!({ "type": "dance", "at": 1 })));
}

#[test]
fn paths_are_as_long_as_they_may_be() {
    let mut exchange = killed(1, 9);
    exchange.nginx.upstream.family = FAMILY_UNIX;
    exchange.path = [b'/'; PATH_LEN];
    let what = What::Record(Record::Exchange(Box::new(exchange)));
    let entry = Entry { at_ns: at(1), what };
    assert_eq!(read(&file(&header(), &[entry], Names::new(false))).unwrap().0.len(), 1);
}
