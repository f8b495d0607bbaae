//! What is linked into the program, as cargo resolves it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{arch::Arch, demo::cargo, step::output};

/// One package of others.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) version: String,
    /// As an SPDX expression.
    pub(crate) licence: String,
    /// Where its source is on this machine.
    pub(crate) folder: PathBuf,
}

/// All of them, by name. What only builds or tests the program is not in it, nor are procedural macros.
pub(crate) fn of(workspace: &Path, arch: Arch) -> Result<Vec<Dependency>> {
    let mut found = Vec::new();
    // The second one's programs run in the kernel.
    for (package, target) in [("tracer-user", arch.target()), ("tracer-ebpf", "bpfel-unknown-none")] {
        let mut command = cargo();
        command.current_dir(workspace).args(["metadata", "--format-version=1", "--locked"]);
        let said = output(command.args(["--filter-platform", target]))?;
        let metadata: Value = serde_json::from_str(&said).context("what cargo metadata prints is no JSON")?;
        found.extend(linked(&metadata, package).context("what cargo metadata prints is not as it was")?);
    }
    found.sort();
    found.dedup();
    ensure!(found.len() > 20, "only {} dependencies were found", found.len());
    Ok(found)
}

/// What is linked into one of the workspace's packages.
fn linked(metadata: &Value, package: &str) -> Option<Vec<Dependency>> {
    let packages = by_id(&metadata["packages"])?;
    let nodes = by_id(&metadata["resolve"]["nodes"])?;
    let ours: BTreeSet<&str> =
        metadata["workspace_members"].as_array()?.iter().filter_map(Value::as_str).collect();
    let root = *ours.iter().find(|id| packages.get(**id).is_some_and(|found| found["name"] == package))?;
    let mut open = vec![root];
    let mut seen = BTreeSet::from([root]);
    while let Some(id) = open.pop() {
        for edge in nodes.get(id)?["deps"].as_array()? {
            let id = edge["pkg"].as_str()?;
            let is_linked = edge["dep_kinds"].as_array()?.iter().any(|kind| kind["kind"].is_null());
            if is_linked && !is_macro(packages.get(id)?)? && seen.insert(id) {
                open.push(id);
            }
        }
    }
    let theirs = seen.difference(&ours).map(|id| {
        let package = packages.get(id)?;
        Some(Dependency {
            name: package["name"].as_str()?.to_owned(),
            version: package["version"].as_str()?.to_owned(),
            // An older way to write a choice.
            licence: package["license"].as_str()?.replace(" / ", "/").replace('/', " OR "),
            folder: Path::new(package["manifest_path"].as_str()?).parent()?.to_owned(),
        })
    });
    theirs.collect()
}

fn by_id(list: &Value) -> Option<BTreeMap<&str, &Value>> {
    list.as_array()?.iter().map(|entry| Some((entry["id"].as_str()?, entry))).collect()
}

fn is_macro(package: &Value) -> Option<bool> {
    let targets = package["targets"].as_array()?;
    Some(
        targets.iter().any(|target| {
            target["kind"].as_array().is_some_and(|kinds| kinds.contains(&"proc-macro".into()))
        }),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_linked_is_handed_out() {
        let package = |name: &str, kind: &str| {
            json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0",
                   "manifest_path": format!("/{name}/Cargo.toml"), "targets": [{"kind": [kind]}]})
        };
        let edge = |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "workspace_members": ["tracer-user", "xtask"],
            "packages": [package("tracer-user", "lib"), package("xtask", "bin"), package("linked", "lib"),
                         package("below", "lib"), package("macro", "proc-macro"), package("builder", "lib")],
            "resolve": {"nodes": [
                {"id": "tracer-user", "deps": [edge("linked", Value::Null), edge("builder", json!("build")), edge("macro", Value::Null)]},
                {"id": "linked", "deps": [edge("below", Value::Null)]},
                {"id": "below", "deps": []},
                {"id": "xtask", "deps": [edge("builder", Value::Null)]},
            ]},
        });
        let found = linked(&metadata, "tracer-user").unwrap();
        let names: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.licence.as_str())).collect();
        assert_eq!(names, [("below", "MIT OR Apache-2.0"), ("linked", "MIT OR Apache-2.0")]);
    }
}
