//! All that reaches a terminal: standard output and standard error. Names of processes, paths of sockets, lines of logs and whole
//! files of evidence are anyone's to choose, so nothing of them may steer it.

use std::{
    borrow::Cow,
    fmt,
    io::{self, BufWriter, IsTerminal as _, Stdout, Write},
    sync::{Mutex, PoisonError},
};

use crate::model::failure::Failure;

/// The longest notice, in characters: what an error quotes of a file may be megabytes.
const MOST_NOTICE: usize = 4_096;

/// How a character is written that would steer the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// As Rust does: `\u{1b}`.
    Text,
    /// As JSON does: `\u001b`. JSON has such characters in strings only.
    Json,
}

/// Writes what cannot steer a terminal: printable characters and line feeds, and in text also the colours (`ESC [ ... m`). All else
/// is spelled out. Each write has to hold whole characters.
#[derive(Debug)]
pub struct Screen<W> {
    out: W,
    spelling: Spelling,
}

/// So much of what a storm has to say goes out at once (bytes).
const AT_ONCE: usize = 64 << 10;

/// Standard output, for text.
pub fn text() -> Screen<BufWriter<Stdout>> {
    Screen { out: BufWriter::with_capacity(AT_ONCE, io::stdout()), spelling: Spelling::Text }
}

/// Standard output, for JSON.
pub fn json() -> Screen<BufWriter<Stdout>> {
    Screen { out: BufWriter::with_capacity(AT_ONCE, io::stdout()), spelling: Spelling::Json }
}

/// Any output, for JSON: `tail -f` shows a file on a terminal.
pub fn json_into<W>(out: W) -> Screen<W> {
    Screen { out, spelling: Spelling::Json }
}

/// Standard output, for what no terminal is meant to show.
///
/// # Errors
/// If it is a terminal.
pub fn bytes() -> io::Result<BufWriter<Stdout>> {
    let stdout = io::stdout();
    if stdout.is_terminal() {
        return Err(io::Error::other(
            "a terminal is no place for it: send it to a file, as in `> shared.zst`",
        ));
    }
    Ok(BufWriter::new(stdout))
}

/// What a write to standard output came to.
///
/// # Errors
/// [`Failure::Closed`] if nobody reads any more; else what the system says.
pub fn written(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::Closed,
        _ => anyhow::Error::from(error).context("standard output cannot be written").into(),
    })
}

/// Writes all that a command has to say to standard output. That its reader has gone is no error.
///
/// # Errors
/// Of the system.
pub fn print(mut out: impl Write, text: &[u8]) -> Result<(), Failure> {
    match written(out.write_all(text).and_then(|()| out.flush())) {
        Err(Failure::Closed) => Ok(()),
        result => result,
    }
}

/// Reports something to a person, in one line on standard error that begins with the program's name.
#[macro_export]
macro_rules! notice {
    ($($text:tt)*) => { $crate::terminal::notice(format_args!($($text)*)) };
}

/// See [`notice!`](crate::notice).
pub fn notice(text: fmt::Arguments<'_>) {
    let mut line = format!("why502: {}", printable(&text.to_string()));
    if let Some((end, _)) = line.char_indices().nth(MOST_NOTICE) {
        line.truncate(end);
        line += " [...]";
    }
    line.push('\n');
    complain(&line);
}

/// Who takes what is said on standard error, while something is drawn on the terminal that it would run into.
static TAKER: Mutex<Option<Taker>> = Mutex::new(None);

type Taker = Box<dyn Fn(&str) + Send>;

/// As long as it lives, what is said on standard error goes elsewhere.
#[derive(Debug)]
pub struct Diversion(());

/// Lets somebody else take what is said on standard error, in whole lines, until the result is dropped.
pub fn divert(taker: impl Fn(&str) + Send + 'static) -> Diversion {
    *TAKER.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(taker));
    Diversion(())
}

impl Drop for Diversion {
    fn drop(&mut self) {
        *TAKER.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Standard error is standard error again, in the middle of a panic.
pub fn end_diversion() {
    // Whoever holds it is taking something: a panic of his own must not wait for himself.
    if let Ok(mut there) = TAKER.try_lock() {
        *there = None;
    }
}

/// Says lines on standard error, or to whoever takes them instead: what clap has to say, with its colours.
pub fn complain(lines: &str) {
    if let Ok(taker) = TAKER.try_lock()
        && let Some(taker) = &*taker
    {
        return taker(lines);
    }
    complain_here(lines);
}

/// Writes lines to standard error as [`Screen`] does, whoever else would take them.
pub fn complain_here(lines: &str) {
    // Nobody is left to be shown that nobody reads standard error.
    let _ = io::stderr().lock().write_all(shown(lines, Spelling::Text).as_bytes());
}

/// Whether standard error shows colours.
pub fn complains_in_colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The text with what would steer the terminal spelled out, line feeds and colours included.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut printable = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        spell(char, Spelling::Text, &mut printable);
    }
    Cow::Owned(printable)
}

/// Text made of several printable pieces: its line feeds and colours stay.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    shown(text, Spelling::Text)
}

fn spell(char: char, spelling: Spelling, to: &mut String) {
    match spelling {
        _ if !steers(char) => to.push(char),
        Spelling::Text => to.extend(char.escape_default()),
        Spelling::Json => *to += &format!("\\u{:04x}", u32::from(char)),
    }
}

