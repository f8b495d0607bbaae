//! The Chinese pages say the same as the English ones: the same sections, causes, figures, commands and links.

use std::collections::{BTreeMap, BTreeSet};

use crate::page::{Page, Part};

/// Each page with its translation. In those of `docs/` a heading names what nginx or the kernel calls it, and is the same in both.
const PAGES: [(&str, &str); 3] = [
    ("README.md", "README.zh-CN.md"),
    ("docs/causes.md", "docs/zh-CN/causes.md"),
    ("docs/claims.md", "docs/zh-CN/claims.md"),
];
/// The headings of `docs/` that are words, with what they are in Chinese.
const HEADINGS: [(&str, &str); 4] = [
    ("Causes", "原因"),
    ("By what nginx logs", "按 nginx 的日志查找"),
    ("What is said of 502 and 504, and what was measured", "关于 502 和 504 的流行说法与实测"),
    ("Health checks", "健康检查"),
];

/// What a section holds that is in no language.
#[derive(Debug, Default, PartialEq, Eq)]
struct Section {
    heading: String,
    /// What stands in backticks, and how often.
    codes: BTreeMap<String, usize>,
    links: BTreeMap<String, usize>,
    /// Numbers of two digits and more, and those with a point: smaller ones may be words.
    numbers: BTreeSet<String>,
    fences: Vec<(String, String)>,
}

/// The sections of a page; `link` makes the links of a translation those of its original.
fn sections(
    page: &Page,
    link: impl Fn(&str) -> Option<String>,
    heading: impl Fn(&str) -> String,
) -> Vec<Section> {
    let mut sections = vec![Section::default()];
    for part in &page.parts {
        let section = sections.last_mut().expect("a section");
        match part {
            Part::Heading(found) => {
                let text = format!("{} {}", "#".repeat(found.level), heading(&found.text));
                sections.push(Section { heading: text, ..Section::default() });
            }
            Part::Code(code) => *section.codes.entry(code.clone()).or_default() += 1,
            Part::Link(found) => {
                if let Some(found) = link(found) {
                    *section.links.entry(found).or_default() += 1;
                }
            }
            Part::Prose(said) => section.numbers.extend(numbers(said)),
            Part::Fence(fence) => {
                let marked = fence.mark.as_deref().unwrap_or_default();
                // The reason why a block is not run is a sentence.
                let marked = marked.split(':').next().unwrap_or_default();
                let lines = fence.text.lines().map(|line| match fence.language.as_str() {
                    // So is a comment.
                    "sh" => line.split(" # ").next().unwrap_or_default().trim_end(),
                    _ => line,
                });
                section
                    .fences
                    .push((format!("{marked} {}", fence.language), lines.collect::<Vec<_>>().join("\n")));
            }
        }
    }
    sections
}

/// The numbers of a text.
fn numbers(text: &str) -> Vec<String> {
    let pieces = text.split(|char: char| !char.is_ascii_digit() && char != '.' && char != ',');
    let plain = pieces.map(|piece| piece.trim_matches(['.', ',']).to_owned());
    plain.filter(|piece| piece.len() > 1).collect()
}

#[test]
fn each_translation_has_the_sections_figures_and_links_of_its_original() {
    for (english, chinese) in PAGES {
        let (original, translation) = (Page::read(english), Page::read(chinese));
        let in_docs = english.starts_with("docs/");
        let level = |text: &str| if in_docs { text.to_owned() } else { String::new() };
        // To each other, and from a page of the README's list to its translation, they lead by other paths.
        let wanted = sections(
            &original,
            |link| (!link.contains("zh-CN") && !link.ends_with("README.md")).then(|| link.to_owned()),
            level,
        );
        let found = sections(
            &translation,
            |link| {
                let link = link.replace("docs/zh-CN/", "docs/");
                let link = if in_docs { link.strip_prefix("../").unwrap_or(&link) } else { &link };
                let own = english.trim_start_matches("docs/");
                (link != own && !link.ends_with("README.md") && !link.contains("zh-CN"))
                    .then(|| link.to_owned())
            },
            |text| {
                let known = HEADINGS.iter().find(|(_, chinese)| *chinese == text);
                level(known.map_or(text, |(english, _)| english))
            },
        );
        let pairs = wanted.iter().zip(&found).filter(|(wanted, found)| wanted != found);
        let differ: Vec<_> = pairs.map(|(wanted, found)| format!("{wanted:#?}\n{found:#?}\n")).collect();
        assert!(differ.is_empty(), "{english} and {chinese} differ:\n{}", differ.concat());
        assert_eq!(wanted.len(), found.len(), "{chinese} has other sections");
    }
}

#[test]
fn the_pages_lead_to_each_other() {
    for (english, chinese) in PAGES {
        let file = |path: &str| path.rsplit('/').next().expect("a name").to_owned();
        let there = Page::read(english).links().any(|link| link == chinese.trim_start_matches("docs/"));
        let back = Page::read(chinese).links().any(|link| link.ends_with(&file(english)));
        assert!(there && back, "{english} and {chinese}: {there}, {back}");
    }
}
