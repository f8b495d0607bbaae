//! Whatever the bytes are, a report is an error or a result.

use std::{
    env, fs,
    path::Path,
    time::{Duration, Instant},
};

use super::*;

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
    let roots = roots::of(&digest);
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

/// Lines of evidence with one or a few things wrong: a value, a line too few or twice or elsewhere, a byte.
fn with_mistakes(random: &mut fastrand::Rng, lines: &mut Vec<String>) {
    for _ in 0..random.usize(1..8) {
        let number = random.usize(..lines.len());
        match random.u8(..10) {
            0 => drop(lines.remove(number)),
            1 => {
                let (at, again) = (random.usize(..lines.len()), lines[number].clone());
                lines.insert(at, again);
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

/// `WHY502_FUZZ_SECONDS` says how long; `WHY502_FUZZ_SEED` begins where a failure was found.
#[test]
fn any_bytes_at_all_give_an_error_or_a_result() {
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
                std::iter::repeat_with(|| random.u8(..)).take(length).collect()
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
