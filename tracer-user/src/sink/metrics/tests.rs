//! What is counted, what the page shows of it, and what scrapers may do.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    page::{self, Format},
    *,
};
use crate::{
    model::{
        cause::Cause,
        facts::Fact,
        stream::{Depth, Loss, LossReason, UpstreamCounts, What},
        upstream::Upstream,
    },
    sink::samples,
};

fn metrics(upstreams: usize) -> Metrics {
    let mut sources = Sources::default();
    sources.set(Fact::Signals, "raw_tp/signal_generate".to_owned());
    Metrics::new(&sources, upstreams)
}

fn upstream(number: u16) -> Upstream {
    Upstream::Inet(SocketAddr::from(([10, 0, 0, 1], number)))
}

fn take(metrics: &mut Metrics, what: What) {
    metrics.entry(&Entry { at_ns: 0, what }).unwrap();
}

fn exchanges(metrics: &mut Metrics, upstream: Upstream, exchanges: u64) {
    take(metrics, What::Upstream(UpstreamCounts { ns: 0, upstream, exchanges }));
}

/// A page of everything.
fn full() -> Metrics {
    let mut metrics = metrics(100);
    for verdict in samples::verdicts() {
        metrics.verdict(&verdict).unwrap();
    }
    metrics.delayed(&samples::delayed()).unwrap();
    drop(metrics.shared().drops_of("otlp"));
    exchanges(&mut metrics, upstream(1), 7);
    take(&mut metrics, What::Loss(Loss { ns: 0, reason: LossReason::RingFull, count: 3 }));
    take(&mut metrics, What::Depth(Depth { ns: 1, listener: upstream(1), depth: 2, limit: 4 }));
    metrics.counter.counted.waits = Some(waits::tests::shown());
    metrics
}

fn written(metrics: &mut Metrics, format: Format) -> String {
    metrics.publish(monotonic_ns());
    page::write(&metrics.shared, format)
}

/// The value of a series, by its name and labels.
fn value(page: &str, series: &str) -> Option<f64> {
    let found = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.and_then(|value| value.parse().ok())
}

#[test]
fn verdicts_are_counted_by_all_that_tells_them_apart() {
    let page = written(&mut full(), Format::Text);
    let killed =
        "upstream=\"127.0.0.1:19001\",cause=\"reset\",detail=\"worker_killed\",confidence=\"proven\"";
    assert_eq!(value(&page, &format!("why502_failures_total{{{killed}}}")), Some(1.0), "{page}");
    // The same worker as in the hostile one.
    let by = "upstream=\"127.0.0.1:19001\",signal=\"SIGTERM\",killer=\"php-fpm8.2\"";
    assert_eq!(value(&page, &format!("why502_workers_killed_total{{{by}}}")), Some(1.0), "{page}");
    assert_eq!(value(&page, "why502_failure_seconds_count{cause=\"reset\"}"), Some(2.0));
    assert_eq!(value(&page, "why502_failure_seconds_bucket{le=\"2.5\",cause=\"reset\"}"), Some(0.0));
    assert_eq!(value(&page, "why502_failure_seconds_bucket{le=\"5.0\",cause=\"reset\"}"), Some(2.0));
    assert_eq!(value(&page, "why502_exchanges_total{upstream=\"10.0.0.1:1\"}"), Some(7.0));
    assert_eq!(value(&page, "why502_lost_records_total{reason=\"ring_full\"}"), Some(3.0));
    assert_eq!(value(&page, "why502_accept_queue_limit{listener=\"10.0.0.1:1\"}"), Some(4.0));
    let overflow = "why502_accept_queue_overflows_total{listener=\"127.0.0.1:19001\",stage=\"syn_dropped\"}";
    assert_eq!(value(&page, overflow), Some(1.0));
    assert_eq!(value(&page, "why502_client_aborts_total"), Some(0.0));
    let source = "why502_source_info{fact=\"signals\",source=\"raw_tp/signal_generate\"}";
    assert_eq!(value(&page, source), Some(1.0));
    assert_eq!(value(&page, "why502_source_info{fact=\"deaths\",source=\"none\"}"), Some(1.0));
    assert!(value(&page, "process_resident_memory_bytes").is_some_and(|bytes| bytes > 1e6));
}

#[test]
fn what_others_name_is_printable_and_no_request_is_in_it() {
    let mut metrics = full();
    let mut unresolved = samples::no_live_upstreams();
    unresolved.cause = Cause::Unresolved;
    unresolved.upstream = Upstream::Named("secret.example".to_owned());
    metrics.verdict(&unresolved).unwrap();
    let page = written(&mut metrics, Format::Text);
    assert!(!page.contains("secret") && page.contains("upstream=\"none\",cause=\"not_attempted\""), "{page}");
    assert!(page.contains("upstream=\"pair\""), "{page}");
    assert!(page.chars().all(|char| char == '\n' || !char.is_control() && char != '\u{202e}'), "{page}");
}

