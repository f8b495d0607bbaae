//! The options of the commands that write what packages ship.

use std::path::PathBuf;

use clap::ValueEnum;

const COMPLETIONS: &str = "\
Examples:
  why502 completions bash > /etc/bash_completion.d/why502
  why502 completions zsh > /usr/local/share/zsh/site-functions/_why502
  why502 completions fish > /etc/fish/completions/why502.fish";

const MAN: &str = "\
Examples:
  why502 man /usr/local/share/man/man1    Then: man why502, man why502-live";

/// The options of `why502 completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = COMPLETIONS)]
pub struct Completions {
    /// The shell that is to complete why502's commands and options.
    pub shell: Shell,
}

/// A shell that completes commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Bash.
    Bash,
    /// Zsh.
    Zsh,
    /// Fish.
    Fish,
}

/// The options of `why502 man`.
#[derive(Debug, clap::Args)]
#[command(after_help = MAN)]
pub struct Man {
    /// The folder for the pages; it must exist.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
}
