//! Text that is safe to print, its width, and wrapping.

use std::borrow::Cow;

use textwrap::{Options, WordSplitter, WrapAlgorithm};

/// Text narrower than this is harder to read than text that begins further left.
const NARROWEST: usize = 30;

/// How many columns the text takes.
pub fn width(text: &str) -> usize {
    textwrap::core::display_width(text)
}

/// The text, then blanks up to `columns`.
pub fn pad(text: &str, columns: usize) -> String {
    let blanks = columns.saturating_sub(width(text));
    format!("{text}{:blanks$}", "")
}

/// The text with what would steer the terminal spelled out: names of processes and sockets are anyone's to choose.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        if steers(char) {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    Cow::Owned(shown)
}

/// Control characters, Unicode's line breaks, and the marks that turn the direction of writing.
fn steers(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text after `head`, wrapped at `columns`; further lines begin at `indent`. Words are never torn: addresses and paths
/// are there to be copied.
pub fn paragraph(head: &str, text: &str, indent: usize, columns: usize) -> String {
    let indent = if indent + NARROWEST > columns { indent.min(super::INDENT) } else { indent };
    let hanging = " ".repeat(indent);
    let options = Options::new(columns.max(indent + NARROWEST))
        .initial_indent(head)
        .subsequent_indent(&hanging)
        .break_words(false)
        .wrap_algorithm(WrapAlgorithm::FirstFit)
        .word_splitter(WordSplitter::NoHyphenation);
    let mut wrapped = textwrap::fill(printable(text).trim_end(), options);
    wrapped.push('\n');
    wrapped
}
