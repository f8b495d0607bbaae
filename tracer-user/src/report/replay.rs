//! Takes files of evidence in again, in the order of time.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    rc::Rc,
};

use anyhow::Context as _;
use tracer_ebpf::WorkerGone;

use super::join::{Ends, Join};
use crate::{
    decode::Record,
    evidence::{Header, Reader},
    failure::Failure,
    pipeline::{Pipeline, Told},
    stream::{Distance, Entry, Loss, LossReason, What},
    verdict::Summary,
    words::{count, span, time},
};

type Part = Reader<Box<dyn Read>>;

/// Recordings that are taken in again, each by a pipeline of its own.
pub struct Replay {
    recordings: Vec<Recording>,
}

/// One recording, of one or more files.
pub struct Recording {
    /// The header of its first file.
    pub header: Header,
    /// The name of its first file.
    name: String,
    parts: VecDeque<(PathBuf, Part)>,
    join: Option<Join>,
    /// What is to come of joined exchanges, by its time.
    later: BTreeMap<u64, Vec<WorkerGone>>,
    pipeline: Pipeline,
    distance: Distance,
    /// The entry that comes next.
    next: Option<Entry>,
    /// The one that comes after what is later.
    held: Option<Entry>,
    last_ns: u64,
    last_part: u64,
    is_ended: bool,
}

impl Replay {
    /// Opens files; those of one recording are read one after the other, in whatever order they are given.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn open(paths: &[PathBuf]) -> Result<Self, Failure> {
        let mut parts = BTreeMap::<String, Vec<(PathBuf, Part)>>::new();
        for path in paths {
            let reader = open(path).with_context(|| shown(path))?;
            parts.entry(reader.header().recording.clone()).or_default().push((path.clone(), reader));
        }
        let mut recordings = parts.into_values().map(Recording::open).collect::<Result<Vec<_>, _>>()?;
        if recordings.len() > 1 && recordings.iter().any(Recording::is_of_listeners) {
            join(&mut recordings, paths)?;
        }
        for recording in &mut recordings {
            recording.next = recording.read()?;
        }
        Ok(Self { recordings })
    }

    /// Takes bytes for a file.
    #[cfg(test)]
    pub(super) fn of(evidence: Vec<u8>) -> Result<Self, Failure> {
        let file: Box<dyn Read> = Box::new(io::Cursor::new(evidence));
        let part = Reader::new(file).map_err(anyhow::Error::from)?;
        let mut recording = Recording::open(vec![("-".into(), part)])?;
        recording.next = recording.read()?;
        Ok(Self { recordings: vec![recording] })
    }

    /// What was joined, in sentences.
    pub fn joined(&self) -> Vec<String> {
        let sentence = |(recording, (number, ahead_ns, sure_ns)): (&Recording, (usize, i64, u64))| {
            let other = self.recordings.get(number).map_or_else(String::new, |other| other.name.clone());
            let joined = recording.join.as_ref().map_or(0, |join| join.joined);
            let way = if ahead_ns < 0 { "behind" } else { "ahead of" };
            format!(
                "{} of {} joined with their other ends in {other}, whose monotonic clock is {} {way} its own (to within {})",
                count(joined, "exchange"),
                recording.name,
                span(ahead_ns.unsigned_abs()),
                span(sure_ns)
            )
        };
        let all = self.recordings.iter();
        let all = all.flat_map(|recording| {
            recording.join.iter().flat_map(Join::clocks).map(move |clock| (recording, clock))
        });
        all.map(sentence).collect()
    }

    /// The recordings.
    pub fn recordings(&self) -> &[Recording] {
        &self.recordings
    }

    /// The clocks' distance of a recording, as of its last entry.
    pub fn distance(&self, number: usize) -> Distance {
        let ahead = |recording: &Recording| {
            let (_, ahead_ns, _) = recording.join.as_ref()?.clocks().find(|(other, ..)| *other == number)?;
            Some(Distance(recording.distance.0.saturating_sub(ahead_ns)))
        };
        // The time of nginx's host is the one that counts.
        let joined = self.recordings.iter().find_map(ahead);
        joined.or_else(|| Some(self.recordings.get(number)?.distance)).unwrap_or_default()
    }

    /// The next entry, with the number of its recording.
    ///
    /// # Errors
    /// If a file cannot be read on.
    pub fn next(&mut self) -> Result<Option<(usize, Entry)>, Failure> {
        let wall = |number: usize, recording: &Recording| {
            let entry = recording.next.as_ref()?;
            Some(self.distance(number).0.saturating_add_unsigned(entry.at_ns))
        };
        let all = self.recordings.iter().enumerate();
        let earliest = all.filter_map(|(number, recording)| Some((wall(number, recording)?, number))).min();
        let Some((_, number)) = earliest else { return Ok(None) };
        let recording = &mut self.recordings[number];
        let Some(entry) = recording.next.take() else { return Ok(None) };
        if let What::Clock(distance) = &entry.what {
            recording.distance = *distance;
        }
        recording.next = recording.read()?;
        Ok(Some((number, entry)))
    }

    /// Takes an entry in; gives back what is to be told.
    pub fn take(&mut self, number: usize, entry: Entry) -> Vec<Told> {
        self.recordings.get_mut(number).map_or_else(Vec::new, |recording| recording.pipeline.take(entry))
    }

    /// What it all amounts to: of several recordings the longest time, and the sums.
    pub fn summary(&self) -> Summary {
        let mut failures = BTreeMap::new();
        let mut sum = Summary::default();
        for recording in &self.recordings {
            let Summary {
                elapsed_ns,
                exchanges,
                failures: counts,
                delayed,
                lost,
                forgotten,
                untracked,
                strangers,
                named_strangers,
                system_calls,
            } = recording.pipeline.summary();
            sum.elapsed_ns = sum.elapsed_ns.max(elapsed_ns);
            sum.exchanges += exchanges;
            sum.delayed += delayed;
            sum.lost = sum.lost.saturating_add(lost);
            sum.forgotten = sum.forgotten.saturating_add(forgotten);
            sum.untracked += untracked;
            sum.strangers += strangers;
            sum.named_strangers.extend(named_strangers);
            sum.system_calls |= system_calls;
            for (cause, count) in counts {
                *failures.entry(cause).or_insert(0) += count;
            }
        }
        sum.failures = failures.into_iter().collect();
        sum
    }
}

