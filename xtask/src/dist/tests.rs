//! What `cargo xtask dist` made, as somebody who gets it uses it. They need root, and what it made last.

use std::{collections::BTreeSet, ffi::OsStr};

use bpf_objects::record::Record;
use serde_json::Value;
use tempfile::TempDir;

use super::*;

/// Where it made them.
fn made() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/dist")
}

/// The one for this machine that ends so.
fn part(end: &str) -> Result<PathBuf> {
    part_of(Arch::X86_64, end)
}

/// The one for an architecture that ends so.
fn part_of(arch: Arch, end: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(made()).context("nothing is made yet: run cargo xtask dist")?;
    let found: Vec<_> = entries
        .map(|entry| Ok(entry?.path()))
        .filter(|path: &Result<PathBuf>| {
            path.as_ref().is_ok_and(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.ends_with(end) && (name.contains(arch.red_hat()) || name.contains(arch.debian()))
            })
        })
        .collect::<Result<_>>()?;
    let [path] = &found[..] else { bail!("{} files end in {end}", found.len()) };
    Ok(path.clone())
}

fn run<A: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = A>) -> Result<String> {
    output(Command::new(program).args(arguments))
}

/// The archive, unpacked.
fn unpacked() -> Result<(TempDir, PathBuf)> {
    unpacked_of(Arch::X86_64)
}

fn unpacked_of(arch: Arch) -> Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    run(
        "tar",
        [
            OsStr::new("-xzf"),
            part_of(arch, ".tar.gz")?.as_os_str(),
            OsStr::new("-C"),
            folder.path().as_os_str(),
        ],
    )?;
    let inner = fs::read_dir(folder.path())?.next().context("the archive is empty")??.path();
    Ok((folder, inner))
}

/// The names of all files below a folder.
fn files(folder: &Path) -> Result<BTreeSet<String>> {
    let text = output(Command::new("find").current_dir(folder).args([".", "-type", "f"]))?;
    Ok(text.lines().map(str::to_owned).collect())
}

#[test]
#[ignore = "needs what cargo xtask dist makes; cargo xtask test runs it"]
fn the_checksums_are_those_of_the_files() -> Result<()> {
    let checked = output(Command::new("sha256sum").current_dir(made()).args(["--check", "SHA256SUMS"]))?;
    // All but the list itself.
    assert_eq!(checked.lines().count(), fs::read_dir(made())?.count() - 1, "{checked}");
    Ok(())
}

#[test]
#[ignore = "needs what cargo xtask dist makes; cargo xtask test runs it"]
fn the_program_runs_where_there_is_nothing_else() -> Result<()> {
    let (_folder, inner) = unpacked()?;
    let root = tempfile::tempdir()?;
    fs::copy(inner.join("why502"), root.path().join("why502"))?;
    let alone = |words: &[&str]| {
        let mut command = Command::new("chroot");
        command.arg(root.path()).arg("/why502").args(words);
        command
    };
    let version = output(&mut alone(&["--version"]))?;
    for line in [
        &format!("why502 {}\n", env!("CARGO_PKG_VERSION")),
        "\ncommit: ",
        &format!("\nbuild: {}, {PROFILE}\n", Arch::X86_64.target()),
    ] {
        assert!(version.contains(line), "{version}");
    }
    assert!(output(&mut alone(&["explain", "reset/worker_killed"]))?.contains("A signal ended the worker"));
    let doctor = alone(&["doctor"]).output()?;
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert!(doctor.status.code() == Some(3) && said.contains("mount /proc"), "{}: {said}", doctor.status);

    for name in ["proc", "sys"] {
        fs::create_dir(root.path().join(name))?;
    }
    // With the kernel's own file systems, as any container that may trace has them.
    let script = "mount --rbind /proc \"$0/proc\" && mount --rbind /sys \"$0/sys\" && exec chroot \"$0\" /why502 \"$@\"";
    let with_kernel = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", script])
            .arg(root.path())
            .args(words);
        command
    };
    let doctor = with_kernel(&["doctor"]).output()?;
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert!(said.starts_with("Tracing works."), "{}: {said}", doctor.status);
    let live = output(&mut with_kernel(&["live", "-d", "1s"]))?;
    assert!(live.contains("Nothing was lost."), "{live}");
    Ok(())
}

