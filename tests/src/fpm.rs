//! php-fpm, in the foreground, in a folder of the namespace's scratch.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::process::{self, Pid, Process};
use crate::{Endpoint, Namespace, wait};

const SCRIPTS: [(&str, &str); 12] = [
    ("prepend.php", include_str!("php/prepend.php")),
    ("ok.php", include_str!("php/ok.php")),
    ("sleep.php", include_str!("php/sleep.php")),
    ("spin.php", include_str!("php/spin.php")),
    ("die.php", include_str!("php/die.php")),
    ("exit.php", include_str!("php/exit.php")),
    ("big_header.php", include_str!("php/big_header.php")),
    ("slow_body.php", include_str!("php/slow_body.php")),
    ("echo.php", include_str!("php/echo.php")),
    ("hoard.php", include_str!("php/hoard.php")),
    ("exec.php", include_str!("php/exec.php")),
    ("stderr.php", include_str!("php/stderr.php")),
];

/// How a php-fpm is to be set up.
#[derive(Debug, Clone)]
pub struct Builder {
    namespace: Namespace,
    listen: Endpoint,
    workers: usize,
    global: Vec<String>,
    pool: Vec<String>,
}

impl Builder {
    /// Where to listen; 127.0.0.1:9000 if not said.
    pub fn listen(mut self, listen: Endpoint) -> Builder {
        self.listen = listen;
        self
    }

    /// How many workers, always (`pm = static`); two if not said.
    pub fn workers(mut self, workers: usize) -> Builder {
        self.workers = workers;
        self
    }

    /// `listen.backlog`.
    pub fn backlog(self, backlog: i32) -> Builder {
        self.pool(&format!("listen.backlog = {backlog}"))
    }

    /// `request_terminate_timeout`, in whole seconds.
    pub fn terminate_after(self, timeout: Duration) -> Builder {
        self.pool(&format!("request_terminate_timeout = {}s", timeout.as_secs()))
    }

    /// `process_control_timeout`, in whole seconds: how long a reload lets requests in flight go on.
    pub fn control_timeout(mut self, timeout: Duration) -> Builder {
        self.global.push(format!("process_control_timeout = {}s", timeout.as_secs()));
        self
    }

    /// Any line of the pool's section.
    pub fn pool(mut self, line: &str) -> Builder {
        self.pool.push(line.into());
        self
    }

    /// Starts it and waits until it listens and every worker is there.
    pub fn start(self) -> Result<Fpm> {
        let folder = self.namespace.folder("fpm")?;
        let fpm =
            Layout { docroot: folder.join("www"), marks: folder.join("marks"), log: folder.join("log") };
        for made in [&fpm.docroot, &fpm.marks] {
            fs::create_dir(made)?;
        }
        for (name, script) in SCRIPTS {
            fs::write(fpm.docroot.join(name), script)?;
        }
        let conf = folder.join("fpm.conf");
        fs::write(&conf, self.configuration(&fpm))?;

        let mut command = self.namespace.command(process::find_program(&["php-fpm", "php-fpm*"])?);
        // -F: in the foreground; -R: root may run workers; -n: not this machine's php.ini, so no extension
        // but the named.
        command.args(["-F", "-R", "-n", "-d", "extension=posix", "-y"]).arg(&conf);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let master = self.namespace.start(command)?;
        let mut fpm = Fpm { master, layout: fpm, builder: self };
        wait::until_true("php-fpm's workers", || {
            if let Some(status) = fpm.master.ended()? {
                anyhow::bail!("php-fpm ended ({status}): {}", fpm.log());
            }
            Ok(fpm.workers()?.len() == fpm.builder.workers)
        })?;
        fpm.builder.namespace.wait_for_listener(&fpm.builder.listen)?;
        Ok(fpm)
    }

