//! Takes files of evidence in again, in the order of time.

mod joining;
mod part;

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use wire::WorkerGone;

use super::join::Join;
use crate::{
    confine,
    evidence::{Header, LATEST_NS},
    memory,
    model::{
        cgroup::Wanted,
        clock::ClockOffset,
        failure::Failure,
        record::Record,
        stream::{Entry, Loss, LossReason, What},
        verdict::Summary,
        words::{count, span, time},
    },
    pipeline::{Emitted, Pipeline},
};
use joining::join;
use part::{Part, begun, open, shown};

/// Recordings that are read side by side: each takes memory for what waits in it.
const MOST_RECORDINGS: usize = 16;

/// Bytes that may be held of all that is read. A recording of any length takes a tenth.
const MOST_BYTES: usize = 512 << 20;

/// Ends of workers that may be yet to come, of joined exchanges.
const MOST_LATER: usize = 32_768;

/// Recordings that are taken in again, each by a pipeline of its own.
pub struct Replay {
    recordings: Vec<Recording>,
    /// Bytes that may be held.
    most_bytes: usize,
}

/// One recording, of one or more files.
pub struct Recording {
    /// The header of its first file.
    pub header: Header,
    /// The name of its first file.
    name: String,
    parts: VecDeque<Part>,
    join: Option<Join>,
    /// What is to come of joined exchanges, by its time, and how much that is.
    later: BTreeMap<u64, Vec<WorkerGone>>,
    to_come: usize,
    /// Exchanges that were not joined, for want of room for what is to come of them.
    unjoined: u64,
    pipeline: Pipeline,
    clock_offset: ClockOffset,
    /// The entry that comes next.
    next: Option<Entry>,
    /// The one that comes after what is later.
    held: Option<Entry>,
    last_ns: u64,
    last_part: u64,
    is_ended: bool,
    /// It was given up, and that was reported.
    is_given_up: bool,
    is_loss_emitted: bool,
}

