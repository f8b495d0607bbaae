//! `why502 record`: trace, and write the evidence to disk.

mod alarm;
mod depth;
mod file;
mod window;

use std::{fs, net::SocketAddr, path::Path};

use anyhow::Context as _;

use alarm::Alarm;
pub use depth::Depths;
pub use file::{Recording, Rotation};
use window::{MOST_BYTES, Window};

use crate::{
    args::{Record, UpstreamFilter},
    clock::monotonic_ns,
    evidence::{Encoder, Header, Names},
    failure::Failure,
    pipeline::{Pipeline, Told},
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
    is_free(&args.output)?;
    let beyond = Beyond { listeners: &args.listeners, counts_upstreams: true };
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
            eprintln!(
                "why502: keeping the last {} in memory, in at most {} MiB; SIGUSR1 writes them",
                span(u64::try_from(last.as_nanos()).unwrap_or(u64::MAX)),
                MOST_BYTES >> 20
            );
            let alarm = Alarm::new(&args.triggers, last);
            Keep::Window(Box::new(Window::new(&args.output, last, header, distance, encoder)), alarm)
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

/// Whether a file can be made there.
fn is_free(path: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(Failure::Run(anyhow::anyhow!(
            "{} is there already: take another name, or remove it",
            path.display()
        ))),
        Err(_) => Ok(()),
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
        let told = self.pipeline.take(entry);
        self.note(&told);
        Ok(if self.pipeline.is_over() { Flow::Over } else { Flow::GoOn })
    }

    fn pause(&mut self, at_ns: u64) -> Result<Flow, Failure> {
        let told = self.pipeline.advance(at_ns);
        self.note(&told);
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
    match window.write() {
        Ok(Some(path)) => eprintln!("why502: wrote {} ({why}); watching on", path.display()),
        Ok(None) => eprintln!("why502: nothing to be written yet ({why})"),
        Err(error) => eprintln!("why502: {error:#} ({why}); it is kept in memory, and watching goes on"),
    }
}

impl Keeping {
    fn note(&mut self, told: &[Told]) {
        let Keep::Window(_, alarm) = &mut self.keep else { return };
        for told in told {
            if let Told::Verdict(verdict) = told {
                alarm.failure(self.pipeline.now_ns(), verdict.cause);
            }
        }
    }

    fn end(self, output: &Path) -> Result<(), Failure> {
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
        match self.keep {
            Keep::File(recording) => {
                let unwritten = recording.finish();
                let path = output.display();
                eprintln!("why502: recorded {seen}: `why502 report {path}` reads it");
                if unwritten > 0 {
                    return Err(Failure::Run(anyhow::anyhow!(
                        "the last {unwritten} lines of evidence could not be written to {path}"
                    )));
                }
                Ok(())
            }
            Keep::Window(mut window, _) => {
                eprintln!("why502: watched {seen}");
                match window.write()? {
                    Some(path) => eprintln!("why502: wrote {}", path.display()),
                    None => eprintln!("why502: there was nothing to be written"),
                }
                Ok(())
            }
        }
    }
}
