//! The page: what was counted, in either of Prometheus's formats.

use std::{fmt, iter::once};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet, text},
    metrics::MetricType,
    registry::Registry,
};

use super::{
    Shared,
    family::{Family, Series, Value},
    reading::Reading,
    table::{Kind, METRICS, Metric},
};

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
    registry.register_collector(Box::new(Page(Reading::now(shared))));
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

#[derive(Debug)]
struct Page(Reading);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.families().iter().try_for_each(|family| encode(&mut encoder, family))
    }
}

fn encode(to: &mut DescriptorEncoder<'_>, Family { metric, series }: &Family<'_>) -> fmt::Result {
    let kind = match metric.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
        Kind::Info => MetricType::Info,
    };
    let mut encoder = to.encode_descriptor(family_of(metric), metric.help, None, kind)?;
    for Series { labels, value } in series {
        let labels: Vec<_> = metric.labels.iter().copied().zip(labels.iter().copied()).collect();
        let labels = labels.as_slice();
        match value {
            Value::Info => encoder.encode_info(&labels)?,
            Value::Count(count) => {
                encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?
            }
            Value::Seconds(seconds) => {
                encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(seconds, None)?
            }
            Value::Level(level) => encoder.encode_family(&labels)?.encode_gauge(level)?,
            Value::Histogram(times) => {
                let bounds = times.bounds.iter().copied().chain(once(f64::INFINITY));
                let buckets: Vec<_> = bounds.zip(times.counts.iter().copied()).collect();
                encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                    times.seconds,
                    times.count(),
                    &buckets,
                    None,
                )?;
            }
        }
    }
    Ok(())
}
