//! The run of every command that says why exchanges failed: the stream, the verdicts, and the sinks that take both.

use std::path::Path;

use tokio::time::{Instant, sleep};
use wire::{NextAction, RING_BYTES};

use crate::{
    args::Trace,
    audit::{self, Audit},
    confine,
    engine::{self, Ends, Flow, Session},
    load::{Clients, Symbols, Tracer, take_types, tracefs_is_mounted},
    memory,
    model::{
        audit::Report,
        clock::{monotonic_ns, nanoseconds},
        failure::Failure,
        stream::{Entry, What},
    },
    pipeline::{Emitted, Pipeline, report_cut_looks},
    queues::Queues,
    sink::Sinks,
    source::{
        Source,
        scope::{self, Extras},
    },
};

/// Loads and attaches everything, and gives up what only that took. `written` are the files and folders that are yet to be written.
///
/// # Errors
/// Where this host cannot be traced.
pub fn start(args: &Trace, extras: Extras, is_verbose: bool, written: &[&Path]) -> Result<Source, Failure> {
    take_types(args.btf.as_deref())?;
    let mut tracer = Tracer::start(&scope::of(args, extras)?)?;
    if is_verbose {
        for (fact, reason) in &tracer.plan().missing {
            crate::notice!("without a hook for \"{}\": {reason}", fact.meaning());
        }
    }
    let (running, is_known) = match scope::running(args) {
        Ok(running) => (running, true),
        Err(error) => {
            crate::notice!(
                "which nginx runs already is not known, so that neither its word nor its logs nor its configuration are: /proc cannot \
                 be listed: {error}"
            );
            (Vec::new(), false)
        }
    };
    scope::greet(args, is_known.then_some(&running), tracer.listeners());
    for pid in &running {
        tracer.hear(*pid);
    }
    let written: Vec<_> = written.iter().copied().chain(args.ready_file.as_deref()).collect();
    let lacking = confine::tracing(&written, !tracefs_is_mounted());
    if is_verbose {
        for what in lacking {
            crate::notice!("{what}");
        }
    }
    let source = Source::new(tracer, args, &running, extras, is_verbose);
    memory::give_back();
    source
}

/// What attaches the hooks of `why502 backlog` by the same rules, at any time later: to be called before anything is given up.
pub fn queues(args: &Trace) -> impl Fn() -> Result<Queues, Failure> + Send + 'static {
    let comm = args.comm().unwrap_or_default().to_owned();
    let (pid, only) = (args.pid, args.hooks_only.clone());
    let symbols = Symbols::read();
    // Whoever only has the name has no upstreams: what is emitted is of those that the exchanges went to.
    move || Queues::attach(symbols, Clients { comm: &comm, pid, trusts_all: true }, &only)
}

/// How many records may wait in the ring buffer when a run ends: these are of before its end. What a storm adds meanwhile is not waited
/// for.
const MOST_WAITING: usize = RING_BYTES as usize / size_of::<NextAction>();

/// A run.
struct Tracing {
    source: Source,
    emission: Emission,
}

/// Hands the stream and what is to be emitted of it to the sinks, until there is enough, the duration is over, or SIGINT or SIGTERM comes.
///
/// # Errors
/// Of a sink, or if something fails on the way.
pub async fn follow(
    source: Source,
    args: &Trace,
    ends: &mut Ends,
    sinks: Sinks,
    audit: Option<Audit>,
) -> Result<(), Failure> {
    let emission = Emission {
        pipeline: Pipeline::new(source.start(args.count.map(Into::into))),
        sinks,
        audit,
        read_logs_ns: monotonic_ns(),
        is_over: false,
    };
    let mut tracing = Tracing { source, emission };
    let run = engine::Run { duration: args.duration, ready_file: args.ready_file.as_deref() };
    engine::follow(&mut tracing, run, ends).await?;
    tracing.end().await
}

impl Session for Tracing {
    async fn ready(&mut self) -> Result<(), Failure> {
        self.source.ready().await
    }

    fn turn(&mut self, is_last: bool) -> Result<Flow, Failure> {
        if is_last {
            self.source.read_logs_now();
        }
        let mut any_number = usize::MAX;
        let mut flow = self.hand_on(&mut any_number)?;
        let mut waiting = MOST_WAITING;
        while is_last && flow == Flow::GoOn && waiting > 0 && self.source.gave_way() {
            flow = self.hand_on(&mut waiting)?;
        }
        Ok(flow)
    }

    fn wake_ns(&self) -> Option<u64> {
        self.emission.wake_ns()
    }

