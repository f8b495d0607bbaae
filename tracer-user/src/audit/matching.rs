//! Which verdict belongs to which line. Pure: the caller gives the time.

use std::{collections::HashMap, hash::Hash};

use super::{
    kind::{Kind, logged_as},
    pair::{Explained, Logged},
};
use crate::ledger;

/// In nanoseconds.
pub const SECOND: i64 = 1_000_000_000;

/// When nothing more will come.
pub const END: i64 = i64::MAX;

/// How far a verdict may lie from its line.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Before the second that nginx wrote: an end that the kernel saw first, and nginx once it came to it.
    pub before: i64,
    /// Behind that second's beginning: the second itself, and nginx's clock, which stands still while it works off a batch
    /// of events.
    pub behind: i64,
}

/// Where nearly every verdict lies: within the second.
const SAME: Window = Window { before: 0, behind: SECOND };

/// Where the others usually lie.
const NEAR: Window = Window { before: SECOND / 2, behind: SECOND + SECOND / 2 };

/// Where it may lie on a host that has more to do than it can: nginx has come to an end 2 s after the kernel, and written a time 3.4 s
/// old.
const FAR: Window = Window { before: 5 * SECOND, behind: 5 * SECOND };

/// Where it may lie at most, of what would have no match otherwise: on an emulated host, nginx has written a time 5.4 s old, and
/// come to an end more than 5 s after the kernel.
pub const LATE: Window = Window { before: 10 * SECOND, behind: 10 * SECOND };

/// A verdict is paired off with a line of its own second once no older one can still come: the ledger keeps some back.
pub const ORDERED: i64 = ledger::PATIENCE_NS as i64 + 2 * SECOND;

/// And with a line that fits less well once those that it may fit better have had their turn.
const SETTLED: i64 = ORDERED + FAR.before + FAR.behind;

/// And with one that only nobody else has wanted, once the youngest such line has had its turn.
pub const LEFT: i64 = ORDERED + LATE.before + LATE.behind;

/// How well a line and a verdict fit; the best find each other first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The verdict predicted this very text.
    Text,
    /// The kind of failure and its errno agree.
    Kind,
    /// Nothing speaks against it.
    Possible,
}

impl Fit {
    const ALL: [Self; 3] = [Self::Text, Self::Kind, Self::Possible];
}

/// Which lines and which verdicts have a match, in their order.
#[derive(Debug)]
pub struct Pairs {
    /// Whether each line has one.
    pub lines: Vec<bool>,
    /// Whether each verdict has one.
    pub verdicts: Vec<bool>,
    /// How many pairs that makes.
    pub count: usize,
}

/// Which of one worker's lines and verdicts pair off at `now`; both come in the order of time.
///
/// Those near each other find each other first, unless that leaves more without a match than to let the oldest verdict take the
/// oldest line. The latter pairs off as many as can be where only time decides: the verdicts' windows have one length, so
/// whatever line an older one could take instead is of use to the younger one as well.
pub fn pairs(logged: &[Logged], named: &[Explained], now: i64) -> Pairs {
    let classes = Classes::of(logged, named);
    let mut best = classes.pairs(logged, named, &[SAME, NEAR, FAR, LATE], now);
    for windows in [&[FAR, LATE][..], &[LATE]] {
        if best.count == named.len() {
            break;
        }
        let oldest = classes.pairs(logged, named, windows, now);
        best = if oldest.count > best.count { oldest } else { best };
    }
    best
}

/// Lines that fit the same verdicts, and the other way round: in a storm there are many of few.
#[derive(Debug)]
struct Classes {
    /// The places of each class of lines, in the order of time.
    lines: Vec<Vec<usize>>,
    /// The class of each verdict.
    verdicts: Vec<usize>,
    /// The classes of lines that fit each class of verdicts.
    fits: Vec<Vec<(Fit, usize)>>,
}

