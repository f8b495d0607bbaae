//! The metrics as OTLP has them: by the same names and labels as on the page.

use nix::time::ClockId;
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
};

use super::words::{attribute, resource, scope, text, unix};
use crate::{
    model::clock,
    sink::metrics::{self, Family, Kind, Reading, Series, Value},
};

pub(super) fn request(reading: &Reading) -> ExportMetricsServiceRequest {
    let moments = Moments { began: unix(reading.began_ns()), now: unix(clock::now(ClockId::CLOCK_REALTIME)) };
    let families = reading.families();
    let families = families.iter().filter(|family| !family.series.is_empty());
    let metrics = families.map(|family| metric(family, moments)).collect();
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope()), metrics, ..ScopeMetrics::default() }];
    let resource_metrics =
        vec![ResourceMetrics { resource: Some(resource()), scope_metrics, ..ResourceMetrics::default() }];
    ExportMetricsServiceRequest { resource_metrics }
}

/// When counting began, and now (ns since 1970).
#[derive(Clone, Copy)]
struct Moments {
    began: u64,
    now: u64,
}

fn metric(Family { metric, series }: &Family<'_>, moments: Moments) -> Metric {
    let points = || series.iter().map(|one| number(metric.labels, one, moments)).collect();
    let cumulative = AggregationTemporality::Cumulative.into();
    let data = match metric.kind {
        Kind::Counter => {
            Data::Sum(Sum { data_points: points(), aggregation_temporality: cumulative, is_monotonic: true })
        }
        Kind::Gauge | Kind::Info => Data::Gauge(Gauge { data_points: points() }),
        Kind::Histogram => {
            let points = series.iter().filter_map(|Series { labels, value }| match value {
                Value::Histogram(times) => Some(histogram(attributes(metric.labels, labels), times, moments)),
                _ => None,
            });
            Data::Histogram(Histogram { data_points: points.collect(), aggregation_temporality: cumulative })
        }
    };
    Metric {
        name: metric.name.to_owned(),
        description: metric.help.to_owned(),
        unit: unit(metric.name).to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

/// A metric's unit, as UCUM writes it; things that are counted have none.
fn unit(name: &str) -> &'static str {
    match name.strip_suffix("_total").unwrap_or(name) {
        name if name.ends_with("_seconds") => "s",
        name if name.ends_with("_bytes") => "By",
        _ => "",
    }
}

fn attributes(names: &[&str], values: &[&str]) -> Vec<KeyValue> {
    names.iter().zip(values).map(|(name, value)| attribute(name, text(value))).collect()
}

fn number(names: &[&str], Series { labels, value }: &Series<'_>, moments: Moments) -> NumberDataPoint {
    use number_data_point::Value::{AsDouble, AsInt};
    let value = match value {
        Value::Count(count) => AsInt(i64::try_from(*count).unwrap_or(i64::MAX)),
        Value::Seconds(value) | Value::Level(value) => AsDouble(*value),
        Value::Info => AsInt(1),
        Value::Histogram(times) => AsDouble(times.seconds),
    };
    NumberDataPoint {
        attributes: attributes(names, labels),
        start_time_unix_nano: moments.began,
        time_unix_nano: moments.now,
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

fn histogram(
    attributes: Vec<KeyValue>,
    times: &metrics::Histogram<'_>,
    moments: Moments,
) -> HistogramDataPoint {
    HistogramDataPoint {
        attributes,
        start_time_unix_nano: moments.began,
        time_unix_nano: moments.now,
        count: times.count(),
        sum: Some(times.seconds),
        bucket_counts: times.counts.to_vec(),
        explicit_bounds: times.bounds.to_vec(),
        ..HistogramDataPoint::default()
    }
}
