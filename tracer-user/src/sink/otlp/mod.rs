//! OTLP over HTTP, with protobuf: verdicts as log records, and the metrics, to a collector of OpenTelemetry.

mod client;
mod logs;
mod metrics;
mod words;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Sink,
    courier::{Carrier, Courier, Fate},
    metrics::{Reading, Shared},
    record::Record,
};
use crate::model::destination::Collector;
use client::{Answer, Client};

/// How a collector is sent to.
#[derive(Clone, Debug)]
pub struct Otlp {
    /// Where it is.
    pub collector: Collector,
    /// So many verdicts may wait for it.
    pub queue: usize,
    /// How often metrics are sent.
    pub interval: Duration,
}

/// A sink that sends verdicts to a collector, and the metrics that others have counted.
///
/// # Errors
/// If there can be no thread for it. A collector that is not there is none: it may come.
pub fn to_collector(options: Otlp, shared: &Arc<Shared>) -> anyhow::Result<impl Sink + use<>> {
    let Otlp { collector, queue, interval } = options;
    let to = format!("the collector at {collector}");
    let sender = Sender {
        client: Client::new(collector)?,
        shared: Arc::clone(shared),
        interval,
        due: Instant::now() + interval,
        is_failing: false,
    };
    Courier::start("otlp", to, queue, &shared.drops_of("otlp"), sender)
}

/// What speaks to the collector.
struct Sender {
    client: Client,
    shared: Arc<Shared>,
    interval: Duration,
    due: Instant,
    /// Metrics were not taken the last time, which was said.
    is_failing: bool,
}

impl Carrier for Sender {
    const BATCH: usize = 512;
    const LINGER: Duration = Duration::from_secs(1);

    fn carry(&mut self, records: &[Record]) -> Fate {
        match self.client.post("/v1/logs", &logs::request(records)) {
            Answer::Taken(body) => {
                let refused = logs::refused(&body);
                if let Some((count, why)) = &refused {
                    crate::notice!("the collector refused {count} of {} verdicts: {why}", records.len());
                }
                Fate::Taken { but: refused.map_or(0, |(count, _)| count) }
            }
            Answer::Refused(why) => Fate::Refused(why),
            Answer::Later { why, after } => Fate::Later { why, after },
        }
    }

    fn due(&self) -> Option<Instant> {
        Some(self.due)
    }

    fn turn(&mut self) {
        self.due = Instant::now() + self.interval;
        let answer = self.client.post("/v1/metrics", &metrics::request(&Reading::now(&self.shared)));
        match answer {
            Answer::Taken(_) => self.is_failing = false,
            // They are cumulative: the next ones say it all.
            Answer::Refused(why) | Answer::Later { why, .. } => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    crate::notice!("the collector takes no metrics: {why}. They are sent again in time");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
