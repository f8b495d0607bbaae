//! Text for a person: one line for each failure and, where there is room for it, what is known under the line.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use jiff::{Timestamp, tz::TimeZone};

use super::Sink;
use crate::{
    model::{
        answers::Answered,
        audit::Report,
        cause::Cause,
        upstream::Upstream,
        verdict::{Delayed, Note, Summary, Verdict, WorkerOutlived},
        words::span,
    },
    terminal::printable,
};

mod answers;
mod audit;
mod look;
mod paragraph;
mod status;
mod summary;
mod units;

pub(crate) use answers::answered;
pub use look::Look;
pub(crate) use paragraph::paragraph;
use paragraph::{pad, width};
pub use status::{Above, Status};
pub(crate) use summary::said;
pub(crate) use units::grouped;

/// Where the lines under a verdict begin: below its status.
pub(crate) const INDENT: usize = 14;

/// The upstream's column holds any IPv4 address and port from the start.
const UPSTREAM_LEAST: usize = "255.255.255.255:65535".len();

/// It grows with what comes until it holds any IPv6 address and port; what is longer (a path) sticks out.
const UPSTREAM_MOST: usize = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".len();

/// Holds the longest usual time, as in `after 45.2 ms`.
const TOOK: usize = "after 45.2 ms".len();

/// Writes verdicts as aligned lines of text.
#[derive(Debug)]
pub struct Text<W> {
    out: W,
    look: Look,
    time_zone: TimeZone,
    cause_width: usize,
    upstream_width: usize,
}

impl<W: Write> Text<W> {
    /// Writes to `out`, with times in the zone of this host, or in UTC if it has none.
    pub fn new(out: W, look: Look) -> Self {
        Self::in_time_zone(out, look, TimeZone::try_system().unwrap_or(TimeZone::UTC))
    }

    /// Writes to `out`, with times in the zone given.
    pub fn in_time_zone(out: W, look: Look, time_zone: TimeZone) -> Self {
        let cause_width = Cause::ALL.iter().map(|cause| cause.to_string().len()).max().unwrap_or(0);
        Self { out, look, time_zone, cause_width, upstream_width: UPSTREAM_LEAST }
    }

    /// The line that stands for one exchange.
    fn line(&mut self, line: &Line<'_>) -> String {
        let Line { unix_ns, status: (status, status_style), what, upstream, took, confidence } = line;
        let time = Timestamp::from_nanosecond((*unix_ns).into()).unwrap_or(Timestamp::UNIX_EPOCH);
        let time = time.to_zoned(self.time_zone.clone()).strftime("%H:%M:%S%.3f");
        let upstream = printable(&upstream.to_string()).into_owned();
        self.upstream_width = self.upstream_width.max(width(&upstream).min(UPSTREAM_MOST));

        let columns = [
            time.to_string(),
            self.look.paint(*status_style, status, 3),
            self.look.paint(Style::new().bold(), what, self.cause_width),
            pad(&upstream, self.upstream_width),
            pad(took, TOOK),
            (*confidence).to_owned(),
        ];
        format!("{}\n", columns.join("  ").trim_end())
    }

    /// Text under a line, wrapped.
    fn under(&self, text: &str) -> String {
        let indent = " ".repeat(INDENT);
        paragraph(&indent, text, INDENT, self.look.width)
    }

    /// The facts under a verdict, one each line.
    fn evidence(&self, verdict: &Verdict) -> String {
        let facts: Vec<_> = verdict
            .evidence
            .iter()
            .map(|evidence| (units::moment(evidence.us), printable(&evidence.source), &evidence.fact))
            .collect();
        let moments = facts.iter().map(|(moment, ..)| moment.len()).max().unwrap_or(0);
        let sources = facts.iter().map(|(_, source, _)| width(source)).max().unwrap_or(0);

        let mut text = String::new();
        for (moment, source, fact) in &facts {
            let head = format!("{:INDENT$}{moment:>moments$}  {}  ", "", pad(source, sources));
            text += &self.dimmed(&paragraph(&head, fact, width(&head), self.look.width));
        }
        text
    }

