//! `why502 record`: trace, and write the evidence to disk.

mod alarm;
mod configured;
mod depth;
mod file;
mod window;

use std::{net::SocketAddr, path::Path};

use anyhow::Context as _;

use alarm::Alarm;
pub use depth::Depths;
pub use file::{Recording, Rotation};
use window::{MOST_BYTES, Window, Written};

use crate::{
    args::{Record, UpstreamFilter},
    clock::monotonic_ns,
    evidence::{Encoder, Header, Names},
    failure::Failure,
    output::{Look, said},
    pipeline::{Pipeline, Told, tell_cut_looks},
    scope::Beyond,
    stream::{Entry, What},
    trace::{self, Ends, Flow, Session},
    verdict::Upstream,
    words::{count, span},
};

/// Runs until the duration is over, the count is reached, or SIGINT or SIGTERM comes.
///
/// # Errors
/// Where this host cannot be traced, the file not be made, or something fails on the way.
pub fn run(args: &Record) -> Result<(), Failure> {
    trace::run(record(args))
}

async fn record(args: &Record) -> Result<(), Failure> {
    let mut ends = Ends::watch()?;
    // Every name that this run may take, before anything is traced.
    let last = match (args.last, args.rotate_size) {
        (Some(_), _) => args.max_files,
        (None, Some(_)) => args.rotate_keep,
        (None, None) => 0,
    };
    file::is_free(&args.output, last)?;
    let beyond = Beyond { listeners: &args.listeners, counts_upstreams: true, ..Beyond::default() };
    let mut source = trace::start(&args.trace, beyond, false)?;
    let listeners: Vec<_> = args.listeners.iter().filter_map(of_listener).collect();
    let depths = Depths::start(listeners.iter()).context("accept queues cannot be looked at")?;
    source.watch_depths(depths);
    let start = source.start(args.trace.count.map(Into::into));
    let names = Names::new(args.anonymize);
    let listeners: Vec<_> = args.listeners.iter().map(ToString::to_string).collect();
    let header = Header::now(&args.trace, &listeners, &start, &names);
    let (encoder, distance) = (Encoder::new(start.started_ns, names), start.distance);
    let keep = match args.last {
        Some(last) => {
            crate::notice!(
                "keeping the last {} in memory, in at most {} MiB; SIGUSR1 writes them, to {} at most and one at the end",
                span(u64::try_from(last.as_nanos()).unwrap_or(u64::MAX)),
                MOST_BYTES >> 20,
                count(args.max_files.into(), "file")
            );
            let alarm = Alarm::new(&args.triggers, last);
            let window = Window::new(&args.output, last, args.max_files, header, distance, encoder);
            Keep::Window(Box::new(window), alarm)
        }
        None => {
            let keep = args.rotate_keep;
            let rotation = args.rotate_size.map(|size| Rotation { size, keep });
            Keep::File(Box::new(Recording::create(&args.output, rotation, header, distance, encoder)?))
        }
    };
    let mut session = Keeping { pipeline: Pipeline::new(start), keep };
    trace::follow(&mut source, &args.trace, &mut ends, &mut session).await?;
    session.take(Entry { at_ns: monotonic_ns(), what: What::End })?;
    for entry in source.recount()? {
        session.take(entry)?;
    }
    session.end(&args.output)
}

/// Where a listener is; one that is named by its port alone may be on any address.
fn of_listener(listener: &UpstreamFilter) -> Option<Upstream> {
    match listener {
        UpstreamFilter::Address(address) => Some(Upstream::Inet(*address)),
        UpstreamFilter::Port(port) => Some(Upstream::Inet(SocketAddr::from(([0, 0, 0, 0], *port)))),
        UpstreamFilter::Unix(_) => None,
    }
}

/// What keeps the evidence, and counts what failed.
struct Keeping {
    pipeline: Pipeline,
    keep: Keep,
}

enum Keep {
    File(Box<Recording>),
    Window(Box<Window>, Alarm),
}

