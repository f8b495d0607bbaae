//! Every column, word and key, in a sentence each.

use ratatui::{Frame, layout::Rect, style::Style};

use super::{super::choice::Choice, strong};

/// A heading, and what each word under it means.
type Section = (&'static str, &'static [(&'static str, &'static str)]);

pub const SECTIONS: [Section; 8] = [
    (
        "The first line",
        &[
            ("live", "This host, as it is now."),
            (
                "from a file",
                "What was recorded, being played or taken in; the end of the file: all of it is there.",
            ),
            ("paused", "The screen stands still; tracing and recording go on."),
            ("exchanges", "Requests that nginx sent to an upstream and that are over, well or not."),
            (
                "failed",
                "Exchanges that have a verdict: nginx answered 502, 504 or 499 for them, or tried another server.",
            ),
            (
                "lost",
                "Records that the kernel could not hand over, and connections that were not watched: failures may be missing.",
            ),
        ],
    ),
    (
        "1 causes",
        &[
            (
                "Behind many",
                "One thing that explains several failures: a pool that cannot keep up, who kills workers, a port at which \
              nobody listens.",
            ),
            ("CAUSE", "Why the exchanges failed, in the words of `why502 explain`, which says what to do."),
            ("UPSTREAM", "Where nginx sent the requests: an address, or the path of a unix socket."),
            (
                "SURE",
                "proven: both ends were seen, or nginx and the kernel agree. inferred: one end was seen. incomplete: records were lost.",
            ),
            ("NOW", "Failures a second, over the last five seconds."),
            ("1 MIN", "Failures in the last minute."),
            ("10 MIN", "Failures in the last ten minutes."),
            ("TOTAL", "Failures since the beginning."),
            (
                "SHARE",
                "Of all exchanges with this upstream, the part that failed like this; - where they are not counted by upstream.",
            ),
            ("LAST", "How long ago the last one was: seconds, minutes, hours or days."),
            (
                "LAST MINUTE",
                "Failures of each of the last sixty seconds, the newest at the right; the highest bar is the most there were.",
            ),
        ],
    ),
    (
        "2 failures",
        &[
            ("TIME", "When nginx's end of the exchange was over, in this host's time zone."),
            ("STATUS", "What nginx answers, or logs as $upstream_status; --- where it answers nothing."),
            ("TOOK", "From nginx's connect to the end."),
            (
                "WHAT HAPPENED",
                "The explanation, cut where the screen ends; Enter unfolds all of it, with each fact and its moment after \
              connect.",
            ),
        ],
    ),
    (
        "3 queues",
        &[
            ("LISTENER", "The socket at which an upstream accepts connections."),
            (
                "QUEUE",
                "How full its accept queue was at the last look, once a second: connections that no worker has taken yet.",
            ),
            (
                "DEPTH",
                "The same in figures: those that wait, and how many may (listen's backlog, cut to net.core.somaxconn).",
            ),
            ("DEEPEST", "The most that waited at any look."),
            ("FULL", "Looks that found it full."),
            (
                "FAILED",
                "Exchanges that failed because it was full, in this view; in the others, exchanges that failed.",
            ),
            ("LATE", "Exchanges that succeeded late, because a full queue dropped their SYN."),
            ("UNACCEPTED", "Exchanges that waited in it until nginx gave up."),
            (
                "OVERFLOWS",
                "How often a connection met it full, each attempt counted, since the view was opened; - in a file, which does not tell.",
            ),
            (
                "WAIT P50",
                "The median of how long connections waited to be accepted: live, of every connection since the view was opened; in a \
              file, of failed exchanges.",
            ),
            ("P99", "The wait that one connection of a hundred exceeds."),
        ],
    ),
    (
        "4 workers",
        &[
            ("POOL", "The upstream that the workers serve."),
            ("WORKERS", "How many there are; - where nobody could look."),
            (
                "BUSY",
                "Workers that do anything but wait for a connection; in a file, those that had a request for more than a second.",
            ),
            (
                "IDLE",
                "Workers that wait for a connection: with none left, the next one waits in the accept queue.",
            ),
            ("WHAT THE BUSY ONES DO", "What they were found doing at the last look, and how many of them."),
            ("DIED", "When the exchange was over that the worker had when it died."),
            ("WORKER", "Which process it was."),
            ("OF", "The signal that ended it, or that it ended of itself."),
            ("SENT BY", "The process that sent the signal."),
        ],
    ),
    (
        "5 nginx",
        &[
            ("PID", "An nginx process: a master, or a worker that had failures."),
            ("WHAT", "Which of the two."),
            ("WORDS", "Lines of its error log about these failures that were heard as it said them."),
            ("BINARY", "The program that it runs."),
            ("HEARD", "How often this was heard."),
            ("LEVEL", "How important it is to nginx."),
            (
                "WORD",
                "What nginx said of an upstream; nothing explains: a word about a failure that has no verdict.",
            ),
        ],
    ),
    (
        "Keys",
        &[
            ("1 2 3 4 5, Tab", "Show a view, or the next one."),
            ("Up Down PgUp PgDn Home End", "Select a line, or scroll; j and k do as well."),
            ("Enter", "Unfold the selected failure; in causes: show the failures of the selected line."),
            ("Esc", "One step back; then: show all again."),
            (
                "/",
                "Show only what has what you type: a cause, an upstream, a process, a word of the explanation.",
            ),
            (
                "u c f",
                "Show only the selected line's upstream; its cause; only what is proven, inferred, incomplete, and all again.",
            ),
            ("o r", "Sort by the next column; the other way round."),
            ("p", "Pause, and go on."),
            (
                "y Y",
                "Copy the selected failure as text; as JSON: into a new file, and to the clipboard where the terminal takes it (OSC 52).",
            ),
            (
                "s",
                "Write the evidence of the last minutes (--last) to a file (--output): why502 report and why502 top read it.",
            ),
            ("q, Ctrl-C", "Leave."),
        ],
    ),
    (
        "Elsewhere",
        &[
            ("why502 explain", "What a cause means, how to make it happen, and what to do."),
            ("why502 backlog", "Every connection's wait, and the name of each client that met a full queue."),
        ],
    ),
];

pub fn draw(frame: &mut Frame, area: Rect, choice: &mut Choice) {
    let mut lines = Vec::new();
    for (heading, words) in SECTIONS {
        if !lines.is_empty() {
            lines.push((String::new(), Style::new()));
        }
        lines.push((heading.to_owned(), strong()));
        for (word, sentence) in words {
            let text = super::wrapped(&format!("{word}: {sentence}"), area.width.saturating_sub(2));
            lines.extend(text.into_iter().map(|line| (format!("  {line}"), Style::new())));
        }
    }
    choice.page = usize::from(area.height);
    let from = choice.help.unwrap_or(0);
    choice.help = Some(super::lines(frame, area, &lines, from));
}
