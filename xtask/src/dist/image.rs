//! A container image with the program and nothing else, as an archive in the OCI's layout: `podman load`, `skopeo copy oci-archive:`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Release, SUMMARY, folders, gzip, tar, through, write};
use crate::step::{Steps, output};

/// Makes it.
pub(crate) fn make(steps: &mut Steps, release: &Release<'_>) -> Result<()> {
    let root = release.work.join("image");
    let (files, layout) = (root.join("files"), root.join("layout"));
    let program = files.join("usr/bin/why502");
    folders(&files.join("usr/bin"))?;
    fs::copy(&release.program, &program)?;
    let plain = root.join("layer.tar");
    steps.run("packing the image's layer", tar(release, &files, &["usr"]).arg("--file").arg(&plain))?;
    let layer = fs::read(&plain)?;
    let packed = put(&layout, &gzip(&layer)?)?;
    let date = output(
        Command::new("date")
            .args(["--utc", "+%Y-%m-%dT%H:%M:%SZ", "--date"])
            .arg(format!("@{}", release.time)),
    )?;
    let about = configuration(release, date.trim(), &hash(&layer)?);
    let about = put(&layout, &serde_json::to_vec(&about)?)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": about.named("application/vnd.oci.image.config.v1+json"),
        "layers": [packed.named("application/vnd.oci.image.layer.v1.tar+gzip")],
    });
    let mut manifest =
        put(&layout, &serde_json::to_vec(&manifest)?)?.named("application/vnd.oci.image.manifest.v1+json");
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": release.version});
    manifest["platform"] = json!({"architecture": release.arch.debian(), "os": "linux"});
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]});
    write(&layout.join("index.json"), serde_json::to_vec(&index)?)?;
    write(&layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let whole: PathBuf = release.folder.join(format!("{}.oci.tar", release.name()));
    let mut command = tar(release, &layout, &["blobs", "index.json", "oci-layout"]);
    steps.run("packing the image", command.arg("--file").arg(whole))
}

fn configuration(release: &Release<'_>, date: &str, layer: &str) -> Value {
    json!({
        "created": date,
        "architecture": release.arch.debian(),
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/why502"],
            "Labels": {
                "org.opencontainers.image.title": "why502",
                "org.opencontainers.image.description": SUMMARY,
                "org.opencontainers.image.version": release.version,
                "org.opencontainers.image.revision": release.commit,
                "org.opencontainers.image.licenses": "MIT AND LGPL-2.1-or-later",
            },
        },
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
        "history": [{"created": date, "created_by": "cargo xtask dist"}],
    })
}

/// Something in the layout, by its hash.
struct Blob {
    hash: String,
    size: usize,
}

impl Blob {
    fn named(&self, kind: &str) -> Value {
        json!({"mediaType": kind, "digest": format!("sha256:{}", self.hash), "size": self.size})
    }
}

fn put(layout: &Path, content: &[u8]) -> Result<Blob> {
    let hash = hash(content)?;
    write(&layout.join("blobs/sha256").join(&hash), content)?;
    Ok(Blob { hash, size: content.len() })
}

fn hash(content: &[u8]) -> Result<String> {
    let said = String::from_utf8(through(&mut Command::new("sha256sum"), content)?)?;
    Ok(said.split_whitespace().next().context("sha256sum says nothing")?.to_owned())
}
