//! What a whole run amounts to, in a few sentences and a table.

use anstyle::{AnsiColor, Style};

use super::{
    Look,
    answers::answered,
    audit::list,
    paragraph::paragraph,
    units::{self, counted},
};
use crate::{
    model::{
        verdict::{Summary, Words},
        words::{time, times},
    },
    terminal::printable,
};

/// The summary, with an empty line before it.
pub fn render(summary: &Summary, look: &Look) -> String {
    // Who is left out, that nginx's log was followed for a while, and that system calls are watched, was reported on standard error when it
    // began.
    let Summary {
        elapsed_ns,
        exchanges,
        failures,
        delayed,
        ended_early,
        lost,
        forgotten,
        untracked,
        strangers,
        named_strangers: _,
        stepped_back: _,
        system_calls: _,
        words,
        answers,
    } = summary;
    let failed = failures.iter().map(|(_, count)| count).sum::<u64>();
    let sentence = |text: &str| match look.details {
        true => paragraph("", text, 0, look.width),
        false => format!("{text}\n"),
    };

    let mut text = String::from("\n");
    let ended = format!("In {}, {} ended", units::run(*elapsed_ns), counted(*exchanges, "exchange"));
    text += &sentence(&match (failed, exchanges) {
        (0, 0) => format!("In {}, no exchange ended, so none failed.", units::run(*elapsed_ns)),
        (0, _) => format!("{ended}; none failed."),
        _ => format!("{ended}; {} failed:", units::grouped(failed)),
    });
    text += &table(summary, look);
    if *delayed > 0 {
        text += &sentence(&format!(
            "{} succeeded late, held up by a dropped SYN.",
            counted(*delayed, "exchange")
        ));
    }
    if *ended_early > 0 {
        text += &sentence(&format!(
            "{} ended early by nginx, which had no complaint of the upstream.",
            match ended_early {
                1 => "1 exchange was".to_owned(),
                many => format!("{} were", counted(*many, "exchange")),
            }
        ));
    }
    text += &said(words.as_ref(), look);
    text += &answered(answers.as_ref(), look);
    if *lost == 0 && *untracked == 0 {
        text += &sentence("Nothing was lost.");
    }
    let mut warn = |warning: String| {
        for line in sentence(&warning).lines() {
            text += &look.paint(AnsiColor::Yellow.on_default(), line, 0);
            text.push('\n');
        }
    };
    if *lost > 0 {
        let were = if *lost == 1 { "was" } else { "were" };
        warn(format!(
            "{} {were} lost: failures may be missing above, and what lacks a fact is marked incomplete.",
            counted(*lost, "record")
        ));
    }
    if *untracked > 0 {
        let (were, them) = if *untracked == 1 { ("was", "it") } else { ("were", "them") };
        warn(format!(
            "{} {were} not watched, because too many were open at once: failures on {them} are missing above.",
            counted(*untracked, "connection")
        ));
    }
    if *forgotten > 0 {
        let them = if *forgotten == 1 { "it" } else { "them" };
        warn(format!(
            "{} could not be kept for want of room: verdicts say less without {them}.",
            counted(*forgotten, "later fact")
        ));
    }
    if *strangers > 0 {
        let were = if *strangers == 1 { "was" } else { "were" };
        warn(format!(
            "{} {were} left out, of processes that are called nginx and are none that root or a service runs.",
            counted(*strangers, "connection")
        ));
    }
    text
}

/// What became of nginx's own words.
pub(crate) fn said(words: Option<&Words>, look: &Look) -> String {
    let sentence = |text: &str| match look.details {
        true => paragraph("", text, 0, look.width),
        false => format!("{text}\n"),
    };
    let Some(Words { said, explained, unexplained, notes, left_out }) = words else {
        return sentence("What nginx itself says of its upstreams was not heard.");
    };
    let failures = format!("nginx said {} about upstreams", counted(*said, "word"));
    let mut text = match (said, unexplained.count) {
        (0, _) => sentence("nginx said nothing of a failure of an upstream."),
        (1, 0) => sentence(&format!("{failures}; it has its verdict.")),
        (_, 0) => sentence(&format!("{failures}; each has its verdict.")),
        (_, missing) => {
            let warning = format!(
                "{failures}; {} with a verdict, {} with none:",
                units::grouped(*explained),
                units::grouped(missing)
            );
            let lines = sentence(&warning);
            lines.lines().map(|line| look.paint(AnsiColor::Yellow.on_default(), line, 0) + "\n").collect()
        }
    };
    text += &list(unexplained, |one| {
        let upstream = one.upstream.as_ref().map_or_else(String::new, |upstream| format!(" ({upstream})"));
        printable(&format!("{}  nginx {}: {}{upstream}", time(one.unix_ns), one.pid, one.line)).into_owned()
    });
    if *left_out > 0 {
        text += &sentence(&format!(
            "Not told: {} without an upstream, which may be about others than those that were asked for (-u).",
            counted(*left_out, "word")
        ));
    }
    if *notes > 0 {
        text += &sentence(&format!("FastCGI applications wrote to standard error {}.", times(*notes)));
    }
    text
}

/// Counts and causes, and, where there is room, what each cause means.
fn table(Summary { failures, .. }: &Summary, look: &Look) -> String {
    let rows: Vec<_> = failures
        .iter()
        .map(|(cause, count)| (units::grouped(*count), cause.to_string(), cause.meaning()))
        .collect();
    let counts = rows.iter().map(|(count, ..)| count.len()).max().unwrap_or(0);
    let causes = rows.iter().map(|(_, cause, _)| cause.len()).max().unwrap_or(0);

    let mut text = String::new();
    for (count, cause, meaning) in &rows {
        let head = format!("  {count:>counts$}  ");
        let bold = look.paint(Style::new().bold(), cause, causes);
        if look.details {
            let meant =
                paragraph(&format!("{head}{cause:causes$}  "), meaning, head.len() + causes + 2, look.width);
            // Wrapped without its colour, so that escapes take no room.
            text += &meant.replacen(&format!("{cause:causes$}"), &bold, 1);
        } else {
            text += &format!("{head}{}\n", bold.trim_end());
        }
    }
    text
}
