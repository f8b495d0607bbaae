//! A page of Markdown.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// The documents that are no page of `docs/`.
const BESIDE: [&str; 5] = ["README.md", "README.zh-CN.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"];

/// A page, and what a test wants to know of it.
pub struct Page {
    /// Where it is, below the workspace's folder.
    pub path: PathBuf,
    pub text: String,
    pub parts: Vec<Part>,
}

/// What a page consists of, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Heading(Heading),
    /// Where a link or a picture leads.
    Link(String),
    /// What stands in backticks.
    Code(String),
    Prose(String),
    Fence(Fence),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    pub level: usize,
    pub text: String,
    pub anchor: String,
}

/// A block of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    pub language: String,
    pub text: String,
    /// The comment just above it.
    pub mark: Option<String>,
    /// Where its text is in the page's.
    pub place: Range<usize>,
    pub line: usize,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace")
}

impl Page {
    pub fn read(path: impl AsRef<Path>) -> Page {
        let path = path.as_ref();
        let text = fs::read_to_string(root().join(path))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let parts = parts(&text);
        Page { path: path.to_owned(), text, parts }
    }

    /// All of them.
    pub fn all() -> Vec<Page> {
        let mut paths: Vec<_> = BESIDE.iter().map(PathBuf::from).collect();
        let mut folders = vec![PathBuf::from("docs")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(root().join(&folder)).expect("a folder") {
                let entry = entry.expect("an entry");
                let path = folder.join(entry.file_name());
                if entry.file_type().expect("a file's type").is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|ending| ending == "md") {
                    paths.push(path);
                }
            }
        }
        paths.sort();
        paths.iter().map(Page::read).collect()
    }

    pub fn headings(&self) -> impl Iterator<Item = &Heading> {
        self.parts
            .iter()
            .filter_map(|part| if let Part::Heading(heading) = part { Some(heading) } else { None })
    }

    pub fn links(&self) -> impl Iterator<Item = &str> {
        self.parts
            .iter()
            .filter_map(|part| if let Part::Link(link) = part { Some(link.as_str()) } else { None })
    }

    pub fn codes(&self) -> impl Iterator<Item = &str> {
        self.parts
            .iter()
            .filter_map(|part| if let Part::Code(code) = part { Some(code.as_str()) } else { None })
    }

    pub fn fences(&self) -> impl Iterator<Item = &Fence> {
        self.parts.iter().filter_map(|part| if let Part::Fence(fence) = part { Some(fence) } else { None })
    }
}

fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let (mut heading, mut fence): (Option<Heading>, Option<Fence>) = (None, None);
    let (mut html, mut comment): (String, Option<String>) = (String::new(), None);
    for (event, place) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { level, .. }) => {
                heading = Some(Heading { level: level as usize, text: String::new(), anchor: String::new() });
            }
            Event::End(TagEnd::Heading(_)) => {
                let mut heading = heading.take().expect("a heading's begin");
                heading.anchor = anchor(&heading.text);
                parts.push(Part::Heading(heading));
            }
            Event::Start(Tag::CodeBlock(kind)) => {
                let language = match kind {
                    CodeBlockKind::Fenced(language) => language.to_string(),
                    CodeBlockKind::Indented => String::new(),
                };
                let line = text[..place.start].lines().count() + 1;
                // Behind the opening fence, until there is text.
                let inside = place.start + text[place.start..].find('\n').map_or(0, |at| at + 1);
                let place = inside..inside;
                fence = Some(Fence { language, text: String::new(), mark: comment.take(), place, line });
            }
            Event::End(TagEnd::CodeBlock) => parts.push(Part::Fence(fence.take().expect("a fence's begin"))),
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                parts.push(Part::Link(dest_url.to_string()));
            }
            Event::Start(Tag::HtmlBlock) => html.clear(),
            Event::Html(line) => html += &line,
            Event::End(TagEnd::HtmlBlock) => {
                let inside = html.trim().strip_prefix("<!--").and_then(|inside| inside.strip_suffix("-->"));
                comment = inside.map(|inside| inside.trim().to_owned());
            }
            Event::Text(said) => match (&mut heading, &mut fence) {
                (Some(heading), _) => heading.text += &said,
                (None, Some(fence)) => {
                    fence.text += &said;
                    fence.place.end = place.end;
                }
                (None, None) => parts.push(Part::Prose(said.to_string())),
            },
            Event::Code(code) => match &mut heading {
                Some(heading) => heading.text += &code,
                None => parts.push(Part::Code(code.to_string())),
            },
            Event::Start(Tag::Paragraph | Tag::List(_) | Tag::Table(_) | Tag::BlockQuote(_)) => {
                comment = None
            }
            _ => {}
        }
    }
    parts
}

/// A heading's anchor, as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|char| char.is_alphanumeric() || " -_".contains(*char));
    kept.map(|char| if char == ' ' { '-' } else { char.to_ascii_lowercase() }).collect()
}
