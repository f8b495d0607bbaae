//! Whatever the bytes are, a report is an error or a result.

use std::{
    env, fs, iter,
    os::unix::process::CommandExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, setrlimit};

use super::*;
use crate::{
    memory,
    model::{record::Record, stream::What, verdict::Confidence},
    roots,
};

/// Evidence of this version of the format, which every later one must read: six seconds in which a pool of workers could not keep
/// up, one worker was killed, and nobody listened at a third upstream.
fn golden() -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/evidence-1.zst")).unwrap()
}

#[test]
fn evidence_of_format_version_1_is_read() {
    let mut replay = Replay::of(golden()).unwrap();
    let digest = follow(&mut replay, |_| Ok(())).unwrap();
    assert_eq!(replay.recordings()[0].header.v, 1);
    let kinds: Vec<_> = digest
        .kinds
        .iter()
        .map(|((cause, upstream), kind)| (cause.to_string(), upstream.to_string(), kind.count))
        .collect();
    let expected = [
        ("refused/no_listener", "127.0.0.1:9009", 4),
        ("accept_queue_overflow/syn_dropped", "127.0.0.1:9000", 19),
        ("reset/worker_killed", "127.0.0.1:9002", 1),
        ("read_timeout/never_accepted", "127.0.0.1:9000", 10),
        ("read_timeout/slow_worker", "127.0.0.1:9000", 4),
    ];
    let expected = expected.map(|(cause, upstream, count)| (cause.to_owned(), upstream.to_owned(), count));
    assert_eq!(kinds, expected);
    assert_eq!((digest.summary.exchanges, digest.summary.lost), (88, 0));
    let roots = roots::of(&digest.kinds);
    assert!(
        roots[0].failures == 33 && roots[0].sentence.contains("worker pool on 127.0.0.1:9000"),
        "{roots:?}"
    );
    let page = html::page(&digest, &[]).unwrap();
    assert_eq!(page.matches("<details").count(), 38);
}

#[test]
fn a_page_shows_hostile_names_as_text() {
    let mut replay = Replay::of(mutated(&golden(), |lines| {
        for line in lines {
            *line = line.replace("php-fpm8.2", "<script>x");
        }
    }))
    .unwrap();
    let digest = follow(&mut replay, |_| Ok(())).unwrap();
    let page = html::page(&digest, &[]).unwrap();
    assert!(page.contains("&#60;script&#62;x") && !page.contains("<script>x"));
}

