//! What the upstream cut or left hanging: it says that it will send no more and keeps the connection, it falls silent in the middle of its
//! response, it exits in the middle of a stream, it does not read the request.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rig::process::{self, Pid, Process};
use rig::reconcile::pair_off_words;
use rig::{By, Client, Endpoint, Fault, FaultySite, Location, Namespace, Nginx, Tracer};

/// Larger than all the buffers on the way.
const UPLOAD: usize = 4 << 20;

fn none(location: Location) -> Location {
    location
}

/// Asks each server of a site once, by a large upload, and checks the only verdict on it.
fn are_named(faults: &[(Fault, &str, Option<&str>)], by: By) -> Result<()> {
    let namespace = Namespace::new()?;
    let arrange = |location: Location| location.send_timeout(Duration::from_millis(500));
    let site = FaultySite::start(&namespace, by, faults.iter().map(|(fault, ..)| *fault), arrange)?;
    let tracer = Tracer::of(site.nginx().master())?;
    for (fault, ..) in faults {
        // What is cut off may have no header even.
        let _ = site.nginx().client().post(&format!("/{fault}/"), &vec![b'x'; UPLOAD]);
    }
    let accesses = site.nginx().wait_for_accesses(faults.len())?;
    tracer.wait_for(faults.len())?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&site.nginx().failures(), &account.verdicts)?;
    for ((fault, name, errno), access) in faults.iter().zip(accesses) {
        let verdict = site.verdict(&account, *fault)?;
        let status = Some(access.status).filter(|status| *status >= 400);
        let said = (verdict.name(), verdict.confidence.as_str(), verdict.status, verdict.errno.as_deref());
        ensure!(said == ((*name).to_owned(), "proven", status, *errno), "{said:?} {status:?}: {verdict:#?}");
        verdict.blames(Some(site.server(*fault)?.pid()), None, None)?;
    }
    Ok(())
}

#[test]
fn a_server_that_says_that_it_will_send_no_more_has_closed() -> Result<()> {
    let faults = [
        (Fault::ShutDownUnanswered, "premature_close/peer_closed", None),
        (Fault::ShutDownMidway, "premature_close/response_cut_short", None),
    ];
    are_named(&faults, By::Tcp)?;
    are_named(&faults, By::Unix)
}

#[test]
fn a_server_that_does_not_read_an_upload_is_reported_as_such_also_over_a_unix_socket() -> Result<()> {
    let namespace = Namespace::new()?;
    for by in [By::Tcp, By::Unix] {
        let arrange = |location: Location| location.send_timeout(Duration::from_millis(500));
        let site = FaultySite::start(&namespace, by, [Fault::NeverRead], arrange)?;
        let tracer = Tracer::of(site.nginx().master())?;
        ensure!(site.nginx().client().post("/never-read/", &vec![b'x'; UPLOAD])?.status == 504);
        tracer.wait_for(1)?;
        let account = tracer.stop()?;
        account.is_orderly()?;
        pair_off_words(&site.nginx().failures(), &account.verdicts)?;
        let verdict = site.verdict(&account, Fault::NeverRead)?;
        verdict.says("send_timeout/peer_not_reading", "proven", 504, Some("ETIMEDOUT"))?;
        // Both have the same port.
        drop(site);
        namespace.kill_all();
    }
    Ok(())
}

#[test]
fn a_grpc_service_that_exits_in_the_middle_of_its_stream_is_named() -> Result<()> {
    let namespace = Namespace::new()?;
    let site = FaultySite::start(&namespace, By::Tcp, [Fault::Http2ExitMidway], none)?;
    let account = site.is_explained(|_, _| "premature_close/worker_exited")?;
    let verdict = site.verdict(&account, Fault::Http2ExitMidway)?;
    ensure!(verdict.explanation.contains("in the middle of its response"), "{verdict:#?}");
    Ok(())
}

/// Half of an answer, and then nothing.
const NODE: &str = r#"
require("http").createServer((request, response) => {
  response.writeHead(200, { "Content-Length": 1000 });
  response.write("only this much");
}).listen(9100, "127.0.0.1");
"#;
const ASYNCIO: &str = r#"
import asyncio

async def answer(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    await writer.drain()
    await asyncio.Event().wait()

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 9100)
    await server.serve_forever()

asyncio.run(main())
"#;
const THREADS: &str = r#"
import http.server, threading

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"only this much")
        threading.Event().wait()

http.server.ThreadingHTTPServer(("127.0.0.1", 9100), Handler).serve_forever()
"#;

/// A server by an interpreter, if that is there: `cargo xtask setup` installs it.
fn server(namespace: &Namespace, interpreter: &str, switch: &str, program: &str) -> Result<Option<Process>> {
    let Ok(found) = process::find_program(&[interpreter]) else {
        eprintln!("skipped: no {interpreter}; `cargo xtask setup` installs it");
        return Ok(None);
    };
    let mut command = namespace.command(found);
    command.args([switch, program]);
    let server = namespace.start(command)?;
    namespace.wait_for_listener(&Endpoint::v4(9100))?;
    Ok(Some(server))
}

fn falls_silent(interpreter: &str, switch: &str, program: &str) -> Result<()> {
    let namespace = Namespace::new()?;
    let Some(server) = server(&namespace, interpreter, switch, program)? else { return Ok(()) };
    let upstream = Endpoint::v4(9100);
    // The first answer takes an interpreter long.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9100));
    Client::new(&namespace, address).ask("/")?.wait_for("HTTP/1.1 200 OK".len())?;
    let location = Location::http("/", &upstream).read_timeout(Duration::from_secs(1));
    let nginx = Nginx::on(&namespace).location(location).start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/")?.status == 200);
    nginx.wait_for_failures(1)?;
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(&upstream)?;
    let said = (verdict.name(), verdict.confidence.as_str(), verdict.status, verdict.errno.as_deref());
    let right = ("read_timeout/stalled_response".to_owned(), "proven", None, Some("ETIMEDOUT"));
    ensure!(said == right, "{said:?}: {verdict:#?}");
    let worker: Pid = verdict.worker_pid().context("a worker")?;
    ensure!(worker == server.pid(), "{verdict:#?}");
    Ok(())
}

#[test]
fn a_body_that_falls_silent_is_reported_of_node() -> Result<()> {
    falls_silent("node", "-e", NODE)
}

#[test]
fn a_body_that_falls_silent_is_reported_of_asyncio() -> Result<()> {
    falls_silent("python3", "-c", ASYNCIO)
}

#[test]
fn a_body_that_falls_silent_is_reported_of_a_thread() -> Result<()> {
    falls_silent("python3", "-c", THREADS)
}
