//! `why502 report`: reads evidence, and emits what live tracing would have emitted.

mod digest;
mod html;
mod join;
pub(super) mod replay;
mod text;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Context as _;

use crate::{
    args::{Report, ReportFormat},
    evidence::{Encoder, Frames, Line, Names},
    file,
    model::{failure::Failure, words::count},
    pipeline::{Emitted, report_cut_looks},
    sink::{Json, Look, Sink},
    terminal,
};
use digest::Digest;
use replay::Replay;
use terminal::written;

/// Reads the files, and writes what they amount to.
///
/// # Errors
/// If a file cannot be read, or the result not be written.
pub fn run(args: &Report) -> Result<(), Failure> {
    let pages: Vec<_> = args.html.iter().map(PathBuf::as_path).collect();
    let (mut replay, lacking) = Replay::open(&args.files, &args.wanted, &pages)?;
    if args.verbose {
        for what in lacking {
            crate::notice!("{what}");
        }
    }
    match args.output {
        ReportFormat::Evidence => {
            let out = terminal::bytes().context("standard output cannot be written")?;
            evidence(replay, out, args.anonymize)
        }
        ReportFormat::Json => {
            let mut output = Json::new(terminal::json());
            follow(&mut replay, |emitted| output.emitted(emitted)).and_then(|digest| {
                written(output.summary(&digest.summary))?;
                written(output.flush())?;
                page(args, &digest, &replay)
            })
        }
        ReportFormat::Text => follow(&mut replay, |_| Ok(())).and_then(|digest| {
            // The page first: whoever reads the text may go away.
            page(args, &digest, &replay)?;
            let look = Look { details: true, ..Look::of_stdout(args.verbose) };
            written(text::write(&digest, look, terminal::text()))
        }),
    }
}

/// Takes everything in; hands on what is emitted, and returns what it amounts to.
fn follow(replay: &mut Replay, mut emit: impl FnMut(&Emitted) -> io::Result<()>) -> Result<Digest, Failure> {
    let mut digest = Digest::default();
    while let Some((number, entry)) = replay.next()? {
        digest.entry(&entry, replay.clock_offset(number));
        replay.take(number, entry);
        while let Some(emitted) = replay.emitted(number) {
            written(emit(&emitted))?;
            digest.emitted(emitted);
        }
    }
    report_cut_looks(replay.cut_looks());
    for sentence in replay.joined() {
        crate::notice!("{sentence}");
    }
    digest.complete(replay.summary());
    Ok(digest)
}

/// Makes everything of evidence that can be made of one file: the text, the page, the lines, and evidence again.
#[cfg(test)]
fn everything(evidence: &[u8]) -> Result<(), Failure> {
    let mut replay = Replay::of(evidence.to_vec())?;
    let mut output = Json::new(io::sink());
    let digest = follow(&mut replay, |emitted| output.emitted(emitted))?;
    written(output.summary(&digest.summary))?;
    let headers: Vec<_> = replay.recordings().iter().map(|recording| &recording.header).collect();
    let page = html::page(&digest, &headers).context("the page cannot be made")?;
    written(text::write(&digest, Look { details: true, evidence: true, ..Look::PLAIN }, io::sink()))?;
    drop((page, digest));
    self::evidence(Replay::of(evidence.to_vec())?, io::sink(), true)
}

/// The page, if it is asked for.
fn page(args: &Report, digest: &Digest, replay: &Replay) -> Result<(), Failure> {
    let Some(path) = &args.html else { return Ok(()) };
    let headers: Vec<_> = replay.recordings().iter().map(|recording| &recording.header).collect();
    let page = html::page(digest, &headers).context("the page cannot be made")?;
    Ok(file::replace(path, page.as_bytes())?)
}

/// The evidence again.
fn evidence(mut replay: Replay, mut out: impl Write, is_anonymous: bool) -> Result<(), Failure> {
    let own: Vec<_> = replay.recordings().iter().filter(|recording| !recording.is_of_listeners()).collect();
    let own = match own.is_empty() {
        true => replay.recordings().iter().collect(),
        false => own,
    };
    let [recording] = own[..] else {
        let recordings = count(own.len() as u64, "recording");
        return Err(Failure::Run(anyhow::anyhow!(
            "evidence is of one recording, and these files are of {recordings}"
        )));
    };
    let own = replay.recordings().iter().position(|one| std::ptr::eq(one, recording)).unwrap_or(0);
    let names = Names::kept(is_anonymous);
    let header = recording.header.renewed(&names);
    let start = header.start().context("the first line cannot be understood")?;
    let encoder = Encoder::new(start.started_ns, names);
    let mut frames = Frames::default();
    written(frames.add(&Line::Header(Box::new(header))))?;
    loop {
        let entry = replay.next()?;
        if let Some((number, entry)) = &entry
            && *number == own
        {
            written(frames.add(&encoder.line(entry)))?;
        }
        if (frames.is_full() || entry.is_none())
            && let Some(frame) = frames.complete().context("a frame cannot be made")?
        {
            written(out.write_all(&frame.bytes))?;
        }
        if entry.is_none() {
            return written(out.flush());
        }
    }
}

#[cfg(test)]
mod tests;
