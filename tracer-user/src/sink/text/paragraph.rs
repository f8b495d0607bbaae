//! The width of text, and wrapping.

use textwrap::{Options, WordSplitter, WrapAlgorithm};

use crate::terminal::printable;

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
