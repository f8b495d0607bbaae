//! What lies at a unix upstream's path where connect is refused.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Result, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use rig::reconcile::pair_off_words;
use rig::{Endpoint, Location, Namespace, Nginx, Tracer};

#[test]
fn a_file_a_silent_owner_and_a_dead_one_are_told_apart() -> Result<()> {
    let namespace = Namespace::new()?;
    let path = |name: &str| namespace.scratch().join(name);
    fs::write(path("file"), "no socket")?;
    fs::create_dir(path("folder"))?;
    drop(UnixListener::bind(path("dead"))?);
    // Bound by this very process, which does not listen; one by a path as another process names it.
    let bound = |name: &Path| -> Result<_> {
        let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &UnixAddr::new(name)?)?;
        Ok(socket)
    };
    let _silent = bound(&path("silent"))?;
    let _roundabout = bound(&namespace.scratch().join("folder/../roundabout"))?;
    let me = format!(" {} has bound it, but does not listen on it", std::process::id());
    let places = [
        ("file", "it is a regular file, no socket"),
        ("folder", "it is a folder, no socket"),
        ("dead", "no process has it any more"),
        ("silent", &me),
        ("roundabout", &me),
    ];
    let endpoint = |name: &str| Endpoint::Unix(path(name));
    let mut nginx = Nginx::on(&namespace);
    for (name, _) in places {
        nginx = nginx.location(Location::fastcgi(&format!("/{name}/"), &endpoint(name)));
    }
    let nginx = nginx.start()?;
    let tracer = Tracer::of(nginx.master())?;
    for (name, _) in places {
        ensure!(nginx.client().get(&format!("/{name}/"))?.status == 502);
    }
    tracer.wait_for(places.len())?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    for (name, what) in places {
        let verdict = account.only(&endpoint(name))?;
        verdict.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))?;
        ensure!(verdict.explanation.contains(what), "{name}: {verdict:#?}");
    }
    Ok(())
}