impl Classes {
    fn of(logged: &[Logged], named: &[Explained]) -> Self {
        let (line_classes, first_lines) = classes(logged, |logged| {
            let failure = &logged.failure;
            (&failure.upstream, failure.kind, failure.certain, &failure.errno, &failure.text)
        });
        let (verdicts, first_verdicts) =
            classes(named, |named| (&named.upstream, named.cause, &named.errno, &named.error_log));
        let mut lines = vec![Vec::new(); first_lines.len()];
        for (place, class) in line_classes.into_iter().enumerate() {
            lines[class].push(place);
        }
        let fits = first_verdicts.iter().map(|verdict| {
            let line = first_lines.iter().enumerate();
            line.filter_map(|(class, line)| Some((fit(&logged[*line], &named[*verdict])?, class))).collect()
        });
        Self { lines, verdicts, fits: fits.collect() }
    }

    fn pairs(&self, logged: &[Logged], named: &[Explained], windows: &[Window], now: i64) -> Pairs {
        let mut pairs =
            Pairs { lines: vec![false; logged.len()], verdicts: vec![false; named.len()], count: 0 };
        for (window, wanted) in windows.iter().flat_map(|window| Fit::ALL.map(|fit| (window, fit))) {
            let is_plain = window.behind == SAME.behind && wanted != Fit::Possible;
            let is_left = window.behind == LATE.behind;
            let youngest = now
                - if is_plain {
                    ORDERED
                } else if is_left {
                    LEFT
                } else {
                    SETTLED
                };
            // What one verdict finds too old or taken, so do all younger ones.
            let mut passed = vec![0; self.lines.len()];
            for (number, verdict) in named.iter().enumerate().take_while(|(_, one)| one.at <= youngest) {
                if pairs.verdicts[number] {
                    continue;
                }
                let fitting = self.fits[self.verdicts[number]].iter().filter(|(fit, _)| *fit == wanted);
                let oldest = fitting.filter_map(|(_, class)| {
                    let (places, passed) = (&self.lines[*class], &mut passed[*class]);
                    let is_past =
                        |place: &usize| pairs.lines[*place] || logged[*place].at < verdict.at - window.behind;
                    *passed += places[*passed..].iter().take_while(|place| is_past(place)).count();
                    places.get(*passed).copied()
                });
                if let Some(place) = oldest.min()
                    && logged[place].at <= verdict.at + window.before
                {
                    (pairs.lines[place], pairs.verdicts[number]) = (true, true);
                    pairs.count += 1;
                }
            }
        }
        pairs
    }
}

/// The class of each, and the first of each class.
fn classes<'a, T, K: Eq + Hash>(all: &'a [T], key: impl Fn(&'a T) -> K) -> (Vec<usize>, Vec<usize>) {
    let mut firsts = Vec::new();
    let mut known = HashMap::new();
    let classes = all.iter().enumerate().map(|(place, one)| {
        *known.entry(key(one)).or_insert_with(|| {
            firsts.push(place);
            firsts.len() - 1
        })
    });
    (classes.collect(), firsts)
}

/// How well a line and a verdict fit, wherever they lie in time.
pub fn fit(logged: &Logged, verdict: &Explained) -> Option<Fit> {
    let failure = &logged.failure;
    if !failure.upstream.may_be(&verdict.upstream) || !logged_as(verdict.cause).contains(&failure.kind) {
        return None;
    }
    // Whoever writes upstreams into his requests is not to take the verdict of a line that names one only.
    if verdict.error_log.as_ref() == Some(&failure.text) && !failure.upstream.is_ambiguous() {
        return Some(Fit::Text);
    }
    if let (Some(met), Some(written)) = (&verdict.errno, &failure.errno)
        && !is_one_error(met, written, failure.kind)
    {
        return None;
    }
    let vague = verdict.cause.cause() == "unknown" || failure.upstream.shown().is_none() || !failure.certain;
    Some(if vague { Fit::Possible } else { Fit::Kind })
}

/// Whether both errnos stand for one event: a reset is ECONNRESET to whoever meets it first and EPIPE to the next call.
fn is_one_error(met: &str, written: &str, kind: Kind) -> bool {
    const RESET: [&str; 2] = ["ECONNRESET", "EPIPE"];
    // What befell the client's connection is not what the verdict is about.
    met == written || kind == Kind::ClientAbort || (RESET.contains(&met) && RESET.contains(&written))
}
