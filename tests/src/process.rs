//! Processes that end with the test, and what /proc says about them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd;

use crate::lines::Lines;
use crate::wait;

/// A process id, as the initial pid namespace counts.
pub type Pid = i32;

/// A child of this process, killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts a command made by [`command`] or [`Namespace::command`](crate::Namespace::command).
    pub fn start(command: Command) -> Result<Process> {
        let name = format!("{command:?}");
        let child = spawn(command).with_context(|| format!("starting {name}"))?;
        Ok(Process { child, status: None })
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        self.child.id().cast_signed()
    }

    /// The pipes it was started with.
    pub fn pipes(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.status.is_some() {
            bail!("process {} has been reaped, so its pid may be another's", self.pid());
        }
        send(self.pid(), signal)
    }

    /// Waits until this command of why502's has made the file that says that its hooks are attached.
    pub(crate) fn wait_ready(&mut self, what: &str, ready: &Path, stderr: &Lines) -> Result<()> {
        let complaints = || stderr.so_far().join("\n");
        wait::until_true(&format!("{what} to attach its hooks"), || {
            if let Some(status) = self.ended()? {
                bail!("{what} ended ({status}) before they were: {}", stderr.whole()?.join("\n"));
            }
            Ok(ready.exists())
        })
        .with_context(complaints)
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let what = format!("the end of process {}", self.pid());
        wait::until(&what, || self.ended())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none() {
            // Failure means that it is gone already.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A command for a program on this machine, outside of any namespace of the rig's. The kernel kills it when
/// this process dies.
pub fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    detach(&mut command);
    // SAFETY: prctl(2) is async-signal-safe, and nothing here allocates.
    unsafe {
        command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?));
    }
    command
}

/// Takes a capability from a command of root's, by its number (include/uapi/linux/capability.h): it never has it.
pub fn without_capability(command: &mut Command, capability: u32) {
    // SAFETY: prctl(2) is async-signal-safe, and nothing here allocates.
    unsafe {
        command.pre_exec(move || {
            let number = libc::c_ulong::from(capability);
            Errno::result(libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0))?;
            Ok(())
        });
    }
}

/// Gives a command a process group of its own, so that a terminal's Ctrl-C does not reach it.
pub(crate) fn detach(command: &mut Command) {
    command.process_group(0);
}

/// Runs a short command to its end and returns its standard output.
pub fn output(mut command: Command) -> Result<String> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Sends a signal to any process.
pub fn send(pid: Pid, signal: Signal) -> Result<()> {
    kill(unistd::Pid::from_raw(pid), signal).with_context(|| format!("sending {signal} to {pid}"))
}

/// Kills a process that may have ended by itself.
pub(crate) fn kill_if_there(pid: Pid) {
    match kill(unistd::Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => eprintln!("rig: killing {pid}: {error}"),
    }
}

/// The live children of a process.
pub fn children(pid: Pid) -> Result<Vec<Pid>> {
    let processes = procfs::process::all_processes().context("listing /proc")?;
    let mut children: Vec<Pid> = processes
        .filter_map(|process| process.ok()?.stat().ok())
        .filter(|stat| stat.ppid == pid && stat.state != 'Z')
        .map(|stat| stat.pid)
        .collect();
    children.sort_unstable();
    Ok(children)
}

/// The state letter of a process (`S`, `R`, `T`, ...), or `None` if it has ended.
pub fn state(pid: Pid) -> Option<char> {
    procfs::process::Process::new(pid).ok()?.stat().ok().map(|stat| stat.state).filter(|state| *state != 'Z')
}

/// How many descriptors below a limit a process has; it may have inherited some above.
pub fn descriptors(pid: Pid, limit: usize) -> Result<usize> {
    let open = procfs::process::Process::new(pid)?.fd().with_context(|| format!("descriptors of {pid}"))?;
    // One may be closed meanwhile.
    let numbers = open.filter_map(|descriptor| usize::try_from(descriptor.ok()?.fd).ok());
    Ok(numbers.filter(|number| *number < limit).count())
}

/// A process that is stopped until this is dropped.
#[derive(Debug)]
pub struct Stopped(Pid);

/// Stops a process, and waits until each of its threads stands still: one that waits in accept(2) takes a connection that comes
/// before it is shown the signal (`inet_csk_wait_for_connect` looks at the queue first), whatever became of the others.
pub fn stop(pid: Pid) -> Result<Stopped> {
    send(pid, Signal::SIGSTOP)?;
    let stopped = Stopped(pid);
    wait::until_true("a process to stop", || {
        for thread in procfs::process::Process::new(pid)?.tasks()? {
            // One may end meanwhile.
            if thread.is_ok_and(|thread| thread.stat().is_ok_and(|stat| stat.state != 'T')) {
                return Ok(false);
            }
        }
        Ok(true)
    })?;
    Ok(stopped)
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // Failure means that it is gone.
        let _ = send(self.0, Signal::SIGCONT);
    }
}

/// Finds a program by the first of `names` that is installed; a trailing `*` stands for any version
/// (`php-fpm*`).
pub fn find_program(names: &[&str]) -> Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders: Vec<&str> = path.split(':').chain(["/usr/local/sbin", "/usr/sbin", "/sbin"]).collect();
    for name in names {
        for folder in &folders {
            let found = match name.strip_suffix('*') {
                None => Some(Path::new(folder).join(name)).filter(|path| path.is_file()),
                Some(stem) => newest(Path::new(folder), stem),
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
    }
    bail!("none of {} is installed", names.join(", "))
}

fn newest(folder: &Path, stem: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    entries.filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(stem))).max()
}

/// Spawns from a thread that lives as long as this process: the kernel's "parent death" is the death of the
/// thread that forked, and test threads come and go.
fn spawn(command: Command) -> io::Result<Child> {
    type Job = (Command, Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, inbox) = channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                let child = command.spawn();
                // It may hold the last clone of a namespace, which whoever asked shall be the one to drop.
                drop(command);
                // If whoever asked has given up, the child is left to its namespace.
                let _ = reply.send(child);
            }
        });
        Mutex::new(jobs)
    });
    let (reply, answer) = channel();
    let gone = || io::Error::other("the spawning thread is gone");
    spawner.lock().map_err(|_| gone())?.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// One of the rig's own programs. cargo says to integration tests where they are; to other programs of the rig they lie beside.
pub(crate) fn of_the_rig(name: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(format!("CARGO_BIN_EXE_{name}")) {
        return Ok(path.into());
    }
    let me = std::env::current_exe()?;
    for folder in me.ancestors().skip(1).take(2) {
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!("{name} is not built: cargo build -p rig --bins")
}

/// What the kernel says of each of a process's descriptors (/proc/PID/fdinfo), by name.
pub fn files_info(pid: Pid) -> Result<Vec<BTreeMap<String, String>>> {
    let entries =
        fs::read_dir(format!("/proc/{pid}/fdinfo")).with_context(|| format!("the files of {pid}"))?;
    let mut all = Vec::new();
    for entry in entries {
        // It may have been closed meanwhile.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        all.push(fields.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect());
    }
    Ok(all)
}
