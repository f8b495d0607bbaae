//! Logged failures and verdicts that wait for each other, by nginx worker. Pure: the caller gives the time.

use std::collections::HashMap;

use super::{
    kind::logged_as,
    matching::{END, LEFT, Pairs, SECOND, pairs},
    pair::{Explained, Logged},
};
use crate::model::budget;

/// What has found no match for this long finds none.
const PATIENCE: i64 = LEFT + 5 * SECOND;

/// What came of some of those that waited.
#[derive(Debug, Default)]
pub struct Settled {
    /// Failures that have a verdict.
    pub explained: u64,
    /// Failures that count and have none.
    pub unexplained: Vec<Logged>,
    /// Verdicts that count and have no line.
    pub unlogged: Vec<Explained>,
    /// Lines and verdicts that could not be kept until they found their match.
    pub given_up: u64,
}

/// Those that wait for their match, by nginx worker.
#[derive(Debug, Default)]
pub struct Pairing {
    workers: HashMap<u32, Waiting>,
    /// What all lines take, and what all verdicts take, in bytes.
    line_bytes: usize,
    verdict_bytes: usize,
    given_up: u64,
}

/// One worker's, each in the order of time.
#[derive(Debug, Default)]
struct Waiting {
    logged: Vec<Logged>,
    verdicts: Vec<Explained>,
}

impl Pairing {
    /// Takes in a line.
    pub fn line(&mut self, logged: Logged) {
        self.line_bytes += logged.bytes();
        let waiting = &mut self.workers.entry(logged.failure.pid).or_default().logged;
        let place = waiting.partition_point(|other| other.at <= logged.at);
        waiting.insert(place, logged);
        if self.line_bytes > budget::AUDIT_BYTES {
            let ages = self.workers.values().flat_map(|waiting| &waiting.logged);
            let mut oldest = Oldest::of(ages.map(|logged| (logged.since, logged.bytes())));
            for waiting in self.workers.values_mut() {
                waiting.logged.retain(|logged| !oldest.has(logged.since));
            }
            self.given_up += oldest.taken;
            self.measure();
        }
    }

    /// Takes in a verdict. One that nginx never writes about is passed over.
    pub fn verdict(&mut self, verdict: Explained) {
        if logged_as(verdict.cause).is_empty() {
            return;
        }
        self.verdict_bytes += verdict.bytes();
        let waiting = &mut self.workers.entry(verdict.logged_pid).or_default().verdicts;
        let place = waiting.partition_point(|other| other.at <= verdict.at);
        waiting.insert(place, verdict);
        if self.verdict_bytes > budget::AUDIT_BYTES {
            let ages = self.workers.values().flat_map(|waiting| &waiting.verdicts);
            let mut oldest = Oldest::of(ages.map(|verdict| (verdict.since, verdict.bytes())));
            for waiting in self.workers.values_mut() {
                waiting.verdicts.retain(|verdict| !oldest.has(verdict.since));
            }
            self.given_up += oldest.taken;
            self.measure();
        }
    }

    /// Forgets whom nobody waits for, and adds up what the others take.
    fn measure(&mut self) {
        self.workers.retain(|_, waiting| !waiting.logged.is_empty() || !waiting.verdicts.is_empty());
        let (mut lines, mut verdicts) = (0, 0);
        for waiting in self.workers.values() {
            lines += waiting.logged.iter().map(Logged::bytes).sum::<usize>();
            verdicts += waiting.verdicts.iter().map(Explained::bytes).sum::<usize>();
        }
        (self.line_bytes, self.verdict_bytes) = (lines, verdicts);
    }

    /// Pairs off what is old enough at `now`, and gives up what has waited too long.
    pub fn settle(&mut self, now: i64) -> Settled {
        let mut settled = Settled::default();
        for waiting in self.workers.values_mut() {
            settled.explained += waiting.pair_off(now);
            let is_late = |since: i64| since < now - PATIENCE;
            settled.unexplained.extend(give_up(&mut waiting.logged, |logged| is_late(logged.since)));
            settled.unlogged.extend(give_up(&mut waiting.verdicts, |verdict| is_late(verdict.since)));
        }
        self.measure();
        settled.given_up = std::mem::take(&mut self.given_up);
        settled.without_those_that_do_not_count()
    }