#[test]
fn waits_are_a_cumulative_histogram_and_absent_where_nobody_asked_for_them() {
    let page = written(&mut full(), Format::Text);
    let of = |part: &str, labels: &str| {
        value(&page, &format!("why502_accept_queue_{part}{{{labels}listener=\"[::]:1\"}}"))
    };
    let below = |bound: &str| of("wait_seconds_bucket", &format!("le=\"{bound}\","));
    assert_eq!((below("0.000512"), below("0.001024")), (Some(0.0), Some(1.0)), "{page}");
    assert_eq!((below("0.002048"), below("67.108864"), below("+Inf")), (Some(2.0), Some(2.0), Some(2.0)));
    assert_eq!((of("wait_seconds_count", ""), of("wait_seconds_sum", "")), (Some(2.0), Some(0.0026)));
    assert!(
        page.contains("why502_accept_queue_drops_total{listener=\"[::]:1\",stage=\"syn\"} 1\n"),
        "{page}"
    );
    let page = written(&mut metrics(100), Format::Text);
    assert!(!page.contains("accept_queue_wait") && !page.contains("accept_queue_drops"), "{page}");
}

#[test]
fn what_a_run_amounts_to_is_asked_for_ever_more_rarely_while_nothing_happens() {
    let mut metrics = metrics(100);
    let rounds = |metrics: &mut Metrics, count: usize| {
        let waits = (0..count).map(|_| {
            metrics.so_far(&Summary::default()).unwrap();
            (metrics.sums_ns().unwrap() - metrics.summed_ns) / SUMS_NS
        });
        waits.collect::<Vec<_>>()
    };
    assert_eq!(rounds(&mut metrics, 12), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10]);
    take(&mut metrics, What::Depth(Depth { ns: 1, listener: upstream(1), depth: 0, limit: 4 }));
    assert_eq!(rounds(&mut metrics, 1), [10]);
    exchanges(&mut metrics, upstream(1), 1);
    assert_eq!(rounds(&mut metrics, 2), [1, 2]);
}

#[test]
fn upstreams_beyond_their_number_are_one() {
    let mut metrics = metrics(2);
    for round in 1..=3 {
        for number in 1..=5 {
            exchanges(&mut metrics, upstream(number), round * 10);
        }
    }
    // It was forgotten meanwhile, and counts anew.
    exchanges(&mut metrics, upstream(1), 4);
    let mut verdict = samples::killed();
    for number in 1..=5 {
        verdict.upstream = upstream(number);
        metrics.verdict(&verdict).unwrap();
    }
    let page = written(&mut metrics, Format::Text);
    let of = |name: &str| value(&page, &format!("why502_exchanges_total{{upstream=\"{name}\"}}"));
    assert_eq!((of("10.0.0.1:1"), of("10.0.0.1:2"), of("10.0.0.1:3")), (Some(34.0), Some(30.0), None));
    assert_eq!(of("other"), Some(90.0));
    let series = page.lines().filter(|line| line.starts_with("why502_failures_total{"));
    assert_eq!(series.count(), 3);
}

#[test]
fn a_queue_is_full_for_as_long_as_looks_find_it_so() {
    const MS: u64 = 1_000_000;
    let mut metrics = metrics(100);
    let mut look = |ms: u64, depth| {
        take(&mut metrics, What::Depth(Depth { ns: ms * MS, listener: upstream(1), depth, limit: 4 }));
    };
    for (ms, depth) in [(1_000, 0), (2_000, 5), (3_000, 5), (3_001, 2), (4_000, 1), (90_000, 5)] {
        look(ms, depth);
    }
    let page = written(&mut metrics, Format::Text);
    let of = |metric: &str| value(&page, &format!("why502_accept_queue_{metric}{{listener=\"10.0.0.1:1\"}}"));
    // One second each for two looks, and as much as a look may be late for the last one.
    assert_eq!((of("full_seconds_total"), of("depth")), (Some(4.0), Some(5.0)), "{page}");
    let gone = What::Depth(Depth { ns: 200_000 * MS, listener: upstream(2), depth: 0, limit: 4 });
    take(&mut metrics, gone);
    assert!(
        !written(&mut metrics, Format::Text).contains("why502_accept_queue_depth{listener=\"10.0.0.1:1\"}")
    );
}

