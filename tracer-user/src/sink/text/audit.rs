//! What nginx's error log says of the verdicts: one sentence, if all is well.

use anstyle::AnsiColor;
use jiff::{Timestamp, tz::TimeZone};

use super::{
    Look,
    paragraph::paragraph,
    units::{self, counted},
};
use crate::{
    model::audit::{Listed, Report, Unexplained, Unlogged},
    terminal::printable,
};

/// The audit, with an empty line before it.
pub fn render(report: &Report, look: &Look, zone: &TimeZone) -> String {
    let Report { logged, explained, unexplained, unlogged, ambiguous, early, unaudited, given_up } = report;
    let sentence = |text: &str| match look.details {
        true => paragraph("", text, 0, look.width),
        false => format!("{text}\n"),
    };
    let warn = |text: &str| {
        let lines = sentence(text);
        let lines = lines.lines().map(|line| look.paint(AnsiColor::Yellow.on_default(), line, 0) + "\n");
        lines.collect::<String>()
    };

    let mut text = String::from("\n");
    let failures = format!("nginx logged {}", counted(*logged, "upstream failure"));
    match (logged, unexplained.count) {
        (0, _) => text += &sentence("nginx logged no upstream failure."),
        (1, 0) => text += &sentence(&format!("{failures}; it has its verdict.")),
        (_, 0) => text += &sentence(&format!("{failures}; each has its verdict.")),
        (1, _) => text += &warn(&format!("{failures}; it has no verdict:")),
        (_, missing) => {
            let have = if *explained == 1 { "has its" } else { "have their" };
            let [explained, missing_count] = [*explained, missing].map(units::grouped);
            let none = if missing == 1 { "has" } else { "have" };
            text += &warn(&format!("{failures}; {explained} {have} verdict, {missing_count} {none} none:"));
        }
    }
    text += &list(unexplained, |Unexplained { line, .. }| printable(line).into_owned());
    if unlogged.count > 0 {
        let are = if unlogged.count == 1 { "is" } else { "are" };
        text += &warn(&format!("{} {are} missing in nginx's error log:", counted(unlogged.count, "verdict")));
        text += &list(unlogged, |one| line_of(one, zone));
    }
    if ambiguous.count > 0 {
        let (names, have) = if ambiguous.count == 1 { ("names", "has") } else { ("name", "have") };
        text += &warn(&format!(
            "{} {names} several upstreams, written there by the client, and {have} no verdict:",
            counted(ambiguous.count, "line")
        ));
        text += &list(ambiguous, |Unexplained { line, .. }| printable(line).into_owned());
    }
    if *given_up > 0 {
        let what = if *given_up == 1 { "line or verdict" } else { "lines or verdicts" };
        text += &warn(&format!(
            "{} {what} could not be audited: too many or too long to be kept.",
            units::grouped(*given_up)
        ));
    }
    if *early > 0 {
        text += &sentence(&format!(
            "{} on connections that were open before the tracing began {} left out.",
            counted(*early, "failure"),
            if *early == 1 { "is" } else { "are" },
        ));
    }
    if *unaudited > 0 {
        text += &sentence(&format!(
            "{} could not be audited: nginx logs clients that go away at level info, and this log shows none of it.",
            counted(*unaudited, "verdict"),
        ));
    }
    text
}

pub(super) fn list<T>(listed: &Listed<T>, line: impl Fn(&T) -> String) -> String {
    let mut lines: String = listed.shown.iter().map(|one| format!("  {}\n", line(one))).collect();
    if listed.is_cut() {
        let more = listed.count - listed.shown.len() as u64;
        lines += &format!("  ... and {} more\n", units::grouped(more));
    }
    lines
}

fn line_of(Unlogged { unix_ns, cause, pid, upstream }: &Unlogged, zone: &TimeZone) -> String {
    let time = Timestamp::from_nanosecond((*unix_ns).into()).unwrap_or(Timestamp::UNIX_EPOCH);
    let time = time.to_zoned(zone.clone()).strftime("%H:%M:%S%.3f");
    format!("{time}  {cause}  {}  nginx {pid}", printable(&upstream.to_string()))
}
