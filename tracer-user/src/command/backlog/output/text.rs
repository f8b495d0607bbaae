//! Lines and tables for a person.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::{Timestamp, tz::TimeZone};

use super::{Moment, Output, Summary};
use crate::{
    cause::WallClock as _,
    command::backlog::{Asked, Balance, Check, Outcome, Overflow, Queue, Stage},
    model::{
        clock::{clock_offset, monotonic_ns},
        words::{count, span, times},
    },
    sink::{Look, paragraph},
    terminal::{printable, printable_lines},
};

/// The columns of `unknown` and two blanks.
const VERDICT: usize = 9;

/// Writes lines, and on a terminal a table that is refreshed in place.
pub struct Text<W> {
    out: W,
    look: Look,
    /// The table that is drawn on a terminal.
    live: Option<ProgressBar>,
    /// When listeners were written last (ns, monotonic), and how many connections each had accepted by then.
    before: Vec<(u64, u64)>,
    before_ns: u64,
    /// What was written of each listener last, where no table is drawn.
    lines: Vec<String>,
}

impl<W: Write> Text<W> {
    /// Writes to `out`. If it `is_live`, that is a terminal, on which the table is drawn.
    pub fn new(out: W, look: Look, is_live: bool) -> Self {
        let live = is_live.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            bar.set_style(
                ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar
        });
        Self { out, look, live, before: Vec::new(), before_ns: monotonic_ns(), lines: Vec::new() }
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        match &self.live {
            Some(bar) => {
                bar.println(printable_lines(text.trim_end()));
                Ok(())
            }
            None => self.out.write_all(text.as_bytes()),
        }
    }

    /// How many connections a listener has accepted per second since it was written last.
    fn rate(&self, queue: &Queue, now_ns: u64) -> f64 {
        let before =
            self.before.iter().find(|(sock, _)| *sock == queue.sock).map_or(0, |(_, before)| *before);
        let seconds = now_ns.saturating_sub(self.before_ns).max(1) as f64 / 1e9;
        queue.accepted.saturating_sub(before) as f64 / seconds
    }

    fn table(&self, queues: &[Queue], moment: Moment) -> String {
        let now = monotonic_ns();
        let accepted = if moment == Moment::Last { "ACCEPTED" } else { "ACC/S" };
        let mut table = Table::new();
        table
            .load_style(comfy_table::presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header([
                "LISTENER",
                "NETNS",
                "OWNER",
                "ASKED",
                "LIMIT",
                "FIT",
                "NOW",
                "DEEPEST",
                "FULL FOR",
                accepted,
                "WAIT P50",
                "P99",
                "MAX",
                "OVERFLOWS",
            ]);
        for queue in queues {
            let accepted = match moment {
                Moment::Last => queue.accepted.to_string(),
                Moment::Running => format!("{:.1}", self.rate(queue, now)),
            };
            let wait = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), |us| span(us * 1_000));
            table.add_row([
                printable(&queue.addr.to_string()).into_owned(),
                queue.netns.to_string(),
                owner(queue),
                asked(queue.asked),
                queue.limit.to_string(),
                queue.fits().to_string(),
                queue.depth.to_string(),
                queue.max_depth.to_string(),
                if queue.full_ns == 0 { "-".to_owned() } else { span(queue.full_ns) },
                accepted,
                wait(queue.waits.map(|waits| waits.p50_us)),
                wait(queue.waits.map(|waits| waits.p99_us)),
                wait(queue.waits.map(|waits| waits.max_us)),
                overflows(queue),
            ]);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let mut text = String::new();
        for (number, line) in table.lines().enumerate() {
            let line = line.trim_end();
            let style = if number == 0 { Style::new().bold() } else { Style::new() };
            text += &self.look.paint(style, line, 0);
            text.push('\n');
        }
        text
    }

    /// Where no table is drawn: a line for each listener of which something has changed.
    fn changes(&mut self, queues: &[Queue]) -> io::Result<()> {
        let lines: Vec<String> = queues.iter().map(line).collect();
        let time = clock(monotonic_ns());
        for line in lines.iter().filter(|line| !self.lines.contains(line)) {
            writeln!(self.out, "{time}  {line}")?;
        }
        self.lines = lines;
        Ok(())
    }
}

fn clock(ns: u64) -> String {
    let time = Timestamp::from_nanosecond(clock_offset().unix_ns(ns).into()).unwrap_or(Timestamp::UNIX_EPOCH);
    time.to_zoned(TimeZone::system()).strftime("%H:%M:%S%.3f").to_string()
}

fn owner(queue: &Queue) -> String {
    queue
        .owner
        .as_ref()
        .map_or_else(|| "-".to_owned(), |owner| format!("{} {}", printable(&owner.comm), owner.pid))
}

fn asked(asked: Asked) -> String {
    match asked {
        Asked::Exactly(asked) => asked.to_string(),
        Asked::AtLeast(asked) => format!(">={asked}"),
        Asked::Unknown => "-".to_owned(),
    }
}

fn overflows(queue: &Queue) -> String {
    let stages = [(queue.syn_drops, "syn"), (queue.ack_drops, "ack"), (queue.unix_full, "unix")];
    let parts: Vec<String> =
        stages.iter().filter(|(n, _)| *n > 0).map(|(n, stage)| format!("{n} {stage}")).collect();
    if parts.is_empty() { "0".to_owned() } else { parts.join(", ") }
}