    /// Whether everything that counts would find its match now.
    pub fn is_complete(&self) -> bool {
        self.workers.values().all(Waiting::is_complete)
    }

    /// Pairs off all that can be, and gives up the rest.
    pub fn finish(&mut self) -> Settled {
        let mut settled = Settled::default();
        for mut waiting in std::mem::take(&mut self.workers).into_values() {
            settled.explained += waiting.pair_off(END);
            settled.unexplained.extend(waiting.logged);
            settled.unlogged.extend(waiting.verdicts);
        }
        settled.given_up = std::mem::take(&mut self.given_up);
        settled.without_those_that_do_not_count()
    }
}

impl Settled {
    fn without_those_that_do_not_count(mut self) -> Self {
        self.unexplained.retain(|logged| logged.counts);
        self.unlogged.retain(|verdict| verdict.counts);
        self.unexplained.sort_by_key(|logged| logged.at);
        self.unlogged.sort_by_key(|verdict| verdict.at);
        self
    }
}

impl Waiting {
    /// Takes out the pairs that are certain at `now`; returns how many of them count.
    fn pair_off(&mut self, now: i64) -> u64 {
        let Pairs { lines, verdicts, .. } = pairs(&self.logged, &self.verdicts, now);
        let explained =
            self.verdicts.iter().zip(&verdicts).filter(|(one, paired)| **paired && one.counts).count();
        let mut paired = lines.into_iter();
        self.logged.retain(|_| !paired.next().unwrap_or(false));
        let mut paired = verdicts.into_iter();
        self.verdicts.retain(|_| !paired.next().unwrap_or(false));
        explained as u64
    }

    fn is_complete(&self) -> bool {
        let Pairs { lines, verdicts, .. } = pairs(&self.logged, &self.verdicts, END);
        self.logged.iter().zip(lines).all(|(logged, paired)| paired || !logged.counts)
            && self.verdicts.iter().zip(verdicts).all(|(one, paired)| paired || !one.counts)
    }
}

/// Those that must go, so that a quarter of the budget is free again.
#[derive(Debug, Default)]
struct Oldest {
    /// The moment at which the youngest of them came.
    youngest: i64,
    /// How many of that moment are to go yet.
    at_youngest: usize,
    taken: u64,
}

impl Oldest {
    /// From the age and the size of each.
    fn of(all: impl Iterator<Item = (i64, usize)>) -> Self {
        let mut all: Vec<_> = all.collect();
        all.sort_unstable_by_key(|(since, _)| *since);
        let mut left: usize = all.iter().map(|(_, bytes)| bytes).sum();
        let going = all.iter().take_while(|(_, bytes)| {
            let is_too_much = left > budget::AUDIT_BYTES / 4 * 3;
            left -= bytes;
            is_too_much
        });
        let going: Vec<i64> = going.map(|(since, _)| *since).collect();
        let youngest = going.last().copied().unwrap_or(i64::MIN);
        let at_youngest = going.iter().rev().take_while(|since| **since == youngest).count();
        Self { youngest, at_youngest, taken: 0 }
    }

    /// Whether this one is among them; to be asked once about each.
    fn has(&mut self, since: i64) -> bool {
        let is_last = since == self.youngest && self.at_youngest > 0;
        self.at_youngest -= usize::from(is_last);
        let has = since < self.youngest || is_last;
        self.taken += u64::from(has);
        has
    }
}

/// Takes out what is late.
fn give_up<T>(waiting: &mut Vec<T>, is_late: impl Fn(&T) -> bool) -> Vec<T> {
    if !waiting.iter().any(&is_late) {
        return Vec::new();
    }
    let (late, kept): (Vec<T>, _) = waiting.drain(..).partition(is_late);
    *waiting = kept;
    late
}

#[cfg(test)]
mod tests;
