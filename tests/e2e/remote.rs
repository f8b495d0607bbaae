//! An upstream on another host: the verdict that one end allows.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rig::reconcile::pair_off;
use rig::{Location, Namespace, Nginx, Remote, Temper, Tracer};

const SOON: Duration = Duration::from_millis(800);

#[test]
fn a_remote_upstream_gets_the_verdict_that_one_end_allows() -> Result<()> {
    let cases = [
        (Temper::Refuse, "refused", Some("no_listener"), 502, Some("ECONNREFUSED")),
        (Temper::Silent, "connect_timeout", Some("syn_unanswered"), 504, Some("ETIMEDOUT")),
        // Whether a worker there had it cannot be known here.
        (Temper::Mute, "read_timeout", None, 504, Some("ETIMEDOUT")),
        (Temper::Reset, "reset", Some("by_remote"), 502, Some("ECONNRESET")),
        (Temper::CloseUnanswered, "premature_close", Some("peer_closed"), 502, None),
    ];
    let namespace = Namespace::new()?;
    let good = Remote::start(&namespace, Temper::Answer)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/far/", &good.endpoint()).connect_timeout(SOON).read_timeout(SOON))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().storm("/far/", 20, 2)? == [(200, 20)].into());
    drop(good);
    for (index, (temper, _, _, status, _)) in cases.iter().enumerate() {
        let remote = Remote::start(&namespace, *temper)?;
        ensure!(nginx.client().get("/far/")?.status == *status, "{temper:?}");
        tracer.wait_for(index + 1).with_context(|| format!("{temper:?}"))?;
        drop(remote);
    }
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    for (verdict, (temper, cause, detail, status, errno)) in account.verdicts.iter().zip(cases) {
        let detail = detail.unwrap_or(&verdict.detail);
        verdict
            .says(&format!("{cause}/{detail}"), "inferred", status, errno)
            .context(format!("{temper:?}"))?;
        ensure!(!["never_accepted", "slow_worker"].contains(&detail), "a guess: {verdict:#?}");
        verdict.blames(None, None, None)?;
    }
    Ok(())
}
