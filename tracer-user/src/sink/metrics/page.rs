//! The page: what was counted, in either of Prometheus's formats.

use std::{fmt, iter::once, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use super::{
    Shared, bpf,
    counted::{BOUNDS, Counted},
    table::{self, Kind, METRICS, Metric},
};
use crate::version;

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus's text format, 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What a scraper asks for by its `Accept` header: OpenMetrics if it likes that at least as well.
    pub(super) fn asked_for(accept: &str) -> Self {
        let liking = |kind: &str| {
            let ranges = accept.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let is_it = parts.next().is_some_and(|range| range.eq_ignore_ascii_case(kind));
                is_it.then(|| {
                    parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0)
                })
            });
            ranges.fold(0.0, f32::max)
        };
        match liking("application/openmetrics-text") {
            open if open > 0.0 && open >= liking("text/plain") => Self::OpenMetrics,
            _ => Self::Text,
        }
    }

    /// Its name on the wire.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes the page.
pub(super) fn write(shared: &Shared, format: Format) -> String {
    let mut registry = Registry::default();
    let (lines_lost, bpf_ns) = (shared.lines_lost.load(std::sync::atomic::Ordering::Relaxed), bpf::run_ns());
    registry.register_collector(Box::new(Page {
        counted: shared.counted(),
        lines_lost,
        bpf_ns,
        own: Own::now(),
    }));
    let mut page = String::new();
    if text::encode(&mut page, &registry).is_err() {
        // A text takes all that it is given. A scraper would not take half a page.
        crate::notice!("metrics could not be written");
        page.clear();
    }
    match format {
        Format::OpenMetrics => page,
        Format::Text => plain(&page),
    }
}

/// The older format of an OpenMetrics page: counters and infos have their whole names, and it has no end.
fn plain(page: &str) -> String {
    let mut plain = String::with_capacity(page.len());
    for line in page.lines().filter(|line| *line != "# EOF") {
        let head = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        let whole = head.and_then(|head| {
            let (family, rest) = head.split_once(' ')?;
            METRICS.iter().find(|metric| family_of(metric) == family).map(|metric| (metric, rest))
        });
        match whole {
            Some((metric, rest)) => {
                let rest = if rest == Kind::Info.name() { Kind::Gauge.name() } else { rest };
                for part in [&line[..7], metric.name, " ", rest] {
                    plain += part;
                }
            }
            None => plain += line,
        }
        plain.push('\n');
    }
    plain
}

/// A metric's name as OpenMetrics has it for all of its series.
fn family_of(metric: &Metric) -> &'static str {
    let ending = match metric.kind {
        Kind::Counter => "_total",
        Kind::Info => "_info",
        Kind::Gauge | Kind::Histogram => "",
    };
    metric.name.strip_suffix(ending).unwrap_or(metric.name)
}

/// What the kernel says of this process.
#[derive(Debug)]
struct Own {
    cpu_s: f64,
    resident_bytes: u64,
    started_s: f64,
}

impl Own {
    fn now() -> Option<Self> {
        let stat = procfs::process::Process::myself().and_then(|process| process.stat()).ok()?;
        let ticks = procfs::ticks_per_second() as f64;
        let booted_s = crate::model::clock::booted_ns() as f64 / 1e9;
        Some(Self {
            cpu_s: (stat.utime + stat.stime) as f64 / ticks,
            resident_bytes: stat.rss * procfs::page_size(),
            started_s: booted_s + stat.starttime as f64 / ticks,
        })
    }
}

#[derive(Debug)]
struct Page {
    counted: Arc<Counted>,
    lines_lost: u64,
    bpf_ns: Option<u64>,
    own: Option<Own>,
}

/// Values of a metric's labels.
type Labels<'a> = &'a [&'a str];

/// A metric, being written.
struct Family<'a> {
    metric: Metric,
    encoder: MetricEncoder<'a>,
}

