//! A real terminal, with a shell in it: tmux, of which the screen can be read and to which keys can be sent.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::process::{self, Process};
use crate::wait;

/// A terminal. It and what runs in it end when it is dropped.
#[derive(Debug)]
pub struct Tmux {
    // Killed before its folder is removed.
    server: Process,
    folder: TempDir,
}

impl Tmux {
    /// Opens one of this size, with a shell in it that has these variables.
    pub fn start(columns: u16, lines: u16, environment: &[(&str, &str)]) -> Result<Tmux> {
        let folder = TempDir::with_prefix("why502-tmux-")?;
        let mut command = program()?;
        // Not as a daemon, so that it is a child of this process.
        command.args(["-u", "-D", "-f", "/dev/null", "-S"]).arg(folder.path().join(SOCKET));
        command.env_remove("TMUX").env("LC_ALL", "C.UTF-8").env_remove("NO_COLOR");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        for (name, value) in environment {
            command.env(name, value);
        }
        let tmux = Tmux { server: Process::start(command)?, folder };
        wait::until_true("tmux's socket", || Ok(tmux.folder.path().join(SOCKET).exists()))?;
        let size = [columns.to_string(), lines.to_string()];
        tmux.ask(&["new-session", "-d", "-x", &size[0], "-y", &size[1], "/bin/sh"])?;
        // Typed, for a shell of root's has a prompt of its own.
        tmux.type_line(&format!("PS1='{PROMPT}'; clear"))?;
        tmux.wait_until("the shell's prompt", |screen| screen.trim() == PROMPT.trim())?;
        Ok(tmux)
    }

    /// A folder of its own, which goes with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether the terminal itself still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.server.ended()?.is_none())
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let mut command = program()?;
        command.arg("-u").arg("-S").arg(self.folder.path().join(SOCKET)).args(arguments);
        process::output(command)
    }

    /// Presses keys, by their names (`Enter`, `Escape`, `Down`) or as letters.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        self.ask(&[&["send-keys"], keys].concat()).map(drop)
    }

    /// Types a line, once the shell waits for one: what is typed ahead stands before its prompt, and what comes of it behind.
    pub fn line(&self, text: &str) -> Result<()> {
        self.wait_until("the shell's prompt", |screen| screen.trim_end().ends_with(PROMPT.trim_end()))?;
        self.type_line(text)
    }

    fn type_line(&self, text: &str) -> Result<()> {
        self.ask(&["send-keys", "-l", "--", text])?;
        self.press(&["Enter"])
    }

    /// Writes what programs draw, byte by byte, into a file from now on.
    pub fn record(&self, file: &Path) -> Result<Recording<'_>> {
        self.ask(&["pipe-pane", "-O", &format!("exec cat > {}", file.display())])?;
        wait::until_true("what is drawn to be written down", || Ok(file.exists()))?;
        Ok(Recording { tmux: self })
    }

    /// What is on the screen.
    pub fn screen(&self) -> Result<String> {
        self.ask(&["capture-pane", "-p"])
    }

    /// The same, with the sequences that set colours and the like.
    pub fn styled(&self) -> Result<String> {
        self.ask(&["capture-pane", "-p", "-e"])
    }

    /// What tmux knows of the terminal, in its own words, as in `#{cursor_flag}`.
    pub fn knows(&self, format: &str) -> Result<String> {
        Ok(self.ask(&["display-message", "-p", format])?.trim().to_owned())
    }

    /// Gives it another size.
    pub fn resize(&self, columns: u16, lines: u16) -> Result<()> {
        let size = [columns.to_string(), lines.to_string()];
        self.ask(&["resize-window", "-x", &size[0], "-y", &size[1]]).map(drop)
    }

    /// Waits until this is on the screen; returns the whole screen.
    pub fn wait_for(&self, text: &str) -> Result<String> {
        self.wait_until(&format!("{text:?} on the screen"), |screen| screen.contains(text))
    }

    /// Waits until the screen is as it should be, and returns it.
    pub fn wait_until(&self, what: &str, is: impl Fn(&str) -> bool) -> Result<String> {
        let found = wait::until(what, || Ok(Some(self.screen()?).filter(|screen| is(screen))));
        found.with_context(|| self.screen().unwrap_or_default())
    }
}

/// What is drawn is being written down.
#[derive(Debug)]
pub struct Recording<'a> {
    tmux: &'a Tmux,
}

impl Recording<'_> {
    /// Ends it.
    pub fn end(self) -> Result<()> {
        self.tmux.ask(&["pipe-pane"]).map(drop)
    }
}

const SOCKET: &str = "socket";
/// What the shell says when it waits for a line.
const PROMPT: &str = "rig> ";

fn program() -> Result<Command> {
    Ok(process::command(process::find_program(&["tmux"])?))
}
