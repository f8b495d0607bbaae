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
    arch::Arch,
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

/// How the static binaries are built, by `Cargo.toml`. Cargo has a folder of this name under `target`: it must not be the one that is made anew here.
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

    /// Pack these programs, for x86-64 and for arm64, which were built as a release is, instead of building them.
    #[arg(long, value_name = "PATH", num_args = 2, hide = true, conflicts_with = "twice")]
    programs: Vec<PathBuf>,
}

impl Options {
    /// Packs these programs, in the order of [`Arch::ALL`].
    pub(crate) fn of(programs: [PathBuf; 2]) -> Self {
        Self { programs: programs.into(), ..Self::default() }
    }
}

/// One release: of which version, of which commit, and where its parts are put together.
struct Release<'a> {
    workspace: &'a Path,
    /// What its programs run on.
    arch: Arch,
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
pub(crate) fn program(steps: &mut Steps, workspace: &Path, arch: Arch) -> Result<PathBuf> {
    set_up::set_up_program(steps, workspace, arch)?;
    let release = Release::of(workspace, &workspace.join("target/dist"), arch)?;
    build(steps, &release, &workspace.join("target"))
}

/// Makes them all, and their checksums.
pub(crate) fn run(steps: &mut Steps, workspace: &Path, options: &Options) -> Result<()> {
    make(steps, workspace, &workspace.join("target/dist"), None, &options.programs)?;
    if options.twice {
        let again = workspace.join("target/dist-again");
        make(steps, workspace, &again.join("dist"), Some(&again.join("target")), &[])?;
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
    programs: &[PathBuf],
) -> Result<()> {
    // A part of an earlier run must not be handed out, or be compared.
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("{} cannot be removed", folder.display()))?;
    }
    let target = target.map_or_else(|| workspace.join("target"), Path::to_owned);
    let mut releases = Vec::new();
    for (number, arch) in Arch::ALL.into_iter().enumerate() {
        let mut release = Release::of(workspace, folder, arch)?;
        release.program = match programs.get(number) {
            Some(program) => program.clone(),
            None => build(steps, &release, &target)?,
        };
        releases.push(release);
    }
    let own = releases.iter().find(|release| release.arch.red_hat() == env::consts::ARCH);
    let speaks = own.context("none of the programs runs on this machine")?.program.clone();
    for release in &releases {
        fs::create_dir_all(&release.work)
            .with_context(|| format!("{} cannot be made", release.work.display()))?;
        let dependencies = dependencies::of(workspace, release.arch)?;
        let parts = tree::Parts::gather(release, &speaks, &dependencies)?;
        archive::make(steps, release, &parts)?;
        debian::make(steps, release, &parts)?;
        red_hat::make(steps, release, &parts)?;
        image::make(steps, release)?;
        bill::make(release, &dependencies)?;
        fs::remove_dir_all(&release.work)?;
    }
    checksums(folder)
}

impl<'a> Release<'a> {
    fn of(workspace: &'a Path, folder: &Path, arch: Arch) -> Result<Self> {
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
            arch,
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
        format!("why502-{}-{}", self.version, self.arch.target())
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

/// Where cargo keeps the sources of others.
fn cargo_home() -> Result<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    home.context("neither CARGO_HOME nor a home folder is set")
}

/// A command of cargo's that builds as a release is built. All static programs share it, so that what they link is built once.
pub(crate) fn cargo_for(verb: &str, workspace: &Path, arch: Arch, target: &Path) -> Result<Command> {
    let home = cargo_home()?;
    // Of two that fit, rustc and the C compiler take the later one.
    let places = [(home.as_path(), "/cargo"), (workspace, "/why502"), (target, "/target")];
    let rust: Vec<String> =
        places.iter().map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display())).collect();
    let c: Vec<String> =
        places.iter().map(|(path, name)| format!("-ffile-prefix-map={}={name}", path.display())).collect();
    let mut command = cargo();
    command
        .args([verb, "--locked", "--profile", PROFILE, "--target", arch.target(), "--target-dir"])
        .arg(target)
        .env("CARGO_ENCODED_RUSTFLAGS", rust.join("\u{1f}"))
        .env(format!("CFLAGS_{}", arch.target().replace('-', "_")), c.join(" "));
    arch.cross(&mut command);
    Ok(command)
}

/// Builds the static binary, in cargo's own folder or in another one, and says where it is.
fn build(steps: &mut Steps, release: &Release<'_>, target: &Path) -> Result<PathBuf> {
    let mut command = cargo_for("build", release.workspace, release.arch, target)?;
    command
        .args(["--package", "tracer-user", "--bin", "why502"])
        .env("SOURCE_DATE_EPOCH", &release.time)
        .env("WHY502_COMMIT", &release.commit);
    steps.run(&format!("building the static binary for {}", release.arch.debian()), &mut command)?;
    let path = target.join(release.arch.target()).join(PROFILE).join("why502");
    let size = fs::metadata(&path)
        .with_context(|| format!("{} is not there after it was built", path.display()))?
        .len();
    println!("{}: {}", path.display(), megabytes(size));
    ensure!(
        size <= LARGEST,
        "the binary has {}: no more than {} may be handed out",
        megabytes(size),
        megabytes(LARGEST)
    );
    let (program, home) = (fs::read(&path)?, cargo_home()?);
    for named in [release.workspace, home.as_path()].map(|path| path.as_os_str().as_encoded_bytes()) {
        ensure!(
            !program.windows(named.len()).any(|part| part == named),
            "the binary names {}, a path of this machine",
            String::from_utf8_lossy(named)
        );
    }
    Ok(path)
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
