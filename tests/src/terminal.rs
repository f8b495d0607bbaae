//! A pseudo-terminal, for programs that write otherwise to a terminal than to a pipe.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::Command;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

/// What a program finds out about its terminal.
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    /// How wide it is.
    pub columns: u16,
    /// Whether it is told to use colour; otherwise `NO_COLOR` is set.
    pub colour: bool,
}

impl Terminal {
    /// Makes the terminal, and makes it the command's standard output. What is written there can be read from
    /// the file returned, and ends with an error when nobody has the terminal open any more.
    pub fn attach(self, command: &mut Command) -> Result<File> {
        let size = Winsize { ws_row: 50, ws_col: self.columns, ws_xpixel: 0, ws_ypixel: 0 };
        let OpenptyResult { master, slave } = openpty(&size, None).context("making a pseudo-terminal")?;
        for end in [&master, &slave] {
            close_on_exec(end)?;
        }
        // As written: without a carriage return at the end of each line.
        let mut modes = tcgetattr(&slave)?;
        cfmakeraw(&mut modes);
        tcsetattr(&slave, SetArg::TCSANOW, &modes)?;

        command.stdout(slave).env("TERM", "xterm-256color");
        match self.colour {
            true => command.env_remove("NO_COLOR"),
            false => command.env("NO_COLOR", "1"),
        };
        Ok(master.into())
    }
}

fn close_on_exec(fd: &OwnedFd) -> Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}