fn shown(text: &str, spelling: Spelling) -> Cow<'_, str> {
    if !text.contains(|char| steers(char) && char != '\n') {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        if spelling == Spelling::Text
            && let Some(length) = colour(rest)
        {
            shown += &rest[..length];
            rest = &rest[length..];
            continue;
        }
        match char {
            '\n' => shown.push(char),
            char => spell(char, spelling, &mut shown),
        }
        rest = &rest[char.len_utf8()..];
    }
    Cow::Owned(shown)
}

/// The length of a sequence that only sets colours and the like (SGR), if the text begins with one.
fn colour(text: &str) -> Option<usize> {
    let figures = text.strip_prefix("\u{1b}[")?;
    let end = figures.find(|char: char| !char.is_ascii_digit() && char != ';')?;
    figures[end..].starts_with('m').then_some("\u{1b}[".len() + end + 1)
}

/// Control characters, Unicode's line breaks, and the marks that turn the direction of writing.
fn steers(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether these are printable ASCII and line feeds, as nearly all that is written is: nothing of it need be looked at as characters.
fn is_plain(bytes: &[u8]) -> bool {
    // To the end, whatever is found: so the processor looks at many at a time.
    bytes.iter().fold(true, |is_plain, byte| is_plain & matches!(byte, b' '..=b'~' | b'\n'))
}

impl<W: Write> Write for Screen<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if is_plain(bytes) {
            self.out.write_all(bytes)?;
            return Ok(bytes.len());
        }
        for chunk in bytes.utf8_chunks() {
            self.out.write_all(shown(chunk.valid(), self.spelling).as_bytes())?;
            if !chunk.invalid().is_empty() {
                self.out.write_all("\u{fffd}".as_bytes())?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// A title, the screen cleared, C1's CSI, a line forged, the direction turned, and a beep.
    const HOSTILE: &str = "a\u{1b}]0;x\u{7}\u{1b}[2J\u{9b}31m\rb\u{202e}c\u{2066}d\u{7f}";

    fn written(spelling: Spelling, bytes: &[u8]) -> String {
        let mut screen = Screen { out: Vec::new(), spelling };
        screen.write_all(bytes).unwrap();
        String::from_utf8(screen.out).unwrap()
    }

    #[test]
    fn nothing_but_lines_and_colours_gets_through() {
        let text = written(Spelling::Text, format!("{HOSTILE}\n\u{1b}[1;31mred\u{1b}[0m\n").as_bytes());
        assert!(text.ends_with("\n\u{1b}[1;31mred\u{1b}[0m\n"), "{text:?}");
        assert_eq!(text.chars().filter(|char| steers(*char)).count(), 4, "{text:?}");
        assert_eq!(written(Spelling::Text, b"a\xff\xfeb\n"), "a\u{fffd}\u{fffd}b\n");
        assert_eq!(written(Spelling::Text, "\u{1b}[31".as_bytes()), "\\u{1b}[31");
        assert_eq!(printable("\u{1b}[31mé\n"), "\\u{1b}[31mé\\n");
    }

    #[test]
    fn json_stays_the_json_that_it_was() {
        let line = serde_json::to_string(HOSTILE).unwrap();
        let shown = written(Spelling::Json, line.as_bytes());
        assert!(!shown.contains(steers), "{shown:?}");
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), HOSTILE);
    }

    /// Where standard output and standard error may be named, and why.
    const EXCEPTIONS: [(&str, &str); 6] = [
        ("terminal.rs", "this is the place"),
        ("sink/text/look.rs", "asks the terminal for its size and writes nothing"),
        (
            "command/backlog/output/text.rs",
            "indicatif draws the table that stays in place; it is given printable lines",
        ),
        (
            "sink/text/status.rs",
            "indicatif draws the line at the bottom; it is given causes and figures only",
        ),
        ("sink/top/screen.rs", "ratatui draws cells, of text that was made printable"),
        ("command/backlog/experiment/mod.rs", "indicatif draws a bar without any text from outside"),
    ];

    #[test]
    fn nothing_else_writes_to_a_terminal() {
        // Put together, so that this is no such place.
        let words = ["print", "eprint", "dbg", "println", "eprintln"].map(|name| format!("{name}!("));
        let ends = ["out()", "err()", "ProgressDrawTarget", "ProgressBar::new"].map(|end| match end {
            "out()" | "err()" => format!("std{end}"),
            other => other.to_owned(),
        });
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut open = vec![folder.clone()];
        let mut seen = 0;
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let name = path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
            if EXCEPTIONS.iter().any(|(exception, _)| *exception == name) {
                seen += 1;
                continue;
            }
            let code = fs::read_to_string(&path).unwrap_or_default();
            for (number, line) in code.lines().enumerate() {
                let is_call = |word: &String| {
                    let at = line.find(word.as_str());
                    at.is_some_and(|at| {
                        !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
                    })
                };
                let found = words.iter().chain(&ends).any(is_call);
                assert!(
                    !found || line.trim_start().starts_with("//"),
                    "src/{name}:{}: {}: use notice! or terminal",
                    number + 1,
                    line.trim()
                );
            }
        }
        assert_eq!(seen, EXCEPTIONS.len(), "an exception is for a file that is gone");
    }
}