impl<'a> Family<'a> {
    fn begin(to: &'a mut DescriptorEncoder<'_>, metric: Metric) -> Result<Self, fmt::Error> {
        let kind = match metric.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
            Kind::Info => MetricType::Info,
        };
        let encoder = to.encode_descriptor(family_of(&metric), metric.help, None, kind)?;
        Ok(Self { metric, encoder })
    }

    fn with(
        &mut self,
        values: Labels<'_>,
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        debug_assert_eq!(values.len(), self.metric.labels.len(), "{}", self.metric.name);
        let labels: Vec<_> = self.metric.labels.iter().copied().zip(values.iter().copied()).collect();
        let labels = labels.as_slice();
        write(&mut self.encoder.encode_family(&labels)?)
    }

    fn count(&mut self, values: Labels<'_>, count: u64) -> fmt::Result {
        self.with(values, |encoder| encoder.encode_counter::<NoLabelSet, _, u64>(&count, None))
    }

    fn seconds(&mut self, values: Labels<'_>, seconds: f64) -> fmt::Result {
        self.with(values, |encoder| encoder.encode_counter::<NoLabelSet, _, f64>(&seconds, None))
    }

    fn gauge(&mut self, values: Labels<'_>, value: f64) -> fmt::Result {
        self.with(values, |encoder| encoder.encode_gauge(&value))
    }

    fn info(&mut self, values: Labels<'_>) -> fmt::Result {
        let labels: Vec<_> = self.metric.labels.iter().copied().zip(values.iter().copied()).collect();
        self.encoder.encode_info(&labels)
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (to, counted) = (&mut encoder, &*self.counted);
        let mut family = Family::begin(to, table::EXCHANGES)?;
        counted.exchanges.iter().try_for_each(|(upstream, count)| family.count(&[upstream], *count))?;
        let mut family = Family::begin(to, table::FAILURES)?;
        for ((upstream, cause, confidence), count) in &counted.failures {
            family.count(&[upstream, cause.cause(), cause.detail(), confidence.name()], *count)?;
        }
        let mut family = Family::begin(to, table::FAILURE_SECONDS)?;
        for (cause, times) in &counted.times {
            let bounds = BOUNDS.into_iter().chain(once(f64::INFINITY));
            let buckets: Vec<_> = bounds.zip(times.counts).collect();
            let (sum, count) = (times.sum_us as f64 / 1e6, times.counts.iter().sum());
            family.with(&[cause], |encoder| {
                encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
            })?;
        }
        let mut family = Family::begin(to, table::DELAYED)?;
        counted.delayed.iter().try_for_each(|(upstream, count)| family.count(&[upstream], *count))?;
        Family::begin(to, table::CLIENT_ABORTS)?.count(&[], counted.client_aborts)?;
        let mut family = Family::begin(to, table::WORKERS_KILLED)?;
        for ((upstream, signal, killer), count) in &counted.killed {
            family.count(&[upstream, signal, killer], *count)?;
        }
        self.queues(to)?;
        let mut family = Family::begin(to, table::LOST)?;
        counted.lost.iter().try_for_each(|(reason, count)| family.count(&[reason], *count))?;
        Family::begin(to, table::UNTRACKED)?.count(&[], counted.untracked)?;
        Family::begin(to, table::UNEXPLAINED)?.count(&[], counted.unexplained)?;
        Family::begin(to, table::LINES_LOST)?.count(&[], self.lines_lost)?;
        self.of_itself(to)
    }
}

impl Page {
    fn queues(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counted = &*self.counted;
        let mut family = Family::begin(to, table::QUEUE_DEPTH)?;
        counted
            .queues
            .iter()
            .try_for_each(|(listener, queue)| family.gauge(&[listener], queue.depth.into()))?;
        let mut family = Family::begin(to, table::QUEUE_LIMIT)?;
        counted
            .queues
            .iter()
            .try_for_each(|(listener, queue)| family.gauge(&[listener], queue.limit.into()))?;
        let mut family = Family::begin(to, table::QUEUE_FULL)?;
        counted
            .full_ns
            .iter()
            .try_for_each(|(listener, ns)| family.seconds(&[listener], *ns as f64 / 1e9))?;
        let mut family = Family::begin(to, table::OVERFLOWS)?;
        counted
            .overflows
            .iter()
            .try_for_each(|((listener, stage), count)| family.count(&[listener, stage], *count))
    }

    fn of_itself(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(ns) = self.bpf_ns {
            Family::begin(to, table::BPF_SECONDS)?.seconds(&[], ns as f64 / 1e9)?;
        }
        let mut family = Family::begin(to, table::SOURCE)?;
        self.counted.sources().try_for_each(|(fact, source)| family.info(&[fact, source]))?;
        Family::begin(to, table::BUILD)?.info(&[env!("CARGO_PKG_VERSION"), version::COMMIT])?;
        let Some(Own { cpu_s, resident_bytes, started_s }) = &self.own else { return Ok(()) };
        Family::begin(to, table::CPU)?.seconds(&[], *cpu_s)?;
        Family::begin(to, table::MEMORY)?.gauge(&[], *resident_bytes as f64)?;
        Family::begin(to, table::STARTED)?.gauge(&[], *started_s)
    }
}
