//! php-fpm's status page: its `listen queue` against the kernel's depth.

use std::{net::SocketAddr, os::fd::AsRawFd as _, panic::resume_unwind, path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, bail};
use fastcgi_client::{Client, Params, Request, io};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{Check, Scene, Whose, listeners};
use crate::{
    command::backlog::Queue,
    model::upstream::Upstream,
    procfs::host::{Master, php_fpm::Pool},
};

/// A status page answers at once, unless every worker is busy.
const PATIENCE: Duration = Duration::from_secs(3);

/// A page without `full` has half a kilobyte, and FastCGI's frames around it.
const LONGEST: u64 = 64 * 1024;

/// What the page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status {
    /// Connections that wait.
    queue: u64,
    /// The backlog.
    len: u64,
}

/// Whether the status page of a pool is right about the listener's queue; nothing for a pool without one. Only its own master is asked,
/// at a listener that the kernel says is the master's.
pub(super) fn check(
    pool: &Pool,
    master: &Result<Master, String>,
    scene: &Scene<'_>,
    depth_of: &mut dyn FnMut(&Queue) -> Option<u32>,
) -> Option<Check> {
    let (path, reached) = pool.status.as_ref()?;
    let addr = &pool.listen;
    let claim =
        format!("the status page of the pool {} tells how many connections wait on {addr}", pool.name);
    let unanswered = |figures: String| Some(Check { claim: claim.clone(), holds: None, figures });
    let master = match master {
        Ok(master) => master,
        Err(reason) => return unanswered(format!("it was not asked: {reason}")),
    };
    let of_master = |addr| listeners(addr, scene.queues).find(|queue| Whose::Process(master.pid).has(queue));
    let Some(queue) = of_master(addr) else { return unanswered("nobody listens there".to_owned()) };
    let Some(door) = of_master(reached) else {
        return unanswered(format!("it was not asked: php-fpm {} does not listen on {reached}", master.pid));
    };
    let before = depth_of(queue);
    // Another event loop has this thread.
    let asking = thread::scope(|scope| scope.spawn(|| ask(master, door, path)).join());
    let asked = asking.unwrap_or_else(|panic| resume_unwind(panic));
    let after = depth_of(queue);
    let (holds, figures) = match (asked, before, after) {
        (Err(error), ..) => (None, format!("the page cannot be had: {error:#}")),
        // Whoever listens there now is another one.
        (Ok(_), ..) if depth_of(door).is_none() => (None, "the listener has gone meanwhile".to_owned()),
        (Ok(status), Some(before), Some(after)) => {
            // It may change while the page is made.
            let is_right = (u64::from(before.min(after))..=before.max(after).into()).contains(&status.queue);
            let depth = if before == after {
                before.to_string()
            } else {
                format!("{before} before and {after} after")
            };
            let limits = match status.len == u64::from(queue.limit) {
                true => format!("both say that the backlog is {}", queue.limit),
                false => {
                    format!("its listen queue len is {}, the kernel's limit {}", status.len, queue.limit)
                }
            };
            (
                Some(is_right),
                format!("its listen queue is {}, the kernel's depth {depth}; {limits}", status.queue),
            )
        }
        (Ok(_), ..) => (None, "the listener has gone meanwhile".to_owned()),
    };
    Some(Check { claim, holds, figures })
}

/// Asks a master for the page, at one of its listeners.
fn ask(master: &Master, door: &Queue, path: &str) -> Result<Status> {
    let answer = match &door.addr {
        // An address that stands for all is reached at its own host.
        Upstream::Inet(address) => master.in_network(door.netns, || within(at_address(*address, path)))?,
        // It is found in the file system, from whatever network.
        Upstream::Unix(socket) => within(at_socket(master, socket, path)),
        Upstream::Named(name) => bail!("{name} is no address"),
    };
    parse(&answer?)
}

/// Waits for an answer, but not for ever.
fn within<T>(asking: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async { timeout(PATIENCE, asking).await });
    answer.with_context(|| format!("no answer within {} s", PATIENCE.as_secs()))?
}

async fn at_address(address: SocketAddr, path: &str) -> Result<Vec<u8>> {
    let (read, write) = TcpStream::connect(address).await.context("connecting")?.into_split();
    fetch(read, write, path).await
}

/// Connects by a path as the master sees it, and makes sure that it is the master who listens there.
async fn at_socket(master: &Master, socket: &Path, path: &str) -> Result<Vec<u8>> {
    let node = master.root().socket(socket)?;
    let own = format!("/proc/self/fd/{}", node.as_raw_fd());
    let stream = UnixStream::connect(own).await.context("connecting")?;
    // Those of whoever called listen.
    let peer = stream.peer_cred().context("whose socket it is cannot be told")?;
    if peer.pid() != Some(master.pid.cast_signed()) {
        bail!("another process listens on {} there", socket.display());
    }
    let (read, write) = stream.into_split();
    fetch(read, write, path).await
}

/// Asks for the page, and reads no more than a page may have.
async fn fetch(read: impl AsyncRead + Unpin, write: impl AsyncWrite + Unpin, path: &str) -> Result<Vec<u8>> {
    let params = Params::default()
        .request_method("GET")
        .script_name(path)
        .script_filename(path)
        .request_uri(path)
        .query_string("json")
        .content_length(0);
    let mut page = read.take(LONGEST);
    let client = Client::new_tokio(tokio::io::join(&mut page, write));
    let answer = client.execute_once(Request::new(params, io::empty())).await;
    if page.limit() == 0 {
        bail!("the answer was larger than {} KiB and was not read further", LONGEST / 1024);
    }
    answer?.stdout.context("an empty answer")
}

fn parse(answer: &[u8]) -> Result<Status> {
    let head =
        answer.windows(4).position(|window| window == b"\r\n\r\n").context("an answer without a header")?;
    let page: Value = serde_json::from_slice(&answer[head + 4..]).context("it is no status page")?;
    let figure = |name: &str| page[name].as_u64().with_context(|| format!("the page has no \"{name}\""));
    Ok(Status { queue: figure("listen queue")?, len: figure("listen queue len")? })
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net::TcpListener};

    use super::*;

    #[test]
    fn the_page_is_json_after_a_header() {
        let answer = b"Content-type: application/json\r\n\r\n{\"pool\":\"www\",\"listen queue\":3,\"listen queue len\":128}";
        assert_eq!(parse(answer).unwrap(), Status { queue: 3, len: 128 });
        assert!(parse(b"Status: 404\r\n\r\nFile not found.").is_err());
    }

    #[test]
    fn an_endless_answer_is_not_read_to_its_end() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            // FastCGI's standard output: version, kind, request, length, padding, reserved.
            let frame = [&[1, 6, 0, 1, 0xff, 0xff, 0, 0][..], &[b'x'; 0xffff]].concat();
            let (mut stream, _) = listener.accept().unwrap();
            while stream.write_all(&frame).is_ok() {}
        });
        let refused = within(at_address(address, "/status")).unwrap_err();
        server.join().unwrap();
        assert!(refused.to_string().contains("larger than 64 KiB"), "{refused}");
    }
}
