//! An unnamed network namespace, its scratch folder, and everything that runs in it.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{self as this, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};
use tempfile::TempDir;

use crate::process::{self, Pid, Process};
use crate::watchdog;

/// A network of its own, with `lo` up, and a scratch folder. Clones are the same one; the last that is
/// dropped kills what still runs in it.
///
/// The namespace has no name and no mount: file descriptors and processes hold it, and nothing is left of it
/// after them.
#[derive(Debug, Clone)]
pub struct Namespace(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    net: File,
    /// What /proc/PID/ns/net reads as for processes in it: `net:[4026532281]`.
    identity: PathBuf,
    scratch: TempDir,
    /// The last to go: until then it would clear up after a SIGKILL.
    _watchdog: Process,
}

impl Namespace {
    /// A new, empty network. Needs root.
    pub fn new() -> Result<Namespace> {
        let (net, identity) = thread::spawn(unshared).join().unwrap_or_else(|panic| resume_unwind(panic))?;
        let scratch = TempDir::with_prefix("why502-rig-").context("making a scratch folder")?;
        let watchdog = watchdog::start(net.try_clone()?, &identity, scratch.path())?;
        let namespace = Namespace(Arc::new(Inner { net, identity, scratch, _watchdog: watchdog }));
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The scratch folder.
    pub fn scratch(&self) -> &Path {
        self.0.scratch.path()
    }

    /// Makes a folder in the scratch folder, named after `stem` and a number.
    pub fn folder(&self, stem: &str) -> Result<PathBuf> {
        (1..)
            .map(|number| self.scratch().join(format!("{stem}-{number}")))
            .find(|path| !path.exists())
            .and_then(|path| fs::create_dir(&path).is_ok().then_some(path))
            .with_context(|| format!("making a folder for {stem}"))
    }

    /// Runs `work` in a thread inside the network. Sockets made there stay in it wherever they are used.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.0.net.as_fd(), CloneFlags::CLONE_NEWNET)
                    .context("entering a network namespace")?;
                work()
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// A command that will run inside; the kernel kills it when this process dies.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = process::command(program);
        self.hold(&mut command);
        command
    }

    /// Lets what any command starts run inside.
    pub fn hold(&self, command: &mut Command) {
        let inner = Arc::clone(&self.0);
        // SAFETY: setns(2) is async-signal-safe, and nothing here allocates or is dropped.
        unsafe {
            command.pre_exec(move || Ok(setns(inner.net.as_fd(), CloneFlags::CLONE_NEWNET)?));
        }
    }

    /// Starts a command made by [`Namespace::command`].
    pub fn start(&self, command: Command) -> Result<Process> {
        Process::start(command)
    }

    /// Runs `ip` inside, the arguments separated by blanks.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        let mut command = self.command(process::find_program(&["ip"])?);
        command.args(arguments.split_whitespace());
        process::output(command)
    }

    /// Sets a sysctl inside: `net.ipv4.tcp_abort_on_overflow`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        self.run(|| fs::write(&path, value).with_context(|| format!("setting {name} to {value}")))
    }

    /// The processes that run inside.
    pub fn processes(&self) -> Result<Vec<Pid>> {
        self.0.processes()
    }

    /// Kills all that runs inside, and waits until it is gone.
    pub fn kill_all(&self) {
        self.0.kill_all();
    }

    /// A descriptor of the namespace.
    pub(crate) fn net(&self) -> &File {
        &self.0.net
    }
}

impl Inner {
    fn processes(&self) -> Result<Vec<Pid>> {
        let me = this::id().cast_signed();
        let pids = fs::read_dir("/proc")
            .context("listing /proc")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<Pid>().ok())
            .filter(|pid| *pid != me)
            .filter(|pid| fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|net| net == self.identity));
        Ok(pids.collect())
    }
    fn kill_all(&self) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            match self.processes() {
                Ok(pids) if pids.is_empty() => return,
                Ok(pids) => pids.into_iter().for_each(process::kill_if_there),
                Err(error) => return eprintln!("rig: {error:#}"),
            }
            thread::sleep(Duration::from_millis(2));
        }
        eprintln!("rig: processes of {} outlive SIGKILL", self.identity.display());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.kill_all();
    }
}

fn unshared() -> Result<(File, PathBuf)> {
    const PATH: &str = "/proc/thread-self/ns/net";
    unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace (this needs root)")?;
    Ok((File::open(PATH).context(PATH)?, fs::read_link(PATH).context(PATH)?))
}
