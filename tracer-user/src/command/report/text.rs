//! The summary for a person.

use std::io::{self, Write};

use jiff::{Timestamp, tz::TimeZone};

use super::digest::Digest;
use crate::{
    model::{
        cause::Cause,
        upstream::Upstream,
        verdict::Verdict,
        words::{count, span},
    },
    roots::{self, Kind},
    sink::{Look, Sink as _, Text, answered, paragraph, said},
    terminal::printable,
};

/// Writes it.
///
/// # Errors
/// Of the writer.
pub fn write(digest: &Digest, look: Look, mut out: impl Write) -> io::Result<()> {
    let (width, zone) = (look.width, TimeZone::try_system().unwrap_or(TimeZone::UTC));
    let mut say = |text: &str| out.write_all(paragraph("", text, 0, width).as_bytes());
    let summary = &digest.summary;
    let (first, last) = digest.range.unwrap_or_default();
    say(&format!(
        "{} to {}: {} in {}, {} of them failed.",
        moment(first, &zone, "%F %T"),
        moment(last, &zone, "%T %Z"),
        count(summary.exchanges, "exchange"),
        span(summary.elapsed_ns),
        match digest.total() {
            0 => "none".to_owned(),
            total => total.to_string(),
        }
    ))?;
    if summary.lost > 0 {
        say(&format!(
            "{} of evidence were lost: what they touch is called incomplete, and there may be more failures.",
            count(summary.lost, "record")
        ))?;
    }
    out.write_all(said(summary.words.as_ref(), &look).as_bytes())?;
    out.write_all(answered(summary.answers.as_ref(), &look).as_bytes())?;
    if digest.total() == 0 {
        return Ok(());
    }
    let roots = roots::of(&digest.kinds);
    if !roots.is_empty() {
        writeln!(out, "\nBehind many of them:")?;
        for root in roots {
            out.write_all(paragraph("  ", &printable(&root.sentence), 2, width).as_bytes())?;
        }
    }
    writeln!(out, "\nBy cause and upstream:")?;
    let mut kinds: Vec<_> = digest.kinds.iter().collect();
    kinds.sort_by_key(|(_, kind)| std::cmp::Reverse(kind.count));
    let causes = kinds.iter().map(|((cause, _), _)| cause.to_string().len()).max().unwrap_or(0);
    let upstreams =
        kinds.iter().map(|((_, upstream), _)| upstream.to_string().chars().count()).max().unwrap_or(0);
    for ((cause, upstream), kind) in kinds {
        writeln!(out, "{}", line(*cause, upstream, kind, (causes, upstreams), &zone))?;
    }
    if digest.for_nobody > 0 {
        writeln!(out)?;
        let text = format!(
            "{} went on in workers after nginx had given them up.",
            count(digest.for_nobody, "request")
        );
        out.write_all(paragraph("", &text, 0, width).as_bytes())?;
    }
    for (which, verdict) in [("The first one", &digest.first), ("The one that took longest", &digest.worst)] {
        let Some(verdict) = verdict else { continue };
        writeln!(out, "\n{which}:")?;
        one(verdict, &look, &mut out)?;
    }
    out.flush()
}

fn one(verdict: &Verdict, look: &Look, out: &mut impl Write) -> io::Result<()> {
    let mut text = Text::new(out, *look);
    text.verdict(verdict)?;
    text.flush()
}

fn line(
    cause: Cause,
    upstream: &Upstream,
    kind: &Kind,
    (causes, upstreams): (usize, usize),
    zone: &TimeZone,
) -> String {
    let (first, last) = kind.range.unwrap_or_default();
    let when = match kind.count {
        1 => format!("at {}", moment(first, zone, "%T")),
        _ => format!("{} to {}", moment(first, zone, "%T"), moment(last, zone, "%T")),
    };
    let upstream = printable(&upstream.to_string()).into_owned();
    format!("{:>8}  {:causes$}  {upstream:upstreams$}  {when}", kind.count, cause.to_string())
}

fn moment(unix_ns: i64, zone: &TimeZone, format: &str) -> String {
    let time = Timestamp::from_nanosecond(unix_ns.into()).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_zoned(zone.clone()).strftime(format).to_string()
}
