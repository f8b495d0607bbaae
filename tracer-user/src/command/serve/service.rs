//! The sinks of the service as one, for a new configuration changes them all; and what systemd is notified of.

use std::{collections::BTreeSet, ffi::OsString, io, time::Duration};

use anyhow::Context as _;
use sd_notify::NotifyState;

use super::{complain, configured, hook::Hook, recorder::Recorder};
use crate::{
    args::{Listen, Serve, configuration::Resolved},
    model::{
        answers::Answered,
        clock::{monotonic_ns, nanoseconds},
        facts::Sources,
        failure::Failure,
        stream::{Entry, Start},
        verdict::{Delayed, Note, Summary, Verdict, WorkerOutlived},
        words::{count, span},
    },
    queues::Queues,
    sink::{
        Json, Otlp, Sink,
        evidence::{Naming, Rotation},
        lines::Lines,
        metrics::{Metrics, Server},
        to_collector, to_journal, to_syslog,
    },
    terminal::{self, Screen},
};

/// Options that are in force from the start on: what the kernel side was loaded with, and what other counts rest on.
const FIXED: [&str; 3] = ["metrics-upstreams", "metrics-queue-waits", "record-last"];

/// What begins the names of options that can be changed.
const CHANGEABLE: [&str; 3] = ["metrics", "json-", "record-"];

/// The sinks of the service.
pub(super) struct Service {
    /// The command line.
    words: Vec<OsString>,
    resolved: Resolved,
    metrics: Metrics,
    server: Option<Server>,
    json: Option<Json<Screen<Lines>>>,
    recorder: Option<Recorder>,
    /// What the recorder will be made of.
    prepared: Option<(Naming, Option<Hook>)>,
    watchdog: Watchdog,
}

impl Service {
    /// Makes all that can be refused, before anything is traced.
    ///
    /// # Errors
    /// Of the first that is.
    pub(super) fn prepare(resolved: Resolved, words: Vec<OsString>) -> Result<Self, Failure> {
        let options = &resolved.serve;
        let metrics = Metrics::new(&Sources::default(), options.metrics_upstreams as usize);
        let prepared = match options.record_last {
            None => None,
            Some(_) => {
                // Its thread keeps all privileges, so there is none where there is no hook.
                let hook = match options.record_hook.is_empty() {
                    true => None,
                    false => Some(Hook::start()?),
                };
                Some((Naming::dated(&options.record_directory, options.record_keep)?, hook))
            }
        };
        let json = json(options, &metrics)?;
        let server = server(options, &metrics)?;
        let watchdog = Watchdog::of_systemd();
        Ok(Self { words, metrics, server, json, recorder: None, prepared, watchdog, resolved })
    }

    /// The sinks that send verdicts elsewhere, and that no new configuration changes.
    ///
    /// # Errors
    /// If there is nobody of this host's to send them to.
    pub(super) fn elsewhere(&self) -> Result<Vec<Box<dyn Sink>>, Failure> {
        let (options, shared) = (&self.resolved.serve, self.metrics.shared());
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        if let Some(collector) = options.otlp.clone() {
            let (queue, interval) = (options.otlp_queue as usize, options.otlp_interval);
            sinks.push(Box::new(to_collector(Otlp { collector, queue, interval }, shared)?));
        }
        if options.journal {
            sinks.push(Box::new(to_journal(shared)?));
        }
        if let Some(syslog) = options.syslog.clone() {
            sinks.push(Box::new(to_syslog(syslog, shared)?));
        }
        Ok(sinks)
    }

    /// Counts how long all connections wait in accept queues, if the hooks for that could be attached.
    pub(super) fn watch_queues(&mut self, queues: Result<Queues, Failure>) {
        let watched = queues.and_then(|queues| Ok(self.metrics.watch_queues(queues).context("no thread")?));
        if let Err(error) = watched {
            crate::notice!("how long connections wait in accept queues is not counted here: {error:#}");
        }
    }

    /// All is attached: this is where the stream begins.
    pub(super) fn begin(&mut self, start: &Start) {
        self.metrics.begin(&start.sources);
        if let Some((naming, hook)) = self.prepared.take() {
            self.recorder = Recorder::begin(&self.resolved.serve, naming, hook, start);
        }
        notify_systemd(&[NotifyState::Ready]);
    }

    /// Goes on as a new configuration says, as far as that can be.
    fn change_to(&mut self, mut new: Resolved) {
        let old = &self.resolved;
        let names: BTreeSet<_> = old.settings.keys().chain(new.settings.keys()).cloned().collect();
        let changed = names.into_iter().filter(|name| old.settings.get(name) != new.settings.get(name));
        let is_fixed = |name: &String| {
            FIXED.contains(&name.as_str()) || !CHANGEABLE.iter().any(|start| name.starts_with(start))
        };
        let fixed: Vec<_> = changed.filter(is_fixed).collect();
        for name in &fixed {
            // So that the next time says so again.
            match old.settings.get(name) {
                Some(words) => {
                    new.settings.insert(name.clone(), words.clone());
                }
                None => {
                    new.settings.remove(name);
                }
            }
        }
        new.serve.record_last = old.serve.record_last;
        if new.serve.metrics != old.serve.metrics {
            match server(&new.serve, &self.metrics) {
                Ok(server) => self.server = server,
                Err(error) => {
                    crate::notice!("{error:#}: they are served as before");
                    new.serve.metrics = old.serve.metrics;
                }
            }
        }
        match json(&new.serve, &self.metrics) {
            // The same file is opened anew as well: another program may have moved it away.
            Ok(json) => self.json = json,
            Err(error) => crate::notice!("{error:#}: lines go on to where they went"),
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.reload(&old.serve, &new.serve);
        }
        match fixed.as_slice() {
            [] => crate::notice!("the configuration was read again"),
            fixed => crate::notice!(
                "the configuration was read again; {} changed that only a new start takes up: {}",
                count(fixed.len() as u64, "option"),
                fixed.join(", ")
            ),
        }
        self.resolved = new;
    }
}

