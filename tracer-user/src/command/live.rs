//! `why502 live`: trace, and write each verdict as it comes.

use std::path::PathBuf;

use crate::{
    args::{Format, Live},
    audit::Audit,
    command::trace,
    engine::{self, Ends},
    evidence::{Encoder, Header, Names},
    model::failure::Failure,
    sink::{Json, Look, Sinks, Status, Text, evidence::Recording},
    source::scope::Extras,
    terminal,
};

/// Runs until the duration is over, the count is reached, or SIGINT or SIGTERM comes.
///
/// # Errors
/// Where this host cannot be traced, or something fails on the way. A closed standard output is no error.
pub fn run(args: &Live) -> Result<(), Failure> {
    engine::run(live(args))
}

async fn live(args: &Live) -> Result<(), Failure> {
    let mut ends = Ends::watch()?;
    let mut audit = Audit::open(args)?;
    let extras =
        Extras { error_logs: &args.error_logs, shows_requests: args.show_requests, ..Extras::default() };
    let written: Vec<_> = args.evidence.iter().map(PathBuf::as_path).collect();
    let source = trace::start(&args.trace, extras, args.verbose, &written)?;
    if let Some(audit) = &mut audit {
        audit.begin();
    }
    let mut sinks = Sinks::default();
    match args.output {
        Format::Json => sinks.add(Json::new(terminal::json())),
        Format::Text => {
            // The same text wherever it goes: a pipe only has no colours.
            let look = Look { details: true, ..Look::of_stdout(args.verbose) };
            match Status::on_terminal().filter(|_| !args.no_status) {
                Some(status) => {
                    sinks.add(Text::new(status.above(terminal::text()), look));
                    sinks.add(status);
                }
                None => sinks.add(Text::new(terminal::text(), look)),
            }
        }
    }
    if let Some(path) = &args.evidence {
        let start = source.start(args.trace.count.map(Into::into));
        let names = Names::new(false);
        let header = Header::now(&args.trace, &[], &start, &names);
        let encoder = Encoder::new(start.started_ns, names);
        sinks.add(Recording::create(path, None, header, start.clock_offset, encoder)?);
    }
    trace::follow(source, &args.trace, &mut ends, sinks, audit).await
}
