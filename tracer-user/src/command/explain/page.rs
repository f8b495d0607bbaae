//! `docs/causes.md`: the one source. It is Markdown of few forms: a heading for each kind of causes and for each cause, paragraphs, and lists
//! whose items begin with a label in bold.

use crate::model::cause::Cause;

/// The page.
pub(super) const PAGE: &str = include_str!("../../../../docs/causes.md");

/// What begins the heading of a cause.
const OF_SECTION: &str = "### ";

/// What begins the heading of a kind of causes.
const OF_GROUP: &str = "## ";

/// What the page says of one cause.
#[derive(Debug)]
pub(super) struct Section {
    /// Its name, as `reset/worker_killed`.
    pub(super) name: &'static str,
    pub(super) blocks: Vec<Block>,
}

/// What it says of all causes of one kind.
#[derive(Debug)]
pub(super) struct Group {
    /// The kind, as `reset`.
    pub(super) name: &'static str,
    pub(super) intro: Vec<Block>,
}

/// A paragraph, or an item of a list with its label.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) label: Option<&'static str>,
    /// Without line breaks and marks.
    pub(super) text: String,
}

/// What the page says of this cause.
pub(super) fn section(cause: Cause) -> Option<Section> {
    let wanted = cause.to_string();
    let (name, body) = headed(OF_SECTION).find(|(name, _)| *name == wanted)?;
    Some(Section { name, blocks: blocks(body) })
}

/// What the page says of this kind of causes.
pub(super) fn group(kind: &str) -> Option<Group> {
    let (name, body) = headed(OF_GROUP).find(|(name, _)| *name == kind)?;
    Some(Group { name, intro: blocks(body) })
}

/// Each heading that begins so, and what stands under it up to the next one of any rank.
pub(super) fn headed(mark: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let pieces = PAGE.split("\n#").skip(1);
    pieces.filter_map(move |piece| {
        let (heading, body) = piece.split_once('\n').unwrap_or((piece, ""));
        // The first `#` went with the split.
        Some((heading.strip_prefix(&mark[1..])?.trim(), body))
    })
}

fn blocks(body: &'static str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_open = false;
    for line in body.lines().map(str::trim) {
        if line.is_empty() {
            is_open = false;
            continue;
        }
        let (label, said) = match line.strip_prefix("- ") {
            Some(item) => labelled(item),
            None => (None, line),
        };
        match blocks.last_mut().filter(|_| is_open && !line.starts_with("- ")) {
            Some(block) => {
                block.text.push(' ');
                block.text += &plain(said);
            }
            None => blocks.push(Block { label, text: plain(said) }),
        }
        is_open = true;
    }
    blocks
}

/// `**label**: text`.
fn labelled(item: &str) -> (Option<&str>, &str) {
    let parts = item.strip_prefix("**").and_then(|item| item.split_once("**: "));
    parts.map_or((None, item), |(label, text)| (Some(label), text))
}

/// The same without links. What stands in backticks keeps them, as in verdicts.
fn plain(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, link)) = rest.split_once('[') {
        let Some((shown, after)) = link.split_once("](") else { break };
        let Some((_, after)) = after.split_once(')') else { break };
        text += before;
        text += shown;
        rest = after;
    }
    text + rest
}
