//! `why502 record`: trace, and write the evidence to disk.

pub(crate) mod alarm;

use std::{io, net::SocketAddr, path::PathBuf};

use anyhow::Context as _;

use alarm::Alarm;

use crate::{
    args::Record,
    command::trace,
    engine::{self, Ends},
    evidence::{Encoder, Header, Names},
    model::{
        clock::monotonic_ns,
        failure::Failure,
        stream::Entry,
        upstream::{Upstream, UpstreamFilter},
        verdict::{Summary, Verdict},
        words::{count, span},
    },
    sink::{
        Look, Sink, Sinks,
        evidence::{MOST_BYTES, Naming, Recording, Rotation, Window, Written, are_free},
        said,
    },
    source::{Depths, scope::Extras},
};

/// Runs until the duration is over, the count is reached, or SIGINT or SIGTERM comes.
///
/// # Errors
/// Where this host cannot be traced, the file not be made, or something fails on the way.
pub fn run(args: &Record) -> Result<(), Failure> {
    engine::run(record(args))
}

async fn record(args: &Record) -> Result<(), Failure> {
    let mut ends = Ends::watch()?;
    // Every name that this run may take, before anything is traced.
    let last = match (args.last, args.rotate_size) {
        (Some(_), _) => args.max_files,
        (None, Some(_)) => args.rotate_keep,
        (None, None) => 0,
    };
    are_free(&args.output, last)?;
    let extras = Extras { listeners: &args.listeners, counts_upstreams: true, ..Extras::default() };
    let mut source = trace::start(&args.trace, extras, false, &[&args.output])?;
    let listeners: Vec<_> = args.listeners.iter().filter_map(of_listener).collect();
    let depths = Depths::start(listeners.iter()).context("accept queues cannot be looked at")?;
    source.watch_depths(depths);
    let start = source.start(args.trace.count.map(Into::into));
    let names = Names::new(args.anonymize);
    let listeners: Vec<_> = args.listeners.iter().map(ToString::to_string).collect();
    let header = Header::now(&args.trace, &listeners, &start, &names);
    let (encoder, clock_offset) = (Encoder::new(start.started_ns, names), start.clock_offset);
    let keep = match args.last {
        Some(last) => {
            crate::notice!(
                "keeping the last {} in memory, in at most {} MiB; SIGUSR1 writes them, to {} at most and one at the end",
                span(u64::try_from(last.as_nanos()).unwrap_or(u64::MAX)),
                MOST_BYTES >> 20,
                count(args.max_files.into(), "file")
            );
            let alarm = Alarm::new(&args.triggers, last);
            let window = Window::new(
                Naming::numbered(&args.output, args.max_files),
                last,
                header,
                clock_offset,
                encoder,
            );
            Keep::Window(Box::new(window), alarm)
        }
        None => {
            let keep = args.rotate_keep;
            let rotation = args.rotate_size.map(|size| Rotation { size, keep });
            Keep::File(Box::new(Recording::create(&args.output, rotation, header, clock_offset, encoder)?))
        }
    };
    let mut sinks = Sinks::default();
    sinks.add(Keeping { keep, path: args.output.clone() });
    trace::follow(source, &args.trace, &mut ends, sinks, None).await
}

/// Where a listener is; one that is named by its port alone may be on any address.
fn of_listener(listener: &UpstreamFilter) -> Option<Upstream> {
    match listener {
        UpstreamFilter::Address(address) => Some(Upstream::Inet(*address)),
        UpstreamFilter::Port(port) => Some(Upstream::Inet(SocketAddr::from(([0, 0, 0, 0], *port)))),
        UpstreamFilter::Unix(_) => None,
    }
}

/// What keeps the evidence.
struct Keeping {
    keep: Keep,
    /// Where it is written.
    path: PathBuf,
}

enum Keep {
    File(Box<Recording>),
    Window(Box<Window>, Alarm),
}

impl Sink for Keeping {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        match &mut self.keep {
            Keep::File(recording) => recording.add(entry),
            Keep::Window(window, _) => window.add(entry),
        }
        Ok(())
    }

    fn verdict(&mut self, verdict: &Verdict) -> io::Result<()> {
        if let Keep::Window(_, alarm) = &mut self.keep {
            alarm.failure(monotonic_ns(), verdict.cause);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
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
        Ok(())
    }

    fn wake_ns(&self) -> Option<u64> {
        match &self.keep {
            Keep::File(recording) => recording.due_ns(),
            Keep::Window(window, alarm) => [window.wake_ns(), alarm.wake_ns()].into_iter().flatten().min(),
        }
    }

    fn takes_demands(&self) -> bool {
        matches!(self.keep, Keep::Window(..))
    }

    fn demand(&mut self) {
        if let Keep::Window(window, _) = &mut self.keep {
            write(window, "SIGUSR1");
        }
    }

    fn end(self: Box<Self>, summary: &Summary) -> Result<(), Failure> {
        let failures = count(summary.failures.iter().map(|(_, count)| count).sum(), "failure");
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
                let path = self.path.display();
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