#[test]
#[ignore = "needs what cargo xtask dist makes; cargo xtask test runs it"]
fn the_deb_installs_and_its_purge_leaves_nothing() -> Result<()> {
    let root = tempfile::tempdir()?;
    let database = root.path().join("var/lib/dpkg");
    for name in ["info", "updates", "triggers"] {
        fs::create_dir_all(database.join(name))?;
    }
    fs::write(database.join("status"), "")?;
    let dpkg = |words: &[&OsStr]| {
        let mut command = Command::new("dpkg");
        command.arg(format!("--root={}", root.path().display())).arg("--log=/dev/null").args(words);
        output(&mut command)
    };
    let package = part(".deb")?;
    dpkg(&["--install".as_ref(), package.as_os_str()])?;
    // As an upgrade does.
    dpkg(&["--install".as_ref(), package.as_os_str()])?;
    let version = run(root.path().join("usr/bin/why502").to_str().context("UTF-8")?, ["-V"])?;
    assert_eq!(version.trim(), format!("why502 {}", env!("CARGO_PKG_VERSION")));
    assert!(!dpkg(&["--verify".as_ref(), "why502".as_ref()])?.contains("why502"));

    let pages = root.path().join("usr/share/man/man1");
    let mut count = 0;
    for entry in fs::read_dir(&pages)? {
        let path = entry?.path();
        let page = Command::new("man")
            .args(["--warnings", "--local-file"])
            .arg(&path)
            .env("MANWIDTH", "80")
            .output()?;
        let (text, complaints) =
            (String::from_utf8_lossy(&page.stdout), String::from_utf8_lossy(&page.stderr));
        assert!(page.status.success() && complaints.is_empty(), "{}: {complaints}", path.display());
        for heading in ["NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "SEE ALSO"] {
            assert!(text.contains(heading), "{}: no {heading}", path.display());
        }
        count += 1;
    }
    assert!(count > 6, "{count} pages");

    let completions = root.path().join("usr/share/bash-completion/completions/why502");
    let script = "source \"$0\" && complete -p why502 && COMP_WORDS=(why502 doc) COMP_CWORD=1 && _why502 why502 doc why502; echo \"=${COMPREPLY[*]}\"";
    let said = output(Command::new("bash").args(["--norc", "-c", script]).arg(completions))?;
    assert!(said.contains("=doctor"), "{said}");

    dpkg(&["--purge".as_ref(), "why502".as_ref()])?;
    let left: Vec<_> =
        files(root.path())?.into_iter().filter(|name| !name.starts_with("./var/lib/dpkg/")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!files(&database)?.iter().any(|name| name.contains("why502")));
    Ok(())
}

#[test]
#[ignore = "needs what cargo xtask dist makes; cargo xtask test runs it"]
fn the_rpm_has_what_the_archive_has() -> Result<()> {
    Arch::ALL.into_iter().try_for_each(rpm_has_what_the_archive_has)
}

fn rpm_has_what_the_archive_has(arch: Arch) -> Result<()> {
    let (_folder, inner) = unpacked_of(arch)?;
    let root = tempfile::tempdir()?;
    let package = part_of(arch, ".rpm")?;
    let named = run("rpm", ["--query", "--queryformat", "%{ARCH}", "--package", &package.to_string_lossy()])?;
    assert_eq!(named, arch.red_hat());
    let cpio = "rpm2cpio \"$0\" | cpio --extract --make-directories --quiet";
    output(Command::new("sh").current_dir(root.path()).args(["-c", cpio]).arg(package))?;
    let same = |installed: &str, name: &str| -> Result<bool> {
        let path = root.path().join(installed);
        let installed = fs::read(&path).with_context(|| format!("{} is not in it", path.display()))?;
        Ok(installed == fs::read(inner.join(name))?)
    };
    assert!(same("usr/bin/why502", "why502")?);
    assert!(same("usr/share/licenses/why502/third-party.txt", "third-party.txt")?);
    assert!(same("usr/share/zsh/site-functions/_why502", "completions/_why502")?);
    assert_eq!(files(&root.path().join("usr/share/man/man1"))?.len(), files(&inner.join("man"))?.len());
    Ok(())
}

