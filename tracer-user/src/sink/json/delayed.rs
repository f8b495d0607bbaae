//! An exchange that succeeded late, for its connection was slow to come about.

use serde::Serialize;

use super::{VERSION, pressure::Pressure, process::Process, queue::Queue, upstream::Upstream};
use crate::model::{verdict, words::time};

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Delayed<'a> {
    #[cfg_attr(test, schemars(extend("const" = VERSION)))]
    v: u32,
    #[cfg_attr(test, schemars(extend("const" = "delayed")))]
    r#type: &'static str,
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    time: String,
    nginx: Process<'a>,
    upstream: Upstream,
    delay_us: u64,
    syn_retransmits: u32,
    queue: Option<Queue>,
    pressure: Option<Pressure<'a>>,
    explanation: &'a str,
}

impl<'a> From<&'a verdict::Delayed> for Delayed<'a> {
    fn from(delayed: &'a verdict::Delayed) -> Self {
        let verdict::Delayed {
            unix_ns,
            nginx,
            upstream,
            delay_us,
            syn_retransmits,
            queue,
            places,
            pressure,
            explanation,
        } = delayed;
        Self {
            v: VERSION,
            r#type: "delayed",
            time: time(*unix_ns),
            nginx: Process::of(nginx, places),
            upstream: upstream.into(),
            delay_us: *delay_us,
            syn_retransmits: *syn_retransmits,
            queue: queue.as_ref().map(Queue::from),
            pressure: pressure.as_ref().map(Pressure::from),
            explanation,
        }
    }
}
