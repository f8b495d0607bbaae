//! nginx's access log, in a format of the rig's own.

use anyhow::{Context, Result};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// The `log_format` that [`parse`] reads.
pub(crate) const FORMAT: &str = concat!(
    "  log_format rig escape=json '{\"pid\":$pid,\"status\":\"$status\",\"uri\":\"$request_uri\",",
    "\"seconds\":$request_time,\"upstream\":\"$upstream_addr\",\"upstream_status\":\"$upstream_status\"}';\n",
);

/// One request that nginx has done with.
#[derive(Debug, Clone, Deserialize)]
pub struct Access {
    /// The nginx worker.
    pub pid: i32,
    /// The status sent to the client; 499 if it had gone, and 9, written 009, after what is no HTTP.
    #[serde(deserialize_with = "number")]
    pub status: u16,
    /// The URI as requested.
    pub uri: String,
    /// How long it took.
    pub seconds: f64,
    /// The upstream addresses tried, separated by `, `.
    pub upstream: String,
    /// The status of each try.
    pub upstream_status: String,
}

pub(crate) fn parse(log: &str) -> Result<Vec<Access>> {
    let parse = |line| serde_json::from_str(line).with_context(|| format!("access log: {line}"));
    log.lines().map(parse).collect()
}

/// A number that is quoted, since it may have leading zeros.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(Error::custom)
}
