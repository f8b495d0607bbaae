//! What nginx says where it had nobody to ask, or no means to, each with its verdict (issue 19).

use anyhow::{Context, Result, ensure};
use rig::reconcile::pair_off_words;
use rig::{Endpoint, Fault, FaultyServer, Help, Location, Namespace, Nginx, Resolver, Tracer, Verdict};

/// Checks a verdict on what was never attempted.
fn was_not_attempted(verdict: &Verdict, detail: &str, status: u16) -> Result<()> {
    verdict.says(&format!("not_attempted/{detail}"), "proven", status, None)?;
    ensure!(verdict.upstream.is_none(), "{verdict:#?}");
    verdict.blames(None, None, None)
}

#[test]
fn a_group_without_live_servers_is_told_and_not_attempted() -> Result<()> {
    let namespace = Namespace::new()?;
    let one = Endpoint::v4(9001);
    let nginx = Nginx::on(&namespace)
        .block("upstream pair { server 127.0.0.1:9001 max_fails=1 fail_timeout=10s; server 127.0.0.1:9002 max_fails=1 fail_timeout=10s; }")
        .location(Location::http("/pair/", &one).through_group("pair"))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    for _ in 0..6 {
        ensure!(nginx.client().get("/pair/")?.status == 502);
    }
    tracer.wait_for(7)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    // The two of the first request are tied to each other, and to nothing else.
    let tried: Vec<_> = account.verdicts.iter().filter(|verdict| verdict.upstream.is_some()).collect();
    ensure!(tried.len() == 2, "{tried:#?}");
    for verdict in &tried {
        ensure!(verdict.name() == "refused/no_listener" && verdict.confidence == "proven", "{verdict:#?}");
        ensure!(verdict.request.is_some() && verdict.request == tried[0].request, "{verdict:#?}");
    }
    let not_tried: Vec<_> = account.verdicts.iter().filter(|verdict| verdict.upstream.is_none()).collect();
    ensure!(not_tried.len() == 5, "{not_tried:#?}");
    for verdict in not_tried {
        was_not_attempted(verdict, "no_live_upstreams", 502)?;
        ensure!(
            verdict.advice.as_deref().is_some_and(|advice| advice.contains("fail_timeout")),
            "{verdict:#?}"
        );
    }
    Ok(())
}

#[test]
fn a_name_that_is_not_resolved_is_told_with_what_became_of_the_question() -> Result<()> {
    let namespace = Namespace::new()?;
    let named = |prefix: &str, name: &str, port: u16| {
        Location::http(prefix, &Endpoint::v4(9100))
            .through_group(&format!("{name}:80$arg_more"))
            .directive(&format!("resolver 127.0.0.1:{port} ipv6=off"))
            .directive("resolver_timeout 1s")
    };
    let servers = [
        Resolver::start(&namespace, 5301, Help::Silent)?,
        Resolver::start(&namespace, 5302, Help::NoSuchName)?,
        Resolver::start(&namespace, 5303, Help::Failure)?,
    ];
    let nginx = Nginx::on(&namespace)
        .location(named("/silent/", "silent.test", 5301))
        .location(named("/unknown/", "unknown.test", 5302))
        .location(named("/failing/", "failing.test", 5303))
        .location(named("/nobody/", "nobody.test", 5304))
        .location(Location::http("/none/", &Endpoint::v4(9100)).through_group("none.test:80$arg_more"))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let names = ["silent", "unknown", "failing", "nobody", "none"];
    for name in names {
        ensure!(nginx.client().get(&format!("/{name}/"))?.status == 502, "{name}");
    }
    tracer.wait_for(names.len())?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    ensure!(account.verdicts.len() == names.len(), "{:#?}", account.verdicts);
    // One after the other, as they were asked for.
    for (verdict, name) in account.verdicts.iter().zip(names) {
        was_not_attempted(verdict, "unresolved", 502)?;
        ensure!(verdict.explanation.contains(&format!("{name}.test")), "{verdict:#?}");
    }
    drop(servers);
    Ok(())
}

#[test]
fn a_worker_out_of_descriptors_has_not_even_tried() -> Result<()> {
    runs_out("too_many_open_files", |nginx| nginx.open_files(40))
}

#[test]
fn a_worker_out_of_connections_has_not_even_tried() -> Result<()> {
    runs_out("worker_connections", |nginx| nginx.connections(16))
}

fn runs_out(detail: &str, limit: impl Fn(rig::nginx::Builder) -> rig::nginx::Builder) -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9100), 4)?;
    let nginx = limit(Nginx::on(&namespace)).location(server.location()).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let begun = nginx.begin_until_full("/answer/")?;
    let answer = begun.into_iter().next().context("no request")?.finish()?.answer()?;
    ensure!(answer.status == 500, "{}", answer.status);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    let verdict = &account.verdicts[0];
    let errno = (detail == "too_many_open_files").then_some("EMFILE");
    verdict.says(&format!("not_attempted/{detail}"), "proven", 500, errno)?;
    verdict.blames(None, None, None)
}