impl Recording {
    fn open(mut parts: Vec<(PathBuf, Part)>) -> Result<Self, Failure> {
        parts.sort_by_key(|(_, part)| part.header().part);
        let Some((path, first)) = parts.first() else {
            return Err(Failure::Run(anyhow::anyhow!("no file is given")));
        };
        let (header, name) = (first.header().clone(), shown(path));
        let start = header.start().context("the first line cannot be understood")?;
        let (last_part, last_ns, distance) = (header.part, start.begins_ns, start.distance);
        Ok(Self {
            pipeline: Pipeline::new(start),
            distance,
            header,
            name,
            parts: parts.into(),
            join: None,
            later: BTreeMap::new(),
            next: None,
            held: None,
            last_ns,
            last_part,
            is_ended: false,
        })
    }

    /// Whether listeners were recorded in it whose nginx may be elsewhere.
    pub fn is_of_listeners(&self) -> bool {
        !self.header.filters.listeners.is_empty()
    }

    /// The next entry, with what belongs to it from other recordings.
    fn read(&mut self) -> Result<Option<Entry>, Failure> {
        if self.join.is_none() {
            return self.read_on();
        }
        let entry = match self.held.take() {
            Some(entry) => Some(entry),
            None => self.read_on()?,
        };
        let Some(mut entry) = entry else { return Ok(None) };
        let is_end = matches!(entry.what, What::End);
        let due = self.later.first_entry().filter(|first| is_end || *first.key() <= entry.at_ns);
        if let Some(mut due) = due {
            let at_ns = *due.key();
            if let Some(gone) = due.get_mut().pop() {
                self.held = Some(entry);
                self.last_ns = self.last_ns.max(at_ns);
                let what = What::Record(Record::WorkerGone(Box::new(gone)));
                return Ok(Some(Entry { at_ns, what }));
            }
            due.remove();
            self.held = Some(entry);
            return self.read();
        }
        if let (What::Record(Record::Exchange(exchange)), Some(join)) = (&mut entry.what, &mut self.join)
            && let Some(gone) = join.join(exchange)
        {
            self.later.entry(gone.worker.ended_ns.max(entry.at_ns)).or_default().push(gone);
        }
        Ok(Some(entry))
    }

