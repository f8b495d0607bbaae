//! Application servers that people run behind nginx, each with an application that keeps what it is asked.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::process::{self, Pid, Process};
use crate::{Endpoint, Namespace, wait};

const FILES: [(&str, &str); 5] = [
    ("config.ru", include_str!("applications/config.ru")),
    ("puma.rb", include_str!("applications/puma.rb")),
    ("wsgi.py", include_str!("applications/wsgi.py")),
    ("http.py", include_str!("applications/http.py")),
    ("http.js", include_str!("applications/http.js")),
];

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// uWSGI with a master and two workers.
    Uwsgi,
    /// gunicorn with a master and a worker, and further arguments.
    Gunicorn(&'static [&'static str]),
    /// Node's own server, which exits at SIGTERM.
    Node,
    /// Puma, which answers at once and closes connections that have been idle for two seconds.
    Puma,
    /// One process of Python's, which takes one request and exits at SIGTERM; what it does with the request, the path says.
    Python,
}

impl Server {
    fn command(self, namespace: &Namespace, port: u16) -> Result<Command> {
        let names: &[&str] = match self {
            Server::Uwsgi => &["uwsgi_python3"],
            Server::Gunicorn(_) => &["gunicorn"],
            Server::Node => &["node"],
            Server::Puma => &["puma"],
            Server::Python => &["/usr/bin/python3", "python3"],
        };
        let mut command = namespace.command(process::find_program(names)?);
        let (port, address) = (port.to_string(), format!("127.0.0.1:{port}"));
        match self {
            Server::Uwsgi => {
                command.args(["--master", "--processes", "2", "--need-app", "--wsgi-file", "wsgi.py"]);
                command.args(["--http-socket", &address]);
            }
            Server::Gunicorn(arguments) => {
                command.args(["--workers", "1", "--bind", &address]).args(arguments).arg("wsgi:application");
            }
            Server::Node => {
                command.args(["http.js", &port]);
            }
            Server::Puma => {
                command.args(["--config", "puma.rb", "--bind", &format!("tcp://{address}"), "config.ru"]);
            }
            Server::Python => {
                command.args(["http.py", &port]);
            }
        }
        Ok(command)
    }
}

/// A running application server, killed when dropped; what it has started goes with its namespace.
#[derive(Debug)]
pub struct Application {
    process: Process,
    endpoint: Endpoint,
    /// The pid of whoever has taken up a request, one a line.
    marks: PathBuf,
}

impl Application {
    /// Starts one on the loopback, and waits until it listens.
    pub fn start(namespace: &Namespace, server: Server, port: u16) -> Result<Application> {
        let folder = namespace.folder("application")?;
        for (name, text) in FILES {
            fs::write(folder.join(name), text)?;
        }
        let marks = folder.join("marks");
        let mut command = server.command(namespace, port)?;
        command.current_dir(&folder).env("RIG_MARKS", &marks).env("PYTHONPATH", &folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(folder.join("log"))?);
        let process = namespace.start(command)?;
        let endpoint = Endpoint::v4(port);
        namespace.wait_for_listener(&endpoint).with_context(|| {
            format!("{server:?}: {}", fs::read_to_string(folder.join("log")).unwrap_or_default())
        })?;
        Ok(Application { process, endpoint, marks })
    }

    /// The process that was started: the master, where there is one.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends that process a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits until it has taken up so many requests, and returns who has.
    pub fn workers(&self, count: usize) -> Result<Vec<Pid>> {
        wait::until(&format!("request {count} to be taken up"), || {
            let marks = fs::read_to_string(&self.marks).unwrap_or_default();
            if marks.matches('\n').count() < count {
                return Ok(None);
            }
            let pids: Result<Vec<Pid>, _> = marks.lines().map(str::parse).collect();
            Ok(Some(pids.with_context(|| format!("the marks: {marks:?}"))?))
        })
    }
}