#[test]
fn what_does_not_fit_in_memory_is_read_up_to_there_and_called_incomplete() {
    // All of them wait for what nginx does next.
    let waiting = mutated(&golden(), |lines| lines.retain(|line| !line.contains(r#""type":"aftermath""#)));
    let mut replay = Replay::of(waiting).unwrap();
    let mut emitted = Vec::new();
    let mut is_exchange_seen = false;
    while let Some((number, entry)) = replay.next().unwrap() {
        is_exchange_seen |= matches!(entry.what, What::Record(Record::Exchange(_)));
        replay.take(number, entry);
        emitted.extend(iter::from_fn(|| replay.emitted(number)));
        if is_exchange_seen && emitted.is_empty() {
            replay = replay.within(0);
        }
    }
    let is_incomplete = |emitted: &Emitted| matches!(emitted, Emitted::Verdict(verdict) if verdict.confidence == Confidence::Incomplete);
    assert!((1..5).contains(&emitted.len()) && emitted.iter().all(is_incomplete), "{emitted:?}");
    assert_eq!(replay.summary().lost, 1);
}

/// The same evidence with other lines.
fn mutated(evidence: &[u8], mutate: impl FnOnce(&mut Vec<String>)) -> Vec<u8> {
    let text = String::from_utf8(zstd::decode_all(evidence).unwrap()).unwrap();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    mutate(&mut lines);
    zstd::encode_all((lines.join("\n") + "\n").as_bytes(), 1).unwrap()
}

/// Values at which arithmetic goes wrong.
const EDGES: [&str; 14] = [
    "0",
    "1",
    "-1",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "255",
    "4294967295",
    "9007199254740991",
    "4611686018427387903",
    "9223372036854775807",
    "18446744073709551615",
];

/// The most that is made of lines, in bytes: what is tested is the reader, and the memory is for that.
const MOST_MADE: usize = 16 << 20;

/// Lines of evidence with one or a few things wrong: a value, a line too few or twice or elsewhere, a byte.
fn with_mistakes(random: &mut fastrand::Rng, lines: &mut Vec<String>) {
    for _ in 0..random.usize(1..8) {
        let number = random.usize(..lines.len());
        let room = MOST_MADE.saturating_sub(lines.iter().map(|line| line.len() + 1).sum());
        match random.u8(..12) {
            10 => {
                let again = lines[number].clone();
                let times = random.usize(..2_000).min(room / (again.len() + 1));
                lines.splice(number..number, iter::repeat_n(again, times));
            }
            11 => {
                // A list with one of its values very often.
                let Some((before, rest)) = lines[number].split_once('[') else { continue };
                let Some(end) = rest.find([',', ']']).filter(|end| *end > 0) else { continue };
                let many = format!("{},", &rest[..end]).repeat(random.usize(..20_000).min(room / (end + 1)));
                lines[number] = format!("{before}[{many}{rest}");
            }
            0 => drop(lines.remove(number)),
            1 => {
                let (at, again) = (random.usize(..lines.len()), lines[number].clone());
                if again.len() < room {
                    lines.insert(at, again);
                }
            }
            2 => {
                let other = random.usize(..lines.len());
                lines.swap(number, other);
            }
            3 => {
                let at = lines[number]
                    .char_indices()
                    .map(|(at, _)| at)
                    .nth(random.usize(..lines[number].len().max(1)));
                lines[number].truncate(at.unwrap_or(0));
            }
            4 => {
                let mut bytes = lines[number].clone().into_bytes();
                if let Some(byte) = random.choice(&mut bytes) {
                    *byte = random.u8(32..127);
                }
                lines[number] = String::from_utf8_lossy(&bytes).into_owned();
            }
            _ => {
                // The value after one of its colons.
                let line = &lines[number];
                let colons: Vec<_> = line.match_indices(':').map(|(at, _)| at + 1).collect();
                let Some(&start) = random.choice(&colons) else { continue };
                let length = line[start..].find([',', '}', ']']).unwrap_or(line.len() - start);
                let edge = random.choice(EDGES).unwrap_or("0");
                lines[number] = format!("{}{edge}{}", &line[..start], &line[start + length..]);
            }
        }
        if lines.is_empty() {
            lines.push(String::new());
        }
    }
}

/// One line of samples at a worker, of so many exchanges.
fn look(target: &str, exchanges: u64) -> String {
    let served = |sock: u64| format!(r#"{{"sock":{sock},"connect_ns":1,"exchange":1}}"#);
    let served: Vec<_> = (1..=exchanges).map(served).collect();
    format!(
        r#"{{"type":"look","at":1,"ns":1,"pid":1,"tid":1,"doing":"file","target":"{target}","has_other_threads":false,"exchanges":[{}]}}"#,
        served.join(",")
    )
}

/// Adds to the lines of a file, of which the first is the header.
type Maker = Box<dyn Fn(&mut Vec<String>)>;

/// Small files that unfold to much, made one by one.
fn bombs() -> impl Iterator<Item = Vec<u8>> {
    const ALL: u64 = 16_384;
    let golden = golden();
    let text = String::from_utf8(zstd::decode_all(&golden[..]).unwrap()).unwrap();
    let header = text.lines().next().unwrap().to_owned();
    let slow = text.lines().find(|line| line.starts_with(r#"{"type":"exchange""#)).unwrap().to_owned();
    let path = |number: usize, length: usize| format!("/{number:0width$}", width = length - 1);
    let looks = move |length| (0..16).map(move |number| look(&path(number, length), ALL));
    let nested = "[".repeat(100_000) + &"]".repeat(100_000);
    let makers: [Maker; 7] = [
        // 22 kB that took 4.2 GB.
        Box::new(move |lines| lines.extend(looks(16_000))),
        Box::new(move |lines| lines.extend(looks(4_096))),
        // With the exchanges that these samples are of, each of which has its verdict.
        Box::new(move |lines| {
            let sock = r#""sock":782584881591063"#;
            assert!(slow.contains(sock), "{slow}");
            lines.extend(looks(4_000));
            lines.extend((1..=ALL).map(|number| slow.replacen(sock, &format!(r#""sock":{number}"#), 1)));
        }),
        // Ever new paths, kept by exchanges that never end.
        Box::new(move |lines| {
            let mut random = fastrand::Rng::with_seed(1);
            lines.extend(
                (1..6_000).map(|number| look(&format!("{}{}", path(number, 4_000), random.u64(..)), 1)),
            );
        }),
        Box::new(move |lines| lines.push(format!(r#"{{"type":"look","at":1,"target":{nested}}}"#))),
        Box::new(|lines| {
            lines.push(format!(r#"{{"type":"look","exchanges":[{}0]}}"#, "0,".repeat(1_900_000)))
        }),
        Box::new(|lines| {
            let process = r#"{"pid":1,"comm":"x","workers":1,"listeners":null},"#.repeat(70_000);
            lines[0] = lines[0].replace(r#""processes":["#, &format!(r#""processes":[{process}"#));
        }),
    ];
    makers.into_iter().map(move |make| {
        let mut lines = vec![header.clone()];
        make(&mut lines);
        zstd::encode_all((lines.join("\n") + "\n").as_bytes(), 12).unwrap()
    })
}

/// Virtual memory for all that, in bytes: the program's code, the threads of the tests, and what is allowed for evidence.
const MOST_MEMORY: u64 = 512 << 20;

/// `WHY502_FUZZ_SECONDS` says how long; `WHY502_FUZZ_SEED` begins where a failure was found. It runs in a process of its own, whose
/// memory is limited.
#[test]
fn any_bytes_at_all_give_an_error_or_a_result_within_bounded_memory() {
    const NAME: &str =
        "command::report::tests::any_bytes_at_all_give_an_error_or_a_result_within_bounded_memory";
    const CHILD: &str = "WHY502_FUZZ_CHILD";
    if env::var_os(CHILD).is_some() {
        return any_bytes_at_all();
    }
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", NAME, "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    // SAFETY: one system call, in a process that is about to become another.
    unsafe {
        child.pre_exec(|| Ok(setrlimit(Resource::RLIMIT_AS, MOST_MEMORY, MOST_MEMORY)?));
    }
    let said = child.output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && text.contains("1 passed"), "{}: {text}", said.status);
}

fn any_bytes_at_all() {
    for (number, bomb) in bombs().enumerate() {
        let before = memory::held();
        let result = everything(&bomb).map_err(|error| error.to_string());
        terminal::complain(&format!("bomb {number}, {} bytes: {result:?}\n", bomb.len()));
        assert!(memory::held() < before + (1 << 20), "bomb {number} is held on to");
    }
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let end = Instant::now() + Duration::from_secs(number("WHY502_FUZZ_SECONDS").unwrap_or(2));
    let first = number("WHY502_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    let golden = golden();
    let (mut tried, mut results) = (0_u64, 0_u64);
    while tried < 50 || Instant::now() < end {
        let seed = first.wrapping_add(tried);
        let mut random = fastrand::Rng::with_seed(seed);
        let bytes = match random.u8(..10) {
            0 => {
                let mut bytes = golden.clone();
                for _ in 0..random.usize(1..20) {
                    let at = random.usize(..bytes.len());
                    bytes[at] = random.u8(..);
                }
                bytes.truncate(random.usize(..=bytes.len()));
                bytes
            }
            1 => {
                let length = random.usize(..4_096);
                iter::repeat_with(|| random.u8(..)).take(length).collect()
            }
            _ => mutated(&golden, |lines| with_mistakes(&mut random, lines)),
        };
        let result = std::panic::catch_unwind(|| everything(&bytes));
        assert!(result.is_ok(), "WHY502_FUZZ_SEED={seed} panics");
        results += u64::from(result.is_ok_and(|result| result.is_ok()));
        tried += 1;
    }
    // Both must be tried, or this finds nothing.
    assert!(results > 0 && results < tried, "{results} results of {tried}");
}
