//! The bill of materials, in CycloneDX's JSON: which packages of which versions are linked into the program.

use anyhow::Result;
use serde_json::{Value, json};

use super::{Release, dependencies::Dependency, write};

/// Makes it.
pub(crate) fn make(release: &Release<'_>, dependencies: &[Dependency]) -> Result<()> {
    let text = serde_json::to_string_pretty(&of(&release.version, dependencies))?;
    write(&release.folder.join(format!("{}.cdx.json", release.name())), text + "\n")
}

/// Without a time and a serial number, which would differ from run to run.
fn of(version: &str, dependencies: &[Dependency]) -> Value {
    let components: Vec<Value> = dependencies
        .iter()
        .map(|Dependency { name, version, licence, folder: _ }| {
            let purl = format!("pkg:cargo/{name}@{version}");
            json!({"type": "library", "bom-ref": purl, "name": name, "version": version,
                   "licenses": [{"expression": licence}], "purl": purl})
        })
        .collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": "why502", "name": "why502", "version": version,
                                   "licenses": [{"license": {"id": "MIT"}}]}},
        "components": components,
    })
}
