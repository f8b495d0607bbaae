//! Links.

use std::{collections::BTreeSet, path::Path};

use crate::page::{Page, root};

/// A first page that is read to its end.
const LARGEST_README: usize = 8_000;

/// Where a link of a page leads, below the workspace's folder: the file and the anchor.
fn target(page: &Page, link: &str) -> (String, String) {
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let folder = page.path.parent().expect("a page's folder");
    let mut parts: Vec<_> = Vec::new();
    let whole = if path.is_empty() { page.path.clone() } else { folder.join(path) };
    for part in whole.iter().map(|part| part.to_str().expect("UTF-8")) {
        match part {
            "." => {}
            ".." => drop(parts.pop().expect("a link that stays in the workspace")),
            part => parts.push(part),
        }
    }
    (parts.join("/"), anchor.to_owned())
}

fn inside(page: &Page) -> impl Iterator<Item = (String, String)> {
    page.links().filter(|link| !link.contains("://")).map(|link| target(page, link))
}

#[test]
fn each_link_leads_somewhere() {
    let pages = Page::all();
    let (mut dead, mut count) = (Vec::new(), 0);
    for page in &pages {
        for (path, anchor) in inside(page) {
            count += 1;
            let there = pages.iter().find(|page| page.path == Path::new(&path));
            let is_there = match there {
                Some(there) => anchor.is_empty() || there.headings().any(|heading| heading.anchor == anchor),
                None => anchor.is_empty() && root().join(&path).exists(),
            };
            if !is_there {
                dead.push(format!("{}: {path}#{anchor}", page.path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "links that lead nowhere:\n{}", dead.join("\n"));
    assert!(count > 300, "{count} links");
}

#[test]
fn no_anchor_is_ambiguous() {
    for page in Page::all() {
        let mut seen = BTreeSet::new();
        for heading in page.headings() {
            assert!(seen.insert(&heading.anchor), "{}: two of #{}", page.path.display(), heading.anchor);
        }
    }
}

#[test]
fn the_readmes_are_short_and_lead_to_each_page() {
    for name in ["README.md", "README.zh-CN.md"] {
        let readme = Page::read(name);
        assert!(readme.text.len() <= LARGEST_README, "{name}: {} bytes", readme.text.len());
        let linked: BTreeSet<_> = inside(&readme).map(|(path, _)| path).collect();
        for page in Page::all() {
            let path = page.path.to_str().expect("UTF-8");
            let is_chinese = path.starts_with("docs/zh-CN/");
            // A Chinese page stands for the English one in the Chinese list.
            let its_own = path.starts_with("docs/") && (!is_chinese || name.contains("zh-CN"));
            let is_reached = linked.contains(path)
                || (name.contains("zh-CN") && linked.contains(&path.replacen("docs/", "docs/zh-CN/", 1)));
            assert!(!its_own || path.ends_with("SUMMARY.md") || is_reached, "{name} does not lead to {path}");
        }
    }
}

#[test]
fn the_book_has_each_page_once() {
    let summary = Page::read("docs/SUMMARY.md");
    let listed: Vec<_> = inside(&summary).map(|(path, _)| path).collect();
    let once: BTreeSet<_> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), once.len(), "{listed:?}");
    let pages = Page::all();
    let docs = pages.iter().map(|page| page.path.to_str().expect("UTF-8").to_owned());
    let docs: BTreeSet<_> =
        docs.filter(|path| path.starts_with("docs/") && !path.ends_with("SUMMARY.md")).collect();
    assert_eq!(once, docs);
}
