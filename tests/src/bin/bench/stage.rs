//! Who is loaded: an nginx in front of php-fpm over TCP, of an HTTP server that keeps connections, and of nobody; another one, only while
//! it is loaded, in front of php-fpm over a unix socket, for that may make why502 watch system calls; and a Redis that is none of nginx's
//! business.

use std::fs;
use std::net::TcpStream;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rig::process::{Process, find_program};
use rig::{Endpoint, Fpm, Location, Namespace, Nginx};

use crate::load::Load;
use crate::tool::Watched;

/// Where php-fpm listens over TCP.
pub(crate) const FPM: u16 = 9000;
/// Where the other php-fpm listens, in the scratch folder.
const SOCKET: &str = "fpm.sock";
/// Where nobody listens.
pub(crate) const NOBODY: u16 = 9009;
/// Where the HTTP server listens.
const ORIGIN: u16 = 8081;
/// Where nginx listens.
pub(crate) const NGINX: u16 = 8080;
/// Where the nginx with the unix upstream listens.
pub(crate) const UNIX_NGINX: u16 = 8082;
/// Where nginx serves files, of which there is none.
pub(crate) const FILES: u16 = 8090;
/// Where Redis listens.
pub(crate) const REDIS: u16 = 6379;
/// Connections that Redis takes.
const REDIS_CLIENTS: usize = 12_000;

/// What runs in the namespace.
pub(crate) struct Stage {
    pub(crate) namespace: Namespace,
    pub(crate) nginx: Nginx,
    /// wrk's script.
    pub(crate) script: PathBuf,
    unix: Fpm,
    _upstreams: (Fpm, Nginx),
    _redis: Process,
}

impl Stage {
    /// Starts all of it.
    pub(crate) fn set(namespace: &Namespace) -> Result<Stage> {
        // For growth, which holds thousands of connections.
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        let cores = cores();
        let script = namespace.scratch().join("wrk.lua");
        fs::write(&script, include_str!("wrk.lua"))?;

        let pool = |listen| Fpm::on(namespace).workers(2 * cores).listen(listen).start();
        let tcp = pool(Endpoint::v4(FPM))?;
        let unix = pool(Endpoint::Unix(namespace.scratch().join(SOCKET)))?;
        let origin = Nginx::on(namespace).port(ORIGIN).location(quiet(Location::fixed("/"))).start()?;
        let nobody = Endpoint::v4(NOBODY);
        let nginx = Nginx::on(namespace)
            .port(NGINX)
            .workers(cores)
            .block(&format!(
                "server {{ listen 127.0.0.1:{FILES}; access_log off; error_log /dev/null; keepalive_requests 1000000; \
                 location / {{ root /nonexistent; }} }}"
            ))
            .group("origin", &[&Endpoint::v4(ORIGIN)], &["keepalive 64"])
            .location(quiet(Location::fpm("/tcp/", &tcp)))
            .location(quiet(Location::http("/kept/", &Endpoint::v4(ORIGIN)).through_group("origin")))
            .location(quiet(Location::fastcgi("/refused/", &nobody)).directive("error_log /dev/null"))
            .start()?;
        let redis = redis(namespace)?;
        let namespace = namespace.clone();
        Ok(Stage { namespace, nginx, script, unix, _upstreams: (tcp, origin), _redis: redis })
    }

    /// What a tool is to watch under a load, which must not go on for longer than this is kept.
    pub(crate) fn watched(&self, load: Load) -> Result<Watched> {
        let socket =
            (load == Load::Unix).then(|| self.namespace.scratch().join(SOCKET).display().to_string());
        let unix = match load {
            Load::Unix => Some(
                Nginx::on(&self.namespace)
                    .port(UNIX_NGINX)
                    .workers(cores())
                    .location(quiet(Location::fpm("/unix/", &self.unix)))
                    .start()?,
            ),
            _ => None,
        };
        let workers = unix.as_ref().unwrap_or(&self.nginx).workers()?;
        let namespace = self.namespace.clone();
        Ok(Watched { namespace, workers, ports: "port 9000", upstream: socket, _nginx: unix })
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

/// Without an access log, which would grow by hundreds of megabytes.
fn quiet(location: Location) -> Location {
    location.directive("access_log off")
}

fn redis(namespace: &Namespace) -> Result<Process> {
    let mut command = namespace.command(find_program(&["redis-server"])?);
    command
        .args(["--port", &REDIS.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--maxclients", &REDIS_CLIENTS.to_string(), "--timeout", "0", "--tcp-keepalive", "0"])
        .arg("--dir")
        .arg(namespace.scratch())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let redis = namespace.start(command)?;
    namespace.wait_for_listener(&Endpoint::v4(REDIS)).context("starting Redis")?;
    Ok(redis)
}

/// Connects to Redis; to be called in the namespace.
pub(crate) fn connect_redis() -> Result<TcpStream> {
    TcpStream::connect(("127.0.0.1", REDIS)).context("connecting to Redis")
}
