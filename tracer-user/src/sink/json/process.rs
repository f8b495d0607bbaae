//! Processes: nginx, the worker with what it did, and others.

use std::net::SocketAddr;

use serde::Serialize;

use super::home::Home;
use crate::model::{cgroup::Places, verdict};

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Nginx<'a> {
    pid: u32,
    comm: &'a str,
    #[serde(flatten)]
    home: Home<'a>,
    local: Option<String>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Process<'a> {
    pid: u32,
    comm: &'a str,
    #[serde(flatten)]
    home: Home<'a>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Worker<'a> {
    pid: u32,
    comm: &'a str,
    #[serde(flatten)]
    home: Home<'a>,
    signal: Option<&'a str>,
    doing: Option<Doing<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Doing<'a> {
    samples: u32,
    waits: Vec<Wait<'a>>,
    running: u32,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Wait<'a> {
    on: &'a str,
    samples: u32,
}

impl<'a> Nginx<'a> {
    pub(super) fn of(
        verdict::Process { pid, comm }: &'a verdict::Process,
        local: Option<SocketAddr>,
        places: &'a Places,
    ) -> Self {
        let local = local.map(|local| local.to_string());
        Self { pid: *pid, comm, home: Home::of(*pid, places), local }
    }
}

impl<'a> Process<'a> {
    pub(super) fn of(verdict::Process { pid, comm }: &'a verdict::Process, places: &'a Places) -> Self {
        Self { pid: *pid, comm, home: Home::of(*pid, places) }
    }
}

impl<'a> Worker<'a> {
    pub(super) fn of(worker: &'a verdict::Worker, places: &'a Places) -> Self {
        let verdict::Worker { process: verdict::Process { pid, comm }, signal, doing } = worker;
        Self {
            pid: *pid,
            comm,
            home: Home::of(*pid, places),
            signal: signal.as_deref(),
            doing: doing.as_ref().map(Doing::from),
        }
    }
}

impl<'a> From<&'a verdict::Doing> for Doing<'a> {
    fn from(verdict::Doing { samples, waits, running }: &'a verdict::Doing) -> Self {
        let waits = waits.iter().map(|(on, samples)| Wait { on, samples: *samples });
        Self { samples: *samples, waits: waits.collect(), running: *running }
    }
}
