//! `why502 top`: the incident on one screen, live or from files of evidence.

use std::{io, path::PathBuf};

use anyhow::Context as _;
use tokio::{
    task::yield_now,
    time::{Instant, sleep_until},
};

use crate::{
    args::Top as Args,
    command::{report::replay::Replay, trace},
    engine::{self, Ends, Flow, Run, Session},
    evidence::{Encoder, Header, Names},
    model::{clock::monotonic_ns, facts::Fact, failure::Failure},
    pipeline::{Emitted, report_cut_looks},
    procfs::masters,
    sink::{
        Sinks,
        evidence::{Naming, Window},
        top::{Attach, Beginning, Master, State, Top, is_there, pictures},
    },
    source::{Depths, scope::Extras},
};

/// Files that one run writes.
const MOST_FILES: u32 = 100;

/// How long entries are taken in before others have their turn.
const TURN: std::time::Duration = std::time::Duration::from_millis(50);

/// Runs until the user leaves, the duration is over, or SIGINT or SIGTERM comes.
///
/// # Errors
/// Where standard output is no terminal, this host cannot be traced, a file not be read, or something fails on the way.
pub fn run(args: &Args) -> Result<(), Failure> {
    if args.screens.is_none() && !is_there() {
        let instead = if args.files.is_empty() { "why502 live" } else { "why502 report" };
        return Err(Failure::Run(anyhow::anyhow!(
            "why502 top draws on a terminal, and standard output is none: {instead} writes text and JSON"
        )));
    }
    match args.files.is_empty() {
        true => engine::run(live(args)),
        false => engine::run(play(args)),
    }
}

async fn live(args: &Args) -> Result<(), Failure> {
    let mut ends = Ends::watch()?;
    let extras = Extras { counts_upstreams: true, ..Extras::default() };
    let attach: Attach = Box::new(trace::queues(&args.trace));
    let mut source = trace::start(&args.trace, extras, false, &[&args.output])?;
    let depths = Depths::start(std::iter::empty()).context("accept queues cannot be looked at")?;
    source.watch_depths(depths);
    let start = source.start(args.trace.count.map(Into::into));
    let names = Names::new(false);
    let header = Header::now(&args.trace, &[], &start, &names);
    let encoder = Encoder::new(start.started_ns, names);
    let window = Window::new(
        Naming::numbered(&args.output, MOST_FILES),
        args.last,
        header,
        start.clock_offset,
        encoder,
    );
    let masters = masters::masters().into_iter().map(|master| Master {
        pid: master.pid,
        comm: master.comm,
        workers: master.workers,
        listeners: master.listeners,
    });
    let beginning = Beginning {
        clock_offset: start.clock_offset,
        hears_by: start.sources.has(Fact::Words).then(|| start.sources.name(Fact::Words).to_owned()),
        masters: masters.collect(),
        is_live: true,
        keep: args.keep as usize,
    };
    let mut sinks = Sinks::default();
    sinks.add(taken(Top::start(beginning.state(), Some((window, attach)), args.fault_key))?);
    trace::follow(source, &args.trace, &mut ends, sinks, None).await
}

fn taken(top: io::Result<Top>) -> Result<Top, Failure> {
    Ok(top.context("the terminal cannot be taken")?)
}

async fn play(args: &Args) -> Result<(), Failure> {
    let mut ends = Ends::watch()?;
    let written: Vec<_> = args.screens.iter().chain(&args.trace.ready_file).map(PathBuf::as_path).collect();
    let (replay, _lacking) = Replay::open(&args.files, &args.trace.wanted, &written)?;
    let header = replay.recordings().first().map(|recording| &recording.header);
    let start =
        header.context("there is no evidence")?.start().context("the first line cannot be understood")?;
    let processes = header.into_iter().flat_map(|header| &header.processes);
    let masters = processes.map(|process| Master {
        pid: process.pid,
        comm: process.comm.clone(),
        workers: process.workers,
        listeners: process.listeners.clone(),
    });
    let beginning = Beginning {
        clock_offset: start.clock_offset,
        hears_by: start.sources.has(Fact::Words).then(|| start.sources.name(Fact::Words).to_owned()),
        masters: masters.collect(),
        is_live: false,
        keep: args.keep as usize,
    };
    let state = beginning.state();
    if let Some(folder) = &args.screens {
        return pictures(&at_the_end(replay, state)?, folder);
    }
    let mut sinks = Sinks::default();
    sinks.add(taken(Top::start(state, None, args.fault_key))?);
    let mut playing = Playing {
        replay,
        sinks,
        speed: args.speed,
        began: None,
        due: None,
        has_more: true,
        is_at_end: false,
    };
    let run = Run { duration: args.trace.duration, ready_file: args.trace.ready_file.as_deref() };
    engine::follow(&mut playing, run, &mut ends).await?;
    let Playing { replay, sinks, .. } = playing;
    sinks.end(&replay.summary())
}

