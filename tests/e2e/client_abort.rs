//! `client_abort`: the client went away, which is never to be called a timeout.

use std::time::Duration;

use anyhow::{Result, ensure};
use rig::client::Asked;
use rig::error_log::{Kind, count};
use rig::reconcile::pair_off;
use rig::{Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Tracer};

#[test]
fn a_client_that_goes_is_told_from_a_timeout() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(1).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/patient/", &fpm))
        .location(Location::fpm("/hasty/", &fpm).read_timeout(Duration::from_millis(800)))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();

    // One is being served, two wait in the queue, one of which only says that it will send no more.
    let served = client.ask("/patient/sleep.php?s=2&tag=served")?;
    let worker = fpm.worker_on("served")?;
    let timed_out = client.ask("/hasty/ok.php")?;
    let queued = [client.ask("/patient/ok.php")?, client.ask("/patient/ok.php")?];
    namespace.wait_for_queue(fpm.endpoint(), 3)?;
    let [gone, half_closed] = queued;
    gone.abort()?;
    served.abort()?;
    ensure!(half_closed.half_close()?.is_empty(), "nginx answered a half-closed connection");
    ensure!(timed_out.answer()?.status == 504);

    tracer.wait_for(4)?;
    let failures = nginx.wait_for_failures(4)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&failures, &account.verdicts)?;
    ensure!(
        count(&failures, Kind::ClientAbort) == 3 && count(&failures, Kind::TimedOut) == 1,
        "{failures:#?}"
    );
    ensure!(nginx.wait_for_accesses(4)?.iter().filter(|access| access.status == 499).count() == 3);
    let (aborts, timeouts): (Vec<_>, Vec<_>) =
        account.verdicts.iter().partition(|v| v.cause == "client_abort");
    ensure!((aborts.len(), timeouts.len()) == (3, 1), "{:#?}", account.verdicts);
    for abort in &aborts {
        abort.says("client_abort/before_response", "proven", 499, None)?;
        ensure!(abort.killer.is_none() && abort.signal().is_none(), "{abort:#?}");
    }
    ensure!(aborts.iter().filter(|abort| abort.worker_pid() == Some(worker)).count() == 1, "{aborts:#?}");
    timeouts[0].says("read_timeout/never_accepted", "proven", 504, Some("ETIMEDOUT"))
}

/// A client's RST may come while nginx is in the middle of closing another's exchange, on the very CPU on which it then closes
/// this client's socket: such a close was once taken for the network's, and the verdict was `unknown`.
#[test]
fn clients_that_reset_all_at_once_are_reported_each() -> Result<()> {
    const CLIENTS: usize = 40;
    const ROUNDS: usize = 3;
    let namespace = Namespace::new()?;
    let server =
        FaultyServer::start(&namespace, Fault::NeverAccept, Endpoint::v4(9100), (ROUNDS * CLIENTS) as i32)?;
    let nginx = Nginx::on(&namespace).location(Location::http("/", server.endpoint())).start()?;
    let tracer = Tracer::of(nginx.master())?;
    for round in 1..=ROUNDS {
        let clients = (0..CLIENTS).map(|_| nginx.client().ask("/")).collect::<Result<Vec<_>>>()?;
        namespace.wait_for_queue(server.endpoint(), (round * CLIENTS) as u32)?;
        clients.into_iter().try_for_each(Asked::reset)?;
        tracer.wait_for(round * CLIENTS)?;
    }
    let failures = nginx.wait_for_failures(ROUNDS * CLIENTS)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&failures, &account.verdicts)?;
    for verdict in &account.verdicts {
        verdict.says("client_abort/before_response", "proven", 499, Some("ECONNRESET"))?;
    }
    Ok(())
}
