use std::io::ErrorKind;

use super::*;
use crate::{model::audit, sink::samples};

const DETAILS: Look = Look { details: true, ..Look::PLAIN };
const EVERYTHING: Look = Look { details: true, evidence: true, ..Look::PLAIN };

fn text(look: Look, write: impl FnOnce(&mut Text<&mut Vec<u8>>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut Text::in_time_zone(&mut out, look, TimeZone::UTC)).unwrap();
    String::from_utf8(out).unwrap()
}

fn all(text: &mut Text<&mut Vec<u8>>) -> io::Result<()> {
    text.verdict(&samples::killed())?;
    text.verdict(&samples::never_accepted())?;
    text.delayed(&samples::delayed())?;
    text.verdict(&samples::unknown())
}

#[test]
fn lines_align_and_are_one_for_each_failure() {
    let golden = "\
11:39:26.123  502  reset/worker_killed                          127.0.0.1:19001        after 3.26 s   proven
11:39:27.000  504  read_timeout/never_accepted                  [2001:db8::7]:9000     after 60.0 s   inferred
11:39:28.500  ok   delayed                                      127.0.0.1:19001        by 1.02 s
11:39:27.000  ---  unknown/evidence_lost                        /run/php/php8.2-fpm.sock                 incomplete
";
    assert_eq!(text(Look::PLAIN, all), golden);
}

#[test]
fn the_upstreams_column_grows_and_stays_grown() {
    let lines = text(Look::PLAIN, |text| {
        text.verdict(&samples::unknown())?;
        text.verdict(&samples::killed())
    });
    let starts: Vec<_> =
        lines.lines().zip(["incomplete", "proven"]).map(|(line, word)| line.find(word)).collect();
    assert_eq!(starts[0], starts[1], "{lines}");

    let path = format!("/run/{}.sock", "x".repeat(90));
    let long = Verdict { upstream: Upstream::Unix(path.clone().into()), ..samples::killed() };
    let lines = text(Look::PLAIN, |text| {
        text.verdict(&long)?;
        text.verdict(&samples::killed())
    });
    let (first, second) = lines.split_once('\n').unwrap();
    assert!(first.contains(&path), "{first}");
    assert!(width(second.trim_end()) < 140, "{second}");
}

#[test]
fn details_are_indented_and_wrapped() {
    let golden = "\
11:39:26.123  502  reset/worker_killed                          127.0.0.1:19001        after 3.26 s   proven
              php-fpm master 24938 sent SIGTERM to worker 24940, 3.257 s into the request; 8 bytes were still
              unread, so the kernel reset the connection and nginx read ECONNRESET.
              Look at: request_terminate_timeout of the pool on 127.0.0.1:19001 (this request was cut off at
              about 3 s).
              more: why502 explain reset/worker_killed
";
    assert_eq!(text(DETAILS, |text| text.verdict(&samples::killed())), golden);
}

#[test]
fn facts_have_their_moments_and_align() {
    let lines = text(EVERYTHING, |text| text.verdict(&samples::killed()));
    let golden = "               -0.4 ms  raw_tp/inet_sock_set_state  nginx 24945 called connect
              +3.257 s  raw_tp/signal_generate      php-fpm8.2 24938 sent SIGTERM to 24940
";
    assert!(lines.ends_with(golden), "{lines}");
}

#[test]
fn a_very_long_text_wraps_at_the_width_given_and_tears_no_word() {
    let word = "/a/path/that/is/longer/than/the/terminal/is/wide.sock";
    let explanation = format!("{} {word} {}", "word ".repeat(60), "wörter ".repeat(60));
    let verdict = Verdict { explanation, ..samples::killed() };
    for columns in [0, 20, 60, 80, 200] {
        let look = Look { width: columns, ..EVERYTHING };
        let lines = text(look, |text| text.verdict(&verdict));
        for line in lines.lines().skip(1) {
            assert!(line.starts_with(&" ".repeat(INDENT)) && line.trim_end() == line, "{line:?}");
            let alone = line.trim_start().split(' ').count() == 1;
            let fact = line.contains("raw_tp/");
            assert!(width(line) <= columns.max(INDENT + 30) || alone || fact, "{columns}: {line:?}");
        }
        assert!(lines.contains(word));
    }
}

#[test]
fn no_escape_is_written_without_colour() {
    let written = text(EVERYTHING, |text| {
        all(text)?;
        text.verdict(&samples::hostile())?;
        text.summary(&Summary { lost: 3, untracked: 1, ..samples::summary() })
    });
    assert!(!written.contains('\u{1b}'), "{written:?}");
}

#[test]
fn colour_changes_nothing_but_colour() {
    let write = |text: &mut Text<&mut Vec<u8>>| {
        all(text)?;
        text.summary(&Summary { lost: 3, untracked: 1, ..samples::summary() })
    };
    let coloured = text(Look { colour: true, ..EVERYTHING }, write);
    assert!(
        coloured.contains("\u{1b}[31m502\u{1b}[0m  \u{1b}[1mreset/worker_killed\u{1b}[0m "),
        "{coloured:?}"
    );
    let mut stripped = String::new();
    for (at, part) in coloured.split("\u{1b}[").enumerate() {
        stripped += if at == 0 { part } else { part.split_once('m').unwrap().1 };
    }
    assert_eq!(stripped, text(EVERYTHING, write));
}

