//! The logs that nginx holds open: what somebody puts in a log's place is not read, nor are lines that a client makes up.

use std::fs;
use std::os::unix::fs::{chown, lchown, symlink};

use anyhow::{Result, ensure};
use rig::reconcile::pair_off_words;
use rig::{Endpoint, Location, Namespace, Nginx, Tracer};

const NOBODY: Option<u32> = Some(65_534);

/// A line that nginx never wrote.
const MADE_UP: &str = "upstream prematurely closed connection while reading upstream, client: 127.0.0.1, server: , \
    request: \"GET / HTTP/1.1\", upstream: \"http://127.0.0.1:6666/\", host: \"x\"";

#[test]
fn a_link_in_a_logs_place_is_not_followed() -> Result<()> {
    let namespace = Namespace::new()?;
    let nobody = Endpoint::v4(9009);
    let nginx = Nginx::on(&namespace).location(Location::http("/nobody/", &nobody)).start()?;
    let (log, moved) = (nginx.error_log(), nginx.error_log().with_extension("moved"));
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "--no-uprobe"])?;
    // Whoever owns the folder may do so.
    let elsewhere = log.with_file_name("elsewhere");
    fs::write(&elsewhere, "")?;
    chown(&elsewhere, NOBODY, NOBODY)?;
    fs::rename(&log, &moved)?;
    symlink(&elsewhere, &log)?;
    lchown(&log, NOBODY, NOBODY)?;
    let worker = nginx.workers()?[0];
    fs::write(&elsewhere, format!("2026/11/20 11:39:26 [error] {worker}#{worker}: *1 {MADE_UP}\n"))?;
    // What nginx itself goes on to write is in the file that it has open.
    for _ in 0..2 {
        ensure!(nginx.client().get("/nobody/")?.status == 502);
    }
    tracer.wait_for(2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&rig::error_log::parse(&fs::read_to_string(&moved)?), &account.verdicts)?;
    ensure!(account.about(&nobody).len() == 2 && account.verdicts.len() == 2, "{:#?}", account.verdicts);
    Ok(())
}

#[test]
fn a_files_name_that_looks_like_a_failure_is_none() -> Result<()> {
    let namespace = Namespace::new()?;
    let nobody = Endpoint::v4(9009);
    let nginx = Nginx::on(&namespace)
        .block("server { listen 127.0.0.1:8090; location / { root /nonexistent; } }")
        .location(Location::http("/nobody/", &nobody))
        .start()?;
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "--no-uprobe"])?;
    let files = rig::Client::new(&namespace, ([127, 0, 0, 1], 8090).into());
    for path in [
        "/upstream%20timed%20out%20while%20reading%20upstream",
        "/a%20could%20not%20be%20resolved%20(3:%20b)",
        "/a%20while%20connecting%20to%20upstream,%20client:%20b,%20upstream:%20%22http://127.0.0.1:6666/%22",
    ] {
        ensure!(files.get(path)?.status == 404, "{path}");
    }
    ensure!(nginx.client().get("/nobody/")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.verdicts.len() == 1, "{:#?}", account.verdicts);
    account.only(&nobody).map(drop)
}
