//! What log records and metrics have in common: attributes, and whose they are.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
};

use crate::procfs::host_name;

pub(super) fn text(text: &str) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(text.to_owned())) }
}

pub(super) fn number(number: i64) -> AnyValue {
    AnyValue { value: Some(Value::IntValue(number)) }
}

pub(super) fn attribute(name: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// This program, on this host.
pub(super) fn resource() -> Resource {
    let host = host_name();
    let own = [
        ("service.name", Some("why502")),
        ("service.version", Some(env!("CARGO_PKG_VERSION"))),
        ("host.name", host.as_deref().ok()),
    ];
    let attributes = own.into_iter().filter_map(|(name, value)| Some(attribute(name, text(value?))));
    Resource { attributes: attributes.collect(), ..Resource::default() }
}

pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "why502".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// Nanoseconds since 1970; zero, which says "unknown", before that.
pub(super) fn unix(ns: i64) -> u64 {
    u64::try_from(ns).unwrap_or(0)
}
