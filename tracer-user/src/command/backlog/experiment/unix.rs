//! What a unix socket does.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;

use super::{Finding, arena::Listener};
use crate::model::words::span;

const BACKLOG: i32 = 4;

pub(super) fn trial() -> Result<Vec<Finding>> {
    let listener = Listener::unix(BACKLOG)?;
    let mut clients = Vec::new();
    let (mut fit, mut refused, mut slowest) = (0, 0, Duration::ZERO);
    for _ in 0..BACKLOG + 6 {
        let start = Instant::now();
        let (client, said) = listener.connect()?;
        match said {
            Ok(()) => fit += 1,
            Err(Errno::EAGAIN) => {
                refused += 1;
                slowest = slowest.max(start.elapsed());
            }
            Err(error) => return Err(error).context("connecting to a unix socket"),
        }
        clients.push(client);
    }
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let nonblocking = Finding {
        claim: "A unix socket behaves as TCP does when its queue is full",
        holds: refused == 0,
        measured: format!(
            "of {} clients that do not block (as nginx), {fit} fit a backlog of {BACKLOG} and {refused} were refused (EAGAIN), within {}",
            clients.len(),
            span(nanos(slowest))
        ),
    };
    Ok(vec![nonblocking, blocking(&listener)?])
}

/// A client that blocks, at a queue that is full.
fn blocking(listener: &Listener) -> Result<Finding> {
    const HELD: Duration = Duration::from_millis(300);
    let start = Instant::now();
    let (said, waited) = thread::scope(|scope| {
        let client = scope.spawn(|| {
            let (_client, said) = listener.connect_blocking()?;
            Ok::<_, anyhow::Error>((said, start.elapsed()))
        });
        thread::sleep(HELD);
        listener.accept()?;
        client.join().map_err(|_| anyhow!("a client panicked"))?
    })?;
    let nanos = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
    Ok(Finding {
        claim: "A client that blocks waits at a unix socket's full queue until there is room",
        holds: said.is_ok() && waited >= HELD,
        measured: match said {
            Ok(()) => format!("its connect took {}; there was room after {}", span(nanos), span(300_000_000)),
            Err(error) => format!("its connect failed with {error:?} after {}", span(nanos)),
        },
    })
}