    /// Whole lines, each in faint letters.
    fn dimmed(&self, lines: &str) -> String {
        let paint = |line| self.look.paint(Style::new().dimmed(), line, 0) + "\n";
        lines.lines().map(paint).collect()
    }
}

/// The columns of one line.
struct Line<'a> {
    unix_ns: i64,
    status: (String, Style),
    what: &'a str,
    upstream: &'a Upstream,
    took: String,
    confidence: &'static str,
}

impl<W: Write> Sink for Text<W> {
    fn verdict(&mut self, verdict: &Verdict) -> io::Result<()> {
        let status = match verdict.status {
            Some(status @ 500..) => (status.to_string(), AnsiColor::Red.on_default()),
            Some(status) => (status.to_string(), AnsiColor::Yellow.on_default()),
            None => ("---".to_owned(), AnsiColor::Yellow.on_default()),
        };
        let took = verdict.moments.ended.map(|us| format!("after {}", span(us.unsigned_abs() * 1_000)));
        let mut text = self.line(&Line {
            unix_ns: verdict.unix_ns,
            status,
            what: &verdict.cause.to_string(),
            upstream: &verdict.upstream,
            took: took.unwrap_or_default(),
            confidence: verdict.confidence.name(),
        });
        if self.look.details {
            text += &self.under(&verdict.explanation);
            if !verdict.advice.is_empty() {
                text += &self.under(&format!("Look at: {}", verdict.advice));
            }
            text += &self.dimmed(&self.under(&format!("more: why502 explain {}", verdict.cause)));
        }
        if self.look.evidence {
            text += &self.evidence(verdict);
        }
        self.out.write_all(text.as_bytes())
    }

    fn delayed(&mut self, delayed: &Delayed) -> io::Result<()> {
        let mut text = self.line(&Line {
            unix_ns: delayed.unix_ns,
            status: ("ok".to_owned(), AnsiColor::Green.on_default()),
            what: "delayed",
            upstream: &delayed.upstream,
            took: format!("by {}", span(delayed.delay_us * 1_000)),
            confidence: "",
        });
        if self.look.details {
            text += &self.under(&delayed.explanation);
        }
        self.out.write_all(text.as_bytes())
    }

    fn worker_outlived(&mut self, outlived: &WorkerOutlived) -> io::Result<()> {
        let mut text = self.line(&Line {
            unix_ns: outlived.unix_ns,
            status: ("...".to_owned(), Style::new()),
            what: if outlived.accepted_late { "executed for nobody" } else { "went on for nobody" },
            upstream: &outlived.upstream,
            took: match outlived.accepted_late {
                true => format!("{} later", span(outlived.went_on_us * 1_000)),
                false => format!("for {}", span(outlived.went_on_us * 1_000)),
            },
            confidence: "",
        });
        if self.look.details {
            text += &self.under(&outlived.explanation);
        }
        self.out.write_all(text.as_bytes())
    }

    fn note(&mut self, note: &Note) -> io::Result<()> {
        let line = self.line(&Line {
            unix_ns: note.unix_ns,
            status: ("...".to_owned(), Style::new()),
            what: "note: FastCGI wrote to stderr",
            upstream: note.upstream.as_ref().unwrap_or(&Upstream::Named("an application".to_owned())),
            took: String::new(),
            confidence: "",
        });
        self.out.write_all(line.as_bytes())
    }

    fn answer(&mut self, answered: &Answered) -> io::Result<()> {
        let Answered { unix_ns, status, kind, last, request } = answered;
        let upstream = last.as_ref().and_then(|last| last.upstream.clone());
        let line = self.line(&Line {
            unix_ns: *unix_ns,
            status: (status.to_string(), Style::new()),
            what: &format!("answer: {}", kind.name()),
            upstream: &upstream.unwrap_or_else(|| Upstream::Named("-".to_owned())),
            took: String::new(),
            confidence: "",
        });
        let request = format!("{:INDENT$}{}\n", "", printable(request));
        self.out.write_all((line + &request).as_bytes())
    }

    fn audit(&mut self, report: &Report) -> io::Result<()> {
        self.out.write_all(audit::render(report, &self.look, &self.time_zone).as_bytes())
    }

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        self.out.write_all(summary::render(summary, &self.look).as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests;
