//! `why502 backlog` on an idle host: what the running nginx and php-fpm are configured with says which listeners matter.

use std::time::Duration;

use anyhow::{Result, ensure};
use rig::{Backlog, Endpoint, Fpm, Location, Namespace, Nginx};
use serde_json::{Value, json};

fn is(check: &Value, holds: Value, figures: &str) -> Result<()> {
    let has = check["figures"].as_str().is_some_and(|text| text.contains(figures));
    ensure!(check["holds"] == holds && has, "{holds} and \"{figures}\": {check}");
    Ok(())
}

#[test]
fn upstreams_and_pools_are_emitted_and_verified_without_any_traffic() -> Result<()> {
    let namespace = Namespace::new()?;
    let early = Fpm::on(&namespace)
        .listen(Endpoint::v4(9471))
        .workers(3)
        .backlog(64)
        .terminate_after(Duration::from_secs(3))
        .start()?;
    let never = Fpm::on(&namespace).listen(Endpoint::Unix(namespace.scratch().join("never.sock"))).start()?;
    // Nginx does not pass anything on to this one.
    let alone = Fpm::on(&namespace).listen(Endpoint::v4(9472)).backlog(32).start()?;
    let _other = namespace.listen(&Endpoint::v4(9473), 7)?;
    let _stranger = namespace.listen(&Endpoint::v4(9474), 7)?;
    let late = Duration::from_secs(10);
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/early/", &early).read_timeout(late))
        .location(Location::fpm("/either/", &early).read_timeout(Duration::from_millis(3_500)))
        .location(Location::fpm("/never/", &never).read_timeout(late))
        .group("other", &[&Endpoint::v4(9473)], &[])
        .location(Location::http("/other/", &Endpoint::v4(9473)).through_group("other"))
        .start()?;
    let account = Backlog::start(&["--verify", "-d", "1s"])?.finish()?;
    for listed in [early.endpoint(), never.endpoint(), alone.endpoint(), &Endpoint::v4(9473)] {
        account.last(listed)?;
    }
    ensure!(account.last(&Endpoint::v4(9474)).is_err(), "nobody has to do with it");

    let of = |fpm: &Fpm| format!("the pool www of php-fpm8.2 {}", fpm.master());
    let has = |fpm: &Fpm, backlog: &str, figures: &str| {
        let claim = format!("{} has {backlog} on {}", of(fpm), fpm.endpoint());
        is(account.check(&[&claim])?, json!(true), figures)
    };
    has(&early, "a backlog of 64", "enforces 64")?;
    has(&never, "php-fpm's own backlog (listen.backlog is not set)", "the kernel enforces")?;
    has(&alone, "a backlog of 32", "enforces 32")?;
    is(account.check(&[&of(&early), "pm.max_children"])?, json!(true), "3 of 3 run")?;
    is(account.check(&[&of(&never), "pm.max_children"])?, json!(true), "2 of 2 run")?;

    let ends = format!("before nginx {} stops waiting", nginx.master());
    let of_early: Vec<&Value> = account
        .all("check")
        .into_iter()
        .filter(|check| {
            check["claim"]
                .as_str()
                .is_some_and(|claim| claim.starts_with(&of(&early)) && claim.contains(&ends))
        })
        .collect();
    ensure!(of_early.len() == 2, "{of_early:#?}");
    is(of_early[0], Value::Null, "either may fire first: fastcgi_read_timeout (3.500 s)")?;
    is(of_early[1], json!(true), "request_terminate_timeout (3 s) fires first")?;
    is(account.check(&[&of(&never), &ends])?, json!(false), "request_terminate_timeout is off")
}

#[test]
fn an_nginx_that_begins_later_is_asked_where_it_passes_requests_on() -> Result<()> {
    let namespace = Namespace::new()?;
    let _later = namespace.listen(&Endpoint::v4(9475), 7)?;
    let backlog = Backlog::start(&[])?;
    let is_it = |line: &Value| line["addr"] == "127.0.0.1:9475";
    ensure!(!backlog.lines("listener").iter().any(is_it), "nobody has to do with it yet");
    let _nginx = Nginx::on(&namespace).location(Location::http("/", &Endpoint::v4(9475))).start()?;
    backlog.wait_for_listener("the listener that nginx is configured with", is_it)?;
    backlog.stop()?;
    Ok(())
}
