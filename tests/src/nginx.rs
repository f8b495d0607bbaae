//! nginx, in the foreground, in a folder of the namespace's scratch.

use std::env;
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::access_log::{self, Access};
use crate::client::Begun;
use crate::error_log::{self, Failure};
use crate::lines::Lines;
use crate::process::{self, Pid, Process, Stopped};
use crate::{Client, Confinement, Endpoint, Fpm, Namespace, wait};

const PORT: u16 = 8080;

/// A `location` and the upstream that answers for it.
#[derive(Debug, Clone)]
pub struct Location {
    prefix: String,
    protocol: &'static str,
    scheme: &'static str,
    target: String,
    docroot: PathBuf,
    directives: Vec<String>,
}

impl Location {
    /// Passes `prefix` on to php-fpm's scripts: `/php/ok.php` runs ok.php.
    pub fn fpm(prefix: &str, fpm: &Fpm) -> Location {
        Location { docroot: fpm.docroot().into(), ..Location::fastcgi(prefix, fpm.endpoint()) }
    }

    /// Passes `prefix` on to whoever speaks FastCGI at an endpoint, or nobody.
    pub fn fastcgi(prefix: &str, upstream: &Endpoint) -> Location {
        Location::new(prefix, "fastcgi", upstream.for_nginx())
    }

    /// Passes `prefix` on to whoever speaks HTTP at an endpoint.
    pub fn http(prefix: &str, upstream: &Endpoint) -> Location {
        Location::new(prefix, "proxy", upstream.for_nginx())
    }

    /// Passes `prefix` on to whoever speaks HTTP over TLS at an endpoint.
    pub fn https(prefix: &str, upstream: &Endpoint) -> Location {
        Location { scheme: "https", ..Location::http(prefix, upstream) }
    }

    /// Passes `prefix` on to whoever speaks HTTP/2 at an endpoint, as gRPC does.
    pub fn grpc(prefix: &str, upstream: &Endpoint) -> Location {
        Location { scheme: "grpc", ..Location::new(prefix, "grpc", upstream.for_nginx()) }
    }

    /// Answers `prefix` itself, with no upstream at all.
    pub fn fixed(prefix: &str) -> Location {
        Location::new(prefix, "return", String::new())
    }

    fn new(prefix: &str, protocol: &'static str, target: String) -> Location {
        Location {
            prefix: prefix.into(),
            protocol,
            scheme: "http",
            target,
            docroot: "/nonexistent".into(),
            directives: Vec::new(),
        }
    }

    /// Passes to a group made by [`Builder::group`], or to a name that may have variables, instead of to one endpoint.
    pub fn through_group(mut self, group: &str) -> Location {
        self.target = group.into();
        self
    }

    /// Passes a response on as it comes: `fastcgi_buffering` or `proxy_buffering` off.
    pub fn unbuffered(self) -> Location {
        let directive = format!("{}_buffering off", self.protocol);
        self.directive(&directive)
    }

    /// `fastcgi_connect_timeout` or `proxy_connect_timeout`.
    pub fn connect_timeout(self, timeout: Duration) -> Location {
        self.timeout("connect", timeout)
    }

    /// `fastcgi_read_timeout` or `proxy_read_timeout`.
    pub fn read_timeout(self, timeout: Duration) -> Location {
        self.timeout("read", timeout)
    }

    /// `fastcgi_send_timeout` or `proxy_send_timeout`.
    pub fn send_timeout(self, timeout: Duration) -> Location {
        self.timeout("send", timeout)
    }

    /// Any directive, without its semicolon.
    pub fn directive(mut self, directive: &str) -> Location {
        self.directives.push(directive.into());
        self
    }

    fn timeout(self, what: &str, timeout: Duration) -> Location {
        let directive = format!("{}_{what}_timeout {}ms", self.protocol, timeout.as_millis());
        self.directive(&directive)
    }

    fn configuration(&self) -> String {
        let Location { prefix, protocol, scheme, target, docroot, directives } = self;
        if *protocol == "return" {
            return format!("    location {prefix} {{ return 200 \"fine\\n\"; }}\n");
        }
        let mut text = format!("    location {prefix} {{\n      rewrite ^{prefix}(.*)$ /$1 break;\n");
        let pass = match *protocol {
            "proxy" => {
                "proxy_pass SCHEME://TARGET;\n      proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n"
            }
            "grpc" => "grpc_pass SCHEME://TARGET;\n",
            _ => {
                "fastcgi_pass TARGET;\n      \
                 fastcgi_param SCRIPT_FILENAME DOCROOT$fastcgi_script_name;\n      \
                 fastcgi_param QUERY_STRING $query_string;\n      \
                 fastcgi_param REQUEST_METHOD $request_method;\n      \
                 fastcgi_param CONTENT_TYPE $content_type;\n      \
                 fastcgi_param CONTENT_LENGTH $content_length;\n"
            }
        };
        text += "      ";
        text += &pass
            .replace("SCHEME", scheme)
            .replace("TARGET", target)
            .replace("DOCROOT", &docroot.to_string_lossy());
        for directive in directives {
            let _ = writeln!(text, "      {directive};");
        }
        text + "    }\n"
    }
}

