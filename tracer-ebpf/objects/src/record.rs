//! What is written beside the prebuilt objects: what they were made of, and with what.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Error, Result, bail};

use crate::{ARCHITECTURES, sources, toolchain::BpfToolchain};

/// The folder of the prebuilt objects, in the workspace.
pub const FOLDER: &str = "tracer-ebpf/prebuilt";

/// The programs that objects are built with, each as it names its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// The compiler.
    pub rustc: String,
    /// Its LLVM, which is the linker's as well.
    pub llvm: String,
    /// The linker.
    pub linker: String,
}

impl Tools {
    /// Those of a toolchain that is set up.
    ///
    /// # Errors
    /// If one does not run.
    pub fn of(workspace: &Path, toolchain: &BpfToolchain) -> Result<Self> {
        Ok(Self {
            rustc: toolchain.rustc.clone(),
            llvm: toolchain.llvm_now().context("the BPF toolchain's rustc names no LLVM")?,
            linker: BpfToolchain::linker_now(workspace).context("the project's bpf-linker does not run")?,
        })
    }
}

impl fmt::Display for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rustc, llvm, linker } = self;
        write!(f, "{rustc}, LLVM {llvm}, {linker}")
    }
}

/// What is known of the prebuilt objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What built them.
    pub tools: Tools,
    /// What [`crate::sources::hash`] said.
    pub sources: String,
    /// What the objects of each of [`ARCHITECTURES`] hash to.
    pub objects: [String; ARCHITECTURES.len()],
}

impl Record {
    /// Where it is.
    pub fn path(workspace: &Path) -> PathBuf {
        workspace.join(FOLDER).join("record.txt")
    }

    /// Reads it.
    ///
    /// # Errors
    /// If it is not there, or not as it was written.
    pub fn read(workspace: &Path) -> Result<Self> {
        let path = Self::path(workspace);
        let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        text.parse().with_context(|| format!("{} cannot be understood", path.display()))
    }

    /// Whether the prebuilt objects were made of the sources that are here.
    ///
    /// # Errors
    /// If that cannot be found out.
    pub fn is_of_these_sources(&self, workspace: &Path) -> Result<bool> {
        Ok(self.sources == sources::hash(workspace)?)
    }

    /// What the objects for a processor hash to.
    ///
    /// # Errors
    /// If there are none for it.
    pub fn objects_for(&self, arch: &str) -> Result<&str> {
        let Some(place) = ARCHITECTURES.iter().position(|name| *name == arch) else {
            bail!("there are no prebuilt BPF objects for {arch}, only for {}", ARCHITECTURES.join(" and "));
        };
        Ok(&self.objects[place])
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tools: Tools { rustc, llvm, linker }, sources, objects } = self;
        writeln!(f, "rustc={rustc}\nllvm={llvm}\nlinker={linker}\nsources={sources}")?;
        ARCHITECTURES.iter().zip(objects).try_for_each(|(arch, hash)| writeln!(f, "{arch}={hash}"))
    }
}

impl FromStr for Record {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let value = |key: &str| {
            crate::value(text, key).map(str::to_owned).with_context(|| format!("it has no {key}"))
        };
        let tools = Tools { rustc: value("rustc")?, llvm: value("llvm")?, linker: value("linker")? };
        let [x86_64, aarch64] = ARCHITECTURES.map(value);
        Ok(Self { tools, sources: value("sources")?, objects: [x86_64?, aarch64?] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_written() {
        let record = Record {
            tools: Tools {
                rustc: "rustc 1.0 (a = b)".to_owned(),
                llvm: "22.1".to_owned(),
                linker: "bpf-linker 0.13.0".to_owned(),
            },
            sources: "0123".to_owned(),
            objects: ["4567".to_owned(), "89ab".to_owned()],
        };
        let text = record.to_string();
        assert_eq!(text.parse::<Record>().unwrap(), record);
        assert_eq!(record.objects_for("aarch64").unwrap(), "89ab");
        let why = record.objects_for("riscv64").unwrap_err().to_string();
        assert!(why.contains("for riscv64, only for x86_64 and aarch64"), "{why}");
        let shorter = text.replace("sources=", "other=");
        assert!(shorter.parse::<Record>().unwrap_err().to_string().contains("no sources"));
    }
}