/// How the image is to be run, as it says itself.
fn image_configuration() -> Result<Value> {
    let folder = tempfile::tempdir()?;
    run(
        "tar",
        [OsStr::new("-xf"), part(".oci.tar")?.as_os_str(), OsStr::new("-C"), folder.path().as_os_str()],
    )?;
    let read = |path: PathBuf| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    let blob = |named: &Value| -> Result<Value> {
        let digest = named["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
        read(folder.path().join("blobs/sha256").join(digest.context("no digest")?))
    };
    let index = read(folder.path().join("index.json"))?;
    blob(&blob(&index["manifests"][0])?["config"])
}

#[test]
#[ignore = "needs what cargo xtask dist makes; cargo xtask test runs it"]
fn the_image_has_the_program_and_nothing_else() -> Result<()> {
    Arch::ALL.into_iter().try_for_each(image_has_the_program_and_nothing_else)
}

fn image_has_the_program_and_nothing_else(arch: Arch) -> Result<()> {
    let (_folder, inner) = unpacked_of(arch)?;
    let folder = tempfile::tempdir()?;
    run(
        "tar",
        [
            OsStr::new("-xf"),
            part_of(arch, ".oci.tar")?.as_os_str(),
            OsStr::new("-C"),
            folder.path().as_os_str(),
        ],
    )?;
    let read = |path: &Path| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    let blob = |named: &Value| -> Result<PathBuf> {
        let digest = named["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:"));
        let path = folder.path().join("blobs/sha256").join(digest.context("no digest")?);
        let sum = run("sha256sum", [&path])?;
        assert!(sum.starts_with(digest.unwrap_or_default()), "{sum}");
        assert_eq!(fs::metadata(&path)?.len(), named["size"].as_u64().unwrap_or_default());
        Ok(path)
    };
    let index = read(&folder.path().join("index.json"))?;
    assert_eq!(index["manifests"][0]["platform"]["architecture"], arch.debian());
    let manifest = read(&blob(&index["manifests"][0])?)?;
    let about = read(&blob(&manifest["config"])?)?;
    assert_eq!(about["architecture"], arch.debian());
    assert_eq!(about["config"]["Entrypoint"][0], "/usr/bin/why502");
    let layer = blob(&manifest["layers"][0])?;
    let plain = output(Command::new("sh").args(["-c", "gzip -dc \"$0\" | sha256sum"]).arg(&layer))?;
    let named = about["rootfs"]["diff_ids"][0].as_str().context("no diff_ids")?;
    assert_eq!(named.strip_prefix("sha256:"), plain.split_whitespace().next());
    let root = tempfile::tempdir()?;
    run("tar", [OsStr::new("-xzf"), layer.as_os_str(), OsStr::new("-C"), root.path().as_os_str()])?;
    assert_eq!(files(root.path())?, BTreeSet::from(["./usr/bin/why502".to_owned()]));
    assert!(fs::read(root.path().join("usr/bin/why502"))? == fs::read(inner.join("why502"))?);
    Ok(())
}

/// What `packaging/Containerfile` says, one instruction a line: its name, and what it is given.
fn instructions() -> Result<Vec<(String, String)>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/Containerfile");
    let text = fs::read_to_string(path)?.replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, rest) = line.split_once(' ').with_context(|| format!("no instruction: {line}"))?;
            Ok((name.to_owned(), rest.trim().to_owned()))
        })
        .collect()
}

#[test]
#[ignore = "needs what cargo xtask dist makes; cargo xtask test runs it"]
fn the_container_file_makes_the_same_image() -> Result<()> {
    let about = image_configuration()?;
    let all = instructions()?;
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["FROM", "ARG", "ARG", "LABEL", "COPY", "ENTRYPOINT"]);
    let [from, version, revision, labels, copy, entry] = [0, 1, 2, 3, 4, 5].map(|at| all[at].1.as_str());
    assert_eq!([from, version, revision, copy], ["scratch", "VERSION", "REVISION", "why502 /usr/bin/why502"]);
    assert_eq!(serde_json::from_str::<Value>(entry)?, about["config"]["Entrypoint"]);
    let given = about["config"]["Labels"].as_object().context("no labels")?;
    let text = |name: &str| given[name].as_str().unwrap_or_default();
    let labels = labels
        .replace("${VERSION}", text("org.opencontainers.image.version"))
        .replace("${REVISION}", text("org.opencontainers.image.revision"));
    for (name, value) in given {
        let label = format!("{name}={value}");
        assert!(labels.contains(&label), "{label} is not in {labels}");
    }
    assert_eq!(labels.matches("=\"").count(), given.len(), "{labels}");
    // What the comment above it says to unpack has what it copies.
    let (_folder, inner) = unpacked()?;
    assert!(inner.join("why502").is_file());
    Ok(())
}

