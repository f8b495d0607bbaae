//! `why502 live`: trace, and write each verdict as it comes.

use std::io;

use tokio::time::{Instant, sleep};

use crate::{
    args::{Format, Live},
    audit::{self, Audit},
    clock::{monotonic_ns, nanoseconds},
    evidence::{Encoder, Header, Names},
    failure::Failure,
    output::{Json, Look, Output, Text, terminal},
    pipeline::{Pipeline, Told, tell_cut_looks},
    record::Recording,
    scope::Beyond,
    source::Source,
    stream::{Entry, What},
    trace::{self, Ends, Flow, Session},
};

/// Runs until the duration is over, the count is reached, or SIGINT or SIGTERM comes.
///
/// # Errors
/// Where this host cannot be traced, or something fails on the way. A closed standard output is no error.
pub fn run(args: &Live) -> Result<(), Failure> {
    trace::run(live(args))
}

async fn live(args: &Live) -> Result<(), Failure> {
    let mut ends = Ends::watch()?;
    let mut audit = Audit::open(args)?;
    let beyond =
        Beyond { error_logs: &args.error_logs, shows_requests: args.show_requests, ..Beyond::default() };
    let mut source = trace::start(&args.trace, beyond, args.verbose)?;
    if let Some(audit) = &mut audit {
        audit.begin();
    }
    let limit = args.trace.count.map(Into::into);
    let output: Box<dyn Output> = match args.output {
        Format::Json => Box::new(Json::new(terminal::json())),
        Format::Text => Box::new(Text::new(terminal::text(), Look::of_stdout(args.verbose))),
    };
    let recording = match &args.evidence {
        Some(path) => {
            let start = source.start(limit);
            let names = Names::new(false);
            let header = Header::now(&args.trace, &[], &start, &names);
            Some(Recording::create(
                path,
                None,
                header,
                start.distance,
                Encoder::new(start.started_ns, names),
            )?)
        }
        None => None,
    };
    let mut told = Telling {
        recording,
        pipeline: Pipeline::new(source.start(limit)),
        output,
        is_closed: false,
        read_logs_ns: monotonic_ns(),
        is_over: false,
        audit,
    };
    trace::follow(&mut source, &args.trace, &mut ends, &mut told).await?;
    told.end(&mut source).await
}

/// What tells as it goes.
struct Telling {
    recording: Option<Recording>,
    pipeline: Pipeline,
    output: Box<dyn Output>,
    /// The reader has gone: `| head` has what it wanted.
    is_closed: bool,
    audit: Option<Audit>,
    /// When the logs are to be read next (ns, monotonic).
    read_logs_ns: u64,
    /// All is told: what comes now only serves the audit, but for counts and losses.
    is_over: bool,
}

impl Session for Telling {
    fn take(&mut self, entry: Entry) -> Result<Flow, Failure> {
        let only_audited = self.is_over
            && matches!(entry.what, What::Record(_) | What::Look(_) | What::Logged(_) | What::Answer(_));
        if let Some(recording) = self.recording.as_mut().filter(|_| !only_audited) {
            recording.add(&entry);
        }
        self.pipeline.take(entry);
        self.tell()
    }

    fn pause(&mut self, at_ns: u64) -> Result<Flow, Failure> {
        if let Some(recording) = &mut self.recording {
            recording.pause(monotonic_ns());
        }
        self.pipeline.advance(at_ns);
        let flow = self.tell()?;
        if let Some(audit) = &mut self.audit
            && at_ns >= self.read_logs_ns
        {
            audit.read();
            self.read_logs_ns = at_ns + nanoseconds(audit::PERIOD);
        }
        self.write(|output| output.flush())?;
        Ok(if self.is_closed { Flow::Over } else { flow })
    }

    fn wake_ns(&self) -> Option<u64> {
        let logs = self.audit.as_ref().map(|_| self.read_logs_ns);
        let frame = self.recording.as_ref().and_then(Recording::wake_ns);
        [self.pipeline.next_deadline(), logs, frame].into_iter().flatten().min()
    }
}

impl Telling {
    fn tell(&mut self) -> Result<Flow, Failure> {
        while let Some(told) = self.pipeline.next() {
            match told {
                Told::Verdict(verdict) => {
                    self.write(|output| output.verdict(&verdict))?;
                    if let Some(audit) = &mut self.audit {
                        audit.verdict(&verdict);
                    }
                }
                Told::Delayed(delayed) => self.write(|output| output.delayed(&delayed))?,
                Told::After(after) => self.write(|output| output.after(&after))?,
                Told::Note(note) => self.write(|output| output.note(&note))?,
                Told::Answer(answered) => self.write(|output| output.answer(&answered))?,
                Told::Beyond(verdict) => {
                    if let Some(audit) = &mut self.audit {
                        audit.untold(&verdict);
                    }
                }
            }
        }
        Ok(if self.is_closed || self.pipeline.is_over() { Flow::Over } else { Flow::GoOn })
    }

    /// Writes, unless the reader has gone.
    fn write(&mut self, write: impl FnOnce(&mut dyn Output) -> io::Result<()>) -> Result<(), Failure> {
        if self.is_closed {
            return Ok(());
        }
        match write(self.output.as_mut()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.is_closed = true,
            result => result.map_err(|error| {
                Failure::Run(anyhow::Error::from(error).context("standard output cannot be written"))
            })?,
        }
        Ok(())
    }

    async fn end(mut self, source: &mut Source) -> Result<(), Failure> {
        self.take(Entry { at_ns: monotonic_ns(), what: What::End })?;
        self.is_over = true;
        let report = if self.is_closed { None } else { self.end_audit(source).await? };
        if let Some(report) = &report {
            self.write(|output| output.audit(report))?;
        }
        for entry in source.recount()? {
            self.take(entry)?;
        }
        if let Some(recording) = self.recording.take() {
            recording.finish();
        }
        tell_cut_looks(self.pipeline.cut_looks());
        let summary = self.pipeline.summary();
        self.write(|output| output.summary(&summary))?;
        self.write(|output| output.flush())
    }

    /// Ends the audit, with a little time for what is only half there: a line, or a verdict.
    async fn end_audit(&mut self, source: &mut Source) -> Result<Option<audit::Report>, Failure> {
        if let Some(audit) = &mut self.audit {
            audit.end();
        }
        let deadline = Instant::now() + audit::GRACE;
        while Instant::now() < deadline && self.audit.as_ref().is_some_and(|audit| !audit.is_complete()) {
            sleep(audit::PERIOD / 10).await;
            source.read(|entry| self.take(entry).map(|_over| false))?;
            if let Some(audit) = &mut self.audit {
                audit.read();
            }
        }
        Ok(self.audit.take().map(Audit::finish))
    }
}
