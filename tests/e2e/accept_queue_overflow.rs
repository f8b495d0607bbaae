//! `accept_queue_overflow`: no room in the listener's queue.

use std::time::Duration;

use anyhow::{Result, ensure};
use rig::reconcile::pair_off;
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, Tracer, wait};

/// Shorter than the second after which a dropped SYN is sent again and could succeed.
const CONNECT: Duration = Duration::from_millis(700);

#[test]
fn a_full_queue_drops_the_syn_whether_the_listener_is_old_or_new() -> Result<()> {
    let namespace = Namespace::new()?;
    // This one listens before the tracer starts, the other one begins to afterwards.
    let old = Fpm::on(&namespace).backlog(1).start()?;
    let new = Fpm::on(&namespace).backlog(2).listen(Endpoint::v6(9001));
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/old/", &old).connect_timeout(CONNECT))
        .location(Location::fastcgi("/new/", &Endpoint::v6(9001)).connect_timeout(CONNECT))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let new = new.start()?;
    let full = [(&old, 2, 1, "/old/"), (&new, 3, 2, "/new/")];
    let mut fillers = Vec::new();
    for (fpm, fits, _, _) in full {
        fpm.freeze()?;
        fillers.push(namespace.fill_queue(fpm.endpoint(), fits)?);
    }
    let overflows = namespace.tcp_counter("ListenOverflows")?;
    for (_, _, _, path) in full {
        ensure!(nginx.client().get(path)?.status == 504);
    }
    let dropped = namespace.tcp_counter("ListenOverflows")? - overflows;
    ensure!(dropped == 2, "the kernel counted {dropped} drops");

    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    for (fpm, depth, limit, _) in full {
        let verdict = account.only(fpm.endpoint())?;
        verdict.says("accept_queue_overflow/syn_dropped", "proven", 504, Some("ETIMEDOUT"))?;
        verdict.blames(None, None, None)?;
        let queue = verdict.queue.as_ref().map(|queue| (queue.depth, queue.limit));
        ensure!(queue == Some((Some(depth), Some(limit))), "{verdict:#?}");
        ensure!(verdict.us.connected.is_none(), "{verdict:#?}");
        let gave_up = verdict.us.ended.is_some_and(|us| us >= 600_000);
        ensure!(gave_up, "{verdict:#?}");
    }
    Ok(())
}

#[test]
fn a_listener_is_known_though_who_holds_it_is_in_another_namespace() -> Result<()> {
    let namespace = Namespace::new()?;
    let listener = Endpoint::v4(9100);
    // This process holds it, and came before all that are in the namespace.
    let _held = namespace.listen(&listener, 0)?;
    let nginx =
        Nginx::on(&namespace).location(Location::fastcgi("/", &listener).connect_timeout(CONNECT)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let _filler = namespace.fill_queue(&listener, 1)?;
    ensure!(nginx.client().get("/")?.status == 504);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let verdict = account.only(&listener)?;
    verdict.says("accept_queue_overflow/syn_dropped", "proven", 504, Some("ETIMEDOUT"))?;
    let queue = verdict.queue.as_ref().map(|queue| (queue.depth, queue.limit));
    ensure!(queue == Some((Some(1), Some(0))), "{verdict:#?}");
    Ok(())
}

#[test]
fn a_dropped_syn_that_succeeds_later_is_a_delay_and_no_failure() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).backlog(1).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    fpm.freeze()?;
    let fillers = namespace.fill_queue(fpm.endpoint(), 2)?;
    let overflows = namespace.tcp_counter("ListenOverflows")?;
    let asked = nginx.client().ask("/php/ok.php")?;
    wait::until_true("a dropped SYN", || Ok(namespace.tcp_counter("ListenOverflows")? > overflows))?;
    drop(fillers);
    fpm.thaw()?;
    ensure!(asked.answer()?.status == 200);
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(nginx.failures().is_empty() && account.verdicts.is_empty(), "{:#?}", account.verdicts);
    ensure!(account.others.len() == 1 && account.others[0]["type"] == "delayed", "{:#?}", account.others);
    ensure!(account.others[0]["delay_us"].as_u64().is_some_and(|us| us > 500_000), "{:#?}", account.others);
    Ok(())
}
