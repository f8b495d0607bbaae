use std::path::Path;

use clap::CommandFactory;

use super::*;
use crate::model::upstream::Upstream;

fn live(words: &[&str]) -> Result<Live, clap::Error> {
    match Args::try_parse_from(["why502", "live"].iter().chain(words.iter()))?.command {
        Command::Live(live) => Ok(live),
        _ => panic!("not live"),
    }
}

/// What wrong usage prints; it must exit with 2 and name the word in one line.
fn refusal(words: &[&str]) -> String {
    let error = live(words).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{words:?}");
    let text = error.to_string();
    text.lines().next().unwrap().to_owned()
}

#[test]
fn the_command_line_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn every_option_has_its_default() {
    let live = live(&[]).unwrap();
    assert_eq!(live.trace.comm(), Some("nginx"));
    assert_eq!((live.trace.pid, live.trace.duration, live.trace.count), (None, None, None));
    assert_eq!((live.output, live.trace.all, live.verbose), (Format::Text, false, false));
    assert!(live.trace.upstreams.is_empty() && live.trace.ready_file.is_none() && live.error_logs.is_empty());
}

#[test]
fn every_option_is_read() {
    let words = "-p 7 --comm openresty -u :9000 -u /run/a.sock -d 10m -c 3 -o json -v --ready-file /tmp/r --error-log a.log --error-log /b.log";
    let live = live(&words.split(' ').collect::<Vec<_>>()).unwrap();
    assert_eq!((live.trace.pid, live.trace.comm()), (Some(7), Some("openresty")));
    assert_eq!(
        live.trace.upstreams,
        [UpstreamFilter::Port(9000), UpstreamFilter::Unix("/run/a.sock".into())]
    );
    assert_eq!((live.trace.duration, live.trace.count), (Some(Duration::from_secs(600)), NonZeroU64::new(3)));
    assert_eq!((live.output, live.verbose), (Format::Json, true));
    assert_eq!(live.trace.ready_file.as_deref(), Some(Path::new("/tmp/r")));
    assert_eq!(live.error_logs, [Path::new("a.log"), Path::new("/b.log")]);
}

#[test]
fn all_means_no_name_and_excludes_one() {
    assert_eq!(live(&["--all"]).unwrap().trace.comm(), None);
    assert!(refusal(&["--all", "--comm", "nginx"]).contains("--comm"));
}

#[test]
fn upstreams_are_read_in_each_notation() {
    let cases = [
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("[::1]:80", "[::1]:80"),
        ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
        (":9000", ":9000"),
        ("/run/php/php-fpm.sock", "/run/php/php-fpm.sock"),
        ("unix:/run/a.sock", "/run/a.sock"),
        ("unix:/run/a.sock:", "/run/a.sock"),
        ("/run/odd:", "/run/odd:"),
    ];
    for (word, shown) in cases {
        assert_eq!(word.parse::<UpstreamFilter>().unwrap().to_string(), shown, "{word}");
    }
}

#[test]
fn bad_upstreams_are_named_with_the_reason() {
    let long = format!("/{}", "a".repeat(107));
    let cases = [
        ("127.0.0.1", "write 127.0.0.1:PORT"),
        ("::1", "write [::1]:PORT"),
        ("[::1]", "write [::1]:PORT"),
        ("127.0.0.1:0", "1 to 65535"),
        (":65536", "1 to 65535"),
        (":", "1 to 65535"),
        ("[127.0.0.1]:80", "an upstream is"),
        ("localhost:80", "an upstream is"),
        ("backend", "an upstream is"),
        ("unix:run/a.sock", "begins with /"),
        (&long, "at most 107 bytes"),
    ];
    for (word, reason) in cases {
        let refusal = refusal(&["-u", word]);
        assert!(refusal.contains(&format!("'{word}'")) && refusal.contains(reason), "{refusal}");
    }
}

#[test]
fn a_filter_selects_its_upstreams_only() {
    let inet = |word: &str| Upstream::Inet(word.parse().unwrap());
    let filter = |word: &str| word.parse::<UpstreamFilter>().unwrap();
    assert!(filter("10.0.0.1:80").matches(&inet("10.0.0.1:80")));
    assert!(filter("10.0.0.1:80").matches(&inet("[::ffff:10.0.0.1]:80")));
    assert!(!filter("10.0.0.1:80").matches(&inet("10.0.0.2:80")));
    assert!(filter(":80").matches(&inet("[2001:db8::1]:80")));
    assert!(!filter(":80").matches(&Upstream::Unix("/run/80".into())));
    assert!(filter("unix:/run/80:").matches(&Upstream::Unix("/run/80".into())));
}

#[test]
fn durations_are_humane() {
    for (word, seconds) in
        [("30s", 30.0), ("10m", 600.0), ("1h30m", 5400.0), ("90", 90.0), ("500ms", 0.5), ("1.5h", 5400.0)]
    {
        assert_eq!(live(&["-d", word]).unwrap().trace.duration.unwrap().as_secs_f64(), seconds, "{word}");
    }
}

#[test]
fn bad_words_are_named_with_the_reason() {
    let cases = [
        ("-d", "soon", "looks like"),
        ("-d", "", "looks like"),
        ("-d", "0", "longer than zero"),
        ("-d", "0s", "longer than zero"),
        ("-d", "-5s", "longer than zero"),
        ("-d", "99999999999999999999", "looks like"),
        ("-c", "0", "1 or more"),
        ("-c", "-1", "1 or more"),
        ("-c", "many", "1 or more"),
        ("-p", "0", "a pid is"),
        ("-p", "-1", "a pid is"),
        ("-p", "nginx", "a pid is"),
        ("--comm", "sixteen-bytes-ab", "at most 15 bytes"),
        ("--comm", "", "value is required"),
        ("-o", "xml", "invalid value"),
    ];
    for (option, word, reason) in cases {
        let refusal = refusal(&[option, word]);
        assert!(refusal.contains(word) && refusal.contains(reason), "{refusal}");
    }
    assert!(refusal(&["--frobnicate"]).contains("--frobnicate"));
    assert!(Args::try_parse_from(["why502", "dance"]).unwrap_err().to_string().contains("'dance'"));
    assert_eq!(Args::try_parse_from(["why502"]).unwrap_err().exit_code(), 2);
}

#[test]
fn help_has_examples_and_hides_what_only_tests_use() {
    let help = live(&["--help"]).unwrap_err();
    assert_eq!(help.exit_code(), 0);
    let help = help.to_string();
    assert!(help.contains("Examples:") && !help.contains("ready-file"), "{help}");
}