/// Which nginx is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// This machine's.
    Installed,
    /// This file.
    File(PathBuf),
    /// A copy of this machine's that only a mount namespace of its own has.
    Hidden,
    /// The newest of Debian's, in a root and a mount namespace of its own.
    Newest,
}

impl Program {
    /// Whether [`Program::Newest`] is there: `cargo xtask setup` fetches it.
    pub fn has_newest() -> bool {
        newest().join("usr/sbin/nginx").is_file()
    }

    /// The command that becomes it.
    fn command(&self, namespace: &Namespace, folder: &Path) -> Result<Command> {
        let installed = || process::find_program(&["nginx"]);
        let hidden = |script: &str, root: &Path| -> Result<Command> {
            let mut command = namespace.command(process::find_program(&["unshare"])?);
            command
                .args(["-m", "sh", "-e", "-c", script])
                .arg(installed()?)
                .arg(root)
                .arg(namespace.scratch());
            Ok(command)
        };
        match self {
            Program::Installed => Ok(namespace.command(installed()?)),
            Program::File(path) => Ok(namespace.command(path)),
            Program::Hidden => {
                let root = folder.join("hidden");
                fs::create_dir(&root)?;
                hidden(
                    r#"mount -t tmpfs none "$1"; cp "$0" "$1/nginx"; cd "$1"; shift 2; exec ./nginx "$@""#,
                    &root,
                )
            }
            // Its own root has a place for everything but the scratch folder, and is left as it is.
            Program::Newest => hidden(
                r#"mount --bind /dev "$1/dev"; mount -t tmpfs none "$1/tmp"
                   mkdir -p "$1$2"; mount --bind "$2" "$1$2"
                   root="$1"; shift 2; exec chroot "$root" /usr/sbin/nginx "$@""#,
                &newest(),
            ),
        }
    }
}

/// The root of the newest: `RIG_NEWEST_NGINX`, or where xtask puts it.
fn newest() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/newest-nginx");
    env::var_os("RIG_NEWEST_NGINX").map_or(own, PathBuf::from)
}

/// How an nginx is to be set up.
#[derive(Debug, Clone)]
pub struct Builder {
    namespace: Namespace,
    program: Program,
    error_log: Option<String>,
    is_daemon: bool,
    workers: usize,
    user: String,
    port: u16,
    open_files: usize,
    connections: usize,
    main: String,
    confinement: Option<Confinement>,
    groups: Vec<String>,
    locations: Vec<Location>,
}

impl Builder {
    /// Which nginx; this machine's if not said.
    pub fn program(mut self, program: Program) -> Builder {
        self.program = program;
        self
    }

    /// Where it logs and from which level on, as `error_log` takes it; to a file of its own from `info` on if not said.
    pub fn error_log(mut self, log: &str) -> Builder {
        self.error_log = Some(log.into());
        self
    }

    /// Lets it go on without whoever started it, as it must to be upgraded on the fly.
    pub fn daemon(mut self) -> Builder {
        self.is_daemon = true;
        self
    }

    /// What keeps it from connecting.
    pub fn confined(mut self, by: Confinement) -> Builder {
        self.confinement = Some(by);
        self
    }

    /// How many workers; one if not said.
    pub fn workers(mut self, workers: usize) -> Builder {
        self.workers = workers;
        self
    }

    /// Whom the workers run as; root if not said, since the scratch folder is root's.
    pub fn user(mut self, user: &str) -> Builder {
        self.user = user.into();
        self
    }

    /// The port of 127.0.0.1 and of `[::1]` that it listens on; 8080 if not said.
    pub fn port(mut self, port: u16) -> Builder {
        self.port = port;
        self
    }

    /// How many descriptors a worker may have (`worker_rlimit_nofile`); 10,000 if not said.
    pub fn open_files(mut self, limit: usize) -> Builder {
        self.open_files = limit;
        self
    }

    /// How many connections a worker may have (`worker_connections`), listeners among them; 4,000 if not said.
    pub fn connections(mut self, limit: usize) -> Builder {
        self.connections = limit;
        self
    }

    /// Adds a directive outside of any block, without its semicolon.
    pub fn main(mut self, directive: &str) -> Builder {
        let _ = writeln!(self.main, "{directive};");
        self
    }