/// Everything at once, without a terminal.
fn at_the_end(mut replay: Replay, mut state: State) -> Result<State, Failure> {
    while let Some((number, entry)) = replay.next()? {
        state.entry(&entry);
        replay.take(number, entry);
        while let Some(emitted) = replay.emitted(number) {
            match &emitted {
                Emitted::Verdict(verdict) => state.verdict(verdict),
                Emitted::Delayed(delayed) => state.delayed(delayed),
                Emitted::WorkerOutlived(outlived) => state.worker_outlived(outlived),
                Emitted::Note(note) => state.note(note),
                Emitted::Answer(_) | Emitted::Withheld(_) => {}
            }
        }
    }
    state.sums = replay.summary();
    Ok(state)
}

/// Files that are being played.
struct Playing {
    replay: Replay,
    sinks: Sinks,
    /// So many times as fast as it happened; none for at once.
    speed: Option<f64>,
    /// Where the files' time and the clock's met.
    began: Option<(i64, Instant)>,
    /// When the next entry is to be taken in.
    due: Option<Instant>,
    has_more: bool,
    is_at_end: bool,
}

impl Session for Playing {
    async fn ready(&mut self) -> Result<(), Failure> {
        match self.due {
            Some(due) => sleep_until(due).await,
            None if self.has_more => yield_now().await,
            None => std::future::pending().await,
        }
        Ok(())
    }

    fn turn(&mut self, _: bool) -> Result<Flow, Failure> {
        let end = Instant::now() + TURN;
        while !self.is_at_end && Instant::now() < end && self.is_due() {
            self.take()?;
        }
        self.has_more = !self.is_at_end;
        let Self { replay, sinks, .. } = self;
        sinks.so_far(monotonic_ns(), || replay.summary())?;
        sinks.each(|sink| sink.flush())?;
        Ok(if self.sinks.is_closed() { Flow::Over } else { Flow::GoOn })
    }

    fn wake_ns(&self) -> Option<u64> {
        self.sinks.wake_ns()
    }
}

impl Playing {
    /// Whether the next entry is to be taken in by now.
    fn is_due(&mut self) -> bool {
        let Some(speed) = self.speed else { return true };
        let Some(next) = self.replay.next_unix_ns() else { return true };
        let (from, at) = *self.began.get_or_insert((next, Instant::now()));
        let after = next.saturating_sub(from).max(0) as f64 / 1e9 / speed;
        let due = at + std::time::Duration::from_secs_f64(after.min(1e9));
        self.due = Some(due);
        due <= Instant::now()
    }

    /// Takes the next entry in.
    fn take(&mut self) -> Result<(), Failure> {
        self.due = None;
        let Some((number, entry)) = self.replay.next()? else {
            self.is_at_end = true;
            report_cut_looks(self.replay.cut_looks());
            for sentence in self.replay.joined() {
                crate::notice!("{sentence}");
            }
            let sums = self.replay.summary();
            return self.sinks.each(|sink| sink.so_far(&sums));
        };
        self.sinks.each(|sink| sink.entry(&entry))?;
        self.replay.take(number, entry);
        while let Some(emitted) = self.replay.emitted(number) {
            self.sinks.each(|sink| sink.emitted(&emitted))?;
        }
        Ok(())
    }
}
