//! What `why502 --version` says of the source and the build.

use std::{env, path::Path, process::Command};

use anyhow::{Context as _, Result};

/// Hands it on to the program, as variables of its compilation.
pub(crate) fn emit(workspace: &Path, out: &Path) -> Result<()> {
    let target = env::var("TARGET").context("TARGET is not set")?;
    // Cargo says to a build script only which of its own profiles the profile inherits from. OUT_DIR is
    // target/[TRIPLE/]PROFILE/build/X/out.
    let profile = out.ancestors().nth(3).and_then(Path::file_name).and_then(|name| name.to_str());
    println!("cargo::rustc-env=WHY502_BUILD={target}, {}", profile.unwrap_or("unknown profile"));
    println!("cargo::rerun-if-env-changed=WHY502_COMMIT");
    println!("cargo::rustc-env=WHY502_COMMIT={}", commit(workspace));
    Ok(())
}

/// The commit, and whether anything was changed since; `unknown` where git does not say. Whoever builds from an archive can set it.
fn commit(workspace: &Path) -> String {
    if let Ok(given) = env::var("WHY502_COMMIT") {
        return given;
    }
    // To be right it must be looked up after each change, which would have each build of a developer's begin anew.
    if env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        return "unknown (debug build)".to_owned();
    }
    let git = |words: &[&str]| {
        let output = Command::new("git").arg("-C").arg(workspace).args(words).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    // An archive may have been unpacked within somebody else's repository.
    if git(&["ls-files", "--error-unmatch", "tracer-user/build/origin.rs"]).is_none() {
        return "unknown (not built from git)".to_owned();
    }
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--path-format=absolute", "--git-path", file]);
        // Cargo takes a file that is missing for one that changes all the time.
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    for folder in ["tracer-user", "tracer-ebpf"] {
        println!("cargo::rerun-if-changed={}", workspace.join(folder).display());
    }
    git(&["describe", "--always", "--exclude=*", "--abbrev=12", "--dirty= with changes"])
        .unwrap_or_else(|| "unknown (git does not say)".to_owned())
}