fn server(options: &Serve, metrics: &Metrics) -> anyhow::Result<Option<Server>> {
    let Listen::At(address) = options.metrics else { return Ok(None) };
    let server = Server::start(address, metrics.shared())?;
    crate::notice!("metrics are at http://{}/metrics", server.address());
    Ok(Some(server))
}

fn json(options: &Serve, metrics: &Metrics) -> anyhow::Result<Option<Json<Screen<Lines>>>> {
    let Some(path) = &options.json_path else { return Ok(None) };
    let rotation = Rotation { size: options.json_rotate_size, keep: options.json_rotate_keep };
    let lines = Lines::open(path, rotation, metrics.shared().lines_lost())?;
    Ok(Some(Json::new(terminal::json_into(lines))))
}

impl Sink for Service {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        if let Some(recorder) = &mut self.recorder {
            recorder.entry(entry);
        }
        self.metrics.entry(entry)
    }

    fn verdict(&mut self, verdict: &Verdict) -> io::Result<()> {
        if let Some(recorder) = &mut self.recorder {
            recorder.verdict(verdict);
        }
        self.metrics.verdict(verdict)?;
        self.json.as_mut().map_or(Ok(()), |json| json.verdict(verdict))
    }

    fn delayed(&mut self, delayed: &Delayed) -> io::Result<()> {
        self.metrics.delayed(delayed)?;
        self.json.as_mut().map_or(Ok(()), |json| json.delayed(delayed))
    }

    fn worker_outlived(&mut self, outlived: &WorkerOutlived) -> io::Result<()> {
        self.json.as_mut().map_or(Ok(()), |json| json.worker_outlived(outlived))
    }

    fn note(&mut self, note: &Note) -> io::Result<()> {
        self.json.as_mut().map_or(Ok(()), |json| json.note(note))
    }

    fn answer(&mut self, answered: &Answered) -> io::Result<()> {
        self.json.as_mut().map_or(Ok(()), |json| json.answer(answered))
    }

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        self.metrics.summary(summary)?;
        self.json.as_mut().map_or(Ok(()), |json| json.summary(summary))
    }

    fn sums_ns(&self) -> Option<u64> {
        self.metrics.sums_ns()
    }

    fn so_far(&mut self, sums: &Summary) -> io::Result<()> {
        self.metrics.so_far(sums)
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(recorder) = &mut self.recorder {
            recorder.pause();
        }
        self.watchdog.turn();
        self.metrics.flush()?;
        self.json.as_mut().map_or(Ok(()), Sink::flush)
    }

    fn wake_ns(&self) -> Option<u64> {
        let recorder = self.recorder.as_ref().and_then(Recorder::wake_ns);
        [recorder, self.metrics.wake_ns(), self.watchdog.due_ns()].into_iter().flatten().min()
    }

    fn takes_demands(&self) -> bool {
        true
    }

    fn demand(&mut self) {
        match &mut self.recorder {
            Some(recorder) => recorder.write("SIGUSR1"),
            None => crate::notice!("SIGUSR1 writes nothing: no flight recorder runs (`last` of [record])"),
        }
    }

    fn takes_reloads(&self) -> bool {
        true
    }

    fn reload(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify_systemd(&[NotifyState::Reloading, now]),
            Err(error) => crate::notice!("systemd is not told of the new configuration: {error}"),
        }
        let given = self.resolved.serve.clone();
        match configured(&given, &self.words) {
            Ok(new) => self.change_to(new),
            Err(wrong) => {
                complain(given.config.as_deref(), &wrong);
                crate::notice!("the configuration stays as it was");
            }
        }
        notify_systemd(&[NotifyState::Ready]);
    }

    fn end(self: Box<Self>, summary: &Summary) -> Result<(), Failure> {
        notify_systemd(&[NotifyState::Stopping]);
        let failures = summary.failures.iter().map(|(_, count)| count).sum();
        crate::notice!(
            "served for {}: {}, {}",
            span(summary.elapsed_ns),
            count(summary.exchanges, "exchange"),
            count(failures, "failure")
        );
        Ok(())
    }
}

/// Notifies systemd, if it has started this.
fn notify_systemd(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        crate::notice!("systemd could not be told: {error}");
    }
}

/// Notifies systemd again and again that the event loop turns, if it wants to know.
struct Watchdog {
    period: Option<Duration>,
    notified_ns: u64,
}

impl Watchdog {
    fn of_systemd() -> Self {
        // Twice within what it waits for.
        Self { period: sd_notify::watchdog_enabled().map(|limit| limit / 2), notified_ns: 0 }
    }

    fn due_ns(&self) -> Option<u64> {
        self.period.map(|period| self.notified_ns.saturating_add(nanoseconds(period)))
    }

    fn turn(&mut self) {
        let now_ns = monotonic_ns();
        if self.due_ns().is_some_and(|due| due <= now_ns) {
            self.notified_ns = now_ns;
            notify_systemd(&[NotifyState::Watchdog]);
        }
    }
}
