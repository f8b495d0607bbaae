//! `cargo xtask dist`: what a release hands out, in `target/dist`. Two runs on one commit give the same bytes: times are the commit's, owners
//! are root, folders are sorted, and no path of this machine stays in the program.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    demo::cargo,
    step::{Steps, output, shown},
};

mod archive;
mod bill;
mod debian;
mod dependencies;
mod image;
mod notices;
mod red_hat;
mod set_up;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use set_up::set_up;

/// What is built for: a static binary, which needs nothing of the system that it runs on.
const TARGET: &str = "x86_64-unknown-linux-musl";
/// How, by `Cargo.toml`. Cargo has a folder of this name under `target`: it must not be the one that is made anew here.
const PROFILE: &str = "packaged";
/// How large it may be.
const LARGEST: u64 = 12 << 20;
/// What the program is, in a line.
const SUMMARY: &str = "names, with proof from the kernel, why nginx answered 502, 504 or 499";
const DESCRIPTION: [&str; 3] = [
    "why502 watches both ends of each exchange between nginx and its upstream",
    "with programs that run in the kernel (eBPF), hears what nginx itself says",
    "of it, and gives each failed one a cause, with the facts under it.",
];

/// What `cargo xtask dist` takes.
#[derive(Default, clap::Args)]
pub(crate) struct Options {
    /// Build a second time, elsewhere and from nothing, and check that the same bytes come of it.
    #[arg(long)]
    twice: bool,

    /// Pack this program, which was built as a release is, instead of building one.
    #[arg(long, value_name = "PATH", hide = true, conflicts_with = "twice")]
    program: Option<PathBuf>,
}

impl Options {
    /// Packs this program.
    pub(crate) fn of(program: &Path) -> Self {
        Self { program: Some(program.to_owned()), ..Self::default() }
    }
}

/// One release: of which version, of which commit, and where its parts are put together.
struct Release<'a> {
    workspace: &'a Path,
    version: String,
    commit: String,
    /// Seconds since 1970: all that is dated has this date.
    time: String,
    /// What is handed out.
    folder: PathBuf,
    /// What it is put together in.
    work: PathBuf,
    /// The static binary.
    program: PathBuf,
}

/// Builds the program alone, as it is handed out: that is what is tested, and whose cost is measured.
pub(crate) fn program(steps: &mut Steps, workspace: &Path) -> Result<PathBuf> {
    set_up::set_up_program(steps, workspace)?;
    let mut release = Release::of(workspace, &workspace.join("target/dist"))?;
    build(steps, &mut release, None)?;
    Ok(release.program)
}

/// Makes them all, and their checksums.
pub(crate) fn run(steps: &mut Steps, workspace: &Path, options: &Options) -> Result<()> {
    make(steps, workspace, &workspace.join("target/dist"), None, options.program.as_deref())?;
    if options.twice {
        let again = workspace.join("target/dist-again");
        make(steps, workspace, &again.join("dist"), Some(&again.join("target")), None)?;
        let sums = |folder: &Path| fs::read_to_string(folder.join("SHA256SUMS"));
        let (first, second) = (sums(&workspace.join("target/dist"))?, sums(&again.join("dist"))?);
        let differ: Vec<&str> = first
            .lines()
            .filter(|line| !second.lines().any(|other| other == *line))
            .filter_map(|line| line.split_whitespace().nth(1))
            .collect();
        ensure!(
            differ.is_empty(),
            "a second build gave other bytes: compare {} with those in {}/dist",
            differ.join(", "),
            again.display()
        );
        fs::remove_dir_all(&again).with_context(|| format!("{} cannot be removed", again.display()))?;
        println!("a second build gave the same bytes");
    }
    Ok(())
}

fn make(
    steps: &mut Steps,
    workspace: &Path,
    folder: &Path,
    target: Option<&Path>,
    program: Option<&Path>,
) -> Result<()> {
    let mut release = Release::of(workspace, folder)?;
    // A part of an earlier run must not be handed out, or be compared.
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
    }
    fs::create_dir_all(&release.work)
        .with_context(|| format!("{} cannot be made", release.work.display()))?;
    match program {
        Some(program) => release.program = program.to_owned(),
        None => build(steps, &mut release, target)?,
    }
    let dependencies = dependencies::of(workspace)?;
    let parts = tree::Parts::gather(&release, &dependencies)?;
    archive::make(steps, &release, &parts)?;
    debian::make(steps, &release, &parts)?;
    red_hat::make(steps, &release, &parts)?;
    image::make(steps, &release)?;
    bill::make(&release, &dependencies)?;
    fs::remove_dir_all(&release.work)?;
    checksums(folder)
}

impl<'a> Release<'a> {
    fn of(workspace: &'a Path, folder: &Path) -> Result<Self> {
        let git = |words: &[&str]| output(Command::new("git").arg("-C").arg(workspace).args(words));
        let (commit, time) = match env::var("SOURCE_DATE_EPOCH") {
            Ok(time) => (env::var("WHY502_COMMIT").unwrap_or_else(|_| "unknown".to_owned()), time),
            Err(_) => git(&["describe", "--always", "--exclude=*", "--abbrev=12", "--dirty= with changes"])
                .and_then(|commit| Ok((commit, git(&["log", "-1", "--format=%ct"])?)))
                .or_else(|error| without_git(workspace, &error))?,
        };
        let commit = commit.trim().to_owned();
        if commit.ends_with("with changes") {
            eprintln!("step: not fit to be handed out: there are changes that are not committed");
        }
        Ok(Self {
            workspace,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit,
            time: time.trim().to_owned(),
            folder: folder.to_owned(),
            work: folder.join("work"),
            program: PathBuf::new(),
        })
    }

