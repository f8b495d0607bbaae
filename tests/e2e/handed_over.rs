//! A process that accepts connections and hands each to another one, as inetd does, a supervisor, or node's cluster.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};
use rig::reconcile::pair_off;
use rig::{Endpoint, Location, Namespace, Nginx, Tracer, process};

#[test]
fn the_worker_is_who_reads_the_request_not_who_accepted_the_connection() -> Result<()> {
    let namespace = Namespace::new()?;
    let path = namespace.scratch().join("handed-over.sock");
    let (tcp, unix) = (Endpoint::v4(9001), Endpoint::Unix(path.clone()));
    let by_tcp = namespace.run(|| Ok(TcpListener::bind("127.0.0.1:9001")?))?;
    let by_unix = UnixListener::bind(&path)?;
    let location = |path: &str, to| Location::http(path, to).read_timeout(Duration::from_secs(2));
    let nginx = Nginx::on(&namespace)
        .location(location("/tcp/", &tcp))
        .location(location("/unix/", &unix))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let mut workers = Vec::new();
    for path in ["/tcp/", "/unix/"] {
        let asked = nginx.client().ask(path)?;
        let connection: OwnedFd =
            if path == "/tcp/" { by_tcp.accept()?.0.into() } else { by_unix.accept()?.0.into() };
        let mut command = namespace.command(process::find_program(&["cat"])?);
        command.stdin(Stdio::from(connection)).stdout(Stdio::null());
        // The command keeps the connection, and nobody else does.
        let worker = namespace.start(command)?;
        ensure!(asked.answer()?.status == 504);
        workers.push(worker);
    }
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    for (endpoint, worker) in [&tcp, &unix].into_iter().zip(&workers) {
        let verdict = account.only(endpoint)?;
        verdict.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))?;
        verdict.blames(Some(worker.pid()), None, None)?;
        let comm = verdict.worker.as_ref().and_then(|worker| worker.comm.as_deref());
        ensure!(comm == Some("cat"), "{verdict:#?}");
    }
    Ok(())
}
