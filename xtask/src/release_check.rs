//! `cargo xtask release-check`: whether this commit is fit to be released. It changes nothing, and names all that is in the way.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    demo::cargo,
    prebuild, python,
    step::{Steps, output},
};

/// Checks everything, also after one has failed.
pub(crate) fn run(steps: &mut Steps, workspace: &Path) -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let checks = [
        ("the commit", committed(workspace)),
        ("the version", tagged(workspace, version)),
        ("the changelog", changelog(workspace, version)),
        ("the compiler", compiler()),
        ("the prebuilt BPF objects", prebuild::check(steps, workspace)),
        ("the dependencies in use", used(workspace)),
        ("the dependencies' licences", licences(steps, workspace)),
    ];
    let mut failed = 0;
    for (what, found) in checks {
        match found {
            Ok(()) => println!("{what}: fit"),
            Err(error) => {
                failed += 1;
                println!("{what}: {error:#}");
            }
        }
    }
    if failed > 0 {
        bail!("version {version} is not fit to be released: see docs/releasing.md");
    }
    println!("version {version} is fit to be released, if cargo xtask test has passed on this commit");
    Ok(())
}

fn git(workspace: &Path, words: &[&str]) -> Result<String> {
    Ok(output(Command::new("git").arg("-C").arg(workspace).args(words))?.trim().to_owned())
}

fn committed(workspace: &Path) -> Result<()> {
    let changes = git(workspace, &["status", "--porcelain"])?;
    if let Some(first) = changes.lines().next() {
        bail!("{} changes are not committed, among them `{}`", changes.lines().count(), first.trim());
    }
    Ok(())
}

/// A version that was released once stays what it was.
fn tagged(workspace: &Path, version: &str) -> Result<()> {
    let tag = format!("v{version}");
    if git(workspace, &["tag", "--list", &tag])?.is_empty() {
        return Ok(());
    }
    if git(workspace, &["rev-parse", &format!("{tag}^{{commit}}")])?
        != git(workspace, &["rev-parse", "HEAD"])?
    {
        bail!("the tag {tag} is on another commit: give Cargo.toml a new version");
    }
    Ok(())
}

fn changelog(workspace: &Path, version: &str) -> Result<()> {
    newest_is(
        &fs::read_to_string(workspace.join("CHANGELOG.md")).context("CHANGELOG.md cannot be read")?,
        version,
    )
}

/// Whether the first section is of this version, and says something.
fn newest_is(changelog: &str, version: &str) -> Result<()> {
    let (_, newest) = changelog.split_once("\n## ").context("CHANGELOG.md has no section")?;
    let (heading, text) = newest.split_once('\n').unwrap_or((newest, ""));
    if heading.split_whitespace().next() != Some(version) {
        bail!("CHANGELOG.md begins with `{heading}`: it needs a section of {version} on top");
    }
    if text.split("\n## ").next().is_none_or(|text| text.trim().is_empty()) {
        bail!("CHANGELOG.md says nothing of {version}");
    }
    Ok(())
}

/// What is tested is what the oldest compiler makes of it.
fn compiler() -> Result<()> {
    let promised = env!("CARGO_PKG_RUST_VERSION");
    let said = output(Command::new("rustc").arg("--version"))?;
    let used = said.split_whitespace().nth(1).unwrap_or_default();
    if !format!("{used}.").starts_with(&format!("{promised}.")) {
        bail!(
            "rust-version promises {promised}, and this is rustc {used}: check with the one that is promised"
        );
    }
    Ok(())
}

/// A dependency that no source names is one too many.
fn used(workspace: &Path) -> Result<()> {
    let mut command = cargo();
    command.current_dir(workspace).args(["metadata", "--format-version=1", "--locked"]);
    let metadata: Value =
        serde_json::from_str(&output(&mut command)?).context("cargo metadata prints no JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let mut unused = Vec::new();
    for package in packages.iter().filter(|package| package["source"].is_null()) {
        let manifest = Path::new(package["manifest_path"].as_str().context("a package without a manifest")?);
        let source = source(manifest.parent().context("a manifest without a folder")?)?;
        let compiled_once = package["metadata"]["compiled-once"]["dependencies"].as_array();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let name = dependency["name"].as_str().unwrap_or_default();
            let is_for_its_features = compiled_once.is_some_and(|names| names.contains(&dependency["name"]));
            if !is_for_its_features && !names(&source, library(packages, name).unwrap_or(name)) {
                unused.push(format!("{name} (of {})", package["name"].as_str().unwrap_or_default()));
            }
        }
    }
    if !unused.is_empty() {
        bail!("no source uses {}: take them out of Cargo.toml", unused.join(", "));
    }
    Ok(())
}

/// What source calls a package.
fn library<'a>(packages: &'a [Value], name: &str) -> Option<&'a str> {
    let targets = packages.iter().find(|package| package["name"] == name)?["targets"].as_array()?;
    let is_library = |kind: &Value| matches!(kind.as_str(), Some("lib" | "rlib" | "proc-macro"));
    let target = targets
        .iter()
        .find(|target| target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(is_library)))?;
    target["name"].as_str()
}

/// All of a folder's Rust.
fn source(folder: &Path) -> Result<String> {
    let mut text = String::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            text += &source(&path)?;
        } else if path.extension().is_some_and(|end| end == "rs") {
            text += &fs::read_to_string(&path)?;
        }
    }
    Ok(text)
}

/// Whether it is a word of the text.
fn names(text: &str, word: &str) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text.as_bytes()[..at], &text.as_bytes()[at + word.len()..]);
        !before.last().is_some_and(is_part) && !after.first().is_some_and(is_part)
    })
}

fn licences(steps: &mut Steps, workspace: &Path) -> Result<()> {
    let mut deny = Command::new(python::get_deny(steps, workspace)?);
    deny.current_dir(workspace).args(["--workspace", "check", "bans", "licenses", "sources"]);
    steps.run("checking what the dependencies are licensed under and where they come from", &mut deny)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_section_of_the_changelog_is_of_the_version() {
        assert!(
            newest_is("# Changelog\n\n## 0.2.0 (2026-12-01)\n\n- It does.\n\n## 0.1.0\n\n- So.\n", "0.2.0")
                .is_ok()
        );
        let refused = |text: &str| format!("{:#}", newest_is(text, "0.2.0").unwrap_err());
        assert!(refused("# Changelog\n\n## Unreleased\n\n- It does.\n").contains("begins with `Unreleased`"));
        assert!(refused("# Changelog\n\n## 0.2.0\n\n## 0.1.0\n\n- So.\n").contains("says nothing"));
        assert!(refused("# Changelog\n").contains("no section"));
    }

    #[test]
    fn a_dependency_is_used_where_its_whole_name_stands() {
        assert!(names("use aya_obj::Btf;", "aya_obj"));
        assert!(!names("use aya_obj::Btf;", "aya"));
        assert!(!names("", "aya"));
    }

    #[test]
    fn each_dependency_is_used() -> Result<()> {
        used(Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?)
    }
}
