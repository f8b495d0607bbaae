//! `refused/denied_by_lsm`: owner, mode and routes allow a connect, and something else forbids it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use anyhow::{Result, ensure};
use rig::reconcile::pair_off_words;
use rig::{Confinement, Endpoint, Fpm, Location, Namespace, Nginx, Tracer};

#[test]
fn what_landlock_forbids_is_no_refusal_of_the_upstreams() -> Result<()> {
    if !Confinement::Landlock.is_here() {
        eprintln!("not tested: this kernel's Landlock has no rules about TCP, or is off");
        return Ok(());
    }
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace)
        .confined(Confinement::Landlock)
        .location(Location::fpm("/php/", &fpm))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/php/ok.php")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(fpm.endpoint())?;
    verdict.says("refused/denied_by_lsm", "inferred", 502, Some("EACCES"))?;
    verdict.blames(None, None, None)?;
    ensure!(verdict.explanation.contains("no route of this host prohibits it"), "{verdict:#?}");
    Ok(())
}

#[test]
fn a_route_of_type_prohibit_is_no_security_module() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.ip("route add prohibit 10.9.9.0/24")?;
    let upstream = Endpoint::Tcp("10.9.9.9:9000".parse()?);
    let nginx = Nginx::on(&namespace).location(Location::fastcgi("/php/", &upstream)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/php/ok.php")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    account.only(&upstream)?.says("refused/no_route", "proven", 502, Some("EACCES"))
}

#[test]
fn a_socket_that_owner_and_mode_open_and_a_filter_closes_is_told_from_one_that_they_close() -> Result<()> {
    let namespace = Namespace::new()?;
    fs::set_permissions(namespace.scratch(), Permissions::from_mode(0o755))?;
    let pool = |name: &str, mode: &str| {
        let socket = Endpoint::Unix(namespace.scratch().join(name));
        Fpm::on(&namespace).listen(socket).pool(&format!("listen.mode = {mode}")).start()
    };
    let (open, closed) = (pool("open", "0666")?, pool("closed", "0600")?);
    let nginx = Nginx::on(&namespace)
        .user("nobody nogroup")
        .confined(Confinement::Seccomp)
        .location(Location::fpm("/open/", &open))
        .location(Location::fpm("/closed/", &closed))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    for path in ["/open/ok.php", "/closed/ok.php"] {
        ensure!(nginx.client().get(path)?.status == 502);
    }
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(open.endpoint())?;
    verdict.says("refused/denied_by_lsm", "inferred", 502, Some("EACCES"))?;
    ensure!(verdict.explanation.contains("seccomp filter"), "{verdict:#?}");
    account.only(closed.endpoint())?.says("refused/permission_denied", "proven", 502, Some("EACCES"))?;
    Ok(())
}

#[test]
fn owner_and_mode_that_were_not_looked_at_prove_nothing() -> Result<()> {
    // Many more than are looked at in a second.
    const SOCKETS: usize = 240;
    let namespace = Namespace::new()?;
    fs::set_permissions(namespace.scratch(), Permissions::from_mode(0o755))?;
    let mut nginx = Nginx::on(&namespace).user("nobody nogroup");
    let mut listeners = Vec::new();
    for number in 0..SOCKETS {
        let path = namespace.scratch().join(format!("closed{number}"));
        listeners.push(UnixListener::bind(&path)?);
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        nginx = nginx.location(Location::fastcgi(&format!("/{number}/"), &Endpoint::Unix(path)));
    }
    let nginx = nginx.start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    for number in 0..SOCKETS {
        ensure!(client.get(&format!("/{number}/"))?.status == 502);
    }
    tracer.wait_for(SOCKETS)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    let mut left_out = 0;
    for verdict in &account.verdicts {
        let is_left_out = verdict.explanation.contains("was left out");
        let is_looked_at = !is_left_out && !verdict.explanation.contains("is not known");
        let confidence = if is_looked_at { "proven" } else { "inferred" };
        verdict.says("refused/permission_denied", confidence, 502, Some("EACCES"))?;
        left_out += usize::from(is_left_out);
    }
    ensure!(0 < left_out && left_out < SOCKETS, "{left_out} of {SOCKETS} left out");
    Ok(())
}