#[test]
fn every_metric_of_the_table_is_on_both_pages_by_its_name() {
    let mut metrics = full();
    for format in [Format::Text, Format::OpenMetrics] {
        let page = written(&mut metrics, format);
        for metric in METRICS.iter().filter(|metric| metric.name != "why502_bpf_run_seconds_total") {
            let is_it = |line: &str| {
                line.strip_prefix(metric.name).is_some_and(|rest| rest.starts_with(['{', ' ', '_']))
            };
            assert!(page.lines().any(is_it), "{} in {page}", metric.name);
        }
        assert_eq!(page.ends_with("# EOF\n"), format == Format::OpenMetrics);
    }
    let plain = written(&mut metrics, Format::Text);
    assert!(plain.contains("# TYPE why502_exchanges_total counter\n"), "{plain}");
    assert!(plain.contains("# TYPE why502_build_info gauge\n"), "{plain}");
    assert!(written(&mut metrics, Format::OpenMetrics).contains("# TYPE why502_build info\n"));
}

#[test]
fn promtool_finds_nothing_wrong_with_the_page() {
    let mut promtool = match Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    {
        Ok(promtool) => promtool,
        Err(error) => return crate::notice!("not run, for there is no promtool: {error}"),
    };
    let page = written(&mut full(), Format::Text);
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}\n{page}");
}

#[test]
fn a_scraper_gets_the_format_that_it_likes_better() {
    let of = Format::asked_for;
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(of(prometheus), Format::OpenMetrics);
    for accept in [
        "",
        "*/*",
        "text/plain",
        "application/openmetrics-text;q=0",
        "text/plain, application/openmetrics-text;q=0.5",
    ] {
        assert_eq!(of(accept), Format::Text, "{accept}");
    }
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // One that is refused may be closed before all of it is written.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

const SCRAPE: &str = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn pages_are_served_and_what_is_none_is_refused() {
    let mut metrics = full();
    metrics.publish(monotonic_ns());
    let server = Server::start("127.0.0.1:0".parse().unwrap(), metrics.shared()).unwrap();
    let page = ask(server.address(), SCRAPE);
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("text/plain; version=0.0.4"), "{page}");
    assert!(page.contains("why502_failures_total{"), "{page}");
    let open = ask(
        server.address(),
        "GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: application/openmetrics-text\r\n\r\n",
    );
    assert!(
        open.contains("application/openmetrics-text; version=1.0.0") && open.ends_with("# EOF\n"),
        "{open}"
    );
    let status = |request: &str| ask(server.address(), request).get(9..12).unwrap_or_default().to_owned();
    assert_eq!(status("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"), "200");
    assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "404");
    assert_eq!(status("POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"), "405");
    assert_eq!(status("\u{1}\u{2}\r\n\r\n"), "400");
    metrics.shared.turned_ns.store(1, Ordering::Relaxed);
    assert_eq!(status("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"), "503");
    let address = server.address();
    drop(server);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_crowd_that_only_holds_its_connections_open_keeps_nobody_out() {
    let metrics = full();
    let server = Server::start("127.0.0.1:0".parse().unwrap(), metrics.shared()).unwrap();
    let mut crowd: Vec<_> = (0..1_000)
        .map(|number| {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            if number % 2 == 0 {
                // One that was let go already takes nothing.
                let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ");
            }
            stream
        })
        .collect();
    let begun = Instant::now();
    assert!(ask(server.address(), SCRAPE).starts_with("HTTP/1.1 200"));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    // Those that are left are let go as well, though they say a letter now and then.
    let last = crowd.last_mut().unwrap();
    last.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let begun = Instant::now();
    while !matches!(last.read(&mut [0; 64]), Ok(0)) && begun.elapsed() < Duration::from_secs(60) {
        if last.write_all(b"a").is_err() {
            break;
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn a_giant_request_is_cut_short() {
    let metrics = full();
    let server = Server::start("127.0.0.1:0".parse().unwrap(), metrics.shared()).unwrap();
    for giant in [
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(8 << 20)),
        format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100_000)),
        format!("GET /metrics HTTP/1.1\r\nX: {}", "y".repeat(8 << 20)),
    ] {
        let answer = ask(server.address(), &giant);
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // What has a body is answered without it.
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(ask(server.address(), SCRAPE).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_page_of_a_hundred_upstreams_takes_few_milliseconds() {
    let mut metrics = metrics(100);
    for number in 1..=100 {
        exchanges(&mut metrics, upstream(number), 1);
        for cause in Cause::ALL.iter().take(10) {
            let verdict = Verdict { cause: *cause, upstream: upstream(number), ..samples::killed() };
            metrics.verdict(&verdict).unwrap();
        }
    }
    metrics.publish(monotonic_ns());
    let took = (0..20).map(|_| {
        let begun = Instant::now();
        page::write(&metrics.shared, Format::OpenMetrics);
        begun.elapsed()
    });
    // Built without optimisation and beside other tests, it takes many times what it does.
    assert!(took.min().unwrap() < Duration::from_millis(100));
}