#[test]
#[ignore = "needs what cargo xtask dist makes; cargo xtask test runs it"]
fn each_program_is_static_and_of_its_architecture() -> Result<()> {
    for (arch, machine) in [(Arch::X86_64, 62), (Arch::Arm64, 183)] {
        let (_folder, inner) = unpacked_of(arch)?;
        let program = fs::read(inner.join("why502"))?;
        assert!(program.len() as u64 <= LARGEST, "{arch:?}: {} bytes", program.len());
        // Of an ELF file's header: e_machine (elf.h).
        assert_eq!(
            (&program[..4], program[18..20].try_into().map(u16::from_le_bytes)?),
            (&b"\x7fELF"[..], machine)
        );
        let headers = run("readelf", [OsStr::new("--program-headers"), inner.join("why502").as_os_str()])?;
        assert!(headers.contains("LOAD") && !headers.contains("INTERP"), "{headers}");
    }
    Ok(())
}

/// Of both architectures without another build: each program names what its BPF objects hash to, and what built them.
#[test]
#[ignore = "needs what cargo xtask dist makes; cargo xtask test runs it"]
fn the_bpf_objects_in_each_program_are_those_that_come_prebuilt() -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no workspace")?;
    let record = Record::read(workspace)?;
    for arch in Arch::ALL {
        let (_folder, inner) = unpacked_of(arch)?;
        let program = fs::read(inner.join("why502"))?;
        let says = |text: &str| program.windows(text.len()).any(|part| part == text.as_bytes());
        let processor = arch.target().split('-').next().unwrap_or_default();
        let by = format!(", built by {}\n", record.tools);
        if !says(&by) {
            println!("{arch:?}: not compared, for it was not{by}");
            continue;
        }
        let hash = record.objects_for(processor)?;
        let expected = format!("BPF objects: sha256 {hash:.16}{by}");
        assert!(says(&expected), "{arch:?}: the prebuilt BPF objects are others: run `cargo xtask prebuild`");
    }
    Ok(())
}

#[test]
#[ignore = "needs what cargo xtask dist makes; cargo xtask test runs it"]
fn the_deb_for_arm64_holds_what_the_archive_holds() -> Result<()> {
    let (_folder, inner) = unpacked_of(Arch::Arm64)?;
    let (package, root) = (part_of(Arch::Arm64, ".deb")?, tempfile::tempdir()?);
    let named = run("dpkg-deb", [OsStr::new("--field"), package.as_os_str(), OsStr::new("Architecture")])?;
    assert_eq!(named.trim(), "arm64");
    run("dpkg-deb", [OsStr::new("--extract"), package.as_os_str(), root.path().as_os_str()])?;
    assert!(fs::read(root.path().join("usr/bin/why502"))? == fs::read(inner.join("why502"))?);
    assert_eq!(files(&root.path().join("usr/share/man/man1"))?.len(), files(&inner.join("man"))?.len());
    Ok(())
}

#[test]
#[ignore = "needs what cargo xtask dist makes; cargo xtask test runs it"]
fn each_dependency_is_named_with_its_licence() -> Result<()> {
    Arch::ALL.into_iter().try_for_each(dependencies_are_named_with_their_licences)
}

fn dependencies_are_named_with_their_licences(arch: Arch) -> Result<()> {
    let (_folder, inner) = unpacked_of(arch)?;
    let notices = fs::read_to_string(inner.join("third-party.txt"))?;
    let bill: Value = serde_json::from_slice(&fs::read(part_of(arch, ".cdx.json")?)?)?;
    let components = bill["components"].as_array().context("no components")?;
    let mut names = BTreeSet::new();
    for component in components {
        let text = |key: &str| component[key].as_str().unwrap_or_default();
        let licence = component["licenses"][0]["expression"].as_str().unwrap_or_default();
        let line = format!("\n{} {} ({licence})\n", text("name"), text("version"));
        assert!(notices.contains(&line), "{line}");
        names.insert(text("name"));
    }
    // One of userspace, one of the kernel's side, and one whose licence asks for more than its text.
    for name in ["tokio", "aya-ebpf", "btf-rs"] {
        assert!(names.contains(name), "{name} is not in {names:?}");
    }
    assert!(notices.contains("GNU LESSER GENERAL PUBLIC LICENSE"));
    assert!(notices.contains("BSD License\n\nFor Zstandard software"), "zstd's C source has one of its own");
    Ok(())
}
