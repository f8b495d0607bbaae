//! One page that shows it all and needs no network.

use std::collections::BTreeMap;

use askama::Template;
use jiff::{Timestamp, tz::TimeZone};

use super::digest::{Digest, Histogram, Merge, Timeline};
use crate::{
    evidence::Header,
    model::{
        cause::Cause,
        verdict::Verdict,
        words::{count, span},
    },
    roots::{self, Root},
};

/// The page.
///
/// # Errors
/// Of the template.
pub fn page(digest: &Digest, headers: &[&Header]) -> askama::Result<String> {
    let zone = TimeZone::try_system().unwrap_or(TimeZone::UTC);
    let clock = Clock { zone };
    let (first, last) = digest.range.unwrap_or_default();
    let summary = &digest.summary;
    let total = digest.total();
    Page {
        title: format!("{} of {}", count(total, "failure"), count(summary.exchanges, "exchange")),
        when: format!("{} to {}", clock.show(first, "%F %T"), clock.show(last, "%T %Z")),
        took: span(summary.elapsed_ns),
        kernels: headers
            .iter()
            .map(|header| format!("{}, Linux {}", header.program, header.kernel))
            .collect(),
        anonymized: headers.iter().any(|header| header.anonymized),
        lost: summary.lost,
        for_nobody: digest.for_nobody,
        total,
        roots: roots::of(&digest.kinds),
        groups: groups(digest),
        bars: bars(digest, &clock),
        from: clock.show(digest.failures.begin(0), "%T"),
        to: clock.show(end_of(&digest.failures), "%T"),
        bar_width: span(digest.failures.width.unsigned_abs()),
        queues: queues(digest, &clock),
        waits: histogram(&digest.waits),
        services: histogram(&digest.services),
        deaths: deaths(digest, &clock),
        rows: digest.rows.iter().map(|verdict| row(verdict, &clock)).collect(),
        omitted: digest.omitted,
    }
    .render()
}

/// All that the template shows.
#[derive(Template)]
#[template(path = "report.html")]
struct Page {
    title: String,
    when: String,
    took: String,
    kernels: Vec<String>,
    anonymized: bool,
    lost: u64,
    for_nobody: u64,
    total: u64,
    roots: Vec<Root>,
    groups: Vec<Group>,
    bars: Vec<Bar>,
    from: String,
    to: String,
    bar_width: String,
    queues: Vec<Queue>,
    waits: Vec<Bucket>,
    services: Vec<Bucket>,
    deaths: Vec<Death>,
    rows: Vec<Row>,
    omitted: u64,
}

/// One cause, whatever its detail, with its colour.
struct Group {
    cause: &'static str,
    colour: usize,
    count: u64,
    kinds: Vec<Kind>,
}

struct Kind {
    detail: &'static str,
    upstream: String,
    count: u64,
    meaning: &'static str,
}

/// One bar of the timeline.
struct Bar {
    parts: Vec<Part>,
    hint: String,
    deaths: usize,
}

struct Part {
    colour: usize,
    /// In percent of the highest bar.
    height: String,
}

struct Queue {
    listener: String,
    worst: String,
    bars: Vec<Depth>,
    /// Where the backlog is, in percent of the chart's height.
    limit_at: String,
    limit: u32,
    from: String,
    to: String,
}

struct Depth {
    height: String,
    is_full: bool,
    hint: String,
}

struct Bucket {
    name: &'static str,
    count: u64,
    width: String,
}

struct Death {
    when: String,
    who: String,
}

struct Row {
    /// For sorting: microseconds.
    time: i64,
    took: i64,
    when: String,
    lasted: String,
    status: String,
    cause: &'static str,
    detail: &'static str,
    colour: usize,
    upstream: String,
    confidence: &'static str,
    explanation: String,
    advice: String,
    error_log: String,
    facts: Vec<Fact>,
}

struct Fact {
    at: String,
    source: String,
    fact: String,
}

struct Clock {
    zone: TimeZone,
}

impl Clock {
    fn show(&self, unix_ns: i64, format: &str) -> String {
        let time = Timestamp::from_nanosecond(unix_ns.into()).unwrap_or(Timestamp::UNIX_EPOCH);
        time.to_zoned(self.zone.clone()).strftime(format).to_string()
    }
}

/// The colour of a cause: those of one name share it, in the order of the table.
fn colour(cause: Cause) -> usize {
    let mut names: Vec<_> = Cause::ALL.iter().map(|cause| cause.cause()).collect();
    names.dedup();
    names.iter().position(|name| *name == cause.cause()).unwrap_or(0)
}

fn percent(part: f64, whole: f64) -> String {
    format!("{:.2}", if whole > 0.0 { (part / whole * 100.0).clamp(0.0, 100.0) } else { 0.0 })
}

fn end_of<T: Merge>(timeline: &Timeline<T>) -> i64 {
    timeline.begin(timeline.bars.len())
}

