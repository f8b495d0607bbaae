//! What nginx says where it had nobody to ask, or no means to, each with its verdict (issue 19).

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use rig::reconcile::pair_off_words;
use rig::recorder::{Recorder, report};
use rig::tracer::Account;
use rig::{Endpoint, Fault, FaultyServer, Help, Location, Namespace, Nginx, Resolver, Tracer, Verdict};

/// Each word has its verdict, by the summary's own account.
fn are_all_explained(account: &Account, lines: usize) -> Result<()> {
    let words = &account.summary["words"];
    ensure!(words["said"] == lines && words["explained"] == lines, "{lines} lines: {words}");
    ensure!(words["unexplained"] == serde_json::json!([]) && words["truncated"] == false, "{words}");
    Ok(())
}

/// The servers that a verdict lists, by port. Each must have failed as a port without a listener does, before the verdict.
fn out_of_use(verdict: &Verdict) -> Result<BTreeSet<&str>> {
    for server in &verdict.servers {
        let cause = (server.cause.as_deref(), server.detail.as_deref());
        ensure!(cause == (Some("refused"), Some("no_listener")) && server.ago_us.is_some(), "{verdict:#?}");
        let fact = format!("the exchange with {} failed: refused/no_listener", server.upstream.addr);
        ensure!(verdict.evidence.iter().any(|one| one.fact == fact), "{fact}: {verdict:#?}");
        ensure!(verdict.explanation.contains(&server.upstream.addr), "{verdict:#?}");
    }
    Ok(verdict.servers.iter().map(|server| server.upstream.addr.trim_start_matches("127.0.0.1:")).collect())
}

/// The verdicts on groups of which no server was alive.
fn without_live_upstreams(account: &Account) -> Vec<&Verdict> {
    account.verdicts.iter().filter(|verdict| verdict.name() == "not_attempted/no_live_upstreams").collect()
}

/// Checks a verdict on what was never attempted.
fn was_not_attempted(verdict: &Verdict, detail: &str, status: u16) -> Result<()> {
    verdict.says(&format!("not_attempted/{detail}"), "proven", status, None)?;
    ensure!(verdict.upstream.is_none(), "{verdict:#?}");
    verdict.blames(None, None, None)
}

#[test]
fn a_group_without_live_servers_is_reported_and_not_attempted() -> Result<()> {
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
        ensure!(verdict.group.as_deref() == Some("pair"), "{verdict:#?}");
        ensure!(out_of_use(verdict)? == ["9001", "9002"].into(), "{verdict:#?}");
        for server in &verdict.servers {
            let limits = (server.max_fails, server.fail_timeout_us);
            ensure!(limits == (Some(1), Some(10_000_000)) && !server.down, "{verdict:#?}");
        }
    }
    are_all_explained(&account, nginx.failures().len())
}

#[test]
fn groups_that_share_a_server_are_told_apart_until_both_are_out() -> Result<()> {
    let namespace = Namespace::new()?;
    let [first, second, third] = [9001, 9002, 9003].map(Endpoint::v4);
    let nginx = Nginx::on(&namespace)
        .group("one", &[&first, &second], &[])
        .group("other", &[&first, &third], &["server 127.0.0.1:9004 down"])
        .location(Location::http("/one/", &first).through_group("one"))
        .location(Location::http("/other/", &first).through_group("other"))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    for (prefix, status) in [("one", 502), ("one", 502), ("other", 502), ("other", 502)] {
        ensure!(nginx.client().get(&format!("/{prefix}/"))?.status == status);
    }
    tracer.wait_for(6)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    let [one, other] = without_live_upstreams(&account)[..] else { anyhow::bail!("{:#?}", account.verdicts) };
    // What failed before the tracing began nobody has seen: another group might be meant.
    one.says("not_attempted/no_live_upstreams", "inferred", 502, None)?;
    ensure!(one.group.as_deref() == Some("one") && out_of_use(one)? == ["9001", "9002"].into(), "{one:#?}");
    // Now all servers of both have failed, and nginx does not say which group it means.
    was_not_attempted(other, "no_live_upstreams", 502)?;
    ensure!(other.group.is_none() && other.explanation.contains("several groups"), "{other:#?}");
    ensure!(out_of_use(other)? == ["9001", "9002", "9003"].into(), "{other:#?}");
    Ok(())
}

#[test]
fn evidence_shows_the_group_and_its_servers_without_their_names() -> Result<()> {
    let namespace = Namespace::new()?;
    let [first, second] = [9001, 9002].map(Endpoint::v4);
    let nginx = Nginx::on(&namespace)
        .group("pair", &[&first, &second], &[])
        .location(Location::http("/pair/", &first).through_group("pair"))
        .start()?;
    let recorder = Recorder::start(&["-p", &nginx.master().to_string(), "--anonymize"])?;
    for _ in 0..2 {
        ensure!(nginx.client().get("/pair/")?.status == 502);
    }
    recorder.wait_for(3)?;
    let recorded = recorder.stop()?;
    recorded.is_orderly()?;
    ensure!(
        recorded.stderr.contains("nginx said 3 words about upstreams; each has its verdict."),
        "{recorded:?}"
    );
    let said = report(&[&recorded.file()])?;
    let verdict = said.verdicts.iter().find(|verdict| verdict.upstream.is_none());
    let verdict = verdict.with_context(|| format!("{:#?}", said.verdicts))?;
    was_not_attempted(verdict, "no_live_upstreams", 502)?;
    ensure!(verdict.group.as_ref().is_some_and(|group| group.starts_with("group-")), "{verdict:#?}");
    ensure!(out_of_use(verdict)? == ["9001", "9002"].into(), "{verdict:#?}");
    ensure!(said.summary["words"]["explained"] == 3, "{}", said.summary);
    Ok(())
}

