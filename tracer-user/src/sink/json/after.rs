//! What a worker did after nginx had given its exchange up.

use serde::Serialize;

use super::{VERSION, process::Process, upstream::Upstream};
use crate::model::{verdict, words::time};

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct After<'a> {
    #[cfg_attr(test, schemars(extend("const" = VERSION)))]
    v: u32,
    #[cfg_attr(test, schemars(extend("const" = "after")))]
    r#type: &'static str,
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    time: String,
    nginx: AfterNginx,
    upstream: Upstream,
    worker: Option<Process<'a>>,
    went_on_us: u64,
    accepted_late: bool,
    explanation: &'a str,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct AfterNginx {
    pid: u32,
    local: Option<String>,
}

impl<'a> From<&'a verdict::WorkerOutlived> for After<'a> {
    fn from(after: &'a verdict::WorkerOutlived) -> Self {
        let verdict::WorkerOutlived {
            unix_ns,
            nginx,
            local,
            upstream,
            worker,
            went_on_us,
            accepted_late,
            places,
            explanation,
        } = after;
        Self {
            v: VERSION,
            r#type: "after",
            time: time(*unix_ns),
            nginx: AfterNginx { pid: *nginx, local: local.map(|local| local.to_string()) },
            upstream: upstream.into(),
            worker: worker.as_ref().map(|worker| Process::of(worker, places)),
            went_on_us: *went_on_us,
            accepted_late: *accepted_late,
            explanation,
        }
    }
}
