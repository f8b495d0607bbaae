//! Every 499, 502, 503 and 504 that a client got, by nginx's access logs: tied to its verdict, or reported as what it was. Pure.

use std::collections::VecDeque;

use crate::{
    ledger::PATIENCE_NS,
    model::{
        answers::{Answer, Answered, Answers, Followed, Kind, Try},
        budget,
        upstream::Upstream,
        verdict::Verdict,
    },
};

/// An answer waits for its verdict for as long (ns): a verdict that lacks something waits as long for it, and logs are read once a second.
const WAIT_NS: u64 = PATIENCE_NS + 2_000_000_000;

/// nginx logs a request when it has done with its client, and by a clock that it reads once in each turn of its loop: so far from the end
/// of its exchange (ns).
const APART_NS: i64 = 1_000_000_000;

/// A verdict, as far as an answer may be tied to it.
#[derive(Debug)]
struct Failed {
    unix_ns: i64,
    status: Option<u16>,
    upstream: Upstream,
    is_used: bool,
}

/// Answers and verdicts, until they have found each other.
#[derive(Debug, Default)]
pub struct Matching {
    followed: Followed,
    waiting: VecDeque<(u64, Answer)>,
    failed: VecDeque<Failed>,
    /// When something was lost, or said of what is not watched (ns since 1970).
    blind: VecDeque<i64>,
    answers: Answers,
    has_any: bool,
}

/// What is known besides.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    /// From the stream's clock to that of verdicts (ns).
    pub clock_offset: i64,
    /// Whether a failure would have been known: nginx's word is heard, or its error log is read.
    pub hears: bool,
    /// Whether only some upstreams are watched.
    pub is_narrowed: bool,
}

impl Matching {
    /// Logs are followed from now on, or are no more.
    pub fn follow(&mut self, followed: Followed) {
        self.has_any |= followed.logs > 0;
        self.followed = followed;
    }

    /// Takes in an answer.
    pub fn take(&mut self, answer: Answer, now_ns: u64) {
        self.has_any = true;
        self.waiting.push_back((now_ns, answer));
    }

    /// Takes in a verdict.
    pub fn failed(&mut self, verdict: &Verdict) {
        if self.failed.len() >= budget::ANSWERED {
            self.failed.pop_front();
        }
        self.failed.push_back(Failed {
            unix_ns: verdict.unix_ns,
            status: verdict.status,
            upstream: verdict.upstream.clone(),
            is_used: false,
        });
    }

    /// About this moment (ns since 1970) a failure may have had no verdict.
    pub fn was_blind(&mut self, unix_ns: i64) {
        if self.blind.len() >= budget::ANSWERED {
            self.blind.pop_front();
        }
        if self.blind.back() != Some(&unix_ns) {
            self.blind.push_back(unix_ns);
        }
    }

    /// Says what those were that have waited for long enough. Returns those whose requests are to be shown.
    pub fn settle(&mut self, now_ns: u64, sight: Sight) -> Vec<Answered> {
        let mut shown = Vec::new();
        while let Some((since_ns, _)) = self.waiting.front() {
            let is_early = since_ns.saturating_add(WAIT_NS) > now_ns;
            if is_early && self.waiting.len() <= budget::ANSWERED {
                break;
            }
            let Some((_, answer)) = self.waiting.pop_front() else { break };
            let Some(kind) = self.judge(&answer, sight) else { continue };
            *self.answers.counts.entry((answer.status, kind)).or_default() += 1;
            let Answer { ns, within_ns: _, status, tries, rule: _, request } = answer;
            shown.extend(request.map(|request| Answered {
                unix_ns: sight.clock_offset.saturating_add_unsigned(ns),
                status,
                kind,
                last: tries.and_then(|mut tries| tries.pop()),
                request,
            }));
        }
        shown
    }

    /// What it was; none where it is none of those that were asked for.
    fn judge(&mut self, answer: &Answer, sight: Sight) -> Option<Kind> {
        let from = sight.clock_offset.saturating_add_unsigned(answer.ns).saturating_sub(APART_NS);
        let to = from.saturating_add_unsigned(answer.within_ns).saturating_add(2 * APART_NS);
        let Answer { status, tries, rule, .. } = answer;
        let is_blind = !sight.hears || self.blind.iter().any(|blind| (from..=to).contains(blind));
        let fits_answer = |failed: &Failed| failed.status == Some(*status);
        let kind = match tries.as_deref() {
            None if self.tie(from, to, fits_answer) => Kind::Explained,
            None => Kind::Unknown,
            Some([]) if self.tie(from, to, |failed| is_named(failed) && fits_answer(failed)) => {
                Kind::Explained
            }
            // A client that left before anything was asked of an upstream.
            Some([]) if *status == 499 => Kind::Unknown,
            // What had no verdict may have been a name that did not resolve.
            Some([]) => rule.filter(|_| !is_blind).unwrap_or(Kind::Rule),
            Some([earlier @ .., last]) => {
                for one in earlier {
                    // Each has a verdict of its own, which explains no other answer.
                    self.tie(from, to, |failed| is_of(failed, one) && failed.status == one.status);
                }
                let is_its = |failed: &Failed| {
                    is_of(failed, last) && (failed.status == last.status || fits_answer(failed))
                };
                if self.tie(from, to, is_its) {
                    Kind::Explained
                } else if *status == 499 || last.status.is_none() || is_blind {
                    Kind::Unknown
                } else if last.status == Some(*status) {
                    Kind::Upstream
                } else {
                    Kind::Rewritten
                }
            }
        };
        let is_any = matches!(tries.as_deref(), Some([_, ..])) || kind == Kind::Explained;
        (is_any || !sight.is_narrowed).then_some(kind)
    }

    /// Ties an answer to the nearest verdict of that time that fits and is tied to none yet.
    fn tie(&mut self, from: i64, to: i64, fits: impl Fn(&Failed) -> bool) -> bool {
        let middle = from.midpoint(to);
        let all = self.failed.iter_mut();
        let there =
            all.filter(|failed| !failed.is_used && (from..=to).contains(&failed.unix_ns) && fits(failed));
        match there.min_by_key(|failed| failed.unix_ns.abs_diff(middle)) {
            Some(failed) => {
                failed.is_used = true;
                true
            }
            None => false,
        }
    }

    /// What it all amounts to; none where no access log was followed.
    pub fn summary(&self) -> Option<Answers> {
        let Answers { counts, left_out: _ } = &self.answers;
        self.has_any.then(|| Answers { counts: counts.clone(), left_out: self.followed.left_out })
    }
}

fn is_named(failed: &Failed) -> bool {
    matches!(failed.upstream, Upstream::Named(_))
}

/// Whether a verdict is about this server. Of a group none of whose servers is alive nginx logs the name.
fn is_of(failed: &Failed, one: &Try) -> bool {
    match (&one.upstream, &failed.upstream) {
        (None, _) | (Some(Upstream::Named(_)), Upstream::Named(_)) => true,
        (Some(upstream), of) => upstream == of,
    }
}

#[cfg(test)]
mod tests;