    fn takes_demands(&self) -> bool {
        self.emission.sinks.takes_demands()
    }

    fn demand(&mut self) {
        self.emission.sinks.demand();
    }

    fn takes_reloads(&self) -> bool {
        self.emission.sinks.takes_reloads()
    }

    fn reload(&mut self) {
        self.emission.sinks.reload();
    }
}

impl Tracing {
    /// Hands on what there is to be read in one turn, and no more than `most` entries, which it counts down.
    fn hand_on(&mut self, most: &mut usize) -> Result<Flow, Failure> {
        let mut flow = Flow::GoOn;
        let seen_ns = self.source.read(|entry| {
            *most = most.saturating_sub(1);
            flow = self.emission.take(entry)?;
            Ok(flow == Flow::Over || *most == 0)
        })?;
        if flow == Flow::GoOn { self.emission.pause(seen_ns) } else { Ok(flow) }
    }

    async fn end(mut self) -> Result<(), Failure> {
        self.emission.take(Entry { at_ns: monotonic_ns(), what: What::End })?;
        self.emission.is_over = true;
        if !self.emission.sinks.is_closed()
            && let Some(report) = self.end_audit().await?
        {
            self.emission.sinks.each(|sink| sink.audit(&report))?;
        }
        for entry in self.source.recount()? {
            self.emission.take(entry)?;
        }
        let Emission { pipeline, sinks, .. } = self.emission;
        report_cut_looks(pipeline.cut_looks());
        sinks.end(&pipeline.summary())
    }

    /// Ends the audit, with a little time for what is only half there: a line, or a verdict.
    async fn end_audit(&mut self) -> Result<Option<Report>, Failure> {
        if let Some(audit) = &mut self.emission.audit {
            audit.end();
        }
        let deadline = Instant::now() + audit::GRACE;
        while Instant::now() < deadline
            && self.emission.audit.as_ref().is_some_and(|audit| !audit.is_complete())
        {
            sleep(audit::PERIOD / 10).await;
            self.source.read(|entry| self.emission.take(entry).map(|_over| false))?;
            if let Some(audit) = &mut self.emission.audit {
                audit.read();
            }
        }
        Ok(self.emission.audit.take().map(Audit::finish))
    }
}

/// What is emitted of the stream, and to whom.
struct Emission {
    pipeline: Pipeline,
    sinks: Sinks,
    audit: Option<Audit>,
    /// When the logs are to be read next (ns, monotonic).
    read_logs_ns: u64,
    /// All is emitted: what comes now only serves the audit, but for counts and losses.
    is_over: bool,
}

impl Emission {
    /// Takes in the next entry.
    fn take(&mut self, entry: Entry) -> Result<Flow, Failure> {
        let only_audited = self.is_over
            && matches!(entry.what, What::Record(_) | What::Look(_) | What::Logged(_) | What::Answer(_));
        if !only_audited {
            self.sinks.each(|sink| sink.entry(&entry))?;
        }
        self.pipeline.take(entry);
        self.emit()
    }

    /// All that was there by `at_ns` has been taken in.
    fn pause(&mut self, at_ns: u64) -> Result<Flow, Failure> {
        self.pipeline.advance(at_ns);
        let flow = self.emit()?;
        if let Some(audit) = &mut self.audit
            && at_ns >= self.read_logs_ns
        {
            audit.read();
            self.read_logs_ns = at_ns + nanoseconds(audit::PERIOD);
        }
        self.sinks.so_far(monotonic_ns(), || self.pipeline.summary())?;
        self.sinks.each(|sink| sink.flush())?;
        Ok(if self.sinks.is_closed() { Flow::Over } else { flow })
    }

    fn wake_ns(&self) -> Option<u64> {
        let logs = self.audit.as_ref().map(|_| self.read_logs_ns);
        [self.pipeline.next_deadline(), logs, self.sinks.wake_ns()].into_iter().flatten().min()
    }

    fn emit(&mut self) -> Result<Flow, Failure> {
        while let Some(emitted) = self.pipeline.next() {
            self.sinks.each(|sink| sink.emitted(&emitted))?;
            match (&emitted, &mut self.audit) {
                (Emitted::Verdict(verdict), Some(audit)) => audit.verdict(verdict),
                (Emitted::Withheld(verdict), Some(audit)) => audit.withheld(verdict),
                _ => {}
            }
        }
        Ok(if self.sinks.is_closed() || self.pipeline.is_over() { Flow::Over } else { Flow::GoOn })
    }
}