    /// Adds a block beside `http`: `stream`, say.
    pub fn beside_http(mut self, block: &str) -> Builder {
        let _ = writeln!(self.main, "{block}");
        self
    }

    /// Loads a module that the system's package has brought.
    pub fn module(self, name: &str) -> Builder {
        self.main(&format!("load_module /usr/lib/nginx/modules/{name}.so"))
    }

    /// Adds a location.
    pub fn location(mut self, location: Location) -> Builder {
        self.locations.push(location);
        self
    }

    /// Adds an `upstream` group: its servers, and any further directives.
    pub fn group(mut self, name: &str, servers: &[&Endpoint], directives: &[&str]) -> Builder {
        let servers = servers.iter().map(|server| format!("server {}", server.for_nginx()));
        let lines = servers.chain(directives.iter().map(ToString::to_string));
        let body: String = lines.map(|line| format!("    {line};\n")).collect();
        self.groups.push(format!("  upstream {name} {{\n{body}  }}\n"));
        self
    }

    /// Adds a block to `http`: another server, say.
    pub fn block(mut self, block: &str) -> Builder {
        self.groups.push(format!("  {block}\n"));
        self
    }

    /// Starts it and waits until it listens and every worker is there.
    pub fn start(self) -> Result<Nginx> {
        let folder = self.namespace.folder("nginx")?;
        let conf = folder.join("nginx.conf");
        fs::write(&conf, self.configuration(&folder))?;

        let mut command = self.program.command(&self.namespace, &folder)?;
        command.arg("-p").arg(&folder).arg("-c").arg(&conf);
        if let Some(confinement) = self.confinement {
            confinement.put_on(&mut command);
        }
        let output = fs::File::create(folder.join("output"))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?);
        let is_piped = self.error_log.as_deref().is_some_and(|log| log.starts_with("stderr"));
        command.stderr(if is_piped { Stdio::piped() } else { output.into() });
        let mut master = self.namespace.start(command)?;
        let piped = master.pipes().stderr.take().map(|pipe| Lines::collect(pipe, |_| {}));
        let mut nginx = Nginx { master, daemon: None, folder, builder: self, piped };
        if nginx.builder.is_daemon {
            nginx.master.wait()?;
            nginx.daemon =
                Some(nginx.read("nginx.pid").trim().parse().with_context(|| nginx.read("output"))?);
        }
        wait::until_true("nginx's workers", || {
            if let Some(status) = nginx.master.ended()?.filter(|_| nginx.daemon.is_none()) {
                bail!("nginx ended ({status}): {}", nginx.read("output") + &nginx.read("error.log"));
            }
            Ok(nginx.workers()?.len() == nginx.builder.workers)
        })?;
        nginx.builder.namespace.wait_for_listener(&Endpoint::v4(nginx.builder.port))?;
        Ok(nginx)
    }

    fn configuration(&self, folder: &Path) -> String {
        let Builder { workers, user, port, open_files, connections, main, groups, locations, .. } = self;
        let error_log = self.error_log.as_deref().unwrap_or("error.log info");
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("  {kind}_temp_path {}/{kind};\n", folder.display()))
            .concat();
        format!(
            "daemon {daemon};\n{main}user {user};\nworker_processes {workers};\nworker_rlimit_nofile {open_files};\n\
             pid {folder}/nginx.pid;\nerror_log {error_log};\n\
             events {{ worker_connections {connections}; }}\n\
             http {{\n{log}  access_log {folder}/access.log rig;\n{temp}  client_max_body_size 100m;\n{groups}  \
             server {{\n    listen 127.0.0.1:{port} backlog=1000;\n    listen [::1]:{port} backlog=1000;\n\
             {locations}  }}\n}}\n",
            folder = folder.display(),
            daemon = if self.is_daemon { "on" } else { "off" },
            log = access_log::FORMAT,
            groups = groups.concat(),
            locations = locations.iter().map(Location::configuration).collect::<String>(),
        )
    }
}

/// A running nginx, killed with its workers when dropped.
#[derive(Debug)]
pub struct Nginx {
    master: Process,
    /// The master, if the process that was started is only its parent.
    daemon: Option<Pid>,
    folder: PathBuf,
    builder: Builder,
    /// What it logs to standard error, if it does.
    piped: Option<Lines>,
}

impl Nginx {
    /// Begins to set one up.
    pub fn on(namespace: &Namespace) -> Builder {
        let (groups, locations) = (Vec::new(), Vec::new());
        Builder {
            namespace: namespace.clone(),
            program: Program::Installed,
            error_log: None,
            is_daemon: false,
            workers: 1,
            user: "root".into(),
            port: PORT,
            open_files: 10_000,
            connections: 4_000,
            main: String::new(),
            confinement: None,
            groups,
            locations,
        }
    }