impl Session for Keeping {
    fn take(&mut self, entry: Entry) -> Result<Flow, Failure> {
        match &mut self.keep {
            Keep::File(recording) => recording.add(&entry),
            Keep::Window(window, _) => window.add(&entry),
        }
        self.pipeline.take(entry);
        self.note();
        Ok(if self.pipeline.is_over() { Flow::Over } else { Flow::GoOn })
    }

    fn pause(&mut self, at_ns: u64) -> Result<Flow, Failure> {
        self.pipeline.advance(at_ns);
        self.note();
        let now = monotonic_ns();
        match &mut self.keep {
            Keep::File(recording) => recording.pause(now),
            Keep::Window(window, alarm) => {
                window.pause(now);
                if let Some(why) = alarm.rings(now) {
                    write(window, &why);
                }
            }
        }
        Ok(if self.pipeline.is_over() { Flow::Over } else { Flow::GoOn })
    }

    fn wake_ns(&self) -> Option<u64> {
        let (keep, alarm) = match &self.keep {
            Keep::File(recording) => (recording.wake_ns(), None),
            Keep::Window(window, alarm) => (window.wake_ns(), alarm.wake_ns()),
        };
        [keep, alarm, self.pipeline.next_deadline()].into_iter().flatten().min()
    }

    fn takes_demands(&self) -> bool {
        matches!(self.keep, Keep::Window(..))
    }

    fn demand(&mut self) {
        if let Keep::Window(window, _) = &mut self.keep {
            write(window, "SIGUSR1");
        }
    }
}

/// Writes what the flight recorder holds.
fn write(window: &mut Window, why: &str) {
    match window.write(false) {
        Ok(Written::File(path)) => crate::notice!("wrote {} ({why}); watching on", path.display()),
        Ok(Written::Nothing) => crate::notice!("nothing to be written yet ({why})"),
        Ok(Written::Declined) if window.declined() == 1 => crate::notice!(
            "nothing was written ({why}): there are as many files as --max-files allows. The last minutes stay in memory and are \
             written at the end; watching on"
        ),
        Ok(Written::Declined) => {}
        Err(error) => crate::notice!("{error:#} ({why}); it is kept in memory, and watching goes on"),
    }
}

impl Keeping {
    fn note(&mut self) {
        while let Some(told) = self.pipeline.next() {
            if let (Told::Verdict(verdict), Keep::Window(_, alarm)) = (told, &mut self.keep) {
                alarm.failure(self.pipeline.now_ns(), verdict.cause);
            }
        }
    }

    fn end(self, output: &Path) -> Result<(), Failure> {
        tell_cut_looks(self.pipeline.cut_looks());
        let summary = self.pipeline.summary();
        let failures = count(self.pipeline.failures(), "failure");
        let lost = match summary.lost {
            0 => String::new(),
            lost => format!("; {} lost", count(lost, "record")),
        };
        let seen = format!(
            "{failures}, {} in {}{lost}",
            count(summary.exchanges, "exchange"),
            span(summary.elapsed_ns)
        );
        let words = said(summary.words.as_ref(), &Look::PLAIN);
        for line in words.lines() {
            crate::notice!("{line}");
        }
        match self.keep {
            Keep::File(recording) => {
                let unwritten = recording.finish();
                let path = output.display();
                crate::notice!("recorded {seen}: `why502 report {path}` reads it");
                if unwritten > 0 {
                    return Err(Failure::Run(anyhow::anyhow!(
                        "the last {unwritten} lines of evidence could not be written to {path}"
                    )));
                }
                Ok(())
            }
            Keep::Window(mut window, _) => {
                crate::notice!("watched {seen}");
                let declined = window.declined();
                if declined > 0 {
                    crate::notice!(
                        "{} came after all the files were written that --max-files allows",
                        count(declined, "trigger")
                    );
                }
                match window.write(true)? {
                    Written::File(path) => crate::notice!("wrote {}", path.display()),
                    Written::Nothing | Written::Declined => crate::notice!("there was nothing to be written"),
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