    fn configuration(&self, layout: &Layout) -> String {
        let Builder { listen, workers, global, pool, .. } = self;
        let Layout { docroot, marks, log } = layout;
        format!(
            "[global]\nerror_log = {log}\nlog_level = notice\n{global}\n\
             [www]\nuser = root\ngroup = root\nlisten = {listen}\nlisten.mode = 0666\npm = static\npm.max_children = {workers}\n\
             rlimit_core = 0\nclear_env = no\nenv[RIG_MARKS] = {marks}\n\
             php_admin_value[auto_prepend_file] = {docroot}/prepend.php\n{pool}\n",
            log = log.display(),
            marks = marks.display(),
            docroot = docroot.display(),
            global = global.join("\n"),
            pool = pool.join("\n"),
        )
    }
}

#[derive(Debug)]
struct Layout {
    docroot: PathBuf,
    /// Where each tagged request leaves the pid of its worker.
    marks: PathBuf,
    log: PathBuf,
}

/// A running php-fpm, killed with its workers when dropped.
#[derive(Debug)]
pub struct Fpm {
    master: Process,
    layout: Layout,
    builder: Builder,
}

impl Fpm {
    /// Begins to set one up.
    pub fn on(namespace: &Namespace) -> Builder {
        let (global, pool) = (Vec::new(), Vec::new());
        Builder { namespace: namespace.clone(), listen: Endpoint::v4(9000), workers: 2, global, pool }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.builder.listen
    }

    /// The file that configures its pool, www.
    pub fn pool_file(&self) -> PathBuf {
        self.layout.docroot.with_file_name("fpm.conf")
    }

    /// The folder of its scripts.
    pub fn docroot(&self) -> &Path {
        &self.layout.docroot
    }

    /// The master's pid.
    pub fn master(&self) -> Pid {
        self.master.pid()
    }

    /// The workers' pids.
    pub fn workers(&self) -> Result<Vec<Pid>> {
        process::children(self.master())
    }

    /// Waits until the request with `?tag=NAME` runs, and returns its worker.
    pub fn worker_on(&self, tag: &str) -> Result<Pid> {
        let mark = self.layout.marks.join(tag);
        let worker = wait::until(&format!("request {tag} to begin"), || Ok(fs::read_to_string(&mark).ok()))?;
        worker.parse().with_context(|| format!("the mark of {tag}: {worker:?}"))
    }

    /// Whether the request with `?tag=NAME` has begun.
    pub fn has_begun(&self, tag: &str) -> bool {
        self.layout.marks.join(tag).exists()
    }

    /// Its own log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.layout.log).unwrap_or_default()
    }

    /// Reloads it (USR2) and waits for a full set of new workers.
    pub fn reload(&self) -> Result<()> {
        let before = self.workers()?;
        self.master.signal(Signal::SIGUSR2)?;
        wait::until_true("php-fpm's new workers", || {
            let now = self.workers()?;
            Ok(now.len() == self.builder.workers && now.iter().all(|pid| !before.contains(pid)))
        })
    }

    /// Stops the master, by SIGQUIT (graceful), SIGTERM or whatever, and waits for its end.
    pub fn stop(&mut self, signal: Signal) -> Result<()> {
        self.master.signal(signal)?;
        self.master.wait().map(drop)
    }

    /// Freezes every worker (SIGSTOP), so that what connects stays in the accept queue.
    pub fn freeze(&self) -> Result<()> {
        let workers = self.workers()?;
        ensure!(!workers.is_empty(), "php-fpm has no worker to freeze");
        workers.iter().try_for_each(|pid| process::send(*pid, Signal::SIGSTOP))?;
        wait::until_true("the workers to stand still", || {
            Ok(workers.iter().all(|pid| process::state(*pid) == Some('T')))
        })
    }

    /// Lets frozen workers go on.
    pub fn thaw(&self) -> Result<()> {
        self.workers()?.iter().try_for_each(|pid| process::send(*pid, Signal::SIGCONT))
    }
}

impl Drop for Fpm {
    fn drop(&mut self) {
        // Without their master the workers would go on until the namespace is swept.
        let workers = self.workers().unwrap_or_default();
        let _ = self.master.signal(Signal::SIGKILL);
        workers.into_iter().for_each(process::kill_if_there);
    }
}