/// A listener in one line.
fn line(queue: &Queue) -> String {
    let waits = match queue.waits {
        None => String::new(),
        Some(waits) => format!(
            ", waited {} (p50), {} (p99), {} at most",
            span(waits.p50_us * 1_000),
            span(waits.p99_us * 1_000),
            span(waits.max_us * 1_000)
        ),
    };
    format!(
        "{}  {} of {} in the queue (backlog {} + 1), {} at most, {} accepted{waits}, overflows: {}",
        printable(&queue.addr.to_string()),
        queue.depth,
        queue.fits(),
        queue.limit,
        queue.max_depth,
        queue.accepted,
        overflows(queue)
    )
}

fn fate(overflow: &Overflow) -> String {
    let lasted = span(overflow.lasted_ns);
    match overflow.outcome {
        Outcome::GotIn => format!("got in after {lasted}"),
        Outcome::TimedOut => format!("timed out after {lasted}: its kernel stopped trying"),
        Outcome::Reset => format!("was reset after {lasted}"),
        Outcome::GaveUp => format!("gave up after {lasted}: its process closed the socket"),
        Outcome::Refused => "was refused (EAGAIN)".to_owned(),
        Outcome::Failed => {
            format!("failed with errno {} after {lasted}", overflow.errno.unwrap_or_default())
        }
        Outcome::Silent => format!("was last heard of after {lasted}"),
        Outcome::Waiting => format!("was still trying, last heard of after {lasted}"),
    }
}

fn victim(overflow: &Overflow) -> String {
    let (stage, met) = match overflow.stage {
        Stage::Syn => ("syn", "its SYN was dropped"),
        Stage::FinalAck => ("final ack", "the end of its handshake was dropped"),
        Stage::Unix => ("unix", "it met the full queue"),
    };
    let who = match (&overflow.client, &overflow.process) {
        (Some(client), Some(process)) => format!("{client} ({} {})", printable(&process.comm), process.pid),
        (None, Some(process)) => format!("pid:{} ({})", process.pid, printable(&process.comm)),
        _ => overflow.name(),
    };
    let what = if overflow.is_nginx { ", an exchange of nginx's" } else { "" };
    format!(
        "{}  {:<10} {}  {who}{what}: {met} {}; it {}\n",
        clock(overflow.first_ns),
        stage,
        printable(&overflow.listener.to_string()),
        times(overflow.attempts.into()),
        fate(overflow)
    )
}

impl<W: Write> Output for Text<W> {
    fn queues(&mut self, queues: &[Queue], moment: Moment) -> io::Result<()> {
        let none = "no listener to tell of yet";
        let table = if queues.is_empty() { format!("{none}\n") } else { self.table(queues, moment) };
        match (&self.live, moment) {
            (Some(bar), Moment::Running) => {
                bar.set_message(printable_lines(table.trim_end()).into_owned());
                bar.tick();
            }
            (_, Moment::Last) => {
                if let Some(bar) = self.live.take() {
                    bar.finish_and_clear();
                }
                write!(self.out, "\n{table}")?;
            }
            (None, Moment::Running) => self.changes(queues)?,
        }
        self.before = queues.iter().map(|queue| (queue.sock, queue.accepted)).collect();
        self.before_ns = monotonic_ns();
        Ok(())
    }

    fn forgotten(&mut self, _queue: &Queue) -> io::Result<()> {
        Ok(())
    }

    fn overflow(&mut self, overflow: &Overflow) -> io::Result<()> {
        let text = victim(overflow);
        self.say(&text)
    }

    fn balance(&mut self, balances: &[Balance]) -> io::Result<()> {
        for balance in balances {
            let style = match balance.difference() {
                Some(0) => AnsiColor::Green.on_default(),
                _ => AnsiColor::Yellow.on_default(),
            };
            let kernel = balance.kernel().map_or_else(
                || "unknown".to_owned(),
                |kernel| format!("{} overflows, {} drops", kernel.overflows, kernel.drops),
            );
            let head = format!(
                "network namespace {}: {} seen, by the kernel {kernel}: ",
                balance.netns,
                count(balance.seen + balance.elsewhere, "overflow")
            );
            let text = format!("{head}{}", balance.explanation());
            let text = paragraph("", &text, 0, self.look.width);
            write!(self.out, "{}", self.look.paint(style, text.trim_end(), 0))?;
            writeln!(self.out)?;
        }
        Ok(())
    }

    fn checks(&mut self, checks: &[Check]) -> io::Result<()> {
        for Check { claim, holds, figures } in checks {
            let (word, colour) = match holds {
                Some(true) => ("true", AnsiColor::Green),
                Some(false) => ("false", AnsiColor::Red),
                None => ("unknown", AnsiColor::Yellow),
            };
            let head = self.look.paint(colour.on_default(), word, VERDICT);
            self.out.write_all(
                paragraph(&head, &format!("{claim}: {figures}"), VERDICT, self.look.width).as_bytes(),
            )?;
        }
        Ok(())
    }

    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        let Summary {
            elapsed_ns,
            listeners,
            forgotten,
            victims,
            unnamed,
            lost,
            unattributed,
            unwatched,
            uncompared,
        } = *summary;
        write!(
            self.out,
            "{} watched for {}; {} met a full queue",
            count(listeners as u64, "listener"),
            span(elapsed_ns),
            count(victims, "connection")
        )?;
        for (number, what) in [
            (unnamed, "without a name, for want of room"),
            (lost, "lost on the way from the kernel"),
            (unattributed, "at a listener that is not known"),
        ] {
            if number > 0 {
                write!(self.out, "; {number} {what}")?;
            }
        }
        if unwatched > 0 {
            write!(self.out, "; {} not watched, for want of room", count(unwatched, "listener"))?;
        }
        if forgotten > 0 {
            write!(self.out, "; {} closed too long ago to be listed", count(forgotten, "listener"))?;
        }
        if uncompared > 0 {
            write!(self.out, "; {uncompared} times a network namespace was not compared, for want of room")?;
        }
        writeln!(self.out)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