#[test]
fn names_cannot_steer_the_terminal() {
    let lines = text(EVERYTHING, |text| text.verdict(&samples::hostile()));
    assert!(lines.contains(r"/run/\u{1b}[31m\u{202e}.sock"), "{lines}");
    assert!(lines.contains(r"wor\rker\n24940\u{1b}[2J exited."), "{lines}");
    assert!(lines.contains(r"+45 us  raw_tp/sched_process_exit  wor\rker\u{7} exited"), "{lines}");
    assert!(!lines.contains(|char: char| char.is_control() && char != '\n'), "{lines:?}");
}

#[test]
fn a_summary_is_a_sentence_and_a_table() {
    let golden = "
In 1m 31s, 12,345 exchanges ended; 15 failed:
  12  refused/no_listener
   3  reset/worker_killed
2 exchanges succeeded late, held up by a dropped SYN.
nginx said 15 words about upstreams; each has its verdict.
Nothing was lost.
";
    assert_eq!(text(Look::PLAIN, |text| text.summary(&samples::summary())), golden);
}

#[test]
fn a_detailed_summary_says_what_each_cause_means() {
    let golden = "
In 1m 31s, 12,345 exchanges ended; 15 failed:
  12  refused/no_listener  Nobody listens at the upstream's address: its host answered the SYN with a
                           reset.
   3  reset/worker_killed  A signal ended the worker while it served the exchange.
2 exchanges succeeded late, held up by a dropped SYN.
nginx said 15 words about upstreams; each has its verdict.
Nothing was lost.
";
    assert_eq!(text(Look { width: 102, ..DETAILS }, |text| text.summary(&samples::summary())), golden);
}

#[test]
fn a_summary_without_failures_says_so() {
    let none = Summary { elapsed_ns: 3_260_000_000, exchanges: 2_000, ..Summary::default() };
    let golden = "\nIn 3.26 s, 2,000 exchanges ended; none failed.\nWhat nginx itself says of its upstreams was not heard.\nNothing was lost.\n";
    assert_eq!(text(Look::PLAIN, |text| text.summary(&none)), golden);

    let nothing = Summary { exchanges: 0, ..none };
    let golden = "\nIn 3.26 s, no exchange ended, so none failed.\nWhat nginx itself says of its upstreams was not heard.\nNothing was lost.\n";
    assert_eq!(text(Look::PLAIN, |text| text.summary(&nothing)), golden);
}

#[test]
fn a_summary_reports_each_loss_and_what_it_means() {
    let lossy = Summary { lost: 1_234, untracked: 1, ..samples::summary() };
    let written = text(Look::PLAIN, |text| text.summary(&lossy));
    assert!(written.contains("\n1,234 records were lost: failures may be missing above"), "{written}");
    assert!(written.contains("\n1 connection was not watched, because too many were open"), "{written}");
    assert!(!written.contains("Nothing was lost"), "{written}");
}

#[test]
fn an_audit_without_findings_is_one_sentence() {
    for (logged, sentence) in [
        (0, "nginx logged no upstream failure."),
        (1, "nginx logged 1 upstream failure; it has its verdict."),
        (6_000, "nginx logged 6,000 upstream failures; each has its verdict."),
    ] {
        let report = Report { logged, explained: logged, ..Report::default() };
        assert_eq!(text(Look::PLAIN, |text| text.audit(&report)), format!("\n{sentence}\n"));
    }
}

#[test]
fn an_audit_lists_what_it_found() {
    let golden = r#"
nginx logged 12 upstream failures; 11 have their verdict, 1 has none:
  2026/11/20 11:39:26 [error] 24945#24945: *7 upstream timed out (110: Connection timed out) while connecting to upstream, client: 127.0.0.1, server: , request: "GET /\u{1b}[2J HTTP/1.0", upstream: "http://10.0.0.1:80/"
1 verdict is missing in nginx's error log:
  11:39:26.500  reset/worker_killed  /run/php/php8.2-fpm.sock  nginx 24946
1 failure on connections that were open before the tracing began is left out.
2 verdicts could not be audited: nginx logs clients that go away at level info, and this log shows none of it.
"#;
    assert_eq!(text(Look::PLAIN, |text| text.audit(&samples::audit())), golden);

    let unlogged = samples::audit().unlogged.shown.remove(0);
    let many = Report {
        logged: 1,
        explained: 0,
        unlogged: std::iter::repeat_n(unlogged, 1_002).collect(),
        ..samples::audit()
    };
    let written = text(Look::PLAIN, |text| text.audit(&many));
    assert!(written.contains("\nnginx logged 1 upstream failure; it has no verdict:\n"), "{written}");
    assert!(written.contains("\n1,002 verdicts are missing in nginx's error log:\n"), "{written}");
    assert!(written.contains("\n  ... and 2 more\n"), "{written}");
}

#[test]
fn a_broken_pipe_comes_back_as_it_is() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let error = Text::new(Closed, Look::PLAIN).verdict(&samples::killed()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[test]
fn words_without_a_verdict_are_listed() {
    let mut summary = samples::summary();
    let words = summary.words.get_or_insert_default();
    let audit::Unexplained { unix_ns, pid, .. } = samples::audit().unexplained.shown[0].clone();
    let line = "upstream timed out\u{1b}[2J".to_owned();
    words.unexplained.push(audit::Unexplained { unix_ns, pid, upstream: None, line });
    (words.explained, words.notes) = (14, 2);
    let golden = r"
nginx said 15 words about upstreams; 14 with a verdict, 1 with none:
  2026-11-20T11:39:26.000000Z  nginx 24945: upstream timed out\u{1b}[2J
FastCGI applications wrote to standard error twice.
";
    let written = text(Look::PLAIN, |text| text.summary(&summary));
    assert!(written.contains(golden), "{written}");
}
