//! nginx, in the foreground, in a folder of the namespace's scratch.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::access_log::{self, Access};
use crate::client::Begun;
use crate::error_log::{self, Failure};
use crate::process::{self, Pid, Process, Stopped};
use crate::{Client, Endpoint, Fpm, Namespace, wait};

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

/// How an nginx is to be set up.
#[derive(Debug, Clone)]
pub struct Builder {
    namespace: Namespace,
    workers: usize,
    user: String,
    port: u16,
    open_files: usize,
    connections: usize,
    main: String,
    groups: Vec<String>,
    locations: Vec<Location>,
}

impl Builder {
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

        let mut command = self.namespace.command(process::find_program(&["nginx"])?);
        command.arg("-p").arg(&folder).arg("-c").arg(&conf);
        let output = fs::File::create(folder.join("output"))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let master = self.namespace.start(command)?;
        let mut nginx = Nginx { master, folder, builder: self };
        wait::until_true("nginx's workers", || {
            if let Some(status) = nginx.master.ended()? {
                bail!("nginx ended ({status}): {}", nginx.read("output") + &nginx.read("error.log"));
            }
            Ok(nginx.workers()?.len() == nginx.builder.workers)
        })?;
        nginx.builder.namespace.wait_for_listener(&Endpoint::v4(nginx.builder.port))?;
        Ok(nginx)
    }

    fn configuration(&self, folder: &Path) -> String {
        let Builder { workers, user, port, open_files, connections, main, groups, locations, .. } = self;
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("  {kind}_temp_path {}/{kind};\n", folder.display()))
            .concat();
        format!(
            "daemon off;\n{main}user {user};\nworker_processes {workers};\nworker_rlimit_nofile {open_files};\n\
             pid {folder}/nginx.pid;\nerror_log {folder}/error.log info;\n\
             events {{ worker_connections {connections}; }}\n\
             http {{\n{log}  access_log {folder}/access.log rig;\n{temp}  client_max_body_size 100m;\n{groups}  \
             server {{\n    listen 127.0.0.1:{port} backlog=1000;\n    listen [::1]:{port} backlog=1000;\n\
             {locations}  }}\n}}\n",
            folder = folder.display(),
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
    folder: PathBuf,
    builder: Builder,
}

impl Nginx {
    /// Begins to set one up.
    pub fn on(namespace: &Namespace) -> Builder {
        let (groups, locations) = (Vec::new(), Vec::new());
        Builder {
            namespace: namespace.clone(),
            workers: 1,
            user: "root".into(),
            port: PORT,
            open_files: 10_000,
            connections: 4_000,
            main: String::new(),
            groups,
            locations,
        }
    }

    /// The master's pid.
    pub fn master(&self) -> Pid {
        self.master.pid()
    }

    /// The workers' pids.
    pub fn workers(&self) -> Result<Vec<Pid>> {
        process::children(self.master())
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

    /// Every upstream failure that it has logged so far, in order.
    pub fn failures(&self) -> Vec<Failure> {
        error_log::parse(&self.read("error.log"))
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
        self.master.signal(Signal::SIGHUP)?;
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
        let _ = self.master.signal(Signal::SIGKILL);
        workers.into_iter().for_each(process::kill_if_there);
    }
}