#[test]
fn workers_that_share_a_zone_share_the_failures_of_its_servers_and_of_its_backup() -> Result<()> {
    let namespace = Namespace::new()?;
    let servers = [
        "zone many 64k",
        "server 127.0.0.1:9001 max_fails=3 fail_timeout=30s weight=5",
        "server 127.0.0.1:9002 backup fail_timeout=20",
    ];
    let nginx = Nginx::on(&namespace)
        .workers(2)
        .group("many", &[], &servers)
        .location(Location::http("/many/", &Endpoint::v4(9001)).through_group("many"))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    for _ in 0..5 {
        ensure!(nginx.client().get("/many/")?.status == 502);
    }
    let lines = nginx.failures().len();
    tracer.wait_for(lines)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    // The backup is out after one failure, the other server after three.
    let found = without_live_upstreams(&account);
    ensure!(found.len() == 4 && lines == 8, "{lines} lines: {found:#?}");
    for verdict in found {
        was_not_attempted(verdict, "no_live_upstreams", 502)?;
        ensure!(verdict.group.as_deref() == Some("many"), "{verdict:#?}");
        ensure!(out_of_use(verdict)? == ["9001", "9002"].into(), "{verdict:#?}");
        let limits = verdict.servers.iter().map(|server| (server.max_fails, server.fail_timeout_us));
        let right = [(Some(3), Some(30_000_000)), (Some(1), Some(20_000_000))];
        ensure!(limits.eq(right), "{verdict:#?}");
    }
    are_all_explained(&account, lines)
}

#[test]
fn a_name_that_is_not_resolved_is_reported_with_what_became_of_the_question() -> Result<()> {
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
    let answers = [
        ("silent", "no answer came"),
        ("unknown", "there is no such name"),
        ("failing", "server failure"),
        ("nobody", "no answer came"),
        ("none", "it knows no name server"),
    ];
    let names = answers.map(|(name, _)| name);
    for name in names {
        ensure!(nginx.client().get(&format!("/{name}/"))?.status == 502, "{name}");
    }
    tracer.wait_for(names.len())?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    ensure!(account.verdicts.len() == names.len(), "{:#?}", account.verdicts);
    // One after the other, as they were asked for.
    for (verdict, (name, answer)) in account.verdicts.iter().zip(answers) {
        was_not_attempted(verdict, "unresolved", 502)?;
        ensure!(verdict.explanation.contains(&format!("{name}.test")), "{verdict:#?}");
        ensure!(verdict.explanation.contains(answer), "{answer}: {verdict:#?}");
    }
    drop(servers);
    are_all_explained(&account, names.len())
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

#[test]
fn where_some_upstreams_were_asked_for_their_groups_are_emitted_and_other_words_are_counted() -> Result<()> {
    let namespace = Namespace::new()?;
    let [wanted, beside, third, fourth] = [9001, 9002, 9003, 9004].map(Endpoint::v4);
    let _resolver = Resolver::start(&namespace, 5301, Help::NoSuchName)?;
    let group = |nginx: rig::nginx::Builder, name: &str, servers: &[&Endpoint]| {
        nginx
            .group(name, servers, &[])
            .location(Location::http(&format!("/{name}/"), servers[0]).through_group(name))
    };
    let nginx = group(Nginx::on(&namespace), "pair", &[&wanted, &beside]);
    let nginx = group(nginx, "other", &[&third, &fourth])
        .location(
            Location::http("/unresolved/", &wanted)
                .through_group("nobody.test:80$arg_more")
                .directive("resolver 127.0.0.1:5301 ipv6=off"),
        )
        .start()?;
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "-u", "127.0.0.1:9001"])?;
    for name in ["other", "other", "unresolved", "pair", "pair"] {
        ensure!(nginx.client().get(&format!("/{name}/"))?.status == 502, "{name}");
    }
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    account.only(&wanted)?;
    let [pair] = without_live_upstreams(&account)[..] else { anyhow::bail!("{:#?}", account.verdicts) };
    pair.says("not_attempted/no_live_upstreams", "inferred", 502, None)?;
    ensure!(pair.group.as_deref() == Some("pair") && account.verdicts.len() == 2, "{:#?}", account.verdicts);
    // The name, the other group, and what failed of connections to others: two of that group, one of this.
    let words = &account.summary["words"];
    ensure!(words["left_out"] == 5 && words["said"] == 2 && words["explained"] == 2, "{words}");
    Ok(())
}
