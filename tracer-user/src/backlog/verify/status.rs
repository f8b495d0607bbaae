//! php-fpm's status page: its `listen queue` against the kernel's depth.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fastcgi_client::{Client, Params, Request, io};
use serde_json::Value;
use tokio::net::{TcpStream, UnixStream};

use super::{Check, Scene, fpm::Pool, listeners};
use crate::{backlog::Queue, verdict::Upstream};

/// A status page answers at once, unless every worker is busy.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status {
    /// Connections that wait.
    queue: u64,
    /// The backlog.
    len: u64,
}

/// Whether the status page of a pool is right about the listener's queue; nothing for a pool without one.
pub(super) fn check(
    pool: &Pool,
    scene: &Scene<'_>,
    depth_of: &mut dyn FnMut(&Queue) -> Option<u32>,
) -> Option<Check> {
    let (path, reached) = pool.status.as_ref()?;
    let addr = &pool.configured.addr;
    let claim =
        format!("the status page of the pool {} tells how many connections wait on {addr}", pool.name);
    let Some(queue) = listeners(addr, scene.queues).next() else {
        return Some(Check { claim, holds: None, figures: "nobody listens there".to_owned() });
    };
    let before = depth_of(queue);
    let asked = scene.books.netns(queue.netns).and_then(|netns| netns.inside(|| ask(reached, path)));
    let after = depth_of(queue);
    let (holds, figures) = match (asked, before, after) {
        (None, ..) => (None, "its network namespace cannot be entered".to_owned()),
        (Some(Err(error)), ..) => (None, format!("the page cannot be had: {error:#}")),
        (Some(Ok(status)), Some(before), Some(after)) => {
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
        (Some(Ok(_)), ..) => (None, "the listener has gone meanwhile".to_owned()),
    };
    Some(Check { claim, holds, figures })
}

/// Asks for the page, in the calling thread's network namespace.
fn ask(reached: &Upstream, path: &str) -> Result<Status> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async { tokio::time::timeout(PATIENCE, fetch(reached, path)).await });
    let Ok(answer) = answer else { bail!("no answer within {} s", PATIENCE.as_secs()) };
    parse(&answer?)
}

async fn fetch(reached: &Upstream, path: &str) -> Result<Vec<u8>> {
    let params = Params::default()
        .request_method("GET")
        .script_name(path)
        .script_filename(path)
        .request_uri(path)
        .query_string("json")
        .content_length(0);
    let request = Request::new(params, io::empty());
    let answer = match reached {
        Upstream::Inet(address) => {
            // An address that stands for all is reached at its own host.
            let stream = TcpStream::connect(address).await.context("connecting")?;
            Client::new_tokio(stream).execute_once(request).await?
        }
        Upstream::Unix(path) => {
            let stream = UnixStream::connect(path).await.context("connecting")?;
            Client::new_tokio(stream).execute_once(request).await?
        }
        Upstream::Named(name) => anyhow::bail!("{name} is no address"),
    };
    answer.stdout.context("an empty answer")
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
    use super::*;

    #[test]
    fn the_page_is_json_after_a_header() {
        let answer = b"Content-type: application/json\r\n\r\n{\"pool\":\"www\",\"listen queue\":3,\"listen queue len\":128}";
        assert_eq!(parse(answer).unwrap(), Status { queue: 3, len: 128 });
        assert!(parse(b"Status: 404\r\n\r\nFile not found.").is_err());
    }
}
