//! The parts of the packages, and where each system has them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{Release, dependencies::Dependency, folders, notices, write};
use crate::step::output;

/// What `why502` writes of itself, and the texts.
pub(crate) struct Parts {
    program: PathBuf,
    /// The pages' names, without the folder, and their text.
    pub(crate) pages: Vec<(String, Vec<u8>)>,
    /// For each shell what it completes by.
    pub(crate) completions: Vec<(Shell, String)>,
    pub(crate) notices: String,
    pub(crate) licence: String,
    pub(crate) changelog: String,
    /// The options of the service, as they are installed.
    pub(crate) configuration: String,
    unit: String,
    rules: String,
    dashboard: String,
}

/// The shells that the program knows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    const ALL: [(Self, &str); 3] = [(Self::Bash, "bash"), (Self::Zsh, "zsh"), (Self::Fish, "fish")];

    /// How the file must be called for the shell to find it.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Bash => "why502",
            Self::Zsh => "_why502",
            Self::Fish => "why502.fish",
        }
    }
}

impl Parts {
    /// Has the program write what it knows of itself: `speaks` is the one that this machine can run.
    pub(crate) fn gather(release: &Release<'_>, speaks: &Path, dependencies: &[Dependency]) -> Result<Self> {
        let folder = release.work.join("man");
        fs::create_dir_all(&folder)?;
        output(Command::new(speaks).arg("man").arg(&folder))?;
        let mut pages = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            pages.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
        }
        pages.sort();
        let mut completions = Vec::new();
        for (shell, name) in Shell::ALL {
            completions.push((shell, output(Command::new(speaks).args(["completions", name]))?));
        }
        let read = |name: &str| {
            let path = release.workspace.join(name);
            fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))
        };
        Ok(Self {
            program: release.program.clone(),
            pages,
            completions,
            notices: notices::of(dependencies)?,
            licence: read("LICENSE")?,
            changelog: read("CHANGELOG.md")?,
            configuration: read("packaging/why502.toml")?,
            unit: read("packaging/why502.service")?,
            rules: read("packaging/prometheus/why502.rules.yml")?,
            dashboard: read("packaging/grafana/why502.json")?,
        })
    }

    /// Puts the program into a folder.
    pub(crate) fn put_program(&self, folder: &Path) -> Result<()> {
        let put = || {
            folders(folder)?;
            let path = folder.join("why502");
            fs::copy(&self.program, &path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        };
        put().with_context(|| format!("the program cannot be put into {}", folder.display()))
    }

    /// Puts the service where every system looks for it: its unit, which is not started by that, its options, and as examples rules for
    /// Prometheus and a dashboard for Grafana.
    pub(crate) fn put_service(&self, root: &Path, units: &str, documents: &str) -> Result<()> {
        write(&root.join(units).join("why502.service"), &self.unit)?;
        write(&root.join("etc/why502.toml"), &self.configuration)?;
        write(&root.join(documents).join("why502.rules.yml"), &self.rules)?;
        write(&root.join(documents).join("why502.grafana.json"), &self.dashboard)
    }

    /// Puts the compressed manual pages and the completions of bash and fish where every system looks for them, and zsh's into the
    /// folder that this one has for them.
    pub(crate) fn put_shared(&self, root: &Path, zsh: &str) -> Result<()> {
        for (name, page) in &self.pages {
            write(&root.join("usr/share/man/man1").join(format!("{name}.gz")), super::gzip(page)?)?;
        }
        for (shell, text) in &self.completions {
            let folder = match shell {
                Shell::Bash => "usr/share/bash-completion/completions",
                Shell::Zsh => zsh,
                Shell::Fish => "usr/share/fish/vendor_completions.d",
            };
            write(&root.join(folder).join(shell.file()), text)?;
        }
        Ok(())
    }
}
