//! Those who keep a host's logs: systemd's journald in a mount namespace of its own, and rsyslogd.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use tempfile::TempDir;

use crate::lines::Lines;
use crate::process::{self, Process};
use crate::wait;

/// journald's program, where Debian has it.
const JOURNALD: &str = "/lib/systemd/systemd-journald";

/// A running journald, killed when dropped. Nothing outside of its mount namespace sees it, and its journal goes with it.
#[derive(Debug)]
pub struct Journal {
    process: Process,
    stderr: Lines,
}

impl Journal {
    /// Starts one and waits until it takes messages.
    pub fn start() -> Result<Journal> {
        let script = format!(
            "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journald.conf.d /run/log && \
             printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\nRateLimitIntervalSec=0\\n' \
             >/run/systemd/journald.conf.d/rig.conf && exec {JOURNALD}"
        );
        let mut command = process::command(process::find_program(&["unshare"])?);
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::start(command)?;
        let stderr = Lines::collect(process.pipes().stderr.take().context("a pipe")?, |_| {});
        let mut journal = Journal { process, stderr };
        let folder = journal.inside("run/log/journal");
        wait::until_true("journald to keep a journal", || {
            if let Some(status) = journal.process.ended()? {
                bail!("journald ended ({status}): {}", journal.stderr.so_far().join("\n"));
            }
            Ok(folder.is_dir() && journal.inside("run/systemd/journal/socket").exists())
        })?;
        Ok(journal)
    }

    /// A path of its mount namespace.
    fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.process.pid())).join(path)
    }

    /// Has a command run where it is seen.
    pub fn show_to(&self, command: &mut Command) -> Result<()> {
        let namespace = File::open(format!("/proc/{}/ns/mnt", self.process.pid()))?;
        // SAFETY: setns(2) is async-signal-safe, and nothing here allocates or is dropped.
        unsafe {
            command.pre_exec(move || Ok(setns(&namespace, CloneFlags::CLONE_NEWNS)?));
        }
        Ok(())
    }

    /// Its process, which may be stopped.
    pub fn pid(&self) -> process::Pid {
        self.process.pid()
    }

    /// The entries that somebody with this identifier has made, as `journalctl` reads them.
    pub fn entries(&self, identifier: &str) -> Result<Vec<Value>> {
        let mut journalctl = process::command(process::find_program(&["journalctl"])?);
        journalctl.arg("-D").arg(self.inside("run/log/journal"));
        journalctl.args(["-o", "json", "--all", "--no-pager", "-q", "-t", identifier]);
        let text = process::output(journalctl)?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// Waits until there are so many.
    pub fn wait_for(&self, identifier: &str, count: usize) -> Result<Vec<Value>> {
        wait::until(&format!("{count} entries"), || {
            let entries = self.entries(identifier)?;
            Ok((entries.len() >= count).then_some(entries))
        })
    }
}

/// A running rsyslogd, killed when dropped; its files go with it.
#[derive(Debug)]
pub struct Rsyslog {
    process: Process,
    stderr: Lines,
    folder: TempDir,
    port: u16,
}

impl Rsyslog {
    /// Starts one that takes messages at a unix socket, and over UDP and TCP at one port, and waits until it does.
    pub fn start() -> Result<Rsyslog> {
        let folder = TempDir::with_prefix("why502-rsyslog-")?;
        // Between this and its start nobody else takes what was free.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Rsyslog::at(folder, port)
    }

    fn at(folder: TempDir, port: u16) -> Result<Rsyslog> {
        let file = |name: &str| folder.path().join(name).display().to_string();
        let text = format!(
            "global(workDirectory=\"{folder}\")\n\
             module(load=\"imuxsock\" SysSock.Use=\"off\")\nmodule(load=\"imudp\")\nmodule(load=\"imtcp\")\n\
             input(type=\"imuxsock\" Socket=\"{socket}\")\n\
             input(type=\"imudp\" address=\"127.0.0.1\" port=\"{port}\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
             template(name=\"whole\" type=\"string\" string=\"%jsonmesg%\\n\")\n\
             action(type=\"omfile\" file=\"{messages}\" template=\"whole\")\n",
            folder = folder.path().display(),
            socket = file("log"),
            messages = file("messages"),
        );
        fs::write(file("rsyslog.conf"), text)?;
        let mut command = process::command(process::find_program(&["rsyslogd"])?);
        command.args(["-n", "-f", &file("rsyslog.conf"), "-i", &file("pid")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::start(command)?;
        let stderr = Lines::collect(process.pipes().stderr.take().context("a pipe")?, |_| {});
        let mut rsyslog = Rsyslog { process, stderr, folder, port };
        wait::until_true("rsyslogd to listen", || {
            if let Some(status) = rsyslog.process.ended()? {
                bail!("rsyslogd ended ({status}): {}", rsyslog.stderr.so_far().join("\n"));
            }
            Ok(rsyslog.socket().exists() && std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())
        })?;
        Ok(rsyslog)
    }

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Its port, of UDP and TCP.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it and starts it anew, with `meanwhile` done in between.
    pub fn restart(self, meanwhile: impl FnOnce() -> Result<()>) -> Result<Rsyslog> {
        let Rsyslog { process, stderr, folder, port } = self;
        drop((process, stderr));
        meanwhile()?;
        let _ = fs::remove_file(folder.path().join("log"));
        Rsyslog::at(folder, port)
    }

    /// The messages of a program that it has, as it took them apart.
    pub fn messages(&self, program: &str) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.folder.path().join("messages")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let all = whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned()));
        let all = all.collect::<Result<Vec<Value>>>()?;
        Ok(all.into_iter().filter(|message| message["programname"] == program).collect())
    }

    /// Waits until there are so many.
    pub fn wait_for(&self, program: &str, count: usize) -> Result<Vec<Value>> {
        wait::until(&format!("{count} messages"), || {
            let messages = self.messages(program)?;
            Ok((messages.len() >= count).then_some(messages))
        })
    }
}