fn groups(digest: &Digest) -> Vec<Group> {
    let mut groups = BTreeMap::<usize, Group>::new();
    for ((cause, upstream), kind) in digest.kinds.iter() {
        let colour = colour(*cause);
        let new = || Group { cause: cause.cause(), colour, count: 0, kinds: Vec::new() };
        let group = groups.entry(colour).or_insert_with(new);
        group.count += kind.count;
        group.kinds.push(Kind {
            detail: cause.detail(),
            upstream: upstream.to_string(),
            count: kind.count,
            meaning: cause.meaning(),
        });
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    for group in &mut groups {
        group.kinds.sort_by_key(|kind| std::cmp::Reverse(kind.count));
    }
    groups
}

fn bars(digest: &Digest, clock: &Clock) -> Vec<Bar> {
    let timeline = &digest.failures;
    let bars = &timeline.bars;
    let highest = bars.iter().map(|bar| bar.values().sum::<u64>()).max().unwrap_or(0);
    let bar = |(number, counts): (usize, &BTreeMap<Cause, u64>)| {
        let from = timeline.begin(number);
        let mut by_colour = BTreeMap::<usize, (u64, &str)>::new();
        for (cause, count) in counts {
            by_colour.entry(colour(*cause)).or_insert((0, cause.cause())).0 += count;
        }
        let words: Vec<_> = by_colour.values().map(|(count, cause)| format!("{count} {cause}")).collect();
        let in_bar = |ns: i64| ns >= from && ns < from.saturating_add(timeline.width);
        let deaths = digest.deaths.iter().filter(|death| in_bar(death.unix_ns)).count();
        let died =
            if deaths > 0 { format!("; {} died", count(deaths as u64, "worker")) } else { String::new() };
        Bar {
            hint: format!("{}: {}{died}", clock.show(from, "%T"), words.join(", ")),
            parts: by_colour
                .iter()
                .map(|(colour, (count, _))| Part {
                    colour: *colour,
                    height: percent(*count as f64, highest as f64),
                })
                .collect(),
            deaths,
        }
    };
    bars.iter().enumerate().map(bar).collect()
}

fn queues(digest: &Digest, clock: &Clock) -> Vec<Queue> {
    let queue =
        |(listener, timeline): (&crate::model::upstream::Upstream, &Timeline<super::digest::Queue>)| {
            let deepest = timeline.bars.iter().max_by_key(|bar| bar.depth)?;
            let limit = timeline.bars.iter().map(|bar| bar.limit).max().unwrap_or(0);
            // A queue that is nowhere near its backlog would be a flat line.
            let top = f64::from(deepest.depth.max(1))
                .max(f64::from(limit.min(deepest.depth.saturating_mul(4).max(1))) + 1.0);
            let bar = |(number, bar): (usize, &super::digest::Queue)| {
                let from = timeline.begin(number);
                Depth {
                    height: percent(f64::from(bar.depth), top),
                    is_full: bar.limit > 0 && bar.depth > bar.limit,
                    hint: format!("{}: {} of {}", clock.show(from, "%T"), bar.depth, bar.limit),
                }
            };
            (deepest.depth > 0).then(|| Queue {
                listener: listener.to_string(),
                worst: format!("at most {} waiting, backlog {limit}", deepest.depth),
                bars: timeline.bars.iter().enumerate().map(bar).collect(),
                limit_at: percent(f64::from(limit), top),
                limit: if f64::from(limit) <= top { limit } else { 0 },
                from: clock.show(timeline.begin(0), "%T"),
                to: clock.show(end_of(timeline), "%T"),
            })
        };
    digest.depths.iter().filter_map(queue).collect()
}

fn histogram(histogram: &Histogram) -> Vec<Bucket> {
    let highest = histogram.counts.iter().max().copied().unwrap_or(0);
    if histogram.total() == 0 {
        return Vec::new();
    }
    let names = Histogram::BOUNDS.iter().map(|(_, name)| *name);
    let bucket = |(name, count): (&'static str, u64)| Bucket {
        name,
        count,
        width: percent(count as f64, highest as f64),
    };
    names.zip(histogram.counts).map(bucket).collect()
}

fn deaths(digest: &Digest, clock: &Clock) -> Vec<Death> {
    let death = |death: &super::digest::Death| {
        let by = death.killer.as_ref().map_or_else(
            || format!("died of {}", death.signal),
            |killer| format!("was sent {} by {} {}", death.signal, killer.comm, killer.pid),
        );
        Death {
            when: clock.show(death.unix_ns, "%T%.3f"),
            who: format!("{} {} {by}", death.worker.comm, death.worker.pid),
        }
    };
    digest.deaths.iter().take(100).map(death).collect()
}

fn row(verdict: &Verdict, clock: &Clock) -> Row {
    let lasted = verdict.moments.ended.unwrap_or(0);
    let facts = verdict.evidence.iter().map(|evidence| Fact {
        at: match evidence.us {
            us @ ..0 => format!("-{}", span(us.unsigned_abs() * 1_000)),
            us => format!("+{}", span(us.unsigned_abs() * 1_000)),
        },
        source: evidence.source.clone(),
        fact: evidence.fact.clone(),
    });
    Row {
        time: verdict.unix_ns / 1_000,
        took: lasted,
        when: clock.show(verdict.unix_ns, "%T%.3f"),
        lasted: span(lasted.unsigned_abs() * 1_000),
        status: verdict.status.map_or_else(|| "---".to_owned(), |status| status.to_string()),
        cause: verdict.cause.cause(),
        detail: verdict.cause.detail(),
        colour: colour(verdict.cause),
        upstream: verdict.upstream.to_string(),
        confidence: verdict.confidence.name(),
        explanation: verdict.explanation.clone(),
        advice: verdict.advice.clone(),
        error_log: verdict.error_log.clone().unwrap_or_default(),
        facts: facts.collect(),
    }
}
