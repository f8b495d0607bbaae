//! The record of the BPF toolchain: `cargo xtask setup` writes it, and who builds the kernel side obeys it.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
};

/// The toolchain that builds the BPF side, and with whose LLVM the project's own bpf-linker was linked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfToolchain {
    /// What `rustup run` takes: a toolchain's name, or the prefix it is installed under (`/usr`).
    pub name: String,
    /// The first line of `rustc -vV`. When it changes, so may its LLVM, and then bpf-linker must be built again.
    pub rustc: String,
    /// Whether it takes `-Z build-std` only with `RUSTC_BOOTSTRAP=1`, because it is not a nightly.
    pub bootstrap: bool,
}

impl BpfToolchain {
    /// The project's folder for its own bpf-linker and this record. It does not follow `CARGO_TARGET_DIR`: there is one per checkout.
    pub fn folder(workspace: &Path) -> PathBuf {
        workspace.join("target/bpf")
    }

    /// Where the record is kept.
    pub fn path(workspace: &Path) -> PathBuf {
        Self::folder(workspace).join("toolchain")
    }

    /// The folder of the project's own bpf-linker.
    pub fn linker_folder(workspace: &Path) -> PathBuf {
        Self::folder(workspace).join("bin")
    }

    /// Reads the record; without one there has been no (whole) set-up.
    pub fn read(workspace: &Path) -> io::Result<Self> {
        fs::read_to_string(Self::path(workspace))?.parse().map_err(io::Error::other)
    }

    /// Its first line of `rustc -vV` as it is now, or nothing if it cannot be run any more.
    pub fn rustc_now(&self) -> Option<String> {
        self.version_now()?.lines().next().map(str::to_owned)
    }

    /// The version of its LLVM.
    pub fn llvm_now(&self) -> Option<String> {
        self.version_now()?.lines().find_map(|line| line.strip_prefix("LLVM version: ")).map(str::to_owned)
    }

    /// Where it is installed.
    pub fn sysroot(&self) -> Option<PathBuf> {
        printed(program(&self.name, "rustc").args(["--print", "sysroot"])).map(|path| path.trim().into())
    }

    fn version_now(&self) -> Option<String> {
        printed(program(&self.name, "rustc").arg("-vV"))
    }

    /// What the project's own bpf-linker calls itself, or nothing if it cannot be run.
    pub fn linker_now(workspace: &Path) -> Option<String> {
        let linker = Self::linker_folder(workspace).join("bpf-linker");
        printed(Command::new(linker).arg("--version").env_remove("LD_LIBRARY_PATH"))
            .map(|version| version.trim().to_owned())
    }

    /// Whether it is as it was when it was recorded.
    pub fn is_ready(&self, workspace: &Path) -> bool {
        self.rustc_now().as_ref() == Some(&self.rustc) && Self::linker_now(workspace).is_some()
    }
}

/// A program of a toolchain that is given as in [`BpfToolchain::name`].
pub fn program(toolchain: &str, program: &str) -> Command {
    if toolchain.starts_with('/') {
        Command::new(Path::new(toolchain).join("bin").join(program))
    } else {
        let mut command = Command::new("rustup");
        command.args(["run", toolchain, program]);
        command
    }
}

/// What a program prints, if all went well.
fn printed(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok())?
}

impl fmt::Display for BpfToolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, rustc, bootstrap } = self;
        writeln!(f, "name={name}\nrustc={rustc}\nbootstrap={bootstrap}")
    }
}

impl FromStr for BpfToolchain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let value = |key: &str| crate::value(text, key).ok_or_else(|| format!("the record has no {key}"));
        let bootstrap = value("bootstrap")?;
        Ok(Self {
            name: value("name")?.to_owned(),
            rustc: value("rustc")?.to_owned(),
            bootstrap: bootstrap
                .parse()
                .map_err(|_| format!("bootstrap={bootstrap} is not true or false"))?,
        })
    }
}
