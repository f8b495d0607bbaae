//! The guest's root: what the end-to-end tests need of this machine, or of Debian's packages where the guest is of another architecture; and
//! busybox for all else.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{cpio::Archive, files, suite::Tests, tools::Tools, userland::Userland};
use crate::{packages, step::output};

/// What comes with the programs that the rig needs, and that it runs as well.
const BESIDES: [&str; 5] = ["chrt", "ss", "tc", "zstd", "zstdcat"];
/// Folders of which all is taken but what [`is_ballast`] says, where this machine has them.
const TREES: [&str; 3] = ["/usr/lib/postgresql", "/usr/share/postgresql", "/usr/share/zoneinfo"];
/// What programs look into, where this machine has it.
const DATA: [&str; 7] = [
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/passwd",
    "/etc/protocols",
    "/etc/services",
    "/usr/lib/ssl/openssl.cnf",
    "/etc/nginx/fastcgi_params",
];
const FILES: [(&str, &str); 2] = [
    ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
];
/// Folders that are mounted over, or written to.
const FOLDERS: [&str; 11] = [
    "/bin",
    "/busybox",
    "/sbin",
    "/dev",
    "/proc",
    "/sys",
    "/run",
    "/tmp",
    "/root",
    "/var/log/nginx",
    "/var/lib/nginx",
];

/// Writes the archive. Without a userland of its own the guest has this machine's.
pub(crate) fn build(
    to: &Path,
    tools: &Tools,
    userland: Option<&Userland>,
    tests: &Tests<'_>,
    why502: &Path,
    golden: &Path,
) -> Result<()> {
    let mut archive = Archive::create(to)?;
    for folder in FOLDERS {
        archive.folder(Path::new(folder))?;
    }
    // Before devtmpfs is mounted, for init's own output.
    archive.device(Path::new("/dev/console"), 5, 1)?;
    let busybox = userland.map_or_else(|| tools.busybox(), Userland::busybox);
    archive.file(Path::new("/bin/busybox"), &busybox, 0o755)?;
    archive.content(Path::new("/init"), include_bytes!("init.sh"), 0o755)?;
    for (path, text) in FILES {
        archive.content(Path::new(path), text.as_bytes(), 0o644)?;
    }
    for text in files(golden)? {
        archive.file(&Path::new("/golden").join(text.file_name().unwrap_or_default()), &text, 0o644)?;
    }

    let ours = tests.programs().chain([("why502", why502)]);
    let lean = to.with_extension("lean");
    for (name, program) in ours.clone() {
        strip(program, &lean)?;
        archive.file(&Path::new("/tests").join(name), &lean, 0o755)?;
    }
    fs::remove_file(&lean)?;
    match userland {
        Some(userland) => userland.put(&mut archive)?,
        None => put_own(&mut archive, ours.map(|(_name, program)| program))?,
    }
    archive.finish()
}

/// Puts this machine's programs that the rig runs, and the libraries that they and `ours` load.
fn put_own<'a>(archive: &mut Archive, mut ours: impl Iterator<Item = &'a Path>) -> Result<()> {
    for path in DATA.map(Path::new).iter().filter(|path| path.is_file()) {
        archive.file(path, path, 0o644)?;
    }
    let mut libraries = BTreeSet::new();
    ours.try_for_each(|program| -> Result<()> {
        libraries.extend(loaded(program)?);
        Ok(())
    })?;
    for name in packages::needs().chain(BESIDES) {
        let program = packages::find(name).with_context(|| format!("{name} is not installed"))?;
        take(archive, &mut libraries, &program)?;
        if name.starts_with("php-fpm") {
            for extension in extensions(&program)? {
                take(archive, &mut libraries, &extension)?;
            }
        }
    }
    for tree in TREES.map(Path::new).iter().filter(|tree| tree.is_dir()) {
        for file in files(tree)?.iter().filter(|file| !is_ballast(file)) {
            take(archive, &mut libraries, file)?;
        }
    }
    for library in &libraries {
        archive.file(library, library, 0o755)?;
    }
    Ok(())
}

/// Copies a file to where it is on this machine, and notes the libraries that it needs.
fn take(archive: &mut Archive, libraries: &mut BTreeSet<PathBuf>, file: &Path) -> Result<()> {
    let mode = fs::metadata(file)?.permissions().mode() & 0o7777;
    let is_code = mode & 0o111 != 0 || file.extension().is_some_and(|end| end == "so");
    if is_code {
        libraries.extend(loaded(file)?);
    }
    archive.file(file, file, mode)
}

/// What is large and what no test wants: PostgreSQL's compiler, and each time zone once more.
fn is_ballast(file: &Path) -> bool {
    let part = |name: &str| file.iter().any(|part| part == name);
    let name = file.file_name().unwrap_or_default().as_encoded_bytes();
    part("bitcode") || part("posix") || part("right") || name.starts_with(b"llvmjit")
}

/// The libraries that the dynamic loader finds for a program: `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f...)`.
fn loaded(program: &Path) -> Result<Vec<PathBuf>> {
    // What needs none, such as a script, is no error.
    let said = Command::new("ldd").arg(program).output().context("ldd cannot be run")?;
    let said = String::from_utf8_lossy(&said.stdout);
    let words = said.lines().filter_map(|line| {
        let path = line.split_once(" => ").map_or(line, |(_name, path)| path).trim();
        path.split_once(" (").map(|(path, _address)| path)
    });
    Ok(words.filter(|path| path.starts_with('/')).map(PathBuf::from).collect())
}

/// php's extensions that can be loaded; the rig names those that it wants.
fn extensions(php: &Path) -> Result<Vec<PathBuf>> {
    let said = output(Command::new(php).args(["-n", "-i"]))?;
    let folder = said.lines().find_map(|line| line.strip_prefix("extension_dir => ")?.split(" => ").next());
    let Ok(entries) = fs::read_dir(folder.context("php does not say where its extensions are")?) else {
        return Ok(Vec::new());
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths.filter(|path| path.extension().is_some_and(|end| end == "so")).collect())
}

/// A copy without debug information, which is most of a test binary; a whole copy where there is no `strip`.
fn strip(program: &Path, to: &Path) -> Result<()> {
    let stripped = Command::new("strip").args(["--strip-debug", "-o"]).arg(to).arg(program).output();
    if !stripped.is_ok_and(|output| output.status.success()) {
        fs::copy(program, to)?;
    }
    Ok(())
}
