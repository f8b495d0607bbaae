//! The figures in docs/cost.md, between two marks.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

/// Where it stands, in the workspace.
pub(crate) const PATH: &str = "docs/cost.md";

const BEGIN: &str = "<!-- bench:begin -->\n";
const END: &str = "<!-- bench:end -->";

/// Replaces what stands between the marks.
pub(crate) fn renew(workspace: &Path, text: &str) -> Result<()> {
    let path = workspace.join(PATH);
    let page = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let renewed = renewed(&page, text)
        .with_context(|| format!("{} has no place for the figures: {BEGIN}{END}", path.display()))?;
    fs::write(&path, renewed).with_context(|| format!("{} cannot be written", path.display()))
}

fn renewed(page: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{}\n{END}{after}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = format!("before\n{BEGIN}old\n{END}\nafter\n");
        let expected = format!("before\n{BEGIN}new\n{END}\nafter\n");
        assert_eq!(renewed(&page, "new\n").as_deref(), Some(expected.as_str()));
        assert_eq!(renewed(&expected, "new").as_deref(), Some(expected.as_str()));
    }

    #[test]
    fn a_page_without_marks_is_left_alone() {
        assert_eq!(renewed("no marks", "new"), None);
        assert_eq!(renewed(BEGIN, "new"), None);
    }

    #[test]
    fn our_page_has_the_marks() {
        let page = include_str!("../../../docs/cost.md");
        assert!(renewed(page, "new").is_some());
    }
}