impl Replay {
    /// Opens files; those of one recording are read one after the other, in whatever order they are given. First the calling thread gives
    /// up all but what it takes to open these and to write to `written`, and the former before it reads one; with the replay comes what of that
    /// could not be done, in words.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn open(
        paths: &[PathBuf],
        wanted: &Wanted,
        written: &[&Path],
    ) -> Result<(Self, Vec<String>), Failure> {
        let mut lacking = confine::reading(paths, written);
        let opened = |path| open(path).map(|file| (path, file)).with_context(|| shown(path));
        let files = paths.iter().map(PathBuf::as_path).map(opened).collect::<Result<Vec<_>, _>>()?;
        lacking.extend(confine::opened(written));
        Ok((Self::read_all(files, wanted)?, lacking))
    }

    fn read_all(files: Vec<(&Path, Option<File>)>, wanted: &Wanted) -> Result<Self, Failure> {
        // Of each recording its first file's header.
        let mut all = BTreeMap::<String, (Header, Vec<Part>)>::new();
        for (path, file) in files {
            let (header, part) = begun(path, file).with_context(|| shown(path))?;
            let is_full = all.len() == MOST_RECORDINGS;
            match all.get_mut(&header.recording) {
                Some((first, parts)) => {
                    if header.part < first.part {
                        *first = header;
                    }
                    parts.push(part);
                }
                None if is_full => {
                    return Err(Failure::Run(anyhow::anyhow!(
                        "these files are of more than {MOST_RECORDINGS} recordings: give fewer at a time"
                    )));
                }
                None => drop(all.insert(header.recording.clone(), (header, vec![part]))),
            }
        }
        let open = |(header, parts)| Recording::open(header, parts, wanted);
        let mut recordings = all.into_values().map(open).collect::<Result<Vec<_>, _>>()?;
        if recordings.len() > 1 && recordings.iter().any(Recording::is_of_listeners) {
            join(&mut recordings)?;
        }
        for recording in &mut recordings {
            recording.next = recording.read()?;
        }
        Ok(Self { recordings, most_bytes: MOST_BYTES })
    }

    /// Takes bytes for a file.
    #[cfg(test)]
    pub(super) fn of(evidence: Vec<u8>) -> Result<Self, Failure> {
        let file: Box<dyn std::io::Read> = Box::new(std::io::Cursor::new(evidence));
        let (header, part) = Part::once("-".into(), file)?;
        let mut recording = Recording::open(header, vec![part], &Wanted::default())?;
        recording.next = recording.read()?;
        Ok(Self { recordings: vec![recording], most_bytes: MOST_BYTES })
    }

    /// The same, with less memory.
    #[cfg(test)]
    pub(super) fn within(self, most_bytes: usize) -> Self {
        Self { most_bytes, ..self }
    }

    /// What was joined, in sentences.
    pub fn joined(&self) -> Vec<String> {
        let sentence = |(recording, (number, ahead_ns, sure_ns)): (&Recording, (usize, i64, u64))| {
            let other = self.recordings.get(number).map_or_else(String::new, |other| other.name.clone());
            let joined = recording.join.as_ref().map_or(0, |join| join.joined);
            let unjoined = match recording.unjoined {
                0 => String::new(),
                unjoined => format!("; {unjoined} more were not, for want of memory"),
            };
            let way = if ahead_ns < 0 { "behind" } else { "ahead of" };
            format!(
                "{} of {} joined with their other ends in {other}, whose monotonic clock is {} {way} its own (to within {}){unjoined}",
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

    /// The clocks' offset of a recording, as of its last entry.
    pub fn clock_offset(&self, number: usize) -> ClockOffset {
        let ahead = |recording: &Recording| {
            let (_, ahead_ns, _) = recording.join.as_ref()?.clocks().find(|(other, ..)| *other == number)?;
            Some(ClockOffset(recording.clock_offset.0.saturating_sub(ahead_ns)))
        };
        // The time of nginx's host is the one that counts.
        let joined = self.recordings.iter().find_map(ahead);
        joined.or_else(|| Some(self.recordings.get(number)?.clock_offset)).unwrap_or_default()
    }

    /// The next entry, with the number of its recording.
    ///
    /// # Errors
    /// If a file cannot be read on.
    pub fn next(&mut self) -> Result<Option<(usize, Entry)>, Failure> {
        self.stay_within_memory();
        let wall = |number: usize, recording: &Recording| {
            let entry = recording.next.as_ref()?;
            Some(self.clock_offset(number).0.saturating_add_unsigned(entry.at_ns))
        };
        let all = self.recordings.iter().enumerate();
        let earliest = all.filter_map(|(number, recording)| Some((wall(number, recording)?, number))).min();
        let Some((_, number)) = earliest else { return Ok(None) };
        let recording = &mut self.recordings[number];
        let Some(entry) = recording.next.take() else { return Ok(None) };
        if let What::Clock(clock_offset) = &entry.what {
            recording.clock_offset = *clock_offset;
        }
        recording.next = recording.read()?;
        Ok(Some((number, entry)))
    }

    /// When the next entry was learnt, in ns since 1970; none if there is none.
    pub fn next_unix_ns(&self) -> Option<i64> {
        let all = self.recordings.iter().enumerate();
        all.filter_map(|(number, recording)| {
            Some(self.clock_offset(number).0.saturating_add_unsigned(recording.next.as_ref()?.at_ns))
        })
        .min()
    }

    /// Whatever the files are made of: where they unfold to more than there is room for, they are read no further.
    fn stay_within_memory(&mut self) {
        let is_given_up = |recording: &Recording| recording.is_given_up || recording.is_ended;
        if memory::held() <= self.most_bytes || self.recordings.iter().all(is_given_up) {
            return;
        }
        for recording in self.recordings.iter_mut().filter(|recording| !recording.is_ended) {
            recording.parts.clear();
            recording.is_given_up = true;
            let wall = time(recording.clock_offset.0.saturating_add_unsigned(recording.last_ns));
            crate::notice!(
                "{} unfolds to more than {} MiB of memory, so it is read up to {wall} only: verdicts that may lack facts say \
                 incomplete",
                recording.name,
                self.most_bytes >> 20
            );
        }
    }

    /// Takes an entry in. What is to be emitted because of it comes from [`Replay::emitted`].
    pub fn take(&mut self, number: usize, entry: Entry) {
        if let Some(recording) = self.recordings.get_mut(number) {
            recording.pipeline.take(entry);
        }
    }

    /// The next thing that a recording emits; none once all that is due was emitted.
    pub fn emitted(&mut self, number: usize) -> Option<Emitted> {
        self.recordings.get_mut(number)?.pipeline.next()
    }

    /// Looks at slow exchanges of which not all is emitted, for want of room.
    pub fn cut_looks(&self) -> u64 {
        self.recordings.iter().map(|recording| recording.pipeline.cut_looks()).sum()
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
                ended_early,
                lost,
                forgotten,
                untracked,
                strangers,
                named_strangers,
                stepped_back,
                system_calls,
                words,
                answers,
            } = recording.pipeline.summary();
            sum.elapsed_ns = sum.elapsed_ns.max(elapsed_ns);
            sum.exchanges += exchanges;
            sum.delayed += delayed;
            sum.ended_early += ended_early;
            sum.lost = sum.lost.saturating_add(lost);
            sum.forgotten = sum.forgotten.saturating_add(forgotten);
            sum.untracked += untracked;
            sum.strangers += strangers;
            sum.named_strangers.extend(named_strangers);
            sum.stepped_back += stepped_back;
            sum.system_calls |= system_calls;
            if let Some(words) = words {
                sum.words.get_or_insert_default().add(words);
            }
            if let Some(answers) = answers {
                sum.answers.get_or_insert_default().add(answers);
            }
            for (cause, count) in counts {
                *failures.entry(cause).or_insert(0) += count;
            }
        }
        sum.failures = failures.into_iter().collect();
        sum
    }
}

