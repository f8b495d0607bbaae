//! PostgreSQL, for workers to wait on: a cluster of its own in the namespace's scratch, gone when dropped.

use std::fs::{self, Permissions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use nix::unistd::User;

use crate::lines::Lines;
use crate::process::{self, Process};
use crate::{Endpoint, Namespace, wait};

/// The server refuses to run as root; Debian's package makes this user.
const USER: &str = "postgres";
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 5432);
/// The table that there is to lock.
const TABLE: &str = "visits";

/// A running PostgreSQL with one table.
#[derive(Debug)]
pub struct Database {
    namespace: Namespace,
    folder: PathBuf,
    server: Process,
}

/// Whoever holds the table's lock, which comes free when dropped.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held until it is dropped")] Process);

impl Database {
    /// Makes a cluster and starts its server, and waits until it answers. One at a time in a namespace.
    pub fn start(namespace: &Namespace) -> Result<Database> {
        let folder = namespace.folder("database")?;
        let user = User::from_name(USER)?.with_context(|| format!("there is no user {USER}"))?;
        chown(&folder, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        // The user must be able to pass through the scratch folder, which is root's.
        fs::set_permissions(namespace.scratch(), Permissions::from_mode(0o711))?;
        let data = folder.join("data");

        let mut initdb = as_user(namespace, "initdb")?;
        initdb.arg("-D").arg(&data).args(["-U", USER, "-A", "trust", "--no-sync", "--no-locale"]);
        process::output(initdb)?;

        let mut command = as_user(namespace, "postgres")?;
        command.arg("-D").arg(&data).args(["-p", &ADDRESS.port().to_string()]);
        let sockets = format!("unix_socket_directories={}", folder.display());
        let listen = format!("listen_addresses={}", ADDRESS.ip());
        for setting in [&listen, &sockets, "fsync=off", "shared_buffers=16MB", "autovacuum=off"] {
            command.args(["-c", setting]);
        }
        let log = fs::File::create(folder.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let server = namespace.start(command)?;
        let mut database = Database { namespace: namespace.clone(), folder, server };
        wait::until_true("PostgreSQL to answer", || {
            if let Some(status) = database.server.ended()? {
                let log = fs::read_to_string(database.folder.join("log")).unwrap_or_default();
                bail!("PostgreSQL ended ({status}): {log}");
            }
            let mut psql = database.psql()?;
            psql.args(["-c", &format!("CREATE TABLE IF NOT EXISTS {TABLE} (id int)")]);
            Ok(psql.output()?.status.success())
        })?;
        Ok(database)
    }

    /// Where it listens over TCP.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(ADDRESS)
    }

    /// Its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join(format!(".s.PGSQL.{}", ADDRESS.port()))
    }

    /// A PHP script that reads the table, with a client that connects over TCP or the unix socket.
    pub fn script(&self, over: &Endpoint) -> String {
        let host = match over {
            Endpoint::Tcp(address) => address.ip().to_string(),
            Endpoint::Unix(path) => path.parent().unwrap_or(Path::new("/")).display().to_string(),
        };
        let port = ADDRESS.port();
        format!(
            "<?php\n$database = pg_connect('host={host} port={port} user={USER} dbname={USER} sslmode=disable');\n\
             echo pg_fetch_result(pg_query($database, 'SELECT count(*) FROM {TABLE}'), 0), \"\\n\";\n"
        )
    }

    /// Locks the table, so that whoever reads it waits.
    pub fn lock(&self) -> Result<Lock> {
        let mut psql = self.psql()?;
        psql.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = self.namespace.start(psql)?;
        let stdout = holder.pipes().stdout.take().context("a pipe from psql")?;
        let lines = Lines::collect(stdout, |_| {});
        let stdin = holder.pipes().stdin.as_mut().context("a pipe to psql")?;
        write!(stdin, "BEGIN;\nLOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE;\n\\echo locked\n")?;
        lines.wait("locked table", |lines| lines.iter().any(|line| line == "locked"))?;
        Ok(Lock(holder))
    }

    fn psql(&self) -> Result<Command> {
        let mut command = self.namespace.command(program("psql")?);
        let (host, port) = (ADDRESS.ip().to_string(), ADDRESS.port().to_string());
        command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", &host, "-p", &port, "-U", USER, USER]);
        Ok(command)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // An immediate shutdown: after a SIGKILL its shared memory would stay.
        if self.server.signal(Signal::SIGQUIT).is_ok() {
            let _ = self.server.wait();
        }
    }
}

/// A program of PostgreSQL's, run as its user. The kernel forgets to kill it with this process when the user changes, so
/// it is asked again.
fn as_user(namespace: &Namespace, name: &str) -> Result<Command> {
    let mut command = namespace.command(process::find_program(&["setpriv"])?);
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--pdeathsig", "KILL"]);
    command.arg(program(name)?).current_dir("/");
    Ok(command)
}

/// Debian keeps the programs of each version apart, and only some of them in the `PATH`.
fn program(name: &str) -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is not installed")?;
    let paths = versions.flatten().map(|version| version.path().join("bin").join(name));
    paths.filter(|path| path.is_file()).max().with_context(|| format!("PostgreSQL has no {name}"))
}