    /// The master's pid.
    pub fn master(&self) -> Pid {
        self.daemon.unwrap_or_else(|| self.master.pid())
    }

    /// Sends the master a signal.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.daemon.map_or_else(|| self.master.signal(signal), |daemon| process::send(daemon, signal))
    }

    /// The workers' pids.
    pub fn workers(&self) -> Result<Vec<Pid>> {
        let mut children = process::children(self.master())?;
        // A cache has processes of its own: "nginx: cache manager process".
        let title = |pid: Pid| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        children.retain(|pid| !title(*pid).starts_with(b"nginx: cache "));
        Ok(children)
    }

    fn worker(&self) -> Result<Pid> {
        let workers = self.workers()?;
        ensure!(workers.len() == 1, "not one worker but {workers:?}");
        Ok(workers[0])
    }

    /// A client that asks this nginx, over IPv4.
    pub fn client(&self) -> Client {
        Client::new(&self.builder.namespace, SocketAddr::from(([127, 0, 0, 1], self.builder.port)))
    }

    /// Stops its only worker until the value is dropped.
    pub fn freeze(&self) -> Result<Stopped> {
        process::stop(self.worker()?)
    }

    /// Begins requests, and finishes none, until its only worker can take no further connection: out of descriptors, or of
    /// connections. What it has taken is returned.
    pub fn begin_until_full(&self, path: &str) -> Result<Vec<Begun>> {
        let limit = self.builder.open_files;
        let worker = self.worker()?;
        let mut begun: Vec<Begun> = Vec::new();
        loop {
            let before = process::descriptors(worker, limit)?;
            if before == limit {
                return Ok(begun);
            }
            let one = self.client().begin(path)?;
            let is_taken = wait::until("nginx to take a connection", || {
                if process::descriptors(worker, limit)? > before {
                    return Ok(Some(true));
                }
                Ok(one.is_over()?.then_some(false))
            })?;
            if !is_taken {
                return Ok(begun);
            }
            begun.push(one);
        }
    }

    /// The file of the error log.
    pub fn error_log(&self) -> PathBuf {
        self.folder.join("error.log")
    }

    /// Every upstream failure that it has logged so far to its file or to standard error, in order.
    pub fn failures(&self) -> Vec<Failure> {
        let piped = self.piped.as_ref().map(|lines| lines.so_far().join("\n"));
        error_log::parse(&piped.unwrap_or_else(|| self.read("error.log")))
    }

    /// Upgrades it on the fly (USR2), without its old workers (WINCH); returns the new master when its workers are there.
    pub fn upgrade(&self) -> Result<Pid> {
        let before = self.workers()?;
        self.signal(Signal::SIGUSR2)?;
        let new = wait::until("the new master's workers", || {
            let new = self.workers()?.into_iter().find(|pid| !before.contains(pid));
            let Some(new) = new else { return Ok(None) };
            Ok((process::children(new)?.len() == self.builder.workers).then_some(new))
        })?;
        self.signal(Signal::SIGWINCH)?;
        wait::until_true("the old workers' end", || Ok(self.workers()? == [new]))?;
        Ok(new)
    }

    /// Waits until at least `count` upstream failures are logged, and returns all.
    pub fn wait_for_failures(&self, count: usize) -> Result<Vec<Failure>> {
        wait::until(&format!("{count} failures in nginx's error log"), || {
            Ok(Some(self.failures()).filter(|failures| failures.len() >= count))
        })
    }

    /// Waits until at least `count` requests are in the access log, and returns all.
    pub fn wait_for_accesses(&self, count: usize) -> Result<Vec<Access>> {
        wait::until(&format!("{count} lines in nginx's access log"), || {
            // A request is logged after its response is sent, and a line may be half written.
            let log = self.read("access.log");
            let (whole, _) = log.rsplit_once('\n').unwrap_or_default();
            Ok(if whole.lines().count() < count { None } else { Some(access_log::parse(whole)?) })
        })
    }

    /// Reloads it (HUP) and waits until only new workers are left.
    pub fn reload(&self) -> Result<()> {
        let before = self.workers()?;
        self.signal(Signal::SIGHUP)?;
        wait::until_true("nginx's new workers", || {
            let now = self.workers()?;
            Ok(now.len() == self.builder.workers && now.iter().all(|pid| !before.contains(pid)))
        })
    }

    /// Stops the master, by SIGQUIT (graceful) or SIGTERM, and waits for its end.
    pub fn stop(&mut self, signal: Signal) -> Result<()> {
        self.master.signal(signal)?;
        self.master.wait().map(drop)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Without their master the workers would go on until the namespace is swept.
        let workers = self.workers().unwrap_or_default();
        let _ = self.signal(Signal::SIGKILL);
        workers.into_iter().for_each(process::kill_if_there);
    }
}