    /// The name of a part that is handed out, and of the folder in it.
    fn name(&self) -> String {
        format!("why502-{}-{TARGET}", self.version)
    }
}

/// What is packed from a copy of the sources that git knows nothing of: it can be tried, and has the time of the lock file.
fn without_git(workspace: &Path, error: &anyhow::Error) -> Result<(String, String)> {
    eprintln!(
        "step: not fit to be handed out: git does not say what is built ({error:#}); SOURCE_DATE_EPOCH (in seconds since 1970) and WHY502_COMMIT may"
    );
    let changed = fs::metadata(workspace.join("Cargo.lock"))?.modified()?;
    Ok(("unknown".to_owned(), changed.duration_since(SystemTime::UNIX_EPOCH)?.as_secs().to_string()))
}

/// Builds the static binary, in cargo's own folder or in another one.
fn build(steps: &mut Steps, release: &mut Release<'_>, target: Option<&Path>) -> Result<()> {
    let own = release.workspace.join("target");
    let target = target.unwrap_or(&own);
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let home = home.context("neither CARGO_HOME nor a home folder is set")?;
    // Of two that fit, rustc and the C compiler take the later one.
    let places = [(home.as_path(), "/cargo"), (release.workspace, "/why502"), (target, "/target")];
    let rust: Vec<String> =
        places.iter().map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display())).collect();
    let c: Vec<String> =
        places.iter().map(|(path, name)| format!("-ffile-prefix-map={}={name}", path.display())).collect();
    let mut command = cargo();
    command
        .args(["build", "--locked", "--profile", PROFILE, "--target", TARGET])
        .args(["--package", "tracer-user", "--bin", "why502", "--target-dir"])
        .arg(target)
        .env("CARGO_ENCODED_RUSTFLAGS", rust.join("\u{1f}"))
        .env(format!("CFLAGS_{}", TARGET.replace('-', "_")), c.join(" "))
        .env("SOURCE_DATE_EPOCH", &release.time)
        .env("WHY502_COMMIT", &release.commit);
    steps.run("building the static binary", &mut command)?;
    release.program = target.join(TARGET).join(PROFILE).join("why502");
    let size = fs::metadata(&release.program)
        .with_context(|| format!("{} is not there after it was built", release.program.display()))?
        .len();
    println!("{}: {}", release.program.display(), megabytes(size));
    ensure!(
        size <= LARGEST,
        "the binary has {}: no more than {} may be handed out",
        megabytes(size),
        megabytes(LARGEST)
    );
    let program = fs::read(&release.program)?;
    for path in [release.workspace, home.as_path()].map(|path| path.as_os_str().as_encoded_bytes()) {
        ensure!(
            !program.windows(path.len()).any(|part| part == path),
            "the binary names {}, a path of this machine",
            String::from_utf8_lossy(path)
        );
    }
    Ok(())
}

/// Writes what each file hashes to, as `sha256sum --check` reads it; and says how large they are.
fn checksums(folder: &Path) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a file's name is not UTF-8")?;
        names.push((name, entry.metadata()?.len()));
    }
    names.sort();
    let files: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
    let sums = output(Command::new("sha256sum").current_dir(folder).args(files))?;
    write(&folder.join("SHA256SUMS"), sums)?;
    for (name, size) in &names {
        println!("{}: {}", folder.join(name).display(), megabytes(*size));
    }
    Ok(())
}

fn megabytes(size: u64) -> String {
    format!("{:.1} MiB", size as f64 / f64::from(1 << 20))
}

/// Writes a file and the folders above it; everybody may read it, whatever this process's umask is.
fn write(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    let written = || {
        let folder = path.parent().unwrap_or(Path::new("/"));
        folders(folder)?;
        fs::write(path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o644))
    };
    written().with_context(|| format!("{} cannot be written", path.display()))
}

fn folders(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        folders(above)?;
    }
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// What a program makes of a text.
fn through(command: &mut Command, text: &[u8]) -> Result<Vec<u8>> {
    use std::{io::Write as _, process::Stdio, thread};
    let what = shown(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{what}` cannot be run"))?;
    let mut stdin = child.stdin.take().context("there is no way to its input")?;
    let output = thread::scope(|scope| {
        let writer = scope.spawn(move || stdin.write_all(text));
        let output = child.wait_with_output();
        match writer.join() {
            Ok(written) => written.and(output),
            Err(_) => Err(std::io::Error::other("a thread panicked")),
        }
    })?;
    if !output.status.success() {
        bail!("`{what}` failed: {}", output.status);
    }
    Ok(output.stdout)
}

/// Compressed, without a name and a time.
fn gzip(text: &[u8]) -> Result<Vec<u8>> {
    through(Command::new("gzip").args(["--no-name", "--best", "--stdout"]), text)
}

/// A folder as an archive that is the same each time.
fn tar(release: &Release<'_>, folder: &Path, names: &[&str]) -> Command {
    let mut command = Command::new("tar");
    command
        .args(["--create", "--sort=name", "--format=gnu", "--owner=0", "--group=0", "--numeric-owner"])
        .arg(format!("--mtime=@{}", release.time))
        .arg("--directory")
        .arg(folder)
        .args(names);
    command
}