    /// The next entry as it is in the file. A recording that was cut off ends where it was.
    fn read_on(&mut self) -> Result<Option<Entry>, Failure> {
        while let Some((path, part)) = self.parts.front_mut() {
            let number = part.header().part;
            if number > self.last_part.saturating_add(1) {
                self.last_part = number;
                eprintln!(
                    "why502: {} is not the file after the one before: what lies between is missing",
                    shown(path)
                );
                let loss = Loss { ns: self.last_ns, reason: LossReason::Unread, count: 0 };
                return Ok(Some(Entry { at_ns: self.last_ns, what: What::Loss(loss) }));
            }
            self.last_part = number;
            let entry = part.next_entry().with_context(|| shown(path))?;
            if let Some(mut entry) = entry {
                entry.at_ns = entry.at_ns.max(self.last_ns);
                self.last_ns = entry.at_ns;
                self.is_ended |= matches!(entry.what, What::End);
                return Ok(Some(entry));
            }
            if let Some(why) = part.cut() {
                let wall = time(self.distance.0.saturating_add_unsigned(self.last_ns));
                eprintln!("why502: {} was cut off ({why}): it is read up to {wall}", shown(path));
            } else if self.parts.len() == 1 && !self.is_ended {
                let wall = time(self.distance.0.saturating_add_unsigned(self.last_ns));
                let path = shown(&self.parts[0].0);
                eprintln!("why502: {path} does not tell the end of its recording: it is read up to {wall}");
            }
            self.parts.pop_front();
        }
        if self.is_ended {
            return Ok(None);
        }
        self.is_ended = true;
        Ok(Some(Entry { at_ns: self.last_ns, what: What::End }))
    }
}

/// Reads everything once, so that the recordings of nginx's hosts can be joined with those of their listeners' hosts.
fn join(recordings: &mut [Recording], paths: &[PathBuf]) -> Result<(), Failure> {
    let mut ends = Ends::default();
    each(recordings, paths, true, |number, what| ends.add(number, what))?;
    if ends.left_out > 0 {
        eprintln!(
            "why502: there are more worker's ends than fit in memory: the last {} are not joined",
            ends.left_out
        );
    }
    let ends = Rc::new(ends);
    for recording in recordings.iter_mut().filter(|recording| !recording.is_of_listeners()) {
        recording.join = Some(Join::new(Rc::clone(&ends)));
    }
    let mut joins: Vec<_> = recordings.iter_mut().map(|recording| recording.join.take()).collect();
    each(recordings, paths, false, |number, what| {
        if let Some(Some(join)) = joins.get_mut(number) {
            join.learn(what);
        }
    })?;
    for (recording, join) in recordings.iter_mut().zip(joins) {
        recording.join = join;
    }
    Ok(())
}

/// Hands on every entry of the files of listeners, or of the others.
fn each(
    recordings: &[Recording],
    paths: &[PathBuf],
    of_listeners: bool,
    mut take: impl FnMut(usize, &What),
) -> Result<(), Failure> {
    for path in paths {
        if path.as_os_str() == "-" {
            return Err(Failure::Run(anyhow::anyhow!(
                "standard input can be read only once, and joining hosts takes more: give all of them as files"
            )));
        }
        let mut part = open(path).with_context(|| shown(path))?;
        let is_its = |recording: &Recording| recording.header.recording == part.header().recording;
        let Some(number) = recordings.iter().position(is_its) else { continue };
        if recordings[number].is_of_listeners() != of_listeners {
            continue;
        }
        while let Some(entry) = part.next_entry().with_context(|| shown(path))? {
            take(number, &entry.what);
        }
    }
    Ok(())
}

fn open(path: &Path) -> anyhow::Result<Part> {
    let file: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(io::stdin()),
        _ => Box::new(File::open(path)?),
    };
    Ok(Reader::new(file)?)
}

fn shown(path: &Path) -> String {
    match path.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => path.display().to_string(),
    }
}
