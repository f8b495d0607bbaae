//! A metric and its series, as the page and collectors take them.

use super::table::Metric;

/// A metric, with all of its series.
#[derive(Debug)]
pub(in crate::sink) struct Family<'a> {
    pub(in crate::sink) metric: Metric,
    pub(in crate::sink) series: Vec<Series<'a>>,
}

/// A series: the values of its labels, in the order of these, and its own.
#[derive(Debug)]
pub(in crate::sink) struct Series<'a> {
    pub(in crate::sink) labels: Vec<&'a str>,
    pub(in crate::sink) value: Value<'a>,
}

/// The value of a series.
#[derive(Clone, Copy, Debug)]
pub(in crate::sink) enum Value<'a> {
    /// A counter of whole things.
    Count(u64),
    /// A counter of time.
    Seconds(f64),
    /// A gauge.
    Level(f64),
    /// Always one: its labels say it.
    Info,
    /// How many times fell below each bound.
    Histogram(Histogram<'a>),
}

/// Times by how long they are.
#[derive(Clone, Copy, Debug)]
pub(in crate::sink) struct Histogram<'a> {
    /// Upper bounds (s).
    pub(in crate::sink) bounds: &'static [f64],
    /// How many there are up to each bound and above the one before, and beyond the last.
    pub(in crate::sink) counts: &'a [u64],
    /// All of them together (s).
    pub(in crate::sink) seconds: f64,
}

impl Histogram<'_> {
    /// How many there are.
    pub(in crate::sink) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

pub(super) fn family<'a>(
    metric: Metric,
    series: impl Iterator<Item = (Vec<&'a str>, Value<'a>)>,
) -> Family<'a> {
    let series: Vec<_> = series.map(|(labels, value)| Series { labels, value }).collect();
    debug_assert!(series.iter().all(|one| one.labels.len() == metric.labels.len()), "{}", metric.name);
    Family { metric, series }
}
