//! `why502 serve`: trace always, as a service.

mod hook;
mod recorder;
mod service;

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::{
        Serve,
        configuration::{Resolved, Wrong, resolve},
    },
    command::trace,
    engine::{self, Ends},
    memory,
    model::failure::Failure,
    sink::Sinks,
    source::{Depths, scope::Extras},
};
use service::Service;

/// The largest file of options (bytes).
const LARGEST: u64 = 1 << 20;

/// Runs until SIGINT or SIGTERM comes, as the command line and the file say; or says what is wrong with these.
///
/// # Errors
/// Where this host cannot be traced, something that was asked for cannot be had, or something fails on the way.
pub fn run(args: &Serve) -> Result<ExitCode, Failure> {
    let words: Vec<OsString> = env::args_os().collect();
    let resolved = match configured(args, &words) {
        Ok(resolved) => resolved,
        Err(wrong) => {
            complain(args.config.as_deref(), &wrong);
            return Ok(ExitCode::from(2));
        }
    };
    if args.check {
        crate::notice!(
            "nothing is wrong with the options{}",
            match &args.config {
                Some(path) => format!(", nor with {}", path.display()),
                None => String::new(),
            }
        );
        return Ok(ExitCode::SUCCESS);
    }
    engine::run(serve(resolved, words)).map(|()| ExitCode::SUCCESS)
}

/// What the command line and its file come to.
///
/// # Errors
/// All that is wrong with them.
fn configured(args: &Serve, words: &[OsString]) -> Result<Resolved, Vec<Wrong>> {
    let whole = |what: String| vec![Wrong { line: None, what }];
    let resolved = match &args.config {
        None => Resolved { serve: args.clone(), settings: Default::default(), lines: Default::default() },
        Some(path) => {
            let text = text(path).map_err(|error| whole(format!("it cannot be read: {error:#}")))?;
            resolve(words, &text)?
        }
    };
    let Serve { record_last, record_triggers, record_hook, .. } = &resolved.serve;
    let wrong = |option: &str, what: &str| {
        vec![Wrong { line: resolved.lines.get(option).copied(), what: what.to_owned() }]
    };
    if record_last.is_none() && !record_triggers.is_empty() {
        return Err(wrong("record-trigger", "a trigger of [record] needs its `last`: how much time is kept"));
    }
    if record_last.is_none() && !record_hook.is_empty() {
        return Err(wrong("record-hook", "a hook of [record] needs its `last`: how much time is kept"));
    }
    if record_hook.first().is_some_and(|program| !Path::new(program).is_absolute()) {
        return Err(wrong("record-hook", "the hook of [record] begins with the whole path of a program"));
    }
    Ok(resolved)
}

fn text(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    anyhow::ensure!(text.len() as u64 <= LARGEST, "it has more than {} MiB", LARGEST >> 20);
    Ok(text)
}

/// Says what is wrong, one line for each.
fn complain(file: Option<&Path>, wrong: &[Wrong]) {
    for wrong in wrong {
        match file {
            Some(path) => crate::notice!("{}:{wrong}", path.display()),
            None => crate::notice!("{}", wrong.what),
        }
    }
}

async fn serve(resolved: Resolved, words: Vec<OsString>) -> Result<(), Failure> {
    let mut ends = Ends::watch()?;
    // Until the event loop hears them they must not end the process.
    let _hangup = signal(SignalKind::hangup()).context("SIGHUP cannot be watched")?;
    let _demand = signal(SignalKind::user_defined1()).context("SIGUSR1 cannot be watched")?;
    let options = resolved.serve.clone();
    let mut service = Service::prepare(resolved, words)?;
    let elsewhere = service.elsewhere()?;
    let extras = Extras { counts_upstreams: true, ..Extras::default() };
    let recorded = options.record_last.map(|_| &options.record_directory);
    let written: Vec<_> = recorded.into_iter().chain(&options.json_path).map(PathBuf::as_path).collect();
    let attach = options.metrics_queue_waits.then(|| trace::queues(&options.trace));
    let mut source = trace::start(&options.trace, extras, false, &written)?;
    source.watch_depths(Depths::start([].into_iter()).context("accept queues cannot be looked at")?);
    if let Some(attach) = attach {
        service.watch_queues(attach());
        memory::give_back();
    }
    service.begin(&source.start(options.trace.count.map(Into::into)));
    let mut sinks = Sinks::default();
    sinks.add(service);
    elsewhere.into_iter().for_each(|sink| sinks.add_boxed(sink));
    trace::follow(source, &options.trace, &mut ends, sinks, None).await
}