impl Recording {
    /// Of at least one file.
    fn open(header: Header, mut parts: Vec<Part>, wanted: &Wanted) -> Result<Self, Failure> {
        parts.sort_by_key(|part| part.number);
        let name = parts.first().map(|first| shown(&first.path)).unwrap_or_default();
        let mut start = header.start().context("the first line cannot be understood")?;
        if wanted.is_narrowed() {
            start.wanted = wanted.clone();
        }
        let (last_part, last_ns, clock_offset) = (header.part, start.begins_ns, start.clock_offset);
        Ok(Self {
            pipeline: Pipeline::new(start),
            clock_offset,
            header,
            name,
            parts: parts.into(),
            join: None,
            later: BTreeMap::new(),
            to_come: 0,
            unjoined: 0,
            next: None,
            held: None,
            last_ns,
            last_part,
            is_ended: false,
            is_given_up: false,
            is_loss_emitted: false,
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
                self.to_come -= 1;
                self.held = Some(entry);
                self.last_ns = self.last_ns.max(at_ns);
                let what = What::Record(Record::WorkerGone(Box::new(gone)));
                return Ok(Some(Entry { at_ns, what }));
            }
            due.remove();
            self.held = Some(entry);
            return self.read();
        }
        if let (What::Record(Record::Exchange(exchange)), Some(join)) = (&mut entry.what, &mut self.join) {
            if self.to_come == MOST_LATER {
                self.unjoined += 1;
            } else if let Some(gone) = join.join(exchange) {
                self.to_come += 1;
                self.later.entry(gone.worker.ended_ns.max(entry.at_ns)).or_default().push(gone);
            }
        }
        Ok(Some(entry))
    }

    /// The next entry as it is in the file. A recording that was cut off ends where it was.
    fn read_on(&mut self) -> Result<Option<Entry>, Failure> {
        while let Some(part) = self.parts.front_mut() {
            let (number, path) = (part.number, part.path.clone());
            if number > self.last_part.saturating_add(1) {
                self.last_part = number;
                crate::notice!(
                    "{} is not the file after the one before: what lies between is missing",
                    shown(&path)
                );
                // What began in between may lack facts.
                let ns = self.last_ns.max(part.begins_ns);
                let loss = Loss { ns, reason: LossReason::Unread, count: 0 };
                return Ok(Some(Entry { at_ns: self.last_ns, what: What::Loss(loss) }));
            }
            self.last_part = number;
            let reader = part.reader().with_context(|| shown(&path))?;
            let entry = reader.next_entry().with_context(|| shown(&path))?;
            if let Some(mut entry) = entry {
                entry.at_ns = entry.at_ns.max(self.last_ns);
                self.last_ns = entry.at_ns;
                self.is_ended |= matches!(entry.what, What::End);
                return Ok(Some(entry));
            }
            if let Some(why) = reader.cut() {
                let wall = time(self.clock_offset.0.saturating_add_unsigned(self.last_ns));
                crate::notice!("{} was cut off ({why}): it is read up to {wall}", shown(&path));
            } else if self.parts.len() == 1 && !self.is_ended {
                let wall = time(self.clock_offset.0.saturating_add_unsigned(self.last_ns));
                let path = shown(&path);
                crate::notice!("{path} does not tell the end of its recording: it is read up to {wall}");
            }
            self.parts.pop_front();
        }
        if self.is_given_up && !std::mem::replace(&mut self.is_loss_emitted, true) {
            // Whatever is still open may lack facts.
            let loss = Loss { ns: LATEST_NS - 1, reason: LossReason::Unread, count: 1 };
            return Ok(Some(Entry { at_ns: self.last_ns, what: What::Loss(loss) }));
        }
        if self.is_ended {
            return Ok(None);
        }
        self.is_ended = true;
        Ok(Some(Entry { at_ns: self.last_ns, what: What::End }))
    }
}
